"""What the gateway's integration tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aiservice_gateway.migrations import migrate_sqlite
from aiservice_gateway.stores.base import UsageStore
from aiservice_gateway.stores.postgres import PostgresUsage
from aiservice_gateway.stores.sqlite import SqliteUsage
from support.databases import PostgresServer
from support.gateway import Stage, command, staged


@pytest.fixture(scope="session")
def _migrated_template(postgres_server: PostgresServer) -> str:
    postgres_server.start()
    url = postgres_server.create_database()
    done = command("migrate", DATABASE_URL=url)
    assert done.returncode == 0, done.stderr
    return url


@pytest.fixture
def migrated_database(postgres_server: PostgresServer, _migrated_template: str) -> str:
    """A fresh database that is migrated."""
    postgres_server.start()
    return postgres_server.create_database(_migrated_template)


@pytest.fixture
async def stage(tmp_path: Path, redis_url: str, migrated_database: str) -> AsyncIterator[Stage]:
    """What several gateways share."""
    async with staged(tmp_path, redis_url, migrated_database) as stage:
        yield stage


@pytest.fixture(params=["postgresql", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[UsageStore]:
    """Usage in one of the databases, empty."""
    found: UsageStore
    if request.param == "postgresql":
        found = PostgresUsage(request.getfixturevalue("migrated_database"))
    else:
        migrate_sqlite(tmp_path / "usage.sqlite3")
        found = SqliteUsage(tmp_path / "usage.sqlite3")
    yield found
    await found.close()

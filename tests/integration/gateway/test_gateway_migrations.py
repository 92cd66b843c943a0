"""Migrations: a new table, the application's own table adopted, and refusals that say what to do."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from aiservice_api.tasks import Task
from aiservice_gateway.models import Outcome, UsageRecord
from aiservice_gateway.selection import Dimension, Filter, Period, Want
from aiservice_gateway.stores.postgres import PostgresUsage
from support.databases import PostgresServer, free_port
from support.gateway import SECRET, command, environment, write_services

COLUMNS = """
SELECT column_name, data_type, datetime_precision, is_nullable FROM information_schema.columns
WHERE table_name = 'AIUsage' ORDER BY ordinal_position
"""

PRISMA_TABLE = """
CREATE TABLE "Tenant" (id TEXT PRIMARY KEY);
INSERT INTO "Tenant" VALUES ('acme');
CREATE TABLE "AIUsage" (
  "id" TEXT NOT NULL,
  "tenantId" TEXT NOT NULL REFERENCES "Tenant" (id),
  "service" VARCHAR(191) NOT NULL,
  "tokens" BIGINT NOT NULL,
  "cost" DOUBLE PRECISION NOT NULL DEFAULT 0,
  "note" TEXT,
  "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  CONSTRAINT "AIUsage_pkey" PRIMARY KEY ("id")
);
INSERT INTO "AIUsage" (id, "tenantId", service, tokens, note) VALUES ('clx1', 'acme', 'text-to-image', 5, 'mine');
"""

RECORD = UsageRecord(
    "0199c3a6-1d9e-7cc0-8f6b-2f2d7d5a4c11", "acme", None, Task.SPEECH_TO_TEXT, None, 7, Decimal("2.5"),
    "audio-second", Decimal("0.0001"), 12, Outcome.SUCCEEDED, datetime.now(UTC),
)  # fmt: skip


def test_a_new_table(postgres_server: PostgresServer, database_url: str) -> None:
    done = command("migrate", DATABASE_URL=database_url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "The database is up to date.\n", "")
    assert postgres_server.psql(database_url, COLUMNS).splitlines() == [
        "id|text||NO",
        "tenantId|text||NO",
        "userId|text||YES",
        "service|text||NO",
        "model|text||YES",
        "requestId|text||YES",
        "tokens|integer||NO",
        "units|numeric||NO",
        "unit|text||YES",
        "cost|numeric||NO",
        "durationMs|integer||NO",
        "status|text||NO",
        "createdAt|timestamp without time zone|3|NO",
    ]
    tables = "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    assert sorted(postgres_server.psql(database_url, tables).splitlines()) == [
        "aiservice|alembic_version",
        "aiservice|idempotency_keys",
        "aiservice|jobs",
        "aiservice|pieces",
        "aiservice|usage_daily",
        "aiservice|usage_horizon",
        "aiservice|usage_rolled_up",
        "public|AIUsage",
    ]
    plan = postgres_server.psql(
        database_url,
        'SET enable_seqscan = off; EXPLAIN SELECT 1 FROM "AIUsage" WHERE "tenantId" = \'a\' AND "createdAt" > now()',
    )
    assert "AIUsage_tenantId_createdAt_idx" in plan


def test_migrating_again_and_at_once_changes_nothing(postgres_server: PostgresServer, database_url: str) -> None:
    async def twice() -> list[int]:
        runs = [asyncio.to_thread(command, "migrate", DATABASE_URL=database_url) for _ in range(3)]
        return [done.returncode for done in await asyncio.gather(*runs)]

    assert asyncio.run(twice()) == [0, 0, 0]
    before = postgres_server.psql(database_url, COLUMNS)
    assert command("migrate", DATABASE_URL=database_url).returncode == 0
    assert postgres_server.psql(database_url, COLUMNS) == before


async def test_the_applications_table_is_adopted(postgres_server: PostgresServer, database_url: str) -> None:
    postgres_server.psql(database_url, PRISMA_TABLE)
    assert command("migrate", DATABASE_URL=database_url).returncode == 0
    assert postgres_server.psql(database_url, 'SELECT id, service, tokens, note FROM "AIUsage"') == (
        "clx1|text-to-image|5|mine"
    )
    store = PostgresUsage(database_url)
    await store.insert([RECORD])
    ever = Period(datetime(2020, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC))
    groups = await store.groups(Want(Filter("acme"), ever, 10, dimensions=(Dimension.SERVICE,)))
    await store.close()
    assert [(group.key, group.totals.count, group.totals.tokens) for group in groups] == [
        (("speech-to-text",), 1, 7),
        (("text-to-image",), 1, 5),
    ]
    row = 'SELECT tokens, units::float8, cost, "durationMs", note IS NULL FROM "AIUsage" WHERE id <> \'clx1\''
    assert postgres_server.psql(database_url, row) == "7|2.5|0.0001|12|t"


async def test_prismas_schema_is_used(postgres_server: PostgresServer, database_url: str) -> None:
    postgres_server.psql(database_url, "CREATE SCHEMA app")
    url = f"{database_url}?schema=app&connection_limit=3"
    assert command("migrate", DATABASE_URL=url).returncode == 0
    store = PostgresUsage(url)
    await store.insert([RECORD])
    await store.close()
    assert postgres_server.psql(database_url, 'SELECT count(*) FROM app."AIUsage"') == "1"


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('CREATE TABLE "AIUsage" (id serial PRIMARY KEY)', "invalid input syntax for type integer"),
        ('CREATE TABLE "AIUsage" (id text)', "no unique or exclusion constraint"),
        ('CREATE TABLE "AIUsage" (id text PRIMARY KEY, region text NOT NULL)', 'column "region"'),
        ('CREATE TABLE "AIUsage" (id text PRIMARY KEY, cost integer)', "invalid input syntax for type integer"),
        (
            'CREATE TABLE "AIUsage" (id text PRIMARY KEY, model varchar(40))',
            r"too long for type character varying\(40\)",
        ),
        ('CREATE VIEW "AIUsage" AS SELECT 1', "AIUsage"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_and_left_as_it_was(
    postgres_server: PostgresServer, database_url: str, table: str, says: str
) -> None:
    postgres_server.psql(database_url, table)
    before = postgres_server.psql(database_url, COLUMNS)
    done = command("migrate", DATABASE_URL=database_url)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(says, done.stderr), done.stderr
    assert postgres_server.psql(database_url, COLUMNS) == before


def test_a_database_that_cannot_be_reached_is_told() -> None:
    done = command("migrate", DATABASE_URL=f"postgresql://u:hunter2@127.0.0.1:{free_port()}/d")
    assert done.returncode == 1
    assert "could not be migrated" in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


def test_serving_an_unmigrated_database_is_refused(tmp_path: Path, database_url: str) -> None:
    write_services(tmp_path / "services.yaml")
    done = command("serve", **environment(tmp_path, DATABASE_URL=database_url))
    assert done.returncode == 1
    assert "Run this once: python -m aiservice_gateway migrate" in done.stderr
    assert "Traceback" not in done.stderr


def test_sqlite_is_made_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "usage.sqlite3"
    for _ in range(2):
        assert command("migrate", GATEWAY_SQLITE_FILE=str(path)).returncode == 0
    with sqlite3.connect(path) as database:
        tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    database.close()
    own = {"usage_daily", "usage_horizon", "usage_rolled_up", "jobs", "pieces", "idempotency_keys"}
    assert tables == {"AIUsage", "alembic_version", *(f"aiservice_{name}" for name in own)}


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    done = command("migrate", GATEWAY_SQLITE_FILE=str(tmp_path / "none" / "usage.sqlite3"))
    assert done.returncode == 1
    assert "Set GATEWAY_SQLITE_FILE" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_token_for_trying_things_out() -> None:
    done = command("token", "--tenant", "acme", "--user", "ann", "--expires", "2h", JWT_SECRET=SECRET)
    assert done.returncode == 0
    assert done.stdout.count(".") == 2
    refused = command("token", "--tenant", "acme", JWT_SECRET="your_jwt_secret_here")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "shorter than 32 bytes" in refused.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["migrate", "--help"], ["token", "--help"]])
def test_every_command_explains_itself(arguments: list[str]) -> None:
    done = command(*arguments)
    assert done.returncode == 0
    assert "usage: python -m aiservice_gateway" in done.stdout

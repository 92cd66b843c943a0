"""Brings the database to the state that this version needs. Alembic keeps the order and the version table.

The revisions are plain SQL, one text for each kind of database, because what they must do with a table that the
application made first is said best in SQL.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from aiservice_gateway.errors import SettingsError
from aiservice_gateway.migrations.trial import try_it
from aiservice_gateway.stores.postgres import OWN_SCHEMA, connection_arguments

_ONE_AT_A_TIME = 0x6169_7365_7276_6963  # any number: the advisory lock's name, "aiservic" in ASCII


def migrate_postgres(url: str) -> None:
    """Applies every missing migration to a PostgreSQL database. Safe to run twice, and twice at once.

    Raises:
        SettingsError: the database cannot be reached, or its `"AIUsage"` cannot be used; the message says why.
    """
    try:
        asyncio.run(_migrate_postgres(url))
    except (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        reason = getattr(error, "orig", None) or error
        raise SettingsError(f"The database of DATABASE_URL could not be migrated: {reason}") from error


async def _migrate_postgres(url: str) -> None:
    arguments = connection_arguments(url) | {"command_timeout": None}  # an index on a large table takes its time

    async def connect(*_: object, **__: object) -> Any:
        return await asyncpg.connect(**arguments)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.connect() as connection, connection.begin():
            await connection.execute(text("SELECT pg_advisory_xact_lock(:name)"), {"name": _ONE_AT_A_TIME})
            await connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {OWN_SCHEMA}"))
            await connection.run_sync(_upgrade, OWN_SCHEMA)
            # Each time: the application's own migrations may have changed the table since.
            await connection.run_sync(try_it)
    finally:
        await engine.dispose()


def migrate_sqlite(path: Path) -> None:
    """Makes the SQLite file, or applies every missing migration to it.

    Raises:
        SettingsError: the file cannot be written.
    """
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            _upgrade(connection, None)
    except DBAPIError as error:
        raise SettingsError(
            f"The SQLite file {path} cannot be used: {error.orig}. Set GATEWAY_SQLITE_FILE to a file that can be "
            "written, or DATABASE_URL to a PostgreSQL database."
        ) from error
    finally:
        engine.dispose()


def _upgrade(connection: Connection, version_schema: str | None) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes |= {"connection": connection, "version_schema": version_schema}
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SettingsError(
            f"The database has a schema that this version does not know ({error}): a newer gateway has migrated it."
        ) from error

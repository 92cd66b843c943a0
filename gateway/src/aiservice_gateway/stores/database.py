"""The tables of jobs, webhooks and idempotency keys: one text of SQL for PostgreSQL and for SQLite.

Statements name tables and the few things that the two write differently in braces (`{jobs}`, `{now}`, `{locked}`) and
parameters as `$1`. Each call is one transaction.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

import asyncpg

from aiservice_gateway.errors import StoreUnavailableError
from aiservice_gateway.stores.postgres import OWN_SCHEMA, connection_arguments

Row = tuple[Any, ...]
Statement = tuple[str, Sequence[object]]
"""A text and its parameters."""

_TABLES: Final = {"pieces": "pieces", "keys": "idempotency_keys", "jobs": "jobs"}
_CONNECTIONS: Final = 4
_ACQUIRE_SECONDS: Final = 5.0
_BUSY_SECONDS: Final = 5.0
_PARAMETER: Final = re.compile(r"\$(\d+)")


class Database(Protocol):
    """Where the tables are."""

    async def run(self, *statements: Statement) -> list[list[Row]]:
        """Runs statements in one transaction; the rows of each. Where one gives no rows, those after it are not run.

        Raises:
            StoreUnavailableError: the database does not answer; nothing was done, as far as it has told.
        """

    async def close(self) -> None:
        """Closes its connections."""


async def fetch(database: Database, sql: str, *values: object) -> list[Row]:
    """The rows of one statement.

    Raises:
        StoreUnavailableError: as `Database.run`.
    """
    return (await database.run((sql, values)))[0]


class PostgresDatabase:
    """PostgreSQL. It has connections of its own, so that large results hold up no usage records."""

    def __init__(self, url: str) -> None:
        self._arguments = connection_arguments(url)
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()

    async def run(self, *statements: Statement) -> list[list[Row]]:
        """Runs statements; see `Database`."""
        try:
            pool = await self._open()
            async with pool.acquire(timeout=_ACQUIRE_SECONDS) as connection, connection.transaction():
                answers: list[list[Row]] = []
                for sql, values in statements:
                    answers.append([tuple(row) for row in await connection.fetch(_postgres(sql), *values)])
                    if not answers[-1]:
                        break
                return answers
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise StoreUnavailableError(f"PostgreSQL: {str(error) or type(error).__name__}") from error

    async def close(self) -> None:
        """Closes the connections."""
        if self._pool is not None:
            self._pool.terminate()

    async def _open(self) -> asyncpg.Pool[asyncpg.Record]:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(min_size=0, max_size=_CONNECTIONS, **self._arguments)
            return self._pool


class SqliteDatabase:
    """A file, opened for each call in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def run(self, *statements: Statement) -> list[list[Row]]:
        """Runs statements; see `Database`."""
        try:
            return await asyncio.to_thread(self._transaction, statements)
        except sqlite3.Error as error:
            raise StoreUnavailableError(f"SQLite file {self._path}: {error}") from error

    async def close(self) -> None:
        """Nothing is open between calls."""

    def _transaction(self, statements: Sequence[Statement]) -> list[list[Row]]:
        with closing(sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                answers: list[list[Row]] = []
                for sql, values in statements:
                    answers.append(connection.execute(_sqlite(sql), values).fetchall())
                    if not answers[-1]:
                        break
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
            return answers


@lru_cache(maxsize=256)
def _postgres(sql: str) -> str:
    tables = {name: f"{OWN_SCHEMA}.{table}" for name, table in _TABLES.items()}
    now = "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"
    return sql.format(**tables, now=now, locked="FOR UPDATE OF job SKIP LOCKED")


@lru_cache(maxsize=256)
def _sqlite(sql: str) -> str:
    tables = {name: f"{OWN_SCHEMA}_{table}" for name, table in _TABLES.items()}
    now = "((julianday('now') - 2440587.5) * 86400.0)"
    return _PARAMETER.sub(r"?\1", sql.format(**tables, now=now, locked=""))

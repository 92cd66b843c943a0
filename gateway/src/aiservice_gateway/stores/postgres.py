"""PostgreSQL: the table `"AIUsage"`, shared with the application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

from aiservice_api.tasks import Task
from aiservice_gateway.errors import RecordRefusedError, StoreUnavailableError
from aiservice_gateway.models import Totals, UsageRecord
from aiservice_gateway.stores.base import distinct

SCHEMA_REVISION = "0001"
"""The newest migration that this code needs. Revisions sort as text."""

OWN_SCHEMA = "aiservice"
"""Schema of every table but `"AIUsage"`, so that the application's own migrations do not see them."""

_CONNECT_SECONDS = 5.0
_COMMAND_SECONDS = 15.0
_CONNECTIONS = 4

_PRISMA_ONLY = {"schema", "connection_limit", "pool_timeout", "socket_timeout", "pgbouncer", "statement_cache_size"}

# The columns' own types decide how each value is read, so a table that the application made with other number types
# is written all the same.
INSERT = """
INSERT INTO "AIUsage" (id, "tenantId", "userId", service, model, "requestId",
                       tokens, units, unit, cost, "durationMs", status, "createdAt")
SELECT id, "tenantId", "userId", service, model, "requestId",
       tokens, units, unit, cost, "durationMs", status, "createdAt"
FROM json_populate_recordset(NULL::"AIUsage", $1::json)
ON CONFLICT (id) DO UPDATE
SET model = EXCLUDED.model, tokens = EXCLUDED.tokens, units = EXCLUDED.units, unit = EXCLUDED.unit,
    cost = EXCLUDED.cost, "durationMs" = EXCLUDED."durationMs", status = EXCLUDED.status
WHERE "AIUsage".status::text = 'interrupted' AND EXCLUDED.status::text <> 'interrupted'
"""
"""Writes a JSON list of records as `UsageRecord.to_wire` makes them, each id once; see `UsageStore.insert`."""

_TOTALS = """
SELECT service, count(*) AS count, coalesce(sum(tokens), 0)::bigint AS tokens,
       coalesce(sum(units), 0)::float8 AS units, max(unit) AS unit, coalesce(sum(cost), 0)::float8 AS cost
FROM "AIUsage"
WHERE "tenantId" = $1 AND "createdAt" >= $2 AND "createdAt" < $3
GROUP BY service
"""

_REVISION = f"SELECT version_num FROM {OWN_SCHEMA}.alembic_version"  # noqa: S608 - a constant


def connection_arguments(url: str) -> dict[str, Any]:
    """What `asyncpg.connect` needs to reach a database.

    Args:
        url: postgresql://...; of Prisma's own parameters `schema` and `pgbouncer` are honoured, and those that size
            Prisma's pool are left out.
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    passed_on = urlencode({name: value for name, value in query.items() if name not in _PRISMA_ONLY})
    settings = {"application_name": "aiservice-gateway", "timezone": "UTC"}
    if schema := query.get("schema"):
        settings["search_path"] = '"' + schema.replace('"', '""') + '"'
    arguments: dict[str, Any] = {
        "dsn": urlunsplit(parts._replace(query=passed_on)),
        "server_settings": settings,
        "timeout": _CONNECT_SECONDS,
        "command_timeout": _COMMAND_SECONDS,
    }
    if query.get("pgbouncer") == "true":
        arguments["statement_cache_size"] = 0  # its pools do not keep prepared statements
    return arguments


class PostgresUsage:
    """Usage in PostgreSQL. Connects when first used, and again after the server was away."""

    def __init__(self, url: str) -> None:
        self._arguments = connection_arguments(url)
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()

    async def schema_revision(self) -> str | None:
        """The newest migration that was applied, or None when none was.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        async with self._connection() as connection:
            try:
                revision: str | None = await connection.fetchval(_REVISION)
            except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
                return None
            return revision

    async def insert(self, records: Sequence[UsageRecord]) -> None:
        """Writes records in one statement; see `UsageStore`."""
        document = b"[" + b",".join(record.to_wire() for record in distinct(records)) + b"]"
        async with self._connection() as connection:
            await connection.execute(INSERT, document.decode())

    async def totals(self, tenant: str, start: datetime, end: datetime) -> Mapping[Task, Totals]:
        """Sums by service; see `UsageStore`. Rows of services that are no task (the application's own) are left out."""
        async with self._connection() as connection:
            rows = await connection.fetch(_TOTALS, tenant, _naive(start), _naive(end))
        known = {task.value for task in Task}
        return {
            Task(row["service"]): Totals(row["count"], row["tokens"], row["units"], row["unit"], row["cost"])
            for row in rows
            if row["service"] in known
        }

    async def close(self) -> None:
        """Closes the connections."""
        if self._pool is not None:
            self._pool.terminate()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy[asyncpg.Record]]:
        try:
            pool = await self._open()
            async with pool.acquire(timeout=_CONNECT_SECONDS) as connection:
                yield connection
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            # A table that the application made may have constraints of its own; no retry satisfies them.
            raise RecordRefusedError(str(error)) from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise StoreUnavailableError(f"PostgreSQL: {str(error) or type(error).__name__}") from error

    async def _open(self) -> asyncpg.Pool[asyncpg.Record]:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(min_size=0, max_size=_CONNECTIONS, **self._arguments)
            return self._pool


def _naive(moment: datetime) -> datetime:
    """UTC without saying so, as the column keeps it."""
    return moment.astimezone(UTC).replace(tzinfo=None)

"""PostgreSQL: the table `"AIUsage"`, shared with the application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

from aiservice_gateway.errors import RecordRefusedError, StoreUnavailableError
from aiservice_gateway.models import UsageRecord
from aiservice_gateway.selection import Dimension, Group, StoredRecord, Want
from aiservice_gateway.stores import usage_sql
from aiservice_gateway.stores.base import distinct, log_late, oldest_id

Answer = TypeVar("Answer")

SCHEMA_REVISION = "0005"
"""The newest migration that this code needs. Revisions sort as text."""

OWN_SCHEMA = "aiservice"
"""Schema of every table but `"AIUsage"`, so that the application's own migrations do not see them."""

_CONNECT_SECONDS = 5.0
_COMMAND_SECONDS = 15.0
_CONNECTIONS = 4
_DEADLOCKS = 3
"""After so many in a row it is not tried again. PostgreSQL takes a second to notice one."""
_READERS = 2
"""Connections that reports may hold; the others are for records."""
_ROLLING_UP = 0x6169_726F_6C6C_7570  # any number: the advisory lock's name, "airollup" in ASCII
_UUID = "'^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'"
"""What the gateway's own ids look like."""

_PRISMA_ONLY = {"schema", "connection_limit", "pool_timeout", "socket_timeout", "pgbouncer", "statement_cache_size"}

# The columns' own types decide how each value is read, so a table that the application made with other number types
# is written all the same. A record that comes again after its row was rolled up counts as one that is there. One of a
# month that is summed up is not written: its id is forgotten. FOR SHARE waits for a gateway that is just about to sum
# up, and makes it wait; no month is so young that other records need that.
INSERT = f"""
WITH given AS (
  SELECT * FROM json_populate_recordset(NULL::"AIUsage", $1::json)
), horizon AS (
  SELECT before FROM {OWN_SCHEMA}.usage_horizon
  WHERE number = 1
  AND EXISTS (SELECT FROM given WHERE "createdAt" < (now() AT TIME ZONE 'UTC') - interval '30 days')
  FOR SHARE
), written AS (
  INSERT INTO "AIUsage" (id, "tenantId", "userId", service, model, "requestId",
                         tokens, units, unit, cost, "durationMs", status, "createdAt")
  SELECT id, "tenantId", "userId", service, model, "requestId",
         tokens, units, unit, cost, "durationMs", status, "createdAt"
  FROM given
  WHERE CASE WHEN given.id::text ~ {_UUID}
             THEN NOT EXISTS (SELECT FROM {OWN_SCHEMA}.usage_rolled_up WHERE id = given.id::text::uuid)
                  AND coalesce(given."createdAt" >= (SELECT before FROM horizon), true)
             ELSE true END
  ON CONFLICT (id) DO UPDATE
  SET model = EXCLUDED.model, tokens = EXCLUDED.tokens, units = EXCLUDED.units, unit = EXCLUDED.unit,
      cost = EXCLUDED.cost, "durationMs" = EXCLUDED."durationMs", status = EXCLUDED.status
  WHERE "AIUsage".status::text = 'interrupted' AND EXCLUDED.status::text <> 'interrupted'
)
SELECT given.id::text FROM given
WHERE given."createdAt" < (SELECT before FROM horizon)
AND CASE WHEN given.id::text ~ {_UUID}
         THEN NOT EXISTS (SELECT FROM {OWN_SCHEMA}.usage_rolled_up WHERE id = given.id::text::uuid)
         ELSE false END
"""  # noqa: S608 - constants
"""Writes a JSON list of records as `UsageRecord.to_wire` makes them, each id once; see `UsageStore.insert`. Its rows
are the ids that came too late."""

# One statement: a row is gone, its id kept and its day's sums grown, or nothing of it. What was inserted again between
# its first roll-up and the moment when INSERT could see that is deleted and not counted.
_ROLL_UP = f"""
WITH oldest AS (
  SELECT id FROM "AIUsage"
  WHERE "createdAt" < $1::timestamp AND "requestId"::text = id::text AND id::text ~ {_UUID}
  ORDER BY "createdAt" LIMIT $2
), moved AS (
  DELETE FROM "AIUsage" USING oldest WHERE "AIUsage".id = oldest.id RETURNING "AIUsage".*
), fresh AS (
  INSERT INTO {OWN_SCHEMA}.usage_rolled_up (id) SELECT id::text::uuid FROM moved ON CONFLICT DO NOTHING RETURNING id
), summed AS (
  INSERT INTO {OWN_SCHEMA}.usage_daily AS daily
         (day, tenant_id, service, model, user_id, unit, count, tokens, units, cost)
  SELECT "createdAt"::date, "tenantId"::text, service::text, coalesce(model::text, ''),
         coalesce("userId"::text, ''), coalesce(unit::text, ''),
         count(*), sum(tokens), sum(units::numeric), sum(cost::numeric)
  FROM moved JOIN fresh ON fresh.id = moved.id::text::uuid
  GROUP BY 1, 2, 3, 4, 5, 6
  ON CONFLICT (tenant_id, day, service, model, user_id, unit) DO UPDATE
  SET count = daily.count + excluded.count, tokens = daily.tokens + excluded.tokens,
      units = daily.units + excluded.units, cost = daily.cost + excluded.cost
)
SELECT count(*) FROM moved
"""  # noqa: S608 - constants

_HORIZON = f"SELECT before FROM {OWN_SCHEMA}.usage_horizon"  # noqa: S608 - a constant
_ADVANCE = f"""
UPDATE {OWN_SCHEMA}.usage_horizon SET before = $1 WHERE before < $1 AND NOT EXISTS (
  SELECT FROM "AIUsage" WHERE "createdAt" < $1::timestamp AND "requestId"::text = id::text AND id::text ~ {_UUID}
)
"""  # noqa: S608 - constants

# One statement: a sum is gone and its month's grown, or neither. The newest first: behind them lie the months that are
# done, which would be read again with each batch.
_MERGE = f"""
WITH moved AS (
  DELETE FROM {OWN_SCHEMA}.usage_daily WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM {OWN_SCHEMA}.usage_daily WHERE day < $1 AND extract(day FROM day) <> 1 ORDER BY day DESC LIMIT $2
  )) RETURNING *
), summed AS (
  INSERT INTO {OWN_SCHEMA}.usage_daily AS monthly
         (day, tenant_id, service, model, user_id, unit, count, tokens, units, cost)
  SELECT date_trunc('month', day::timestamp)::date, tenant_id, service, model, user_id, unit,
         sum(count), sum(tokens), sum(units), sum(cost)
  FROM moved GROUP BY 1, 2, 3, 4, 5, 6
  ON CONFLICT (tenant_id, day, service, model, user_id, unit) DO UPDATE
  SET count = monthly.count + excluded.count, tokens = monthly.tokens + excluded.tokens,
      units = monthly.units + excluded.units, cost = monthly.cost + excluded.cost
)
SELECT count(*) FROM moved
"""  # noqa: S608 - constants

# Only of version 7, which begin with their time.
_FORGET = f"""
WITH forgotten AS (
  DELETE FROM {OWN_SCHEMA}.usage_rolled_up WHERE id IN (
    SELECT id FROM {OWN_SCHEMA}.usage_rolled_up WHERE id < $1::uuid AND substr(id::text, 15, 1) = '7'
    ORDER BY id LIMIT $2
  ) RETURNING id
)
SELECT count(*) FROM forgotten
"""  # noqa: S608 - constants

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
        self._reading = asyncio.Semaphore(_READERS)
        self._asked: asyncpg.Connection[asyncpg.Record] | None = None
        """For `ask` alone: the pool's may all be in use, and it waits seconds for one whose server hangs."""

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

        async def write() -> list[asyncpg.Record]:
            async with self._connection() as connection:
                return await connection.fetch(INSERT, document.decode())

        log_late([identifier for (identifier,) in await _without_deadlock(write)])

    async def groups(self, want: Want) -> Sequence[Group]:
        """Sums; see `UsageStore`. Rows of services that are no task (the application's own) are left out."""
        wanted, check = usage_sql.groups(_DIALECT, want), usage_sql.too_fine(_DIALECT, want)
        async with self._snapshot() as connection:
            if check is not None:
                [cut] = await connection.fetch(check.sql, *check.values)
                usage_sql.refuse(tuple(cut))
            rows = await connection.fetch(wanted.sql, *wanted.values)
        return [usage_sql.group(want.dimensions, tuple(row)) for row in rows]

    async def records(self, want: Want) -> Sequence[StoredRecord]:
        """Rows; see `UsageStore`."""
        wanted = usage_sql.records(_DIALECT, want)
        async with self._snapshot() as connection:
            rows = [tuple(row) for row in await connection.fetch(wanted.sql, *wanted.values)]
        return [usage_sql.record(row, row[-1].replace(tzinfo=UTC)) for row in rows]

    async def roll_up(self, before: datetime, limit: int) -> int | None:
        """Moves rows into the days' sums; see `UsageStore`."""

        async def move() -> int | None:
            async with self._connection() as connection, connection.transaction():
                if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _ROLLING_UP):
                    return None
                moved: int = await connection.fetchval(_ROLL_UP, _naive(before), limit)
                return moved

        return await _without_deadlock(move)

    async def ask(self, within_seconds: float) -> None:
        """Asks over a connection that is kept; see `UsageStore`."""
        asking = asyncio.create_task(self._ask())
        asking.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to look
        try:
            answered, _ = await asyncio.wait({asking}, timeout=within_seconds)
        finally:
            if not asking.done():
                # A query that is cancelled opens a connection to say so; one whose connection ends does not.
                if self._asked is None:
                    asking.cancel()
                self._hang_up()
        if not answered:
            await asyncio.wait({asking})
            raise StoreUnavailableError(f"PostgreSQL: no answer within {within_seconds:g} s")
        try:
            asking.result()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            self._hang_up()
            raise StoreUnavailableError(f"PostgreSQL: {str(error) or type(error).__name__}") from error

    async def _ask(self) -> None:
        if self._asked is None or self._asked.is_closed():
            self._asked = None
            self._asked = await asyncpg.connect(**self._arguments)
        await self._asked.execute("SELECT 1")

    async def sum_months(self, before: datetime, limit: int) -> int | None:
        """Merges sums of days into their months'; see `UsageStore`."""

        async def merge() -> int | None:
            async with self._connection() as connection, connection.transaction():
                if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _ROLLING_UP):
                    return None
                if await connection.fetchval(_HORIZON) < before.date():
                    # Late records that are just written are seen once this is granted: the next statement looks anew.
                    await connection.execute(f"{_HORIZON} FOR UPDATE")
                    await connection.execute(_ADVANCE, before.date())
                horizon = await connection.fetchval(_HORIZON)
                merged: int = await connection.fetchval(_MERGE, horizon, limit)
                forgotten: int = await connection.fetchval(_FORGET, oldest_id(horizon), limit)
                return merged + forgotten

        return await _without_deadlock(merge)

    async def close(self) -> None:
        """Closes the connections."""
        self._hang_up()
        if self._pool is not None:
            self._pool.terminate()

    def _hang_up(self) -> None:
        connection, self._asked = self._asked, None
        if connection is not None:
            connection.terminate()

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy[asyncpg.Record]]:
        """A connection on which several queries see the same state."""
        async with (
            self._reading,
            self._connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection

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


async def _without_deadlock(transaction: Callable[[], Awaitable[Answer]]) -> Answer:
    """Runs it, and again where PostgreSQL ended it for waiting for rows of another that waits for its own.

    Records that are written again and retention meet like that; no order of their rows would keep them apart.

    Raises:
        StoreUnavailableError, RecordRefusedError: as it does.
    """
    for _ in range(_DEADLOCKS):
        try:
            return await transaction()
        except StoreUnavailableError as error:
            if not isinstance(error.__cause__, asyncpg.DeadlockDetectedError):
                raise
    return await transaction()


def _naive(moment: datetime) -> datetime:
    """UTC without saying so, as the column keeps it."""
    return moment.astimezone(UTC).replace(tzinfo=None)


_DIALECT = usage_sql.Dialect(
    mark="$",
    daily=f"{OWN_SCHEMA}.usage_daily",
    horizon=f"({_HORIZON})",
    by_bytes=' COLLATE "C"',
    moment_parameter="{}::timestamp",
    moment_column="CAST({} AS timestamp)",
    encode=_naive,
    cut={one: f"date_trunc('{one}', moment)" for one in (Dimension.MONTH, Dimension.DAY, Dimension.HOUR)},
    shown={
        Dimension.MONTH: "to_char({}, 'YYYY-MM')",
        Dimension.DAY: "to_char({}, 'YYYY-MM-DD')",
        Dimension.HOUR: """to_char({}, 'YYYY-MM-DD"T"HH24:00:00.000"Z"')""",
    },
)

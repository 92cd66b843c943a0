"""SQLite: the table `"AIUsage"` in a file, where there is no PostgreSQL."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiservice_gateway.errors import StoreUnavailableError
from aiservice_gateway.models import UsageRecord, timestamp
from aiservice_gateway.selection import Dimension, Group, StoredRecord, Want
from aiservice_gateway.stores import usage_sql
from aiservice_gateway.stores.base import log_late, oldest_id

_BUSY_SECONDS = 5.0

_INSERT = """
INSERT INTO "AIUsage" (id, "tenantId", "userId", service, model, "requestId",
                       tokens, units, unit, cost, "durationMs", status, "createdAt")
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13
WHERE NOT EXISTS (SELECT 1 FROM aiservice_usage_rolled_up WHERE id = ?1)
AND ?13 >= (SELECT before FROM aiservice_usage_horizon)
ON CONFLICT (id) DO UPDATE
SET model = excluded.model, tokens = excluded.tokens, units = excluded.units, unit = excluded.unit,
    cost = excluded.cost, "durationMs" = excluded."durationMs", status = excluded.status
WHERE "AIUsage".status = 'interrupted' AND excluded.status <> 'interrupted'
"""

_OLDEST = """
CREATE TEMP TABLE oldest AS
SELECT id FROM "AIUsage" WHERE "createdAt" < ? AND "requestId" = id ORDER BY "createdAt" LIMIT ?
"""
_ADD = """
INSERT INTO aiservice_usage_daily (day, tenant_id, service, model, user_id, unit, count, tokens, units, cost)
SELECT substr("createdAt", 1, 10) || 'T00:00:00.000', "tenantId", service, coalesce(model, ''),
       coalesce("userId", ''), coalesce(unit, ''), count(*), sum(tokens), sum(units), sum(cost)
FROM "AIUsage"
WHERE id IN (SELECT id FROM oldest) AND id NOT IN (SELECT id FROM aiservice_usage_rolled_up)
GROUP BY 1, 2, 3, 4, 5, 6
ON CONFLICT (tenant_id, day, service, model, user_id, unit) DO UPDATE
SET count = count + excluded.count, tokens = tokens + excluded.tokens,
    units = units + excluded.units, cost = cost + excluded.cost
"""
_REMEMBER = "INSERT OR IGNORE INTO aiservice_usage_rolled_up SELECT id FROM oldest"
_ANY = 'SELECT 1 FROM "AIUsage" LIMIT 1'
"""Without a table SQLite would not even open the file."""
_DELETE = 'DELETE FROM "AIUsage" WHERE id IN (SELECT id FROM oldest)'

_LATE = """
SELECT ?1 WHERE ?2 < (SELECT before FROM aiservice_usage_horizon)
AND NOT EXISTS (SELECT 1 FROM aiservice_usage_rolled_up WHERE id = ?1)
"""

_HORIZON = "SELECT before FROM aiservice_usage_horizon"
_ADVANCE = """
UPDATE aiservice_usage_horizon SET before = ?1
WHERE before < ?1 AND NOT EXISTS (SELECT 1 FROM "AIUsage" WHERE "createdAt" < ?1 AND "requestId" = id)
"""
# The newest first: behind them lie the months that are done, which would be read again with each batch.
_WITHIN_MONTHS = """
CREATE TEMP TABLE newest AS
SELECT rowid AS place FROM aiservice_usage_daily WHERE day < ? AND substr(day, 9, 2) <> '01' ORDER BY day DESC LIMIT ?
"""
_MERGE = """
INSERT INTO aiservice_usage_daily (day, tenant_id, service, model, user_id, unit, count, tokens, units, cost)
SELECT substr(day, 1, 7) || '-01T00:00:00.000', tenant_id, service, model, user_id, unit,
       sum(count), sum(tokens), sum(units), sum(cost)
FROM aiservice_usage_daily WHERE rowid IN (SELECT place FROM newest) GROUP BY 1, 2, 3, 4, 5, 6
ON CONFLICT (tenant_id, day, service, model, user_id, unit) DO UPDATE
SET count = count + excluded.count, tokens = tokens + excluded.tokens,
    units = units + excluded.units, cost = cost + excluded.cost
"""
_DELETE_MERGED = "DELETE FROM aiservice_usage_daily WHERE rowid IN (SELECT place FROM newest)"
# Only of version 7, which begin with their time.
_FORGET = """
DELETE FROM aiservice_usage_rolled_up WHERE id IN (
  SELECT id FROM aiservice_usage_rolled_up WHERE id < ? AND substr(id, 15, 1) = '7' ORDER BY id LIMIT ?
)
"""


class SqliteUsage:
    """Usage in a file. Each call opens it anew, in a thread: calls are few, because records come in batches."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def insert(self, records: Sequence[UsageRecord]) -> None:
        """Writes records in one transaction; see `UsageStore`."""

        def write(database: sqlite3.Connection) -> list[str]:
            database.executemany(_INSERT, map(_row, records))
            asked = (database.execute(_LATE, (one.id, _column(one.created_at))).fetchone() for one in records)
            return [row[0] for row in asked if row is not None]

        log_late(await self._run(write))

    async def groups(self, want: Want) -> Sequence[Group]:
        """Sums; see `UsageStore`."""
        wanted, check = usage_sql.groups(_DIALECT, want), usage_sql.too_fine(_DIALECT, want)

        def read(database: sqlite3.Connection) -> list[Any]:
            database.execute("BEGIN")  # both see the same state
            if check is not None:
                usage_sql.refuse(database.execute(check.sql, check.values).fetchone())
            return database.execute(wanted.sql, wanted.values).fetchall()

        return [usage_sql.group(want.dimensions, row) for row in await self._run(read)]

    async def records(self, want: Want) -> Sequence[StoredRecord]:
        """Rows; see `UsageStore`."""
        wanted = usage_sql.records(_DIALECT, want)
        rows: list[Any] = await self._run(lambda database: database.execute(wanted.sql, wanted.values).fetchall())
        return [usage_sql.record(row, datetime.fromisoformat(row[-1]).replace(tzinfo=UTC)) for row in rows]

    async def roll_up(self, before: datetime, limit: int) -> int | None:
        """Moves rows into the days' sums; see `UsageStore`. A second gateway waits for the first."""

        def move(database: sqlite3.Connection) -> int:
            database.execute("BEGIN IMMEDIATE")
            database.execute(_OLDEST, (_column(before), limit))
            database.execute(_ADD)
            database.execute(_REMEMBER)
            return database.execute(_DELETE).rowcount

        moved: int = await self._run(move)
        return moved

    async def ask(self, within_seconds: float) -> None:
        """Looks into the file; see `UsageStore`. A disk that hangs is waited for."""
        await self._run(lambda database: database.execute(_ANY).fetchone(), within_seconds)

    async def sum_months(self, before: datetime, limit: int) -> int | None:
        """Merges sums of days into their months'; see `UsageStore`. A second gateway waits for the first."""

        def merge(database: sqlite3.Connection) -> int:
            database.execute("BEGIN IMMEDIATE")
            database.execute(_ADVANCE, (_column(before),))
            horizon: str = database.execute(_HORIZON).fetchone()[0]
            database.execute(_WITHIN_MONTHS, (horizon, limit))
            database.execute(_MERGE)
            merged = database.execute(_DELETE_MERGED).rowcount
            oldest = oldest_id(datetime.fromisoformat(horizon).date())
            return merged + database.execute(_FORGET, (oldest, limit)).rowcount

        gone: int = await self._run(merge)
        return gone

    async def close(self) -> None:
        """Nothing is open between calls."""

    async def _run(self, work: Callable[[sqlite3.Connection], Any], busy_seconds: float = _BUSY_SECONDS) -> Any:
        def transaction() -> Any:
            with closing(sqlite3.connect(self._path, timeout=busy_seconds)) as database, database:
                return work(database)

        try:
            return await asyncio.to_thread(transaction)
        except sqlite3.Error as error:
            raise StoreUnavailableError(f"SQLite file {self._path}: {error}") from error


def _row(record: UsageRecord) -> tuple[object, ...]:
    return (
        record.id,
        record.tenant,
        record.user,
        record.service.value,
        record.model,
        record.id,
        record.tokens,
        float(record.units),
        record.unit,
        float(record.cost),
        record.duration_ms,
        record.status.value,
        _column(record.created_at),
    )


def _column(moment: datetime) -> str:
    """UTC as text that sorts by time."""
    return timestamp(moment)[:-1]


_DIALECT = usage_sql.Dialect(
    mark="?",
    daily="aiservice_usage_daily",
    horizon=f"({_HORIZON})",
    by_bytes="",  # as SQLite does by itself
    moment_parameter="{}",
    moment_column="{}",
    encode=_column,
    cut={
        Dimension.MONTH: "substr(moment, 1, 7)",
        Dimension.DAY: "substr(moment, 1, 10)",
        Dimension.HOUR: "substr(moment, 1, 13) || ':00:00.000Z'",
    },
    shown={},
)

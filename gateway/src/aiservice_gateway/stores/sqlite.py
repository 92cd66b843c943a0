"""SQLite: the table `"AIUsage"` in a file, where there is no PostgreSQL."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from aiservice_api.tasks import Task
from aiservice_gateway.errors import StoreUnavailableError
from aiservice_gateway.models import Totals, UsageRecord, timestamp

_BUSY_SECONDS = 5.0

_INSERT = """
INSERT INTO "AIUsage" (id, "tenantId", "userId", service, model, "requestId",
                       tokens, units, unit, cost, "durationMs", status, "createdAt")
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE
SET model = excluded.model, tokens = excluded.tokens, units = excluded.units, unit = excluded.unit,
    cost = excluded.cost, "durationMs" = excluded."durationMs", status = excluded.status
WHERE "AIUsage".status = 'interrupted' AND excluded.status <> 'interrupted'
"""

_TOTALS = """
SELECT service, count(*), sum(tokens), sum(units), max(unit), sum(cost)
FROM "AIUsage"
WHERE "tenantId" = ? AND "createdAt" >= ? AND "createdAt" < ?
GROUP BY service
"""


class SqliteUsage:
    """Usage in a file. Each call opens it anew, in a thread: calls are few, because records come in batches."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def insert(self, records: Sequence[UsageRecord]) -> None:
        """Writes records in one transaction; see `UsageStore`."""
        await self._run(lambda database: database.executemany(_INSERT, map(_row, records)).rowcount)

    async def totals(self, tenant: str, start: datetime, end: datetime) -> Mapping[Task, Totals]:
        """Sums by service; see `UsageStore`."""
        values = (tenant, _column(start), _column(end))
        rows: list[Any] = await self._run(lambda database: database.execute(_TOTALS, values).fetchall())
        return {Task(service): Totals(*sums) for service, *sums in rows}

    async def close(self) -> None:
        """Nothing is open between calls."""

    async def _run(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        def transaction() -> Any:
            with closing(sqlite3.connect(self._path, timeout=_BUSY_SECONDS)) as database, database:
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

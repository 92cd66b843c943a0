"""How long questions about usage take on a large `"AIUsage"`, without and with the indexes that the migrations make.

PostgreSQL is real, the rows are made by it. `scripts/bench usage` runs it; with 10 million rows it takes some ten
minutes and 6 GB of disk.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg

from aiservice_api.tasks import Task
from aiservice_gateway.ids import new_request_id
from aiservice_gateway.models import Outcome, UsageRecord
from aiservice_gateway.selection import Dimension, Filter, Period, Want
from aiservice_gateway.stores.postgres import PostgresUsage, connection_arguments
from bench.report import machine, publish, table
from support.databases import PostgresServer
from support.gateway import command

Ask = Callable[[], Awaitable[object]]

ROUNDS = 5
SLOW_SECONDS = 20.0
"""What takes longer is not asked again."""
PAGE = 101
"""What the gateway asks for, to give 100."""
BATCH = 500
ROLLED_UP = 5000
LARGEST, MIDDLE = "tenant-0", "tenant-50"
FIRST_INDEX = 'CREATE INDEX "AIUsage_tenantId_createdAt_idx" ON "AIUsage" ("tenantId", "createdAt")'
SECOND_INDEX = 'CREATE INDEX "AIUsage_createdAt_idx" ON "AIUsage" ("createdAt")'

METHOD = (
    "{rows:,} rows over the twelve months that end with this one, in the order of time, 200 tenants of very different "
    "sizes ({largest} has {largest_share:.0%} of the rows, {middle} {middle_share:.2%}), 50 users each, five services. "
    "PostgreSQL {version} with its own settings (shared_buffers 128 MB; fsync off) on the same machine; the table fits "
    "into the system's cache. A figure is the median of {rounds} runs after one that is not counted, in ms, as the "
    "gateway's store sees it; what takes over 20 s is asked once. Each column adds to the one before: nothing but the "
    "primary key; the index of the first migration; that of the second."
)

# As ids.py makes ids: the time in the first 48 bits, so rows lie in the index as they come.
_FILL = """
INSERT INTO "AIUsage" (id, "tenantId", "userId", service, model, "requestId",
                       tokens, units, unit, cost, "durationMs", status, "createdAt")
SELECT id, 'tenant-' || tenant, 'user-' || floor(random() * 50)::int,
       (ARRAY['text-to-image', 'text-to-speech', 'speech-to-text', 'image-to-image', 'image-to-text'])[service],
       'model-' || service, id, floor(random() * 1000)::int, round((random() * 100)::numeric, 3),
       (ARRAY['image', 'character', 'audio-second', 'image', 'image'])[service],
       round((random() / 100)::numeric, 6), floor(random() * 20000)::int, 'succeeded', moment
FROM (
  SELECT moment, floor(200 * random() ^ 3)::int AS tenant, 1 + floor(random() * 5)::int AS service,
         left(milliseconds, 8) || '-' || right(milliseconds, 4) || '-7' || substr(chance, 1, 3) || '-a'
           || substr(chance, 4, 3) || '-' || substr(chance, 7, 12) AS id
  FROM (
    SELECT moment, lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') AS milliseconds,
           md5(number::text || random()::text) AS chance
    FROM (
      SELECT number, ($2::timestamp + ($3::timestamp - $2::timestamp) * (number::float8 / $1))::timestamp(3) AS moment
      FROM generate_series($4::bigint, $5::bigint) AS number
    ) AS numbers
  ) AS moments
) AS made
"""
_AT_ONCE = 1_000_000

_GUIDE = """
SELECT service, COUNT(*) as count, SUM(tokens) as total_tokens
FROM "AIUsage"
WHERE "tenantId" = '{tenant}'
  AND "createdAt" >= date_trunc('month', CURRENT_DATE)
GROUP BY service;
"""


@dataclass(frozen=True)
class Scene:
    """A filled table, and who asks."""

    connection: asyncpg.Connection[asyncpg.Record]
    store: PostgresUsage
    year: Period
    month: Period

    def questions(self) -> Mapping[str, Ask]:
        """What is measured."""
        middle = (self.month.start + timedelta(days=10)).isoformat(), "0"
        day = Period(self.month.start, self.month.start + timedelta(days=1))
        small, large, everybody = Filter(MIDDLE), Filter(LARGEST), Filter(None)
        return {
            "the guide's SQL, a tenant in the middle": self._guide(MIDDLE),
            "the guide's SQL, the largest tenant": self._guide(LARGEST),
            "report of a month, a tenant in the middle": self._groups(small, self.month, Dimension.SERVICE),
            "report of a month, the largest tenant": self._groups(large, self.month, Dimension.SERVICE),
            "service and day, a year, a tenant in the middle": self._groups(
                small, self.year, Dimension.SERVICE, Dimension.DAY
            ),
            "records of a user, first page": self._records(Filter(MIDDLE, user="user-7"), self.year),
            "records, a page in the middle of the month": self._records(large, self.month, middle),
            "all tenants, a day, by tenant": self._groups(everybody, day, Dimension.TENANT),
            "all tenants, a month, by tenant": self._groups(everybody, self.month, Dimension.TENANT),
            "all tenants, records, first page": self._records(everybody, self.month),
            f"write {BATCH} records": lambda: self.store.insert(_records()),
            f"retention: roll {ROLLED_UP} rows up": lambda: self.store.roll_up(self.month.start, ROLLED_UP),
        }

    def _guide(self, tenant: str) -> Ask:
        return lambda: self.connection.fetch(_GUIDE.format(tenant=tenant))

    def _groups(self, which: Filter, period: Period, *dimensions: Dimension) -> Ask:
        return lambda: self.store.groups(Want(which, period, PAGE, dimensions=dimensions))

    def _records(self, which: Filter, period: Period, after: tuple[str, ...] | None = None) -> Ask:
        return lambda: self.store.records(Want(which, period, PAGE, after))


def _records() -> list[UsageRecord]:
    one = UsageRecord(
        "", MIDDLE, "user-7", Task.SPEECH_TO_TEXT, "model-3", 7, Decimal("2.5"), "audio-second", Decimal("0.0001"), 12,
        Outcome.SUCCEEDED, datetime.now(UTC),
    )  # fmt: skip
    return [replace(one, id=new_request_id()) for _ in range(BATCH)]


def _months() -> tuple[Period, Period]:
    """The twelve months that end with this one, and this one."""
    first = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    end = (first + timedelta(days=32)).replace(day=1)
    return Period(end.replace(year=end.year - 1), end), Period(first, end)


async def _fill(connection: asyncpg.Connection[asyncpg.Record], rows: int, year: Period) -> None:
    start, end = year.start.replace(tzinfo=None), year.end.replace(tzinfo=None)
    for first in range(0, rows, _AT_ONCE):
        last = min(first + _AT_ONCE, rows) - 1
        await connection.execute(_FILL, rows, start, end, first, last)
        print(f"{last + 1:,} rows", flush=True)


async def _time(ask: Ask) -> float:
    begin = time.perf_counter()
    await ask()
    return time.perf_counter() - begin


async def _times(scene: Scene) -> dict[str, float]:
    """Seconds by question."""
    found = {}
    for name, ask in scene.questions().items():
        first = await _time(ask)
        slow = first > SLOW_SECONDS
        found[name] = first if slow else median([await _time(ask) for _ in range(ROUNDS)])
        print(f"{name}: {found[name] * 1000:.1f} ms", flush=True)
    return found


async def _size(connection: asyncpg.Connection[asyncpg.Record], name: str) -> int:
    size: int = await connection.fetchval("SELECT pg_total_relation_size($1::regclass)", name)
    return size


async def measure(url: str, rows: int) -> dict[str, Any]:
    """Fills a migrated database, and asks."""
    arguments = connection_arguments(url) | {"command_timeout": None}
    connection = await asyncpg.connect(**arguments)
    store = PostgresUsage(url)
    store._arguments["command_timeout"] = 600.0  # what takes longer than the gateway waits is still to be measured
    year, month = _months()
    await connection.execute('DROP INDEX "AIUsage_tenantId_createdAt_idx"; DROP INDEX "AIUsage_createdAt_idx"')
    await _fill(connection, rows, year)
    shares = await connection.fetch(
        'SELECT "tenantId", count(*) FROM "AIUsage" WHERE "tenantId" IN ($1, $2) GROUP BY 1', LARGEST, MIDDLE
    )
    scene = Scene(connection, store, year, month)
    figures: dict[str, Any] = {
        "version": str(connection.get_server_version().major),
        "shares": {tenant: count / rows for tenant, count in shares},
        "times": {},
        "made": {},
    }
    for column, index in {"primary key only": None, "first index": FIRST_INDEX, "both": SECOND_INDEX}.items():
        if index is not None:
            begin = time.perf_counter()
            await connection.execute(index)
            figures["made"][column] = time.perf_counter() - begin
        await connection.execute('VACUUM ANALYZE "AIUsage"')
        print(column, flush=True)
        figures["times"][column] = await _times(scene)
    names = ('"AIUsage"', '"AIUsage_pkey"', '"AIUsage_tenantId_createdAt_idx"', '"AIUsage_createdAt_idx"')
    figures["bytes"] = {name.strip('"'): await _size(connection, name) for name in names}
    rolled_up = await connection.fetchval("SELECT count(*) FROM aiservice.usage_rolled_up")
    figures["rolled_up"] = {
        "rows": rolled_up,
        "sums": await connection.fetchval("SELECT count(*) FROM aiservice.usage_daily"),
        "id_bytes": await _size(connection, "aiservice.usage_rolled_up") / rolled_up,
        "sum_bytes": await _size(connection, "aiservice.usage_daily") / rolled_up,
    }
    await connection.close()
    await store.close()
    return figures


async def run(rows: int, output: Path | None) -> None:
    facts = machine()
    with tempfile.TemporaryDirectory(prefix="aiservice-bench-") as name:
        folder = Path(name)
        os.chmod(folder, 0o755)  # noqa: PTH101 - PostgreSQL may run as another user; nothing else runs meanwhile
        postgres = PostgresServer(folder)
        try:
            postgres.start()
            url = postgres.create_database()
            migrated = command("migrate", DATABASE_URL=url)
            if migrated.returncode != 0:
                raise RuntimeError(f"migrate: {migrated.stderr}")
            figures = await measure(url, rows)
        finally:
            postgres.stop(signal.SIGQUIT)
    show(figures, facts, rows, output)


def show(figures: Mapping[str, Any], facts: Mapping[str, Any], rows: int, output: Path | None) -> None:
    columns = list(figures["times"])
    questions = list(figures["times"][columns[0]])
    times = [
        [question, *(f"{figures['times'][column][question] * 1000:.1f}" for column in columns)]
        for question in questions
    ]
    mebibytes = [[name, f"{size / 2**20:.0f}"] for name, size in figures["bytes"].items()]
    made = [[f"index: {column}", f"{seconds:.1f}"] for column, seconds in figures["made"].items()]
    kept = figures["rolled_up"]
    kept_rows = [
        ["row, with its indexes", f"{figures['bytes']['AIUsage'] / rows:.0f}"],
        ["its id, once it is rolled up", f"{kept['id_bytes']:.0f}"],
        [f"its part of the sums ({kept['sums']:,} of {kept['rows']:,} rows)", f"{kept['sum_bytes']:.0f}"],
    ]
    method = METHOD.format(
        rows=rows, rounds=ROUNDS, version=figures["version"], largest=LARGEST, middle=MIDDLE,
        largest_share=figures["shares"][LARGEST], middle_share=figures["shares"][MIDDLE],
    )  # fmt: skip
    drawn = [
        table(["ms", *columns], times),
        table(["size, MiB (the table's with its indexes)", ""], mebibytes),
        table(["made in, s", ""], made),
        table(["bytes for each", ""], kept_rows),
    ]
    publish("Usage: questions on a large table", method, drawn, {"machine": facts, **figures}, output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the table (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="file for the figures as JSON")
    options = parser.parse_args()
    asyncio.run(run(options.rows, options.output))


if __name__ == "__main__":
    main()

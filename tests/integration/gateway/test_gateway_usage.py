"""Usage as it is asked for: every question has the same answer in PostgreSQL and in SQLite."""

from __future__ import annotations

import asyncio
import csv
import io
import random
import sqlite3
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from aiservice_api.tasks import Task
from aiservice_gateway.errors import TooFineError
from aiservice_gateway.ids import first_id, new_request_id
from aiservice_gateway.metrics import Metrics
from aiservice_gateway.migrations import migrate_sqlite
from aiservice_gateway.models import Identity, Outcome, UsageRecord
from aiservice_gateway.selection import Dimension, Filter, Group, Period, StoredRecord, Want
from aiservice_gateway.services.retention import Retention
from aiservice_gateway.stores import usage_sql
from aiservice_gateway.stores.base import UsageStore
from aiservice_gateway.stores.postgres import _DIALECT, INSERT, PostgresUsage, connection_arguments
from aiservice_gateway.stores.sqlite import SqliteUsage
from support.databases import PostgresServer
from support.gateway import environment, eventually, gateway_here, token, write_services

START = datetime(2026, 9, 1, tzinfo=UTC)
END = datetime(2026, 11, 1, tzinfo=UTC)
PERIOD = Period(START, END)
ALL = Filter(None)
TENANTS = ["acme", "Bolt", "=cmd|'/C calc'!A0", "ünï"]
MODELS = [None, "sdxl", "whisper, large"]
USERS = [None, "ann", 'b"ob', "Zoe"]
UNITS = {
    Task.TEXT_TO_IMAGE: "image",
    Task.IMAGE_TO_IMAGE: "image",
    Task.IMAGE_TO_TEXT: "image",
    Task.TEXT_TO_SPEECH: "character",
    Task.SPEECH_TO_TEXT: "audio-second",
}


def made(count: int, seed: int = 7) -> list[UsageRecord]:
    """Records of two months, the same each time but for their ids."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        task = chance.choice(list(Task))
        failed = chance.random() < 0.2
        found.append(
            UsageRecord(
                id=new_request_id(),
                tenant=chance.choice(TENANTS),
                user=chance.choice(USERS),
                service=task,
                model=chance.choice(MODELS),
                tokens=0 if failed else chance.randrange(1000),
                units=Decimal(0) if failed else Decimal(chance.randrange(1, 100_000)) / 1000,
                unit=None if failed else UNITS[task],
                cost=Decimal(0) if failed else Decimal(chance.randrange(1, 1_000_000)) / 1_000_000,
                duration_ms=chance.randrange(10_000),
                status=Outcome.FAILED if failed else Outcome.SUCCEEDED,
                created_at=START + timedelta(milliseconds=chance.randrange(61 * 86_400_000)),
            )
        )
    return found


@pytest.fixture(params=["postgresql", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[UsageStore]:
    found: UsageStore
    if request.param == "postgresql":
        found = PostgresUsage(request.getfixturevalue("migrated_database"))
    else:
        migrate_sqlite(tmp_path / "usage.sqlite3")
        found = SqliteUsage(tmp_path / "usage.sqlite3")
    yield found
    await found.close()


async def sums(
    store: UsageStore,
    which: Filter,
    period: Period,
    dimensions: Sequence[Dimension],
    *,
    after: tuple[str, ...] | None = None,
    limit: int = 1000,
) -> Sequence[Group]:
    return await store.groups(Want(which, period, limit, after, tuple(dimensions)))


async def rows_of(
    store: UsageStore, which: Filter, period: Period, after: tuple[str, ...] | None = None, limit: int = 1000
) -> Sequence[StoredRecord]:
    return await store.records(Want(which, period, limit, after))


_KEYS: dict[Dimension, Callable[[UsageRecord], str | None]] = {
    Dimension.TENANT: lambda one: one.tenant,
    Dimension.SERVICE: lambda one: one.service.value,
    Dimension.MODEL: lambda one: one.model,
    Dimension.USER: lambda one: one.user,
    Dimension.MONTH: lambda one: f"{one.created_at:%Y-%m}",
    Dimension.DAY: lambda one: f"{one.created_at:%Y-%m-%d}",
    Dimension.HOUR: lambda one: f"{one.created_at:%Y-%m-%dT%H}:00:00.000Z",
}


def expected(some: Iterable[UsageRecord], dimensions: Sequence[Dimension]) -> list[tuple[Any, ...]]:
    """The same sums, done plainly, in the order that is promised: by the values' bytes, missing ones first."""
    sums: dict[tuple[str | None, ...], list[UsageRecord]] = defaultdict(list)
    for one in some:
        sums[tuple(_KEYS[dimension](one) for dimension in dimensions)].append(one)
    rows = []
    for key, members in sums.items():
        units = {one.unit for one in members if one.unit is not None}
        rows.append(
            (
                key,
                len(members),
                sum(one.tokens for one in members),
                float(sum(one.units for one in members)),
                units.pop() if len(units) == 1 else None,
                float(sum(one.cost for one in members)),
            )
        )
    return sorted(rows, key=lambda row: [(part is not None, (part or "").encode()) for part in row[0]])


def flat(groups: Iterable[Group]) -> list[tuple[Any, ...]]:
    return [
        (one.key, one.totals.count, one.totals.tokens, one.totals.units, one.totals.unit, one.totals.cost)
        for one in groups
    ]


async def all_pages(
    store: UsageStore, which: Filter, period: Period, dimensions: Sequence[Dimension], size: int
) -> list[Group]:
    found: list[Group] = []
    while page := await sums(store, which, period, dimensions, after=found[-1].place if found else None, limit=size):
        assert len(page) <= size
        found += page
    return found


QUESTIONS = [
    [Dimension.SERVICE],
    [Dimension.USER],
    [Dimension.TENANT],
    [Dimension.MONTH],
    [Dimension.HOUR],
    [Dimension.SERVICE, Dimension.DAY],
    [Dimension.MODEL, Dimension.USER],
    [Dimension.TENANT, Dimension.SERVICE, Dimension.MODEL, Dimension.USER, Dimension.DAY],
]


@pytest.mark.parametrize("dimensions", QUESTIONS, ids="-".join)
async def test_sums_are_what_plain_arithmetic_says(store: UsageStore, dimensions: list[Dimension]) -> None:
    some = made(600)
    await store.insert(some)
    assert flat(await all_pages(store, ALL, PERIOD, dimensions, 7)) == expected(some, dimensions)


@pytest.mark.parametrize(
    ("which", "fits"),
    [
        (Filter("acme"), lambda one: one.tenant == "acme"),
        (Filter("acm"), lambda one: False),
        (Filter(None, service=Task.TEXT_TO_SPEECH), lambda one: one.service is Task.TEXT_TO_SPEECH),
        (Filter("Bolt", model="whisper, large"), lambda one: (one.tenant, one.model) == ("Bolt", "whisper, large")),
        (
            Filter("acme", Task.SPEECH_TO_TEXT, "sdxl", "ann"),
            lambda one: (one.tenant, one.service, one.model, one.user) == ("acme", "speech-to-text", "sdxl", "ann"),
        ),
    ],
)
async def test_filters_hold_for_sums_and_records(
    store: UsageStore, which: Filter, fits: Callable[[UsageRecord], bool]
) -> None:
    some = made(600)
    await store.insert(some)
    wanted = [one for one in some if fits(one)]
    groups = await sums(store, which, PERIOD, [Dimension.DAY])
    assert flat(groups) == expected(wanted, [Dimension.DAY])
    records = await rows_of(store, which, PERIOD)
    assert {one.id for one in records} == {one.id for one in wanted}


async def test_a_period_begins_with_its_start_and_ends_before_its_end(store: UsageStore) -> None:
    [one] = made(1)
    moments = [START - timedelta(milliseconds=1), START, END - timedelta(milliseconds=1), END]
    await store.insert([replace(one, id=new_request_id(), created_at=moment) for moment in moments])
    assert [row.created_at for row in await rows_of(store, ALL, PERIOD)] == moments[2:0:-1]
    [group] = await sums(store, ALL, PERIOD, [Dimension.SERVICE])
    assert group.totals.count == 2


async def test_records_come_the_newest_first_and_as_they_were_written(store: UsageStore) -> None:
    some = made(300)
    same = some[0].created_at  # many of the same moment: their ids decide
    some += [replace(one, id=new_request_id(), created_at=same) for one in some[:50]]
    await store.insert(some)
    found = await rows_of(store, ALL, PERIOD, None, 8)
    while page := await rows_of(store, ALL, PERIOD, found[-1].place, 8):
        found = [*found, *page]
    order = sorted(some, key=lambda one: (one.created_at, one.id), reverse=True)
    assert [one.id for one in found] == [one.id for one in order]
    for stored, written in zip(found, order, strict=True):
        assert stored.created_at == written.created_at
        assert (stored.tenant, stored.user, stored.service) == (written.tenant, written.user, written.service.value)
        assert (stored.model, stored.tokens, stored.unit) == (written.model, written.tokens, written.unit)
        assert (stored.units, stored.cost) == (float(written.units), float(written.cost))
        assert (stored.duration_ms, stored.status) == (written.duration_ms, written.status.value)


@pytest.mark.parametrize("which", [ALL, Filter("acme"), Filter(None, user="ann")])
def test_records_are_read_in_the_order_of_an_index(
    migrated_database: str, postgres_server: PostgresServer, which: Filter
) -> None:
    """A page of a large table must not sort all that it could give."""
    statement = usage_sql.records(_DIALECT, Want(which, PERIOD, 10, (START.isoformat(), "0")))
    sql = statement.sql
    for number in range(len(statement.values), 0, -1):
        value = statement.values[number - 1]
        sql = sql.replace(f"${number}", str(value) if isinstance(value, int) else f"'{value}'")
    only = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off;"
    plan = postgres_server.psql(migrated_database, f"{only} EXPLAIN {sql}")
    assert "Presorted Key: " in plan
    assert "Index Scan Backward" in plan


async def test_new_rows_shift_no_page(store: UsageStore) -> None:
    some = made(100)
    await store.insert(some)
    found = list(await rows_of(store, ALL, PERIOD, None, 30))
    newest = max(one.created_at for one in some)
    while page := await rows_of(store, ALL, PERIOD, found[-1].place, 30):
        await store.insert([replace(one, id=new_request_id(), created_at=newest) for one in made(40)])
        found += page
    assert sorted(one.id for one in found) == sorted(one.id for one in some)


# Roll-ups


async def rolled(store: UsageStore, before: datetime, batch: int = 50) -> int:
    moved = 0
    while some := await store.roll_up(before, batch):
        moved += some
    return moved


BY_DAY = [question for question in QUESTIONS if Dimension.HOUR not in question]


@pytest.mark.parametrize("batch", [1, 37, 5000])
async def test_rolling_up_changes_no_sum_at_any_moment(store: UsageStore, batch: int) -> None:
    some = made(120)
    await store.insert(some)
    before = START + timedelta(days=40)
    old = {one.id for one in some if one.created_at < before}
    while moved := await store.roll_up(before, batch):  # after each batch it could have been killed
        assert moved <= batch
        for dimensions in BY_DAY if batch > 1 else BY_DAY[-1:]:
            assert flat(await sums(store, ALL, PERIOD, dimensions)) == expected(some, dimensions)
    left = {one.id for one in await rows_of(store, ALL, PERIOD)}
    assert left == {one.id for one in some} - old
    assert await store.roll_up(before, batch) == 0
    for which in (Filter("acme"), Filter(None, user="ann"), Filter(None, Task.TEXT_TO_IMAGE, "sdxl")):
        wanted = [
            one
            for one in some
            if which.tenant in (None, one.tenant)
            and which.service in (None, one.service)
            and which.model in (None, one.model)
            and which.user in (None, one.user)
        ]
        assert flat(await sums(store, which, PERIOD, [Dimension.MONTH])) == expected(wanted, [Dimension.MONTH])


async def test_a_record_that_comes_late_counts_once(store: UsageStore) -> None:
    """A spool of a gateway that was away for months is replayed: some of it was written before, some was not."""
    some = made(200)
    early, late = some[:150], some[150:]
    await store.insert(early)
    before = START + timedelta(days=50)
    await rolled(store, before)
    for _ in range(2):
        await store.insert(some)
        assert flat(await sums(store, ALL, PERIOD, [Dimension.DAY])) == expected(some, [Dimension.DAY])
    old_and_late = [one for one in late if one.created_at < before]
    assert old_and_late
    assert await rolled(store, before) == len(old_and_late)
    await store.insert(some)
    assert flat(await sums(store, ALL, PERIOD, [Dimension.DAY])) == expected(some, [Dimension.DAY])


async def test_what_only_days_are_left_of_is_not_told_by_the_hour(store: UsageStore) -> None:
    await store.insert(made(200))
    noon = START + timedelta(days=10, hours=12)
    early, late = Period(START, noon), Period(noon, END)
    for period in (early, late):
        assert await sums(store, ALL, period, [Dimension.SERVICE])
    await rolled(store, START + timedelta(days=30))
    for period in (early, late):
        with pytest.raises(TooFineError):
            await sums(store, ALL, period, [Dimension.SERVICE])
    for hours in (PERIOD, Period(START + timedelta(days=29), END)):
        with pytest.raises(TooFineError):
            await sums(store, ALL, hours, [Dimension.HOUR])
    rest = Period(START + timedelta(days=30), END)
    assert await sums(store, ALL, rest, [Dimension.HOUR])
    assert await sums(store, ALL, Period(rest.start + timedelta(hours=1), rest.end), [Dimension.DAY])
    # Nothing of this tenant was rolled up: nothing of it has to be cut.
    assert await sums(store, Filter("nobody"), early, [Dimension.HOUR]) == []


async def test_several_gateways_roll_up_at_once(migrated_database: str, postgres_server: PostgresServer) -> None:
    some = made(500)
    stores = [PostgresUsage(migrated_database) for _ in range(3)]
    await stores[0].insert(some)

    async def work(store: PostgresUsage) -> int:
        moved = 0
        while True:
            batch = await store.roll_up(END, 10)
            if batch == 0:
                return moved
            moved += batch or 0  # None: another one is at it
            await asyncio.sleep(0)

    async def replay() -> None:
        for start in range(0, 500, 25):
            await stores[0].insert(some[start : start + 25])

    moved, _ = await asyncio.gather(asyncio.gather(*map(work, stores)), replay())
    again = await work(stores[0])
    assert sum(moved) + again >= 500  # more where a replay got in between; those are not counted again
    assert len([one for one in moved if one]) > 1
    assert flat(await sums(stores[0], ALL, PERIOD, [Dimension.TENANT])) == expected(some, [Dimension.TENANT])
    for store in stores:
        await store.close()
    assert postgres_server.psql(migrated_database, 'SELECT count(*) FROM "AIUsage"') == "0"


async def test_rows_of_the_applications_own_are_not_let_go(
    migrated_database: str, postgres_server: PostgresServer
) -> None:
    postgres_server.psql(
        migrated_database,
        """INSERT INTO "AIUsage" (id, "tenantId", service, tokens, "createdAt") VALUES
           ('clx1', 'acme', 'text-to-image', 5, '2026-09-02'), ('clx2', 'acme', 'chat', 5, '2026-09-02')""",
    )
    store = PostgresUsage(migrated_database)
    await store.insert(made(10))
    assert await rolled(store, END) == 10
    assert postgres_server.psql(migrated_database, 'SELECT id FROM "AIUsage" ORDER BY id') == "clx1\nclx2"
    [group] = await sums(store, Filter("acme"), Period(START, START + timedelta(days=2)), [Dimension.SERVICE])
    await store.close()
    assert group.key == ("text-to-image",)


# Months

OCTOBER, NOVEMBER = datetime(2020, 10, 1, tzinfo=UTC), datetime(2020, 11, 1, tzinfo=UTC)
OLD = Period(datetime(2020, 9, 1, tzinfo=UTC), NOVEMBER)
JANUARY = datetime(2021, 1, 1, tzinfo=UTC)
"""By then the ids of all old records are forgotten, but for those of the last day of October."""
BY_MONTH = [question for question in BY_DAY if Dimension.DAY not in question]
LATE = "were not counted"


def made_long_ago(count: int) -> list[UsageRecord]:
    """As `made`, of September and October 2020, with ids of their time."""
    found = []
    for one in made(count):
        moment = one.created_at.replace(year=OLD.start.year)
        first = uuid.UUID(first_id(moment.timestamp())).int
        own = uuid.UUID(one.id).int & (1 << 80) - 1
        found.append(replace(one, id=str(uuid.UUID(int=first | own)), created_at=moment))
    return found


async def summed(store: UsageStore, before: datetime, batch: int = 50) -> int:
    gone = 0
    while some := await store.sum_months(before, batch):
        gone += some
    return gone


@pytest.fixture
def ask(store: UsageStore, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Asks the database of `store` itself. The tables have other names in SQLite."""

    def answer(sql: str) -> str:
        if isinstance(store, PostgresUsage):
            server: PostgresServer = request.getfixturevalue("postgres_server")
            return server.psql(request.getfixturevalue("migrated_database"), sql.format(own="aiservice."))
        with closing(sqlite3.connect(tmp_path / "usage.sqlite3")) as database:
            return "\n".join(str(row[0]) for row in database.execute(sql.format(own="aiservice_")))

    return answer


@pytest.mark.parametrize("batch", [1, 37, 5000])
async def test_summing_up_months_changes_no_sum_at_any_moment(
    store: UsageStore, batch: int, ask: Callable[[str], str]
) -> None:
    some = made_long_ago(120)
    await store.insert(some)
    await rolled(store, NOVEMBER)
    october = Period(OCTOBER, NOVEMBER)
    newer = [one for one in some if one.created_at >= OCTOBER]
    while gone := await store.sum_months(OCTOBER, batch):  # after each batch it could have been killed
        assert gone <= batch
        for dimensions in BY_MONTH if batch > 1 else BY_MONTH[-1:]:
            assert flat(await sums(store, ALL, OLD, dimensions)) == expected(some, dimensions)
        assert flat(await sums(store, ALL, october, [Dimension.DAY])) == expected(newer, [Dimension.DAY])
    days = "SELECT count(DISTINCT day) FROM {own}usage_daily WHERE day < '2020-10-01'"
    assert ask(days) == "1"
    await summed(store, NOVEMBER, batch)
    for dimensions in BY_MONTH:
        assert flat(await sums(store, ALL, OLD, dimensions)) == expected(some, dimensions)
    assert ask("SELECT count(DISTINCT day) FROM {own}usage_daily") == "2"


async def test_no_month_is_summed_up_before_its_rows_are(store: UsageStore, ask: Callable[[str], str]) -> None:
    some = made_long_ago(60)
    await store.insert(some)
    await rolled(store, OCTOBER - timedelta(days=1))
    assert await summed(store, OCTOBER) == 0
    assert flat(await sums(store, ALL, OLD, [Dimension.DAY])) == expected(some, [Dimension.DAY])
    await rolled(store, OCTOBER)
    assert await summed(store, OCTOBER) > 0
    assert await summed(store, OLD.start) == 0  # a gateway with another setting: what is done stays
    assert ask("SELECT substr(CAST(before AS text), 1, 10) FROM {own}usage_horizon") == "2020-10-01"


async def test_what_only_months_are_left_of_is_not_told_by_the_day(store: UsageStore) -> None:
    some = made_long_ago(200)
    await store.insert(some)
    await rolled(store, NOVEMBER)
    await summed(store, OCTOBER)
    second, middle = OLD.start + timedelta(days=1), OLD.start + timedelta(days=14)
    for period in (Period(middle, NOVEMBER), Period(OLD.start, middle), Period(second, middle), Period(second, second)):
        with pytest.raises(TooFineError) as caught:
            await sums(store, ALL, period, [Dimension.SERVICE])
        assert caught.value.left == "month"
    for period in (OLD, Period(middle, NOVEMBER), Period(OLD.start, OCTOBER)):
        for dimension in (Dimension.DAY, Dimension.HOUR):
            with pytest.raises(TooFineError) as caught:
                await sums(store, ALL, period, [Dimension.SERVICE, dimension])
            assert caught.value.left == "month"
    september = [one for one in some if one.created_at < OCTOBER]
    whole = Period(OLD.start, OCTOBER)
    assert flat(await sums(store, ALL, whole, [Dimension.USER])) == expected(september, [Dimension.USER])
    # October still has its days, and whoever has nothing in September is asked for no month.
    october = Period(OCTOBER + timedelta(days=3), NOVEMBER)
    assert await sums(store, ALL, october, [Dimension.DAY])
    with pytest.raises(TooFineError) as caught:
        await sums(store, ALL, october, [Dimension.HOUR])
    assert caught.value.left == "day"
    assert await sums(store, Filter("nobody"), Period(middle, NOVEMBER), [Dimension.DAY]) == []


async def test_a_record_of_a_month_that_is_summed_up_is_not_counted_again(
    store: UsageStore, ask: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    some = made_long_ago(200)
    counted, never = some[:150], some[150:]
    await store.insert(counted)
    await rolled(store, NOVEMBER)
    await summed(store, NOVEMBER)
    assert ask("SELECT count(*) FROM {own}usage_rolled_up") == "150"  # still known, so nothing has to be said of them
    await store.insert(counted)
    assert LATE not in caplog.text
    await summed(store, JANUARY)
    left = ask("SELECT id FROM {own}usage_rolled_up").splitlines()
    assert {one.id for one in counted if one.created_at >= NOVEMBER - timedelta(days=1)} == set(left)
    new = made(5)
    for _ in range(2):
        await store.insert([*some, *new])
    assert caplog.text.count(f"{200 - len(left)} usage records are of months that are summed up") == 2
    assert never[0].id in caplog.text
    assert await rolled(store, JANUARY) == 0
    assert flat(await sums(store, ALL, OLD, [Dimension.MONTH])) == expected(counted, [Dimension.MONTH])
    assert flat(await sums(store, ALL, PERIOD, [Dimension.DAY])) == expected(new, [Dimension.DAY])


async def test_ids_without_a_time_are_kept(store: UsageStore, ask: Callable[[str], str]) -> None:
    [one] = made_long_ago(1)
    await store.insert([replace(one, id=f"00000000-0000-4000-8000-{number:012}") for number in range(3)])
    await rolled(store, NOVEMBER)
    await summed(store, JANUARY)
    assert ask("SELECT count(*) FROM {own}usage_rolled_up") == "3"


async def test_several_gateways_sum_up_months_at_once(migrated_database: str, postgres_server: PostgresServer) -> None:
    some = made_long_ago(500)
    stores = [PostgresUsage(migrated_database) for _ in range(3)]
    await stores[0].insert(some)

    async def work(store: PostgresUsage) -> int:
        gone = 0
        while True:
            await store.roll_up(NOVEMBER, 40)
            batch = await store.sum_months(JANUARY, 10)
            gone += batch or 0
            if batch == 0 and postgres_server.psql(migrated_database, _IS_JANUARY) == "t":
                return gone
            await asyncio.sleep(0)

    async def replay() -> None:
        for start in [*range(0, 500, 25)] * 3:
            await stores[0].insert(some[start : start + 25])

    gone, _ = await asyncio.gather(asyncio.gather(*map(work, stores)), replay())
    assert len([one for one in gone if one]) > 1
    assert flat(await sums(stores[0], ALL, OLD, [Dimension.TENANT])) == expected(some, [Dimension.TENANT])
    for store in stores:
        await store.close()
    assert postgres_server.psql(migrated_database, 'SELECT count(*) FROM "AIUsage"') == "0"
    assert postgres_server.psql(migrated_database, "SELECT count(DISTINCT day) FROM aiservice.usage_daily") == "2"


_IS_JANUARY = "SELECT before = '2021-01-01' FROM aiservice.usage_horizon"


async def test_months_wait_for_records_that_are_just_written(
    migrated_database: str, postgres_server: PostgresServer
) -> None:
    [one] = made_long_ago(1)
    store = PostgresUsage(migrated_database)
    writer = await asyncpg.connect(**connection_arguments(migrated_database))
    try:
        async with writer.transaction():
            assert await writer.fetch(INSERT, f"[{one.to_wire().decode()}]") == []
            summing = asyncio.create_task(summed(store, NOVEMBER))
            await eventually(lambda: postgres_server.psql(migrated_database, _WAITING) == "1")
        assert await summing == 0
        await rolled(store, NOVEMBER)
        assert await store.sum_months(NOVEMBER, 50) == 1
    finally:
        await writer.close()
    assert flat(await sums(store, ALL, OLD, [Dimension.MONTH])) == expected([one], [Dimension.MONTH])
    await store.close()


async def test_records_wait_for_a_month_that_is_just_summed_up(
    migrated_database: str, postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    [one] = made_long_ago(1)
    store = PostgresUsage(migrated_database)
    other = await asyncpg.connect(**connection_arguments(migrated_database))
    try:
        async with other.transaction():
            await other.execute("UPDATE aiservice.usage_horizon SET before = '2020-11-01'")
            writing = asyncio.create_task(store.insert([one]))
            await eventually(lambda: postgres_server.psql(migrated_database, _WAITING) == "1")
            await store.insert([replace(new, created_at=datetime.now(UTC)) for new in made(3)])  # they do not wait
        await writing
    finally:
        await other.close()
    await store.close()
    assert f"{LATE}, because" in caplog.text
    assert postgres_server.psql(migrated_database, 'SELECT count(*) FROM "AIUsage"') == "3"


_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.mark.parametrize(("days", "daily_days"), [(31, 400), (400, 31)])
async def test_days_are_kept_as_long_as_rows_at_least(store: UsageStore, days: int, daily_days: int) -> None:
    some = made_long_ago(60)
    await store.insert(some)
    retention = Retention(store, days, daily_days, Metrics(), lambda: OCTOBER + timedelta(days=400, hours=3))
    assert await retention.run() > 0
    assert await retention.sum_months() > 0
    assert await sums(store, ALL, Period(OCTOBER, NOVEMBER), [Dimension.DAY])
    with pytest.raises(TooFineError):
        await sums(store, ALL, Period(OLD.start, OCTOBER), [Dimension.DAY])


# The API

ADMIN_ROLE = "platform"


@dataclass
class Api:
    """A gateway, and who asks it."""

    client: aiohttp.ClientSession
    store: UsageStore
    caller: Identity

    def headers(self, **more: str) -> dict[str, str]:
        role = ADMIN_ROLE if self.caller.admin else "member"
        return {"Authorization": f"Bearer {token(self.caller.tenant, sub=self.caller.user, role=role)}", **more}

    async def get(self, path: str, status: int = 200, **headers: str) -> Any:
        async with self.client.get(path, headers=self.headers(**headers)) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    async def rows(self, path: str, **headers: str) -> list[list[str]]:
        async with self.client.get(path, headers=self.headers(**headers)) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
            assert answer.headers["Content-Disposition"] == 'attachment; filename="usage.csv"'
            text = (await answer.read()).decode()
        assert text.endswith("\r\n")
        return list(csv.reader(io.StringIO(text, newline=""), strict=True))


@asynccontextmanager
async def api_of(folder: Path, store: UsageStore, **variables: str) -> AsyncIterator[Api]:
    async with gateway_here(environment(folder, GATEWAY_ADMIN_ROLE=ADMIN_ROLE, **variables)) as client:
        yield Api(client, store, Identity("acme", "ann"))


@pytest.fixture
async def api(store: UsageStore, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    write_services(tmp_path / "services.yaml")
    postgresql = isinstance(store, PostgresUsage)
    variables = {"DATABASE_URL": request.getfixturevalue("migrated_database")} if postgresql else {}
    async with api_of(tmp_path, store, **variables) as found:
        yield found


ADMIN = Identity("ops", "root", admin=True)
BETWEEN = "from=2026-09-01&to=2026-11-01"


async def test_groups_come_in_pages(api: Api) -> None:
    some = made(400)
    await api.store.insert(some)
    dimensions = [Dimension.SERVICE, Dimension.DAY]
    wanted = expected((one for one in some if one.tenant == "acme"), dimensions)
    question = f"/api/usage?{BETWEEN}&group_by=service,day&limit=20"
    found: list[Any] = []
    cursor = ""
    while True:
        body = await api.get(question + cursor)
        assert body["tenantId"] == "acme"
        assert body["period"] == {"from": "2026-09-01T00:00:00.000Z", "to": "2026-11-01T00:00:00.000Z"}
        found += body["groups"]
        if body["next"] is None:
            break
        assert len(body["groups"]) == 20
        cursor = f"&cursor={body['next']}"
    assert [
        ((one["service"], one["day"]), one["count"], one["total_tokens"], one["units"], one["unit"], one["cost"])
        for one in found
    ] == wanted
    assert list(found[0]) == ["service", "day", "count", "total_tokens", "units", "unit", "cost"]


async def test_units_of_several_kinds_are_not_added_up(api: Api) -> None:
    some = [replace(one, tenant="acme", user="ann") for one in made(60)]
    await api.store.insert(some)
    [group] = (await api.get(f"/api/usage?{BETWEEN}&group_by=user"))["groups"]
    assert (group["count"], group["units"], group["unit"]) == (60, None, None)
    assert group["cost"] == float(sum(one.cost for one in some))


async def test_records_come_in_pages(api: Api) -> None:
    some = made(250)
    await api.store.insert(some)
    wanted = sorted((one for one in some if one.tenant == "acme"), key=lambda one: one.created_at, reverse=True)
    first = await api.get("/api/usage/records?from=2026-09-01&to=2026-11-01T00:00:00Z&limit=25")
    assert [one["id"] for one in first["records"]] == [one.id for one in wanted[:25]]
    second = await api.get(f"/api/usage/records?limit=1000&cursor={first['next']}")  # the period is in the cursor
    assert [one["id"] for one in second["records"]] == [one.id for one in wanted[25:]]
    assert second["next"] is None
    newest = wanted[0]
    assert first["records"][0] == {
        "id": newest.id,
        "tenantId": "acme",
        "userId": newest.user,
        "service": newest.service,
        "model": newest.model,
        "tokens": newest.tokens,
        "units": float(newest.units),
        "unit": newest.unit,
        "cost": float(newest.cost),
        "durationMs": newest.duration_ms,
        "status": newest.status,
        "createdAt": newest.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }


async def test_the_report_takes_filters(api: Api) -> None:
    now = datetime.now(UTC)
    some = [replace(one, tenant="acme", created_at=now) for one in made(80)]
    await api.store.insert(some)
    body = await api.get("/api/usage?user=ann&service=text-to-image")
    wanted = [one for one in some if one.user == "ann" and one.service is Task.TEXT_TO_IMAGE]
    assert list(body) == ["tenantId", "period", "services", "today", "limits"]
    assert list(body["services"]) == list(body["today"]) == list(body["limits"]) == ["text-to-image"]
    assert body["services"]["text-to-image"]["count"] == len(wanted) > 0
    assert body["today"]["text-to-image"]["total_tokens"] == sum(one.tokens for one in wanted)
    body = await api.get("/api/usage?model=nobody")
    assert (body["services"], body["today"], len(body["limits"])) == ({}, {}, 5)


async def test_administrators_see_every_tenant(api: Api) -> None:
    some = made(200)
    await api.store.insert(some)
    api.caller = ADMIN
    assert (await api.get(f"/api/usage?{BETWEEN}"))["services"] == {}  # the administrator's own tenant
    by_tenant = await api.get(f"/api/usage?{BETWEEN}&group_by=tenant")
    assert by_tenant["tenantId"] is None
    counts = {group["tenant"]: group["count"] for group in by_tenant["groups"]}
    assert counts == {tenant: sum(one.tenant == tenant for one in some) for tenant in TENANTS}
    other = await api.get(f"/api/usage?{BETWEEN}&tenant=Bolt")
    assert other["tenantId"] == "Bolt"
    assert sum(one["count"] for one in other["services"].values()) == counts["Bolt"]
    assert len(other["limits"]) == 5
    everything = await api.get(f"/api/usage?{BETWEEN}&tenant=*")
    assert (everything["tenantId"], everything["limits"]) == (None, {})
    assert sum(one["count"] for one in everything["services"].values()) == 200
    assert len((await api.get(f"/api/usage/records?{BETWEEN}&tenant=*&limit=1000"))["records"]) == 200


@pytest.mark.parametrize("path", ["/api/usage", "/api/usage/records"])
@pytest.mark.parametrize("tenant", ["Bolt", "*", "nobody"])
async def test_others_see_their_own_only(api: Api, path: str, tenant: str) -> None:
    await api.store.insert(made(50))
    body = await api.get(f"{path}?tenant={tenant}", 403)
    assert (body["code"], body["error"]) == (
        "forbidden",
        "The token is for its own tenant only: leave 'tenant' out.",
    )
    assert (await api.get(f"{path}?tenant=acme"))["tenantId"] == "acme"
    groups = (await api.get(f"/api/usage?{BETWEEN}&group_by=tenant"))["groups"]
    assert [group["tenant"] for group in groups] == ["acme"]


async def test_a_cursor_gives_no_other_tenants_usage(api: Api) -> None:
    await api.store.insert(made(200))
    api.caller = ADMIN
    everything = await api.get(f"/api/usage/records?{BETWEEN}&tenant=*&limit=5")
    api.caller = Identity("acme", None)
    body = await api.get(f"/api/usage/records?{BETWEEN}&cursor={everything['next']}", 400)
    assert "belongs to another question" in body["error"]


BAD_QUERIES = {
    "grup_by=service": "There is no parameter 'grup_by' here. There are: cursor, format, from, group_by",
    "from=2026-01-01&from=2026-02-01": "from: it is there more than once.",
    "from=yesterday": "from: ",
    "from=2026-02-01&to=2026-01-01": "ends before it starts",
    "from=0001-01-01T00:00:00%2B14:00": "outside the years 1 to 9999",
    "service=chess": "service: ",
    "user=": "user: ",
    "user=a%00b": "user: ",
    "tenant=%E2%80%AE": "tenant: ",
    "format=xml": "format: ",
    "group_by=week": "group_by.0: ",
    "group_by=": "group_by.0: ",
    "group_by=day,day": "names something twice",
    "group_by=day&group_by=day": "names something twice",
    "group_by=day&limit=0": "limit: ",
    "group_by=day&limit=1001": "limit: ",
    "limit=10": "state 'group_by'",
    "format=csv&limit=10": "CSV is sent whole",
    "group_by=day&cursor=x": "cursor: it is none",
    "group_by=day&cursor=bnVsbA": "cursor: it is none",
}


async def test_bad_parameters_are_told(api: Api) -> None:
    for query, says in BAD_QUERIES.items():
        body = await api.get(f"/api/usage?{query}", 400)
        assert body["code"] == "invalid_request"
        assert says in body["error"], query
    body = await api.get("/api/usage/records?group_by=day", 400)
    assert "There is no parameter 'group_by' here." in body["error"]


async def test_a_cursor_is_of_one_question(api: Api) -> None:
    await api.store.insert(made(200))
    page = await api.get(f"/api/usage?{BETWEEN}&group_by=day&limit=3")
    for other, says in {
        "group_by=hour": "another question",
        "group_by=day&user=ann": "another question",
        "group_by=day&from=2026-09-02": "another period",
        "group_by=day&to=2026-10-02": "another period",
    }.items():
        assert says in (await api.get(f"/api/usage?{other}&cursor={page['next']}", 400))["error"]
    assert "another question" in (await api.get(f"/api/usage/records?cursor={page['next']}", 400))["error"]


async def test_csv_holds_what_json_does(api: Api) -> None:
    some = made(300)
    await api.store.insert(some)
    api.caller = ADMIN
    question = f"/api/usage?{BETWEEN}&group_by=tenant&group_by=user,month"
    groups = (await api.get(f"{question}&limit=1000"))["groups"]
    header, *rows = await api.rows(question, Accept="text/csv")
    assert header == ["tenant", "user", "month", "count", "total_tokens", "units", "unit", "cost"]
    assert len(rows) == len(groups)
    for row, group in zip(rows, groups, strict=True):
        tenant = group["tenant"]
        assert row[0] == (f"'{tenant}" if tenant.startswith("=") else tenant)
        assert row[1] == (group["user"] or "")
        assert [int(row[3]), int(row[4]), float(row[7])] == [group["count"], group["total_tokens"], group["cost"]]
        assert "e" not in row[7]
    records = (await api.get(f"/api/usage/records?{BETWEEN}&tenant=*&limit=1000"))["records"]
    header, *rows = await api.rows(f"/api/usage/records?{BETWEEN}&tenant=*&format=csv")
    assert header == list(records[0])
    assert [row[0] for row in rows] == [one["id"] for one in records]
    assert [row[4] for row in rows] == [one["model"] or "" for one in records]


async def test_csv_of_the_report_is_by_service(api: Api) -> None:
    await api.store.insert(made(100))
    header, *rows = await api.rows(f"/api/usage?{BETWEEN}&format=csv")
    assert header == ["service", "count", "total_tokens", "units", "unit", "cost"]
    services = (await api.get(f"/api/usage?{BETWEEN}", Accept="application/json, text/csv"))["services"]
    assert [row[0] for row in rows] == list(services)


async def test_csv_is_read_bit_by_bit(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiservice_gateway.services.usage._STREAMED_ITEMS", 9)
    await api.store.insert(made(200))
    api.caller = ADMIN
    assert len(await api.rows(f"/api/usage/records?{BETWEEN}&tenant=*&format=csv")) == 201
    days = (END - START).days
    assert len(await api.rows(f"/api/usage?{BETWEEN}&group_by=tenant,day&format=csv")) > 2 * days


async def test_csv_that_breaks_off_is_not_taken_for_whole(
    tmp_path: Path, migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiservice_gateway.services.usage._STREAMED_ITEMS", 9)
    write_services(tmp_path / "services.yaml")
    store = PostgresUsage(migrated_database)
    await store.insert(made(200))
    answered = 0
    read = PostgresUsage.records

    async def fail_later(self: PostgresUsage, *arguments: Any) -> Any:
        nonlocal answered
        answered += 1
        if answered > 3:
            raise ConnectionResetError
        return await read(self, *arguments)

    monkeypatch.setattr(PostgresUsage, "records", fail_later)
    async with (
        api_of(tmp_path, store, DATABASE_URL=migrated_database) as api,
        api.client.get(f"/api/usage/records?{BETWEEN}&format=csv", headers=api.headers()) as answer,
    ):
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
    await store.close()


async def test_hours_of_days_that_were_rolled_up_are_refused_with_a_way_out(api: Api) -> None:
    await api.store.insert(made(100))
    await rolled(api.store, START + timedelta(days=30))
    api.caller = ADMIN
    for query in (f"{BETWEEN}&group_by=tenant,hour", "tenant=*&from=2026-09-02T10:00&to=2026-10-01"):
        body = await api.get(f"/api/usage?{query}", 400)
        assert "only sums of whole days are left" in body["error"]
    assert (await api.get(f"/api/usage?{BETWEEN}&tenant=*&group_by=month"))["groups"][0]["month"] == "2026-09"


async def test_retention_works_by_itself(store: UsageStore, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    now = datetime.now(UTC)
    some = [replace(one, tenant="acme", created_at=now - timedelta(days=number)) for number, one in enumerate(made(80))]
    await store.insert(some)
    write_services(tmp_path / "services.yaml")
    postgresql = isinstance(store, PostgresUsage)
    variables = {"DATABASE_URL": request.getfixturevalue("migrated_database")} if postgresql else {}
    async with api_of(tmp_path, store, GATEWAY_USAGE_RETENTION_DAYS="31", **variables) as api:
        year = f"from={now - timedelta(days=100):%Y-%m-%d}"

        async def let_go() -> bool:
            return len((await api.get(f"/api/usage/records?{year}"))["records"]) == 32

        await eventually(let_go)
        groups = (await api.get(f"/api/usage?{year}&group_by=tenant"))["groups"]
        assert (groups[0]["count"], len(groups)) == (80, 1)
        async with api.client.get("/metrics") as answer:
            assert "aiservice_gateway_usage_records_rolled_up_total 48.0" in await answer.text()


async def test_months_are_summed_up_by_themselves(
    store: UsageStore, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    now = datetime.now(UTC)
    some = [replace(one, tenant="acme", created_at=now - timedelta(days=number)) for number, one in enumerate(made(99))]
    await store.insert(some)
    write_services(tmp_path / "services.yaml")
    postgresql = isinstance(store, PostgresUsage)
    variables = {"DATABASE_URL": request.getfixturevalue("migrated_database")} if postgresql else {}
    variables |= {"GATEWAY_USAGE_RETENTION_DAYS": "31", "GATEWAY_USAGE_DAILY_DAYS": "31"}
    async with api_of(tmp_path, store, **variables) as api:
        first = (now - timedelta(days=120)).replace(day=1)
        by_day = f"/api/usage?from={first:%Y-%m-%d}&group_by=day"

        async def told_by_month() -> bool:
            async with api.client.get(by_day, headers=api.headers()) as answer:
                return answer.status == 400

        await eventually(told_by_month)
        refused = await api.get(by_day, 400)
        assert "only sums of whole months are left: begin and end it on the first of a month" in refused["error"]
        months = (await api.get(by_day.replace("=day", "=month")))["groups"]
        assert sum(month["count"] for month in months) == 99
        await api.get(f"/api/usage?from={now - timedelta(days=98):%Y-%m}-02&group_by=service", 400)
        await api.get(f"/api/usage?from={now - timedelta(days=30):%Y-%m-%d}&group_by=hour")

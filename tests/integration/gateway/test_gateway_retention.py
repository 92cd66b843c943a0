"""Retention: rows become sums of days, and those sums of months, and no question has another answer for it."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from aiservice_api.tasks import Task
from aiservice_gateway.errors import TooFineError
from aiservice_gateway.ids import first_id
from aiservice_gateway.metrics import Metrics
from aiservice_gateway.models import UsageRecord
from aiservice_gateway.selection import Dimension, Filter, Period
from aiservice_gateway.services.retention import Retention
from aiservice_gateway.stores.base import UsageStore
from aiservice_gateway.stores.postgres import INSERT, PostgresUsage, connection_arguments
from support.databases import PostgresServer
from support.gateway import eventually, write_services
from support.usage import (
    ALL,
    BY_DAY,
    END,
    PERIOD,
    START,
    api_of,
    expected,
    flat,
    made,
    rolled,
    rows_of,
    sums,
)


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


async def test_a_deadlock_is_no_outage(migrated_database: str) -> None:
    """Records that are written again, and somebody who changes their rows in the other order."""
    store, (first, second) = PostgresUsage(migrated_database), made(2)
    await store.insert([first, second])
    other = await asyncpg.connect(**connection_arguments(migrated_database))
    lock = 'SELECT 1 FROM "AIUsage" WHERE id = $1 FOR UPDATE'
    async with other.transaction():
        await other.execute(lock, second.id)
        writing = asyncio.create_task(store.insert([first, second]))  # has the first, and waits for the second
        await eventually(lambda: other.fetchval(_WAITING))
        await other.execute(lock, first.id)
    await writing
    await eventually(
        lambda: other.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    )
    assert len(await rows_of(store, ALL, PERIOD)) == 2
    await other.close()
    await store.close()


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


# As the gateway does it


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

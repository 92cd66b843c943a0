"""Usage as it is asked for: every question has the same answer in PostgreSQL and in SQLite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from aiservice_api.tasks import Task
from aiservice_gateway.ids import new_request_id
from aiservice_gateway.models import UsageRecord
from aiservice_gateway.selection import Dimension, Filter, Want
from aiservice_gateway.stores import usage_sql
from aiservice_gateway.stores.base import UsageStore
from aiservice_gateway.stores.postgres import _DIALECT
from support.databases import PostgresServer
from support.usage import (
    ALL,
    END,
    PERIOD,
    QUESTIONS,
    START,
    all_pages,
    expected,
    flat,
    made,
    rows_of,
    sums,
)


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

"""The ledger: every answered request becomes one row, whatever stops meanwhile."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest

from aiservice_api.tasks import Task
from aiservice_gateway.errors import RecordRefusedError, StoreUnavailableError
from aiservice_gateway.metrics import Metrics
from aiservice_gateway.migrations import migrate_sqlite
from aiservice_gateway.models import Outcome, UsageRecord
from aiservice_gateway.plans import Reservation
from aiservice_gateway.selection import Dimension, Filter, Period, Want
from aiservice_gateway.services.backlog import Backlog
from aiservice_gateway.services.ledger import Ledger
from aiservice_gateway.stores.base import UsageStore
from aiservice_gateway.stores.memory import MemoryCounters, MemoryLimiter
from aiservice_gateway.stores.postgres import PostgresUsage
from aiservice_gateway.stores.redis import RedisStore
from aiservice_gateway.stores.spool import Spool
from aiservice_gateway.stores.sqlite import SqliteUsage
from support.databases import PostgresServer, RedisServer
from support.gateway import (
    GatewayProcess,
    bearer,
    environment,
    eventually,
    gateway_here,
    gateway_process,
    running_engine,
    whisper,
    write_services,
)

SPEECH = "/api/speech-to-text"
COUNT = 'SELECT count(*), count(DISTINCT "requestId") FROM "AIUsage"'
RECORD = UsageRecord(
    "0", "acme", "ann", Task.SPEECH_TO_TEXT, "m", 7, Decimal("2.5"), "s", Decimal("0.1"), 1, Outcome.SUCCEEDED,
    datetime(2026, 11, 23, 12, tzinfo=UTC),
)  # fmt: skip


def records(count: int) -> list[UsageRecord]:
    return [replace(RECORD, id=str(uuid.uuid4())) for _ in range(count)]


def unlimited(record: UsageRecord) -> Reservation:
    """The reservation of a request that no limit applies to."""
    at = int(record.created_at.timestamp() * 1_000_000)
    return Reservation(record.id, record.tenant, record.user, record.service, record.model, (), at)


@asynccontextmanager
async def running_ledger(url: str, redis: RedisStore | None, folder: Path) -> AsyncIterator[tuple[Ledger, Metrics]]:
    store, metrics, backlog = PostgresUsage(url), Metrics(), Backlog(redis)
    if redis is not None:
        redis.on_return = backlog.tell
    spool = Spool(folder / "spool").open()
    ledger = Ledger(store, redis, spool, MemoryCounters(), metrics, local=MemoryLimiter(), backlog=backlog)
    ledger.start()
    try:
        yield ledger, metrics
    finally:
        await ledger.close(5)
        await store.close()


@asynccontextmanager
async def open_redis(url: str, instance: str) -> AsyncIterator[RedisStore]:
    redis = RedisStore(url, instance)
    await eventually(redis.connect)
    try:
        yield redis
    finally:
        await redis.close()


async def all_written(ledger: Ledger) -> None:
    await eventually(lambda: ledger.flushed(1))


async def settle_all(ledger: Ledger, some: Sequence[UsageRecord]) -> None:
    for start in range(0, len(some), 50):
        await asyncio.gather(*(ledger.settle(unlimited(one), one) for one in some[start : start + 50]))


async def test_a_record_is_written_once_however_often(migrated_database: str, postgres_server: PostgresServer) -> None:
    store = PostgresUsage(migrated_database)
    some = records(3)
    await store.insert(some[:2])
    await store.insert(some)
    await store.insert([some[0], some[0]])
    await store.close()
    assert postgres_server.psql(migrated_database, COUNT) == "3|3"


@pytest.mark.parametrize("kind", ["postgresql", "sqlite", "adopted"])
async def test_the_true_record_replaces_an_interrupted_one_and_no_other(
    tmp_path: Path, migrated_database: str, postgres_server: PostgresServer, kind: str
) -> None:
    true, failed, late = records(3)
    failed = replace(failed, status=Outcome.FAILED)
    swept = [
        replace(one, status=Outcome.INTERRUPTED, units=Decimal(0), cost=Decimal(0), tokens=0)
        for one in (true, failed, late)
    ]
    if kind == "sqlite":
        migrate_sqlite(tmp_path / "usage.sqlite3")
        store: UsageStore = SqliteUsage(tmp_path / "usage.sqlite3")
    else:
        store = PostgresUsage(migrated_database)
    if kind == "adopted":
        # An application may have given the column a type of its own, here one that is no text.
        postgres_server.psql(
            migrated_database,
            "CREATE TYPE outcome AS ENUM ('succeeded', 'failed', 'cancelled', 'interrupted');"
            'ALTER TABLE "AIUsage" ALTER COLUMN status DROP DEFAULT;'
            'ALTER TABLE "AIUsage" ALTER COLUMN status TYPE outcome USING status::outcome',
        )
    await store.insert(swept[:1])
    await store.insert([true, replace(true, tokens=99)])  # in this order, and only once
    await store.insert([failed])
    await store.insert([swept[1], swept[0]])  # later than what is known better
    await store.insert([swept[2], late])  # in one batch
    day = Period(RECORD.created_at, RECORD.created_at + timedelta(days=1))
    [group] = await store.groups(Want(Filter("acme"), day, 2, dimensions=(Dimension.SERVICE,)))
    await store.close()
    one = group.totals
    assert (one.count, one.tokens, one.units) == (3, 21, 7.5)


async def test_a_value_that_the_database_refuses_holds_nothing_up(
    tmp_path: Path, migrated_database: str, postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    bad = replace(records(1)[0], tenant="a\x00b")  # PostgreSQL has no text with NUL in it
    store = PostgresUsage(migrated_database)
    with pytest.raises(RecordRefusedError):
        await store.insert([bad])
    await store.close()
    async with running_ledger(migrated_database, None, tmp_path) as (ledger, metrics):
        await settle_all(ledger, [*records(20), bad, *records(20)])
        await all_written(ledger)
        assert metrics.registry.get_sample_value("aiservice_gateway_usage_records_lost_total") == 1
    assert postgres_server.psql(migrated_database, COUNT) == "40|40"
    assert "is kept nowhere but here" in caplog.text


@pytest.mark.parametrize("with_redis", [True, False])
async def test_records_wait_while_postgresql_is_away(
    tmp_path: Path, migrated_database: str, redis_url: str, postgres_server: PostgresServer, *, with_redis: bool
) -> None:
    async with (
        open_redis(redis_url, "one") as redis,
        running_ledger(migrated_database, redis if with_redis else None, tmp_path) as (ledger, _),
    ):
        await settle_all(ledger, records(200))
        await all_written(ledger)
        states = [ledger.database_up]
        postgres_server.stop(signal.SIGQUIT)
        await settle_all(ledger, records(1500))
        assert not await ledger.flushed(0.5)
        states.append(ledger.database_up)
        assert sum((await ledger.waiting()).values()) == 1500
        postgres_server.start()
        await all_written(ledger)
        states.append(ledger.database_up)
        assert states == [True, False, True]
        assert sum((await ledger.waiting()).values()) == 0
    assert postgres_server.psql(migrated_database, COUNT) == "1700|1700"


async def test_records_go_to_disk_while_redis_is_away_too(
    tmp_path: Path,
    migrated_database: str,
    redis_url: str,
    postgres_server: PostgresServer,
    redis_server: RedisServer,
) -> None:
    async with open_redis(redis_url, "one") as redis:
        async with running_ledger(migrated_database, redis, tmp_path) as (ledger, _):
            postgres_server.stop(signal.SIGQUIT)
            await settle_all(ledger, records(100))
            redis_server.stop(signal.SIGKILL)
            await settle_all(ledger, records(100))
            assert (await ledger.waiting()) == {"spool": 100}
            redis_server.start()
            await eventually(lambda: redis.available)
            await settle_all(ledger, records(100))
        # The ledger was closed with PostgreSQL away: what was on disk is in Redis now, for any other gateway.
        assert list((tmp_path / "spool").iterdir()) == []
        # Redis was also told of those hundred itself when it was back, for its counters: they wait there twice.
        assert await redis.waiting() == 400
    postgres_server.start()
    async with (
        open_redis(redis_url, "two") as heir,
        running_ledger(migrated_database, heir, tmp_path / "other") as (ledger, _),
    ):
        await all_written(ledger)
    assert postgres_server.psql(migrated_database, COUNT) == "300|300"


async def test_what_one_gateway_took_and_did_not_finish_another_does(
    tmp_path: Path, migrated_database: str, redis_url: str, postgres_server: PostgresServer
) -> None:
    async with open_redis(redis_url, "dead") as dead, open_redis(redis_url, "alive") as alive:
        for record in records(10):
            await dead.settle(unlimited(record), record)
        assert len((await dead.take(500)).records) == 10  # and dies here, with the lease
        assert (await alive.take(500)).records == []
        async with running_ledger(migrated_database, alive, tmp_path) as (ledger, _):
            await all_written(ledger)
    assert postgres_server.psql(migrated_database, COUNT) == "10|10"


async def test_counters_and_waiting_records_change_together(redis_url: str) -> None:
    async with open_redis(redis_url, "one") as redis:
        for record in records(3):
            await redis.settle(unlimited(record), record)
        counters = await redis.counters("acme", "2026-11-23")
        assert await redis.waiting() == 3
    totals = counters[Task.SPEECH_TO_TEXT]
    assert (totals.count, totals.tokens, totals.units) == (3, 21, 7.5)
    assert totals.cost == pytest.approx(0.3)


async def test_when_nothing_takes_a_record_the_log_does(
    tmp_path: Path,
    migrated_database: str,
    postgres_server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(_self: Spool, _record: UsageRecord) -> None:
        raise StoreUnavailableError("disk full")

    monkeypatch.setattr(Spool, "add", broken)
    async with running_ledger(migrated_database, None, tmp_path) as (ledger, metrics):
        await settle_all(ledger, records(1))
        assert postgres_server.psql(migrated_database, COUNT) == "1|1"  # straight to the database
        postgres_server.stop(signal.SIGQUIT)
        lost = records(1)[0]
        await settle_all(ledger, [lost])
        assert metrics.registry.get_sample_value("aiservice_gateway_usage_records_lost_total") == 1
    assert lost.id in str([record.__dict__ for record in caplog.records])


async def _ask(client: aiohttp.ClientSession, url: str, number: int, tenants: int = 20) -> int:
    async with client.post(f"{url}{SPEECH}", json={}, headers=bearer(f"tenant-{number % tenants}")) as answer:
        await answer.read()
        return answer.status


async def test_postgresql_stops_and_comes_back_under_load(
    tmp_path: Path, migrated_database: str, redis_url: str, postgres_server: PostgresServer
) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        variables = environment(tmp_path, REDIS_URL=redis_url, DATABASE_URL=migrated_database)
        async with gateway_here(variables) as client:
            statuses: list[int] = []
            for batch in range(10):
                if batch == 3:
                    postgres_server.stop(signal.SIGQUIT)
                if batch == 6:
                    async with client.get("/api/usage", headers=bearer()) as answer:
                        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
                    async with client.get("/health") as answer:
                        assert (answer.status, (await answer.json())["status"]) == (200, "degraded")
                    postgres_server.launch()
                    await asyncio.to_thread(postgres_server.wait)  # the loop goes on: connections live in it
                statuses += await asyncio.gather(*(_ask(client, "", batch * 30 + one) for one in range(30)))
            assert statuses == [200] * 300

            async def written() -> bool:
                return await asyncio.to_thread(postgres_server.psql, migrated_database, COUNT) == "300|300"

            await eventually(written)
            async with client.get("/api/usage", headers=bearer("tenant-0")) as answer:
                assert (await answer.json())["services"]["speech-to-text"]["count"] == 15


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_gateway_ends_while_postgresql_is_away(
    tmp_path: Path, migrated_database: str, postgres_server: PostgresServer, how: signal.Signals
) -> None:
    """Without Redis: what was answered is on disk, and the next gateway writes it."""
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        variables = environment(tmp_path, DATABASE_URL=migrated_database)
        async with gateway_process(tmp_path, variables) as gateway, aiohttp.ClientSession() as client:
            postgres_server.stop(signal.SIGQUIT)
            assert [await _ask(client, gateway.url, number) for number in range(40)] == [200] * 40
            gateway.signal(how)
            assert await gateway.ended() == (0 if how is signal.SIGTERM else -signal.SIGKILL)
        postgres_server.start()
        async with gateway_process(tmp_path, variables):
            await eventually(lambda: postgres_server.psql(migrated_database, COUNT) == "40|40")


async def test_a_gateway_starts_while_postgresql_is_away(
    tmp_path: Path, migrated_database: str, postgres_server: PostgresServer
) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        postgres_server.stop(signal.SIGQUIT)
        gateway = GatewayProcess(tmp_path, environment(tmp_path, DATABASE_URL=migrated_database))
        try:
            await gateway.ready()
            async with aiohttp.ClientSession() as client:
                assert await _ask(client, gateway.url, 1) == 200
            postgres_server.start()
            await eventually(lambda: postgres_server.psql(migrated_database, COUNT) == "1|1")
        finally:
            gateway.kill()

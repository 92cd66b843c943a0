"""Limits and ledger while Redis and PostgreSQL come and go: nothing is lost or counts twice, no limit is lifted."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from aiservice_api.tasks import Task
from aiservice_gateway.metrics import Metrics
from aiservice_gateway.models import Identity, Limit, Measure, Policy
from aiservice_gateway.services.backlog import Backlog
from aiservice_gateway.services.leases import Leases
from aiservice_gateway.services.ledger import Ledger
from aiservice_gateway.services.limits import Admission, Limits
from aiservice_gateway.settings import DEFAULT_PRICES, DEFAULT_RESERVED_UNITS
from aiservice_gateway.stores.memory import MemoryCounters, MemoryLimiter
from aiservice_gateway.stores.postgres import PostgresUsage
from aiservice_gateway.stores.redis import RedisStore
from aiservice_gateway.stores.spool import Spool
from support.databases import PostgresServer, RedisServer
from support.gateway import eventually
from support.limits import record_of
from support.relay import relaying

TASK = Task.SPEECH_TO_TEXT
ACME = Identity("acme", "ann")
LEASE = 0.6
COUNT = 'SELECT count(*), count(DISTINCT id), coalesce(sum(cost), 0)::float8 FROM "AIUsage"'
POLICY = Policy(
    (
        Limit(Measure.REQUESTS, Decimal(20), TASK, 3600),
        Limit(Measure.UNITS, Decimal(2000), TASK, 3600),
        Limit(Measure.CONCURRENCY, Decimal(6)),
        Limit(Measure.SPEND, Decimal("0.05")),
    )
)
UNITS, COST = Decimal("2.5"), Decimal("0.0001")


@dataclass
class Replica:
    """The part of a gateway that admits and settles."""

    limits: Limits
    ledger: Ledger
    redis: RedisStore
    backlog: Backlog

    async def admit(self, request_id: str = "") -> Admission:
        return await self.limits.admit(ACME, TASK, "m", request_id or str(uuid.uuid4()))

    async def settle(self, admission: Admission, units: Decimal = UNITS, cost: Decimal = COST) -> None:
        await self.ledger.settle(admission.reservation, record_of(admission.reservation, units, cost))

    async def serve(self, count: int) -> list[bool]:
        """Requests one after the other, from admission to settlement; which of them passed."""
        passed = []
        for _ in range(count):
            admission = await self.admit()
            if admission.allowed:
                await self.settle(admission)
            passed.append(admission.allowed)
        return passed

    async def left(self) -> list[Decimal]:
        """What is left of each limit."""
        return [standing.remaining for standing in await self.limits.standings("acme")]


@asynccontextmanager
async def running(
    redis_url: str, database: str, folder: Path, *, policy: Policy = POLICY, lease: float = LEASE
) -> AsyncIterator[Replica]:
    store, redis = PostgresUsage(database), RedisStore(redis_url, uuid.uuid4().hex, lease)
    local, backlog = MemoryLimiter(), Backlog(redis)
    redis.on_return = backlog.tell
    spool = Spool(folder / uuid.uuid4().hex).open()
    ledger = Ledger(store, redis, spool, MemoryCounters(), Metrics(), local=local, backlog=backlog)
    limits = Limits(
        lambda _: policy, local, redis, backlog,
        spent_of=ledger.spent, reserved_units=DEFAULT_RESERVED_UNITS, prices=DEFAULT_PRICES, secret=b"s",
    )  # fmt: skip
    await eventually(redis.connect)
    ledger.start()
    leases = asyncio.create_task(Leases(redis, lease).run())
    try:
        yield Replica(limits, ledger, redis, backlog)
    finally:
        leases.cancel()
        await asyncio.gather(leases, return_exceptions=True)
        await ledger.close(5)
        await redis.close()
        await store.close()


@asynccontextmanager
async def replicas(count: int, redis_url: str, database: str, folder: Path) -> AsyncIterator[Sequence[Replica]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running(redis_url, database, folder)) for _ in range(count)]


async def back(*replicas: Replica) -> None:
    """Waits until all use Redis again, after it was down for a moment."""
    # Who has not noticed, does now.
    await asyncio.gather(*(one.redis.waiting() for one in replicas), return_exceptions=True)
    await eventually(lambda: all(one.redis.available for one in replicas))


async def written(postgres: PostgresServer, database: str, expected: str) -> None:
    async def look() -> bool:
        return await asyncio.to_thread(postgres.psql, database, COUNT) == expected

    await eventually(look)


def lefts(requests: int, units: float, slots: int, dollars: str) -> list[Decimal]:
    return [Decimal(requests), Decimal(str(units)), Decimal(slots), Decimal(dollars)]


async def test_what_gateways_admitted_by_themselves_counts_for_all_of_them_afterwards(
    tmp_path: Path, redis_url: str, migrated_database: str, redis_server: RedisServer, postgres_server: PostgresServer
) -> None:
    async with replicas(2, redis_url, migrated_database, tmp_path) as (one, other):
        assert await one.serve(2) == [True] * 2
        held = await one.admit()
        redis_server.stop(signal.SIGKILL)
        assert await one.serve(3) == [True] * 3
        await one.settle(held)
        refunded, open_still = await one.admit(), await one.admit()
        await one.ledger.refund(refunded.reservation)
        assert await other.serve(4) == [True] * 4
        redis_server.start()
        await back(one, other)
        assert len(one.backlog) == len(other.backlog) == 0
        # Ten are over; one is open and holds the estimate: 60 s of audio, 0.0024.
        for replica in (one, other):
            assert await replica.left() == lefts(9, 2000 - 25 - 60, 5, "0.0466")
        await one.settle(open_still)
        assert await other.left() == lefts(9, 2000 - 27.5, 6, "0.0489")
        today = await one.ledger.today("acme", held.reservation.created_at)
        assert (today[TASK].count, today[TASK].units) == (11, 27.5)
        assert await other.serve(10) == [True] * 9 + [False]
        await written(postgres_server, migrated_database, "20|20|0.002")


async def test_an_answer_that_is_lost_on_its_way_counts_once(
    tmp_path: Path, redis_url: str, migrated_database: str, redis_server: RedisServer, postgres_server: PostgresServer
) -> None:
    """Redis does what it is asked and nobody hears of it: at admission, settlement and refund."""
    with relaying(redis_server.port) as relay:
        async with running(f"redis://127.0.0.1:{relay.port}/0", migrated_database, tmp_path) as replica:
            assert await replica.serve(1) == [True]
            for step in ("admit", "settle", "refund"):
                relay.mute = step == "admit"
                admission = await replica.admit()
                relay.mute = True
                if step == "admit":
                    assert not replica.redis.available
                elif step == "settle":
                    await replica.settle(admission)
                else:
                    await replica.ledger.refund(admission.reservation)
                assert admission.allowed
                assert not replica.redis.available
                relay.mute = False
                await eventually(lambda: replica.redis.available)
                if step == "admit":
                    await replica.settle(admission)
            assert await replica.left() == lefts(17, 2000 - 7.5, 6, "0.0497")
            today = await replica.ledger.today("acme", admission.reservation.created_at)
            assert today[TASK].count == 3
            await written(postgres_server, migrated_database, "3|3|0.0003")


async def test_redis_restarted_with_its_data_goes_on_where_it_was(
    tmp_path: Path, redis_url: str, migrated_database: str, redis_server: RedisServer, postgres_server: PostgresServer
) -> None:
    async with replicas(2, redis_url, migrated_database, tmp_path) as (one, other):
        assert await one.serve(3) == [True] * 3
        held = await one.admit()
        redis_server.stop(signal.SIGKILL)
        redis_server.start()
        await back(one, other)
        await asyncio.sleep(2 * LEASE)  # nobody is taken for dead who was only away from Redis
        assert await other.left() == lefts(16, 2000 - 67.5, 5, "0.0473")
        await one.settle(held)
        assert await other.left() == lefts(16, 1990, 6, "0.0496")
        await written(postgres_server, migrated_database, "4|4|0.0004")


async def test_redis_restarted_without_its_data_learns_what_was_spent_from_the_database(
    tmp_path: Path, redis_url: str, migrated_database: str, redis_server: RedisServer, postgres_server: PostgresServer
) -> None:
    async with replicas(2, redis_url, migrated_database, tmp_path) as (one, other):
        for _ in range(3):
            await one.settle(await one.admit(), UNITS, Decimal("0.015"))
        late, later = await one.admit(), await other.admit()
        await written(postgres_server, migrated_database, "3|3|0.045")
        redis_server.restart_empty()
        await back(one, other)
        # 0.005 are left of 0.05: two estimates of 0.0024.
        first, second, refused = await other.admit(), await other.admit(), await other.admit()
        assert [one.allowed for one in (first, second, refused)] == [True, True, False]
        assert refused.refused_by.measure is Measure.SPEND
        # What was in flight is recorded, and counts, once, although Redis has forgotten it.
        for _ in range(2):
            await one.redis.settle(late.reservation, record_of(late.reservation, UNITS, COST))
        await one.ledger.settle(late.reservation, record_of(late.reservation, UNITS, COST))
        await other.settle(later)
        await other.settle(first, UNITS, Decimal(0))
        await other.ledger.refund(second.reservation)
        assert (await one.admit()).allowed, "the sum is read anew and holds the late ones"
        remaining = (await one.left())[3]
        assert remaining == Decimal("0.05") - Decimal("0.045") - 2 * COST - Decimal("0.0024")
        await written(postgres_server, migrated_database, "6|6|0.0452")


async def test_a_budget_is_not_trusted_before_the_database_has_said_what_was_spent(
    tmp_path: Path, redis_url: str, migrated_database: str, redis_server: RedisServer, postgres_server: PostgresServer
) -> None:
    policy = Policy((Limit(Measure.SPEND, Decimal("0.01"), TASK),))
    async with running(redis_url, migrated_database, tmp_path, policy=policy) as replica:
        for _ in range(2):
            await replica.settle(await replica.admit(), UNITS, Decimal("0.003"))
        await eventually(lambda: replica.ledger.flushed(1))
        postgres_server.stop(signal.SIGQUIT)
        redis_server.restart_empty()
        await back(replica)
        # Nobody can say; what this gateway remembers (0.006) is assumed, so that the budget is not had twice.
        assert [(await replica.admit()).allowed for _ in range(3)] == [True, False, False]
        postgres_server.launch()
        await asyncio.to_thread(postgres_server.wait)
        async with running(redis_url, migrated_database, tmp_path, policy=policy) as fresh:
            await eventually(lambda: fresh.ledger.flushed(1))
            assert not (await fresh.admit()).allowed
            assert await fresh.left() == [Decimal("0.01") - Decimal("0.006") - Decimal("0.0024")]


async def test_with_both_away_requests_go_on_under_their_limits(
    tmp_path: Path, redis_url: str, migrated_database: str, redis_server: RedisServer, postgres_server: PostgresServer
) -> None:
    async with running(redis_url, migrated_database, tmp_path) as replica:
        assert await replica.serve(1) == [True]
        redis_server.stop(signal.SIGKILL)
        postgres_server.stop(signal.SIGQUIT)
        opened = [await replica.admit() for _ in range(7)]
        assert [one.allowed for one in opened] == [True] * 6 + [False]
        assert opened[-1].refused_by.measure is Measure.CONCURRENCY
        assert opened[-1].retry_after == 1
        for one in opened[:6]:
            await replica.settle(one)
        assert await replica.serve(14) == [True] * 13 + [False]
        redis_server.start()
        postgres_server.launch()
        await asyncio.to_thread(postgres_server.wait)
        await eventually(lambda: replica.redis.available)
        assert (await replica.left())[0] == 0
        await written(postgres_server, migrated_database, "20|20|0.002")


async def test_the_slots_and_holds_of_a_dead_worker_are_free_after_its_lease(
    tmp_path: Path, redis_url: str, migrated_database: str, redis_server: RedisServer, postgres_server: PostgresServer
) -> None:
    async with replicas(2, redis_url, migrated_database, tmp_path) as (alive, bystander):
        dead = RedisStore(redis_url, "dead", LEASE)
        assert await dead.connect()
        kept = await bystander.admit()
        plan = kept.headers.plan
        for _ in range(5):
            reservation = kept.reservation.__class__(str(uuid.uuid4()), "acme", "ann", TASK, "m", plan.holds)
            verdict = await dead.admit(plan, reservation, ["", "", "", "0 0"])
            reservation.admitted = verdict.now
        await dead.refund(reservation)
        assert (await alive.left())[2] == 1
        dead._closed = True
        dead._drop_links("kill -9")

        async def swept() -> bool:
            return (await alive.left())[2] == 5

        await eventually(swept)
        # What the engine had done for the four is not known: they count as requests, and cost nothing.
        assert await alive.left() == lefts(15, 2000 - 60, 5, "0.0476")
        await written(postgres_server, migrated_database, "4|4|0")
        rows = postgres_server.psql(migrated_database, 'SELECT DISTINCT status, model, "userId" FROM "AIUsage"')
        assert rows == "interrupted|m|ann"
        await eventually(lambda: redis_server.command("ZSCORE", "aiservice:leases", "dead") == "$-1")
        await bystander.settle(kept)


@pytest.mark.parametrize("end", ["settle", "refund"])
async def test_a_worker_that_was_only_paused_ends_as_it_truly_did(
    tmp_path: Path, redis_url: str, migrated_database: str, postgres_server: PostgresServer, end: str
) -> None:
    async with (
        running(redis_url, migrated_database, tmp_path) as alive,
        running(redis_url, migrated_database, tmp_path, lease=600) as paused,
    ):
        admission = await paused.admit()
        # As if it had not run for ten minutes: its lease is over, and it has not noticed.
        await paused.redis._call("ZADD", "aiservice:leases", 1, paused.redis._worker)
        await written(postgres_server, migrated_database, "1|1|0")
        assert await alive.left() == lefts(19, 2000, 6, "0.05")
        for _ in range(2):
            if end == "settle":
                await paused.redis.settle(admission.reservation, record_of(admission.reservation, UNITS, COST))
            else:
                await paused.redis.refund(admission.reservation)
        today = (await alive.ledger.today("acme", admission.reservation.created_at))[TASK]
        if end == "refund":
            assert await alive.left() == lefts(20, 2000, 6, "0.05")
            assert (today.count, today.units) == (1, 0)
            return
        assert await alive.left() == lefts(19, 1997.5, 6, "0.0499")
        assert (today.count, today.units) == (1, 2.5)
        await written(postgres_server, migrated_database, "1|1|0.0001")
        assert postgres_server.psql(migrated_database, 'SELECT status FROM "AIUsage"') == "succeeded"

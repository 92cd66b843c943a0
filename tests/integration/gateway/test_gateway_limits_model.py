"""The limiter in Redis against an exact model, over several replicas, random times and ages.

Redis tells the time by which it decided, so the model says exactly what it must have answered: no tolerance is needed.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from aiservice_gateway.models import Measure
from aiservice_gateway.plans import MICROSECONDS, NOTHING_USED, Code, Reservation, Verdict, used_amounts
from aiservice_gateway.stores.memory import MemoryLimiter
from aiservice_gateway.stores.redis import RedisStore
from support.gateway import eventually
from support.limits import Model, Terms, make, record_of, reserve, used

REPLICAS = 3
_NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""What happens depends on real time: the same script does not fail twice."""

limits = st.lists(
    st.one_of(
        st.builds(Terms, st.just(Measure.REQUESTS), st.integers(1, 5), st.integers(5, 60)),
        st.builds(Terms, st.just(Measure.UNITS), st.integers(1, 40), st.integers(5, 60), st.integers(1, 12)),
        st.builds(Terms, st.just(Measure.CONCURRENCY), st.integers(1, 4)),
        st.builds(Terms, st.just(Measure.SPEND), st.integers(1, 60), st.just(0), st.integers(1, 12)),
    ),
    min_size=1,
    max_size=4,
)


@dataclass(frozen=True)
class Step:
    """One thing that happens: what, on which replica, to which of the open requests, with which amount, and when."""

    what: str
    replica: int
    which: int
    amount: int
    pause_ms: int


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(["admit"] * 6 + ["settle"] * 3 + ["refund", "again", "tell", "tell"]),
        st.integers(0, REPLICAS - 1),
        st.integers(0, 20),
        st.integers(0, 15),
        st.sampled_from([0] * 6 + [1, 3, 10, 30]),
    ),
    min_size=5,
    max_size=40,
)


def check(model: Model, reservation: Reservation, verdict: Verdict) -> None:
    """Holds one answer to the model, and lets the model go on from it."""
    expected = model.verdict(verdict.now)
    assert (verdict.code, verdict.index, verdict.wait) == (expected.code, expected.index, expected.wait)
    if verdict.code == Code.ADMITTED:
        reservation.admitted = verdict.now
        model.admit(reservation, verdict.now)
    assert list(verdict.states) == model.states(verdict.now)


def test_redis_answers_as_the_model_does(redis_url: str) -> None:
    with asyncio.Runner() as runner:
        stores = [RedisStore(redis_url, uuid.uuid4().hex) for _ in range(REPLICAS)]

        async def connect() -> None:
            for store in stores:
                await eventually(store.connect)

        @given(terms=limits, script=steps)
        @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), phases=_NO_SHRINKING)
        def examples(terms: list[Terms], script: list[Step]) -> None:
            runner.run(play(stores, terms, script))

        async def close() -> None:
            await asyncio.gather(*(store.close() for store in stores))

        runner.run(connect())
        try:
            examples()
        finally:
            runner.run(close())


async def play(stores: list[RedisStore], terms: list[Terms], script: list[Step]) -> None:
    plan = make(uuid.uuid4().hex, terms)
    model = Model(plan)
    opened: list[tuple[Reservation, RedisStore]] = []
    ended: list[tuple[Callable[[], Awaitable[object]], RedisStore]] = []
    told: list[tuple[Reservation, RedisStore]] = []
    # The database says that nothing was spent before.
    bases = ["0 0" if one.measure is Measure.SPEND else "" for one in terms]
    months = any(bases)
    for step in [Step("admit", 0, 0, 0, 0), *script]:
        await asyncio.sleep(step.pause_ms / 1000)
        store = stores[step.replica]
        if step.what == "admit":
            reservation = reserve(plan)
            verdict = await store.admit(plan, reservation, bases)
            check(model, reservation, verdict)
            if verdict.code == Code.ADMITTED:
                opened.append((reservation, store))
        elif step.what == "tell" and step.which % 2 and told:
            reservation, store = told[step.which % len(told)]
            await store.tell(plan, reservation, 0)  # known already: nothing changes
        elif step.what == "tell":
            reservation = reserve(plan)
            # What was admitted before the count of a month began is the database's to sum: see the tests of budgets.
            await store.tell(plan, reservation, 0 if months else step.amount * 2000)
            model.admit(reservation, reservation.admitted)
            opened.append((reservation, store))
            told.append((reservation, store))
        elif step.what == "again" and ended:
            await ended[step.which % len(ended)][0]()
        elif opened and step.what in {"settle", "refund"}:
            reservation, store = opened.pop(step.which % len(opened))
            end(model, reservation, store, step, ended)
            await ended[-1][0]()
            told = [one for one in told if one[0] is not reservation]


def end(
    model: Model,
    reservation: Reservation,
    store: RedisStore,
    step: Step,
    ended: list[tuple[Callable[[], Awaitable[object]], RedisStore]],
) -> None:
    units, cost = used(step.amount, step.amount)
    if step.what == "refund":
        ended.append((lambda: store.refund(reservation), store))
        model.end(reservation, {}, refund=True)
    else:
        record = record_of(reservation, units, cost)
        ended.append((lambda: store.settle(reservation, record), store))
        model.end(reservation, used_amounts(units, cost))


@given(terms=limits, script=steps)
@settings(max_examples=200, deadline=None)
def test_the_limiter_of_one_process_answers_as_the_model_does(terms: list[Terms], script: list[Step]) -> None:
    now = time.time()

    def clock() -> float:
        return now

    plan = make("acme", terms)
    model, limiter = Model(plan), MemoryLimiter(clock, clock)
    bases = ["0 0" if one.measure is Measure.SPEND else "" for one in terms]
    opened: list[Reservation] = []
    for step in script:
        now += step.pause_ms / 1000
        if step.what in {"admit", "tell", "again"}:
            reservation = reserve(plan)
            verdict = limiter.admit(plan, reservation, bases)
            assert verdict.now == int(now * MICROSECONDS)
            check(model, reservation, verdict)
            if verdict.code == Code.ADMITTED:
                opened.append(reservation)
        elif opened:
            reservation = opened.pop(step.which % len(opened))
            units, cost = used(step.amount, step.amount)
            refund = step.what == "refund"
            amounts = NOTHING_USED if refund else used_amounts(units, cost)
            for _ in range(2):  # the second time changes nothing
                limiter.end(reservation, amounts)
            model.end(reservation, used_amounts(units, cost), refund=refund)


@pytest.mark.parametrize("seed", range(3))
async def test_replicas_that_ask_at_once_never_exceed_a_limit(redis_url: str, seed: int) -> None:
    """In any order that Redis takes them: no window ever holds more, and none is refused that would have fitted."""
    terms = [Terms(Measure.REQUESTS, 10 + seed, 120), Terms(Measure.UNITS, 37, 70, 3 + seed)]
    plan = make(uuid.uuid4().hex, terms)
    stores = [RedisStore(redis_url, uuid.uuid4().hex) for _ in range(REPLICAS)]
    verdicts: list[Verdict] = []

    async def ask(store: RedisStore) -> None:
        for number in range(60):
            verdicts.append(await store.admit(plan, reserve(plan), ["", ""]))
            await asyncio.sleep((number * 7 + seed) % 5 / 1000)

    for store in stores:
        await eventually(store.connect)
    await asyncio.gather(*map(ask, stores * 3))
    for store in stores:
        await store.close()
    admitted = sorted(one.now for one in verdicts if one.code == Code.ADMITTED)
    refused = [one for one in verdicts if one.code == Code.REFUSED]
    assert refused
    assert len(admitted) > 2 * terms[0].maximum // 2
    for hold, maximum in zip(plan.holds, plan.maxima, strict=True):
        for start in admitted:
            inside = sum(1 for at in admitted if start <= at < start + hold.window)
            assert inside * hold.amount <= maximum
    for one in refused:
        hold = plan.holds[one.index]
        before = sum(1 for at in admitted if one.now - hold.window < at <= one.now)
        assert (before + 1) * hold.amount > plan.maxima[one.index]

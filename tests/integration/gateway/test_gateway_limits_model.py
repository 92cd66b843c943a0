"""The limiter in Redis against an exact model, over several replicas, random times and ages, deaths and wrong clocks.

Redis tells the time by which it decided, so the model says exactly what it must have answered: no tolerance is needed.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from aiservice_gateway.models import Measure
from aiservice_gateway.plans import MICROSECONDS, NOTHING_USED, Code, Plan, Reservation, Verdict, month_of, used_amounts
from aiservice_gateway.stores.memory import MemoryLimiter
from aiservice_gateway.stores.redis import RedisStore
from support.gateway import eventually
from support.limits import Model, Terms, make, record_of, reserve, used

HOURS_OFF = (-5, 29, 1000)
"""By how much the clocks of each replica are off: Redis' is the one that counts, so none of it changes anything."""
REPLICAS = len(HOURS_OFF)
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
        st.sampled_from(["admit"] * 6 + ["settle"] * 3 + ["refund", "again", "tell", "tell", "die"]),
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


class Clocks:
    """What the module `time` is to gateways: each turn, that of one replica."""

    def __init__(self) -> None:
        self.hours = 0

    def time(self) -> float:
        return time.time() + self.hours * 3600

    def monotonic(self) -> float:
        return time.monotonic() + self.hours * 3600


@dataclass
class Worker:
    """A process of a replica, and how many hours its clocks are off."""

    clocks: Clocks
    hours: int
    store: RedisStore
    name: str

    def turn(self) -> RedisStore:
        """From now on clocks are its own."""
        self.clocks.hours = self.hours
        return self.store

    def plan(self, tenant: str, terms: list[Terms]) -> Plan:
        """Limits as it takes them to be: the month is by its own clock."""
        self.turn()
        return make(tenant, terms, month_of(int(self.clocks.time() * MICROSECONDS)))

    async def die(self) -> None:
        """Loses its connections with all that it has open."""
        self.store._closed = True
        self.store._drop_links("kill -9")


async def start(redis_url: str, clocks: Clocks, hours: int) -> Worker:
    name = uuid.uuid4().hex
    worker = Worker(clocks, hours, RedisStore(redis_url, name), name)
    await eventually(worker.turn().connect)
    return worker


Ending = tuple[Callable[[], Awaitable[object]], Worker]


def test_redis_answers_as_the_model_does(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks()
    monkeypatch.setattr("aiservice_gateway.stores.redis.time", clocks)
    happened: Counter[str] = Counter()
    with asyncio.Runner() as runner:

        async def connect() -> list[Worker]:
            return [await start(redis_url, clocks, hours) for hours in HOURS_OFF]

        workers = runner.run(connect())

        @given(terms=limits, script=steps)
        @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), phases=_NO_SHRINKING)
        def examples(terms: list[Terms], script: list[Step]) -> None:
            runner.run(Scene(redis_url, workers, terms, happened).play(script))

        async def close() -> None:
            await asyncio.gather(*(worker.store.close() for worker in workers))

        try:
            examples()
        finally:
            runner.run(close())
    assert min(happened[what] for what in ("another month", "died", "came back", "interrupted")) > 0, happened


class Scene:
    """One example: some replicas under the same limits, and the model that says what they must hear."""

    def __init__(self, redis_url: str, workers: list[Worker], terms: list[Terms], happened: Counter[str]) -> None:
        self.redis_url = redis_url
        self.workers = workers
        self.terms = terms
        self.happened = happened
        self.tenant = uuid.uuid4().hex
        self.true_plan = make(self.tenant, terms)
        self.plans = {worker.hours: worker.plan(self.tenant, terms) for worker in workers}
        self.model = Model(self.true_plan)
        # The database says that nothing was spent before.
        self.bases = ["0 0" if one.measure is Measure.SPEND else "" for one in terms]
        self.opened: list[tuple[Reservation, Worker]] = []
        self.told: list[tuple[Reservation, Worker]] = []
        self.ended: list[Ending] = []

    async def play(self, script: list[Step]) -> None:
        try:
            await self._play(script)
        finally:
            # The workers go on to the next example, and are to have nothing open there.
            await asyncio.gather(*(worker.turn().refund(reservation) for reservation, worker in self.opened))

    async def _play(self, script: list[Step]) -> None:
        for step in [Step("admit", 0, 0, 0, 0), *script]:
            await asyncio.sleep(step.pause_ms / 1000)
            worker = self.workers[step.replica]
            if step.what == "admit":
                await self.admit(worker)
            elif step.what == "tell" and step.which % 2 and self.told:
                reservation, teller = self.told[step.which % len(self.told)]
                await teller.turn().tell(self.true_plan, reservation, 0)  # known already: nothing changes
            elif step.what == "tell":
                await self.tell(worker, step)
            elif step.what == "die":
                await self.die(step, comes_back=bool(step.which % 2))
            elif step.what == "again" and self.ended:
                await self.ended[step.which % len(self.ended)][0]()
            elif self.opened and step.what in {"settle", "refund"}:
                await self.end(step)

    async def admit(self, worker: Worker) -> None:
        plan = self.plans[worker.hours]
        reservation = reserve(plan)
        verdict = await worker.turn().admit(plan, reservation, self.bases)
        if verdict.code == Code.OTHER_MONTH:  # its clock says another month than Redis': it takes Redis' and asks again
            self.happened["another month"] += 1
            assert plan.month != month_of(verdict.now)
            plan = self.plans[worker.hours] = make(self.tenant, self.terms, month_of(verdict.now))
            reservation = reserve(plan)
            verdict = await worker.turn().admit(plan, reservation, self.bases)
        check(self.model, reservation, verdict)
        if verdict.code == Code.ADMITTED:
            self.opened.append((reservation, worker))

    async def tell(self, worker: Worker, step: Step) -> None:
        reservation = reserve(self.true_plan)
        # What was admitted before the count of a month began is the database's to sum: see the tests of budgets.
        age = 0 if any(self.bases) else step.amount * 2000
        await worker.turn().tell(self.true_plan, reservation, age)
        self.model.admit(reservation, reservation.admitted)
        self.opened.append((reservation, worker))
        self.told.append((reservation, worker))

    async def end(self, step: Step) -> None:
        reservation, worker = self.opened.pop(step.which % len(self.opened))
        self.told = [one for one in self.told if one[0] is not reservation]
        units, cost = used(step.amount, step.amount)
        store = worker.turn()
        ending: Callable[[], Awaitable[object]]
        if step.what == "refund":
            ending = partial(store.refund, reservation)
            self.model.end(reservation, {}, refund=True)
        else:
            ending = partial(store.settle, reservation, record_of(reservation, units, cost))
            self.model.end(reservation, used_amounts(units, cost))
        await ending()
        self.ended.append((ending, worker))

    async def die(self, step: Step, *, comes_back: bool) -> None:
        """A worker's lease is past, and another closes what it had open. It may only have stood still."""
        victim, other = self.workers[step.replica], self.workers[(step.replica + 1 + step.amount % 2) % REPLICAS]
        left = [reservation for reservation, worker in self.opened if worker is victim]
        if not comes_back:
            await victim.die()
        await other.turn()._call("ZADD", "aiservice:leases", 1, victim.name)
        assert victim.name in await other.turn().renew()
        # Renewing forgets what has ended: in life that is seconds after anybody would end it again.
        self.ended = [one for one in self.ended if one[1] is not other]
        swept = [await other.turn().sweep(victim.name) for _ in range(2)]  # the second time nothing is left
        open_still = [one for one in left if self.model.counted[one.request_id].open]
        assert swept == [len(open_still), 0]
        for reservation in open_still:
            self.model.end(reservation, used_amounts(Decimal(0), Decimal(0)))
        self.told = [one for one in self.told if one[1] is not victim]
        self.happened["came back" if comes_back else "died"] += 1
        self.happened["interrupted"] += len(open_still)
        if not comes_back:
            self.opened = [one for one in self.opened if one[1] is not victim]
            self.ended = [one for one in self.ended if one[1] is not victim]
            self.workers[step.replica] = await start(self.redis_url, victim.clocks, victim.hours)


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
        elif opened and step.what in {"settle", "refund"}:
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

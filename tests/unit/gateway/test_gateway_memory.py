"""What a process keeps in memory: its own limiter beside Redis, and the counters of a day."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import cast

import pytest

from aiservice_api.tasks import Task
from aiservice_gateway.errors import StoreUnavailableError
from aiservice_gateway.models import Identity, Limit, Measure, Outcome, Policy, UsageRecord
from aiservice_gateway.plans import Code, Plan, Reservation, Verdict
from aiservice_gateway.services.backlog import Backlog
from aiservice_gateway.services.limits import Admission, Limits
from aiservice_gateway.services.tenants import Tenants
from aiservice_gateway.settings import DEFAULT_PRICES, DEFAULT_RESERVED_UNITS
from aiservice_gateway.stores.memory import MemoryCounters, MemoryLimiter
from aiservice_gateway.stores.redis import RedisStore
from support.limits import Terms, make, reserve

TASK = Task.SPEECH_TO_TEXT
WINDOW = 3600.0
ACME = Identity("acme", "ann")


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_764_000_000.0

    def __call__(self) -> float:
        return self.now


def default_policy(requests_per_hour: int) -> Policy:
    return Tenants(requests_per_hour).policy("anybody")


def make_limits(
    policy: Policy,
    clock: Callable[[], float],
    shared: object = None,
    spent: Callable[[], Decimal] = lambda: Decimal(0),
) -> Limits:
    async def spent_of(*_: object) -> Decimal:
        return spent()

    redis = cast("RedisStore | None", shared)
    return Limits(
        lambda _: policy, MemoryLimiter(clock, clock), redis, Backlog(redis, clock),
        spent_of=spent_of, reserved_units=DEFAULT_RESERVED_UNITS, prices=DEFAULT_PRICES, secret=b"s",
    )  # fmt: skip


async def admit(limits: Limits, name: str = "1", identity: Identity = ACME, task: Task = TASK) -> Admission:
    return await limits.admit(identity, task, None, name)


async def test_the_whole_limit_at_once_passes_and_then_the_time_left_is_true() -> None:
    clock = Clock()
    limits = make_limits(default_policy(100), clock)
    assert all([(await admit(limits, str(number))).allowed for number in range(100)])
    refused = await admit(limits)
    assert (refused.allowed, refused.retry_after) == (False, 3600)
    clock.now += WINDOW - 0.5
    assert not (await admit(limits)).allowed
    clock.now += 0.5
    assert (await admit(limits)).allowed


async def test_tenants_and_services_have_limits_of_their_own() -> None:
    limits = make_limits(default_policy(1), Clock())
    assert (await admit(limits)).allowed
    assert (await admit(limits, task=Task.IMAGE_TO_TEXT)).allowed
    assert (await admit(limits, identity=Identity("other", None))).allowed
    assert not (await admit(limits)).allowed


async def test_a_limit_on_all_services_counts_them_together() -> None:
    policy = Policy((Limit(Measure.REQUESTS, Decimal(2), None, 60), Limit(Measure.REQUESTS, Decimal(9), TASK, 60)))
    limits = make_limits(policy, Clock())
    assert (await admit(limits)).allowed
    assert (await admit(limits, task=Task.IMAGE_TO_TEXT)).allowed
    refused = await admit(limits)
    assert not refused.allowed
    assert refused.refused_by == policy.limits[0]
    headers = refused.response_headers()
    assert headers["ratelimit"].startswith('"all-requests-60s";r=0;t=60;pk=:')
    assert (await limits.quotas("acme"))[TASK].remaining == 0


async def test_a_policy_that_changes_holds_from_the_next_request() -> None:
    policies = [default_policy(1), Policy((Limit(Measure.REQUESTS, Decimal(3), TASK, 3600),))]
    limits = make_limits(policies[0], Clock())
    assert (await admit(limits)).allowed
    assert not (await admit(limits)).allowed
    limits._policy_of = lambda _: policies[1]
    assert [(await admit(limits, name)).allowed for name in "234"] == [True, True, False]


async def test_what_was_spent_before_is_asked_once_and_counts() -> None:
    clock = Clock()
    asked: list[float] = []

    def spent() -> Decimal:
        asked.append(clock.now)
        return Decimal("0.9976")

    policy = Policy((Limit(Measure.SPEND, Decimal(1)),))
    limits = make_limits(policy, clock, spent=spent)
    assert (await admit(limits)).allowed  # 60 s of audio: 0.0024
    refused = await admit(limits)
    assert not refused.allowed
    assert len(asked) == 1
    # Until the next month in UTC: the clock stands at 2025-11-24T16:00.
    assert refused.retry_after == 6 * 86400 + 8 * 3600
    clock.now += refused.retry_after
    assert (await admit(limits)).allowed, "a new month"
    assert len(asked) == 2


async def test_while_the_database_is_away_a_budget_holds_from_what_is_known() -> None:
    def spent() -> Decimal:
        raise StoreUnavailableError("away")

    limits = make_limits(Policy((Limit(Measure.SPEND, Decimal("0.005")),)), Clock(), spent=spent)
    assert [(await admit(limits, name)).allowed for name in "123"] == [True, True, False]


class Flapping:
    """Redis at its edge: it admits everything, when it answers."""

    def __init__(self) -> None:
        self.available = True
        self.admitted = 0

    async def admit(self, plan: Plan, _: Reservation, __: Sequence[str]) -> Verdict:
        if not self.available:
            raise StoreUnavailableError("away")
        self.admitted += 1
        return Verdict(Code.ADMITTED, 1_764_000_000_000_000, states=[self.admitted, 0] * len(plan.holds))


async def test_what_redis_let_pass_is_not_given_away_again_without_it() -> None:
    shared = Flapping()
    limits = make_limits(default_policy(3), Clock(), shared)
    assert (await admit(limits, "1")).allowed
    shared.available = False
    assert [(await admit(limits, name)).allowed for name in "234"] == [True, True, False]
    assert len(limits._backlog) == 2, "Redis is told of those later"
    assert shared.admitted == 1


def test_quiet_tenants_are_forgotten() -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock, clock)
    for number in range(1000):
        plan = make(f"tenant-{number}", [Terms(Measure.REQUESTS, 5, 3_600_000)])
        limiter.admit(plan, reserve(plan), [""])
    clock.now += 2 * WINDOW
    limiter.admit(plan, reserve(plan), [""])
    assert len(limiter._windows) == 1


def record(created: datetime) -> UsageRecord:
    return UsageRecord(
        "1", "acme", None, TASK, None, 7, Decimal("2.5"), "s", Decimal("0.0001"), 10, Outcome.SUCCEEDED, created
    )


def test_counters_start_anew_each_day() -> None:
    counters = MemoryCounters()
    day = datetime(2026, 11, 23, 12, tzinfo=UTC)
    counters.add(record(day))
    counters.add(record(day))
    counters.add(replace(record(day), tenant="other"))
    today = counters.counters("acme", "2026-11-23")[TASK]
    assert (today.count, today.tokens, today.units) == (2, 14, 5.0)
    assert today.cost == pytest.approx(0.0002)
    counters.add(record(day + timedelta(days=1)))
    counters.add(record(day))  # began before midnight: belongs to neither
    assert counters.counters("acme", "2026-11-23") == {}
    assert counters.counters("acme", "2026-11-24")[TASK].count == 1

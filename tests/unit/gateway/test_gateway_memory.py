"""The limiter of one process against an exact model, and the counters of a day."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import cast

import pytest

from aiservice_api.tasks import Task
from aiservice_gateway.errors import StoreUnavailableError
from aiservice_gateway.models import Admission, Outcome, Quota, UsageRecord
from aiservice_gateway.services.limits import Limits
from aiservice_gateway.stores.memory import MemoryCounters, MemoryLimiter
from aiservice_gateway.stores.redis import RedisStore

TASK = Task.SPEECH_TO_TEXT
WINDOW = 3600.0


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("seed", range(20))
def test_no_window_ever_holds_more_than_the_limit_and_none_is_refused_below_it(seed: int) -> None:
    rng = random.Random(seed)
    clock, limit = Clock(), rng.randint(1, 12)
    limiter = MemoryLimiter(limit, WINDOW, clock)
    admitted: list[tuple[float, str]] = []
    for number in range(600):
        clock.now += rng.choice([0.0, 0.001, 1.0, WINDOW / limit, WINDOW - 0.001, WINDOW]) * rng.random()
        if admitted and rng.random() < 0.05:
            refunded = admitted.pop(rng.randrange(len(admitted)))
            limiter.refund("acme", TASK, refunded[1])
        inside = [when for when, _ in admitted if when > clock.now - WINDOW]
        admission = limiter.admit("acme", TASK, str(number))
        assert admission.allowed == (len(inside) < limit)
        if admission.allowed:
            admitted.append((clock.now, str(number)))
            assert admission.quota.remaining == limit - len(inside) - 1
        else:
            assert admission.quota.remaining == 0
            assert admission.quota.reset_seconds == pytest.approx(inside[-limit] + WINDOW - clock.now)


def test_the_whole_limit_at_once_passes_and_then_the_time_left_is_true() -> None:
    clock = Clock()
    limiter = MemoryLimiter(100, WINDOW, clock)
    assert all(limiter.admit("acme", TASK, str(number)).allowed for number in range(100))
    refused = limiter.admit("acme", TASK, "more")
    assert (refused.allowed, refused.quota.reset_seconds) == (False, WINDOW)
    clock.now += WINDOW - 0.5
    assert not limiter.admit("acme", TASK, "early").allowed
    clock.now += 0.5
    assert limiter.admit("acme", TASK, "late").allowed


def test_tenants_and_services_have_limits_of_their_own() -> None:
    limiter = MemoryLimiter(1, WINDOW, Clock())
    assert limiter.admit("acme", TASK, "1").allowed
    assert limiter.admit("acme", Task.IMAGE_TO_TEXT, "2").allowed
    assert limiter.admit("other", TASK, "3").allowed
    assert not limiter.admit("acme", TASK, "4").allowed


class Flapping:
    """Redis at its edge: it admits everything, when it answers, and remembers what was given back."""

    def __init__(self) -> None:
        self.away = False
        self.refunded: list[str] = []

    async def admit(self, *_: object) -> Admission:
        if self.away:
            raise StoreUnavailableError("away")
        return Admission(True, Quota(2, 1, 60.0))

    async def refund(self, tenant: str, task: Task, request_id: str) -> None:
        self.refunded.append(request_id)


async def test_what_passed_without_redis_is_not_given_away_again() -> None:
    shared = Flapping()
    limits = Limits(2, MemoryLimiter(2, WINDOW, Clock()), cast(RedisStore, shared))
    shared.away = True
    assert [(await limits.admit("acme", TASK, name)).allowed for name in "12"] == [True, True]
    shared.away = False
    assert not (await limits.admit("acme", TASK, "3")).allowed
    assert shared.refunded == ["3"], "the refused takes no place in Redis"
    assert (await limits.admit("other", TASK, "4")).allowed


def test_quiet_tenants_are_forgotten() -> None:
    clock = Clock()
    limiter = MemoryLimiter(5, WINDOW, clock)
    for number in range(1000):
        limiter.admit(f"tenant-{number}", TASK, "1")
    clock.now += 2 * WINDOW
    limiter.admit("acme", TASK, "1")
    assert len(limiter._counted) == 1


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

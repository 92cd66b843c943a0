"""What tests of the limiters share: plans with windows of milliseconds, reservations, and an exact model."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from aiservice_api.tasks import Task
from aiservice_gateway.models import Limit, Measure, Outcome, UsageRecord
from aiservice_gateway.plans import (
    MICROSECONDS,
    SLOT_WAIT,
    Code,
    Hold,
    Month,
    Plan,
    Reservation,
    Verdict,
    month_of,
)

TASK = Task.SPEECH_TO_TEXT


@dataclass(frozen=True)
class Terms:
    """One limit of a test: what it counts, the most of it (as an amount), its window, and what a request holds."""

    measure: Measure
    maximum: int
    window_ms: int = 0
    held: int = 1
    name: str = ""


def make(tenant: str, terms: Sequence[Terms], month: Month | None = None) -> Plan:
    """A plan of these limits, each with a key of its own; unlike a real one its windows may be short."""
    month = month or month_of(int(time.time() * MICROSECONDS))
    holds = tuple(
        Hold(
            one.measure.value,
            f"aiservice:limit:{one.measure}:{one.name or number}:{_span(one, month)}:{tenant}",
            one.window_ms * 1000,
            max(1, min(one.held, one.maximum)),
        )
        for number, one in enumerate(terms)
    )
    limits = tuple(
        Limit(one.measure, Decimal(one.maximum), TASK, (one.window_ms // 1000) or None if one.window_ms else None)
        for one in terms
    )
    return Plan(tenant, limits, tuple(one.maximum for one in terms), holds, month)


def _span(one: Terms, month: Month) -> str:
    return month.name if one.measure is Measure.SPEND else "0"


def reserve(plan: Plan, request_id: str = "") -> Reservation:
    """A request that asks for a plan's holds."""
    return Reservation(request_id or str(uuid.uuid4()), plan.tenant, "ann", TASK, "m", plan.holds)


def record_of(
    reservation: Reservation,
    units: Decimal = Decimal(0),
    cost: Decimal = Decimal(0),
    status: Outcome = Outcome.SUCCEEDED,
) -> UsageRecord:
    """What a request used."""
    return UsageRecord(
        reservation.request_id, reservation.tenant, reservation.user, reservation.task, reservation.model,
        7, units, "audio-second", cost, 12, status, reservation.created_at,
    )  # fmt: skip


@dataclass
class Counted:
    """One admitted request in the model."""

    at: int
    amounts: dict[int, int]
    """By limit: what counts of it now."""
    open: bool = True


@dataclass
class Model:
    """A limiter in the simplest words: everything that was ever admitted, summed up anew for every question."""

    plan: Plan
    counted: dict[str, Counted] = field(default_factory=dict)

    def used(self, index: int, now: int) -> int:
        return sum(one.amounts[index] for one in self._inside(index, now))

    def verdict(self, now: int) -> Verdict:
        """What the limiter must have said to one more request at a time by its own clock."""
        waits = [self._wait(index, now) for index in range(len(self.plan.holds))]
        longest = max(range(len(waits)), key=waits.__getitem__)
        code = Code.REFUSED if waits[longest] else Code.ADMITTED
        return Verdict(code, now, longest if waits[longest] else 0, waits[longest])

    def states(self, now: int) -> list[int]:
        """Amounts and times as they are after the request."""
        states = []
        for index, hold in enumerate(self.plan.holds):
            inside = [one.at for one in self._inside(index, now) if one.amounts[index]]
            free = min(inside) + hold.window - now if hold.window and inside else 0
            if hold.measure == Measure.SPEND:
                free = self.plan.month.end - now
            states += [self.used(index, now), free]
        return states

    def admit(self, reservation: Reservation, at: int) -> None:
        amounts = {index: hold.amount for index, hold in enumerate(self.plan.holds)}
        self.counted[reservation.request_id] = Counted(at, amounts)

    def end(self, reservation: Reservation, used: dict[str, int], *, refund: bool = False) -> None:
        one = self.counted[reservation.request_id]
        for index, hold in enumerate(self.plan.holds):
            one.amounts[index] = 0 if refund else used[hold.measure]
        one.open = False

    def _inside(self, index: int, now: int) -> list[Counted]:
        window = self.plan.holds[index].window
        return [one for one in self.counted.values() if not window or one.at > now - window]

    def _wait(self, index: int, now: int) -> int:
        hold, maximum = self.plan.holds[index], self.plan.maxima[index]
        over = self.used(index, now) + hold.amount - maximum
        if over <= 0:
            return 0
        if hold.measure == Measure.CONCURRENCY:
            return SLOT_WAIT
        if hold.measure == Measure.SPEND:
            return self.plan.month.end - now
        for one in sorted(self._inside(index, now), key=lambda one: one.at):
            over -= one.amounts[index]
            if over <= 0:
                return one.at + hold.window - now
        return hold.window


def used(units: int = 0, spend: int = 0) -> tuple[Decimal, Decimal]:
    """Units and dollars of amounts."""
    return Decimal(units) / 1000, Decimal(spend) / 1_000_000

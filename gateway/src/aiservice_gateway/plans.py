"""What one request takes of its tenant's limits, as stores need to know it: pure values, worked out in advance.

All amounts are integers, so that sums are exact: requests, thousandths of a unit, millionths of a dollar. All times
are microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import IntEnum
from typing import Any, Final, NamedTuple

from aiservice_api.tasks import Task
from aiservice_gateway.models import Limit, Measure

MICROSECONDS: Final = 1_000_000
SCALES: Final = {Measure.REQUESTS: 1, Measure.UNITS: 1000, Measure.CONCURRENCY: 1, Measure.SPEND: 1_000_000}
"""By what the amounts of a measure are multiplied to be integers."""

SLOT_WAIT: Final = MICROSECONDS
"""What is told when all slots are taken: nobody knows when one will be free, so asking again soon is all there is."""

ASSUMED: Final = "?"
"""Stands for the version of a month's spend that is only assumed, because the database does not say."""

_PREFIX: Final = "aiservice:limit"


class Month(NamedTuple):
    """A calendar month in UTC: from `start` (inclusive) to `end` (exclusive)."""

    name: str
    start: int
    end: int


class Hold(NamedTuple):
    """What one request holds of one limit until it is settled."""

    measure: str
    key: str
    """Name of the limit's state, within Redis and within this process."""
    window: int
    """0 for measures that have none."""
    amount: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All limits that apply to the requests of one tenant for one task."""

    tenant: str
    limits: tuple[Limit, ...]
    maxima: tuple[int, ...]
    """The limits' maxima as amounts."""
    holds: tuple[Hold, ...]
    """One for each limit."""
    month: Month
    """What the plan takes to be the month."""


@dataclass(slots=True)
class Reservation:
    """An admitted request, until it is settled or refunded."""

    request_id: str
    tenant: str
    user: str | None
    task: Task
    model: str | None
    holds: Sequence[Hold]
    admitted: int = 0
    """When, since the epoch; on Redis' clock where Redis admitted it."""
    marks: Sequence[Any] = ()
    """What the process' own limiter noted of it."""

    @property
    def created_at(self) -> datetime:
        """When it was admitted, in UTC."""
        return moment(self.admitted)


class Code(IntEnum):
    """A limiter's answer."""

    REFUSED = 0
    ADMITTED = 1
    UNKNOWN_SPEND = 2
    """The month's spend under the limit `index` has to be read from the database first."""
    OTHER_MONTH = 3
    """The plan is for a month that is not this one."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a limiter says to one request."""

    code: Code
    now: int
    """Time by the limiter's clock."""
    index: int = 0
    """The limit that refuses for longest, or whose spend is not known."""
    wait: int = 0
    """Time until the request would pass; where spend is not known: since when the limiter counts it."""
    version: int = 0
    """Where spend is not known: what to hand back with the amount."""
    states: Sequence[int] = field(default=())
    """Two numbers a limit, after the request: the amount in use, and the time until some of it is free (0: none)."""


def month_of(now: int) -> Month:
    """The month in UTC that a time is in."""
    first = moment(now).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (first + timedelta(days=32)).replace(day=1)
    return Month(f"{first:%Y-%m}", _microseconds(first), _microseconds(following))


def moment(microseconds: int) -> datetime:
    """A time as a datetime in UTC."""
    return datetime.fromtimestamp(microseconds / MICROSECONDS, UTC)


def make_plan(
    tenant: str,
    limits: Iterable[Limit],
    *,
    reserved_units: Mapping[Task, Decimal],
    price: Decimal,
    task: Task,
    month: Month,
) -> Plan:
    """The plan for a tenant's requests for a task.

    Args:
        tenant: Whose.
        limits: Of its policy; those for other tasks are left out, and of two for the same thing the larger.
        reserved_units: By task, the units to hold before they are measured.
        price: Dollars for one unit of the task.
        task: What is asked for.
        month: The present one.
    """
    units = reserved_units[task]
    needs = {
        Measure.REQUESTS: Decimal(1),
        Measure.UNITS: units,
        Measure.CONCURRENCY: Decimal(1),
        Measure.SPEND: units * price,
    }
    applying: dict[str, Limit] = {}
    for limit in limits:
        if limit.task in {None, task}:
            key = limit_key(tenant, limit, month)
            if key not in applying or limit.maximum < applying[key].maximum:
                applying[key] = limit
    maxima = tuple(amount(limit.measure, limit.maximum) for limit in applying.values())
    holds = tuple(
        Hold(
            limit.measure.value,
            key,
            window_of(limit),
            # A limit below the estimate lets one request through at a time; one of zero none.
            max(1, min(amount(limit.measure, needs[limit.measure]), maximum)),
        )
        for (key, limit), maximum in zip(applying.items(), maxima, strict=True)
    )
    return Plan(tenant, tuple(applying.values()), maxima, holds, month)


def limit_key(tenant: str, limit: Limit, month: Month) -> str:
    """Name of a limit's state."""
    span = month.name if limit.measure is Measure.SPEND else limit.window_seconds or 0
    return f"{_PREFIX}:{limit.measure}:{limit.task or '*'}:{span}:{tenant}"


def window_of(limit: Limit) -> int:
    """A limit's window; 0 where it has none."""
    return (limit.window_seconds or 0) * MICROSECONDS


def amount(measure: Measure, value: Decimal) -> int:
    """A value as an amount, rounded down to what is counted."""
    return int(value * SCALES[measure])


def used_amounts(units: Decimal, cost: Decimal) -> dict[str, int]:
    """By measure, what a request has used once it is over."""
    return {
        Measure.REQUESTS.value: 1,
        Measure.UNITS.value: amount(Measure.UNITS, units),
        Measure.CONCURRENCY.value: 0,
        Measure.SPEND.value: amount(Measure.SPEND, cost),
    }


NOTHING_USED: Final = {measure.value: 0 for measure in Measure}
"""By measure, what a request has used that no engine worked on."""


def _microseconds(instant: datetime) -> int:
    return int(instant.timestamp()) * MICROSECONDS

"""Limits and counters in this process: all there is without Redis, and what holds while Redis is away."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from aiservice_api.tasks import Task
from aiservice_gateway.models import Measure, Totals, UsageRecord
from aiservice_gateway.plans import ASSUMED, MICROSECONDS, SLOT_WAIT, Code, Hold, Plan, Reservation, Verdict

Key = tuple[str, Task]
"""A tenant and a service."""

Mark = list[int]
"""One request in a window: when it was counted (0 once it has left), and its amount."""

_SWEEP_MICROSECONDS: Final = 600 * MICROSECONDS


class _Window:
    """What a sliding window holds, in the order of time."""

    __slots__ = ("_length", "counted", "total")

    def __init__(self, length: int) -> None:
        self._length = length
        self.counted: deque[Mark] = deque()
        self.total = 0

    def trim(self, now: int) -> None:
        """Forgets what has left the window, or was taken back."""
        counted = self.counted
        while counted and (counted[0][0] <= now - self._length or not counted[0][1]):
            mark = counted.popleft()
            self.total -= mark[1]
            mark[0] = 0

    def add(self, now: int, amount: int) -> Mark:
        mark = [now, amount]
        self.counted.append(mark)
        self.total += amount
        return mark

    def change(self, mark: Mark, amount: int) -> None:
        """Gives a request another amount, if it is still within the window."""
        if mark[0]:
            self.total += amount - mark[1]
            mark[1] = amount

    def wait(self, over: int, now: int) -> int:
        """Time until an amount has left."""
        for when, amount in self.counted:
            over -= amount
            if over <= 0:
                return when + self._length - now
        return self._length

    def free(self, now: int) -> int:
        """Time until the oldest leaves; 0 when there is none."""
        return self.counted[0][0] + self._length - now if self.counted else 0


class _Spend:
    """What was spent in a month."""

    __slots__ = ("ends", "known", "since", "total")

    def __init__(self, since: int, ends: int) -> None:
        self.since = since
        self.ends = ends
        self.total = 0
        self.known = False
        """Whether what was spent before `since` is in it."""


class MemoryLimiter:
    """The limits as this process sees them, exact over its own monotonic clock.

    While Redis decides, what it lets pass is noted here, so that its absence lifts no limit.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Knows nothing yet.

        Args:
            clock: Seconds that only grow.
            wall_clock: Seconds since the epoch, for months.
        """
        self._clock = clock
        self._wall_clock = wall_clock
        self._windows: dict[str, _Window] = {}
        self._slots: dict[str, int] = {}
        self._spends: dict[str, _Spend] = {}
        self._next_sweep = self._now() + _SWEEP_MICROSECONDS

    def admit(self, plan: Plan, reservation: Reservation, bases: Sequence[str]) -> Verdict:
        """Asks whether a request may pass, and if so holds what it takes.

        Args:
            plan: The limits.
            reservation: The request.
            bases: For each limit nothing, or what the month's spend was before this process counted, as for Redis.
        """
        now, wall = self._now(), int(self._wall_clock() * MICROSECONDS)
        self._sweep(now, wall)
        waits = []
        for index, (hold, maximum, base) in enumerate(zip(plan.holds, plan.maxima, bases, strict=True)):
            if hold.measure == Measure.SPEND:
                if not plan.month.start <= wall < plan.month.end:
                    return Verdict(Code.OTHER_MONTH, wall)
                spend = self._spend(hold, plan, wall)
                if not spend.known:
                    if not base:
                        return Verdict(Code.UNKNOWN_SPEND, wall, index, spend.since)
                    version, amount = base.split()
                    if version != ASSUMED:  # else what this process knows itself is all that is known
                        spend.total += int(amount)
                        spend.known = True
            waits.append(self._wait(hold, maximum, now, plan.month.end - wall))
        longest = max(range(len(waits)), key=waits.__getitem__, default=0)
        if waits and waits[longest]:
            return Verdict(Code.REFUSED, wall, longest, waits[longest], states=self._states(plan.holds, now, wall))
        self._hold(plan, reservation, now, wall)
        return Verdict(Code.ADMITTED, wall, states=self._states(plan.holds, now, wall))

    def note(self, plan: Plan, reservation: Reservation, verdict: Verdict) -> None:
        """Holds what a request takes that Redis has let pass."""
        now = self._now()
        if now >= self._next_sweep:
            self._sweep(now, verdict.now)
        self._hold(plan, reservation, now, verdict.now)
        for index, hold in enumerate(plan.holds):
            if hold.measure == Measure.SPEND:
                spend = self._spend(hold, plan, verdict.now)
                spend.total, spend.known = verdict.states[2 * index], True

    def end(self, reservation: Reservation, used: Mapping[str, int]) -> None:
        """Replaces what a request holds by what it used.

        Args:
            reservation: The request.
            used: Amounts by measure; nothing of REQUESTS takes it back.
        """
        marks, reservation.marks = reservation.marks, ()
        for hold, mark in zip(reservation.holds, marks, strict=False):  # without marks it has ended before
            if hold.measure == Measure.CONCURRENCY:
                self._free_slot(hold.key)
            elif hold.measure == Measure.SPEND:
                if spend := self._spends.get(hold.key):
                    spend.total += used[hold.measure] - hold.amount
            elif (window := self._windows.get(hold.key)) and mark is not None:
                window.change(mark, used[hold.measure])

    def standings(self, holds: Sequence[Hold]) -> tuple[int, Sequence[int]]:
        """The time, and for each limit the amount in use (-1: not known) and the time until some of it is free."""
        now, wall = self._now(), int(self._wall_clock() * MICROSECONDS)
        return wall, self._states(holds, now, wall)

    def spent(self, key: str) -> int:
        """The amount known to be spent under a limit, by this process or when Redis last said so."""
        spend = self._spends.get(key)
        return spend.total if spend is not None else 0

    def _now(self) -> int:
        return int(self._clock() * MICROSECONDS)

    def _wait(self, hold: Hold, maximum: int, now: int, month_left: int) -> int:
        """Time until a request would pass; 0 when it does."""
        if hold.measure == Measure.CONCURRENCY:
            return SLOT_WAIT if self._slots.get(hold.key, 0) + hold.amount > maximum else 0
        if hold.measure == Measure.SPEND:
            return month_left if self._spends[hold.key].total + hold.amount > maximum else 0
        window = self._window(hold)
        window.trim(now)
        over = window.total + hold.amount - maximum
        return window.wait(over, now) if over > 0 else 0

    def _hold(self, plan: Plan, reservation: Reservation, now: int, wall: int) -> None:
        marks: list[Mark | None] = []
        for hold in plan.holds:
            mark = None
            if hold.measure == Measure.CONCURRENCY:
                self._slots[hold.key] = self._slots.get(hold.key, 0) + hold.amount
            elif hold.measure == Measure.SPEND:
                self._spend(hold, plan, wall).total += hold.amount
            else:
                window = self._window(hold)
                window.trim(now)
                mark = window.add(now, hold.amount)
            marks.append(mark)
        reservation.marks = marks

    def _states(self, holds: Sequence[Hold], now: int, wall: int) -> list[int]:
        states = []
        for hold in holds:
            if hold.measure == Measure.CONCURRENCY:
                states += [self._slots.get(hold.key, 0), 0]
            elif hold.measure == Measure.SPEND:
                spend = self._spends.get(hold.key)
                known = spend is not None and spend.known
                states += [spend.total if spend and known else -1, spend.ends - wall if spend else 0]
            elif window := self._windows.get(hold.key):
                window.trim(now)
                states += [window.total, window.free(now)]
            else:
                states += [0, 0]
        return states

    def _window(self, hold: Hold) -> _Window:
        window = self._windows.get(hold.key)
        if window is None:
            window = self._windows[hold.key] = _Window(hold.window)
        return window

    def _spend(self, hold: Hold, plan: Plan, wall: int) -> _Spend:
        spend = self._spends.get(hold.key)
        if spend is None:
            # The database keeps milliseconds.
            spend = self._spends[hold.key] = _Spend(wall - wall % 1000, plan.month.end)
        return spend

    def _free_slot(self, key: str) -> None:
        left = self._slots.get(key, 0) - 1
        if left > 0:
            self._slots[key] = left
        else:
            self._slots.pop(key, None)

    def _sweep(self, now: int, wall: int) -> None:
        """Forgets, now and then, the tenants that have gone quiet, and the months that are over."""
        if now < self._next_sweep:
            return
        self._next_sweep = now + _SWEEP_MICROSECONDS
        for key, window in list(self._windows.items()):
            window.trim(now)
            if not window.counted:
                del self._windows[key]
        for key, spend in list(self._spends.items()):
            if spend.ends <= wall:
                del self._spends[key]


class MemoryCounters:
    """Today's usage by tenant and service, where there is no Redis to keep it."""

    def __init__(self) -> None:
        self._day = ""
        self._totals: dict[Key, Totals] = {}

    def add(self, record: UsageRecord) -> None:
        """Adds one record to its day; a new day starts from nothing."""
        day = record.created_at.date().isoformat()
        if day < self._day:
            return  # a request that began before midnight
        if day > self._day:
            self._day, self._totals = day, {}
        before = self._totals.get((record.tenant, record.service), Totals(0, 0, 0.0, None, 0.0))
        self._totals[record.tenant, record.service] = Totals(
            count=before.count + 1,
            tokens=before.tokens + record.tokens,
            units=before.units + float(record.units),
            unit=None,
            cost=before.cost + float(record.cost),
        )

    def counters(self, tenant: str, day: str) -> Mapping[Task, Totals]:
        """What a tenant used on a day (YYYY-MM-DD, UTC), by service."""
        if day != self._day:
            return {}
        return {task: totals for (owner, task), totals in self._totals.items() if owner == tenant}

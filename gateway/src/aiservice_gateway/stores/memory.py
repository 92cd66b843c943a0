"""Limits and counters in this process: all there is without Redis, and what holds while Redis is away."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping

from aiservice_api.tasks import Task
from aiservice_gateway.models import Admission, Quota, Totals, UsageRecord

Key = tuple[str, Task]
"""A tenant and a service."""


class MemoryLimiter:
    """A sliding window, exact, over this process' own monotonic clock."""

    def __init__(self, limit: int, window_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._window = window_seconds
        self._clock = clock
        self._counted: dict[Key, deque[tuple[float, str]]] = defaultdict(deque)
        self._next_sweep = clock() + window_seconds

    def admit(self, tenant: str, task: Task, request_id: str) -> Admission:
        """Counts a request, unless the window is full."""
        now = self._clock()
        self._sweep(now)
        counted = self._current((tenant, task), now)
        if len(counted) >= self._limit:
            leaves_first = counted[len(counted) - self._limit][0]
            return Admission(False, Quota(self._limit, 0, self._window - (now - leaves_first)))
        counted.append((now, request_id))
        return Admission(True, self._quota(counted, now))

    def refund(self, tenant: str, task: Task, request_id: str) -> None:
        """Uncounts a request that no engine saw."""
        if counted := self._counted.get((tenant, task)):
            self._counted[tenant, task] = deque(entry for entry in counted if entry[1] != request_id)

    def quotas(self, tenant: str) -> Mapping[Task, Quota]:
        """Where a tenant stands with every task."""
        now = self._clock()
        return {task: self._quota(self._current((tenant, task), now), now) for task in Task}

    def _current(self, key: Key, now: float) -> deque[tuple[float, str]]:
        counted = self._counted[key]
        while counted and counted[0][0] <= now - self._window:
            counted.popleft()
        return counted

    def _quota(self, counted: deque[tuple[float, str]], now: float) -> Quota:
        reset = self._window - (now - counted[0][0]) if counted else 0.0
        return Quota(self._limit, max(0, self._limit - len(counted)), reset)

    def _sweep(self, now: float) -> None:
        """Forgets, once a window, the tenants that have gone quiet."""
        if now < self._next_sweep:
            return
        self._next_sweep = now + self._window
        for key in [
            key for key, counted in self._counted.items() if not counted or counted[-1][0] <= now - self._window
        ]:
            del self._counted[key]


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

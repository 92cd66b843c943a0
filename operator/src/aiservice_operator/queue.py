"""The queue of keys to reconcile: deduplicating, rate limited, with delays.

A key is handed to one worker at a time. What arrives for it meanwhile makes it come once more afterwards, however often
it was added. Failures come back later and later; a key that waits for a moment in time is woken once, at the earliest.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

_Item = TypeVar("_Item")

FIRST_RETRY_SECONDS = 0.2
LAST_RETRY_SECONDS = 60.0


class QueueClosedError(Exception):
    """No more items will be handed out."""


class Queue(Generic[_Item]):
    """A work queue on the running event loop.

    Args:
        clock: Seconds that only grow; the event loop's by default.
        jitter: Factor for each retry's delay, so that many failures do not come back together.
    """

    def __init__(self, clock: Callable[[], float] | None = None, jitter: Callable[[], float] = lambda: 1.0) -> None:
        self._clock = clock or asyncio.get_running_loop().time
        self._jitter = jitter
        self._ready: OrderedDict[_Item, float] = OrderedDict()
        self._busy: set[_Item] = set()
        self._again: set[_Item] = set()
        self._timers: dict[_Item, tuple[float, asyncio.TimerHandle]] = {}
        self._failures: dict[_Item, int] = {}
        self._arrived = asyncio.Event()
        self._closed = False

    def add(self, item: _Item) -> None:
        """Queues an item now."""
        if item in self._busy:
            self._again.add(item)
        elif item not in self._ready:
            self._ready[item] = self._clock()
            self._arrived.set()

    def add_after(self, item: _Item, seconds: float) -> None:
        """Queues an item later. Of several delays the shortest counts."""
        due = self._clock() + seconds
        planned = self._timers.get(item)
        if planned is not None:
            if planned[0] <= due:
                return
            planned[1].cancel()
        timer = asyncio.get_running_loop().call_later(max(seconds, 0), self._wake, item)
        self._timers[item] = (due, timer)

    def _wake(self, item: _Item) -> None:
        del self._timers[item]
        self.add(item)

    def retry(self, item: _Item, at_least: float = 0) -> float:
        """Queues an item that failed, twice as late as the time before.

        Returns:
            The delay in seconds.
        """
        failures = self._failures.get(item, 0)
        self._failures[item] = failures + 1
        delay = min(FIRST_RETRY_SECONDS * 2.0 ** min(failures, 30), LAST_RETRY_SECONDS) * self._jitter()
        delay = max(delay, at_least)
        self.add_after(item, delay)
        return delay

    def forget(self, item: _Item) -> None:
        """Notes that an item went well: its next failure is a first one."""
        self._failures.pop(item, None)

    async def get(self) -> _Item:
        """Waits for an item. The caller calls `done` with it, whatever happens.

        A planned delay for it ends: whoever works on it now plans the next. What else runs on the event loop gets a
        turn first: after a restart thousands of items come whose work waits for nothing, and without those turns the
        Lease would not be renewed meanwhile, nor a probe answered.

        Raises:
            QueueClosedError: the queue was closed.
        """
        await asyncio.sleep(0)
        while not self._ready and not self._closed:
            self._arrived.clear()
            await self._arrived.wait()
        if self._closed:
            raise QueueClosedError
        item, _ = self._ready.popitem(last=False)
        self._busy.add(item)
        planned = self._timers.pop(item, None)
        if planned is not None:
            planned[1].cancel()
        return item

    def done(self, item: _Item) -> None:
        """Ends the work on an item; it comes again at once where it was added meanwhile."""
        self._busy.discard(item)
        if item in self._again:
            self._again.discard(item)
            self.add(item)

    def close(self) -> None:
        """Hands out no more items: who waits for one, or asks for the next, gets QueueClosedError."""
        self._closed = True
        self._arrived.set()

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def working(self) -> int:
        """How many items are being worked on."""
        return len(self._busy)

    def age(self) -> float:
        """Returns how long the item at the head has waited, in seconds."""
        return self._clock() - next(iter(self._ready.values())) if self._ready else 0.0

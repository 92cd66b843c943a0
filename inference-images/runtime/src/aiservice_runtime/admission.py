"""Who may come in: a bounded number of requests, taken in before their bodies are read.

A request holds its slot from before its body is read until it is answered. So memory is bounded by as many bodies
as there are slots, and a burst is refused at once instead of timing out in a long queue.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiservice_runtime.errors import OverloadedError

_LONGEST_RETRY = 60


class Admission:
    """Slots, counted on the event loop."""

    def __init__(self, capacity: int, seconds_to_next: Callable[[], float]) -> None:
        self._capacity = capacity
        self._seconds_to_next = seconds_to_next
        self._held = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def held(self) -> int:
        """Requests that hold a slot now."""
        return self._held

    def retry_after(self) -> int:
        """Returns the seconds, 1 to 60, after which a slot is likely to be free: when a request is complete."""
        return math.ceil(min(max(1.0, self._seconds_to_next()), _LONGEST_RETRY))

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Holds a slot. Raises OverloadedError when there is none."""
        if self._held >= self._capacity:
            raise OverloadedError(
                f"All {self._capacity} places of this replica are taken.", retry_after=self.retry_after()
            )
        self._held += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._held -= 1
            if not self._held:
                self._empty.set()

    async def wait_until_empty(self, seconds: float) -> bool:
        """Waits until no request holds a slot, at most this long; returns whether that came."""
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

"""The gate of one service: at most so many requests at once; the others wait, no tenant behind another's pile.

Whoever waits is let in by turns of the tenants, and within a tenant by arrival. Where nobody waits, passing the gate
costs a comparison: there is no task, lock or timer for a request that need not wait.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass

from aiservice_gateway.errors import UnavailableError

_FIRST_GUESS_SECONDS = 5.0
"""How long a request takes, while none has ended yet."""
_WEIGHT_OF_LATEST = 0.2
_LONGEST_RETRY_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Rules:
    """How many may pass."""

    at_once: int | None = None
    """None: any number."""
    waiting: int = 0
    wait_seconds: float = 0.0


class Gate:
    """Counts the requests of one service in this process."""

    def __init__(
        self, name: str, rules: Rules, waited: Callable[[float], None], refused: Callable[[str], None]
    ) -> None:
        """Lets requests through.

        Args:
            name: The service's, for sentences.
            rules: How many.
            waited: Told the seconds that a request waited, if it did.
            refused: Told why a request did not pass: `full` or `late`.
        """
        self._name = name
        self._rules = rules
        self._waited = waited
        self._refused = refused
        self._queues: dict[str, dict[asyncio.Future[None], None]] = {}
        """Who waits, by tenant; the tenant whose turn it is comes first. Dictionaries are queues that forget anyone."""
        self._seconds: float | None = None
        self._closed = False
        self.running = 0
        self.waiting = 0

    def change(self, rules: Rules) -> None:
        """Applies other numbers; whoever waits keeps waiting."""
        self._rules = rules
        self._admit()

    def close(self) -> None:
        """Sends everybody away who waits or would have to: the process stops."""
        self._closed = True
        for queue in self._queues.values():
            for future in queue:
                if not future.done():
                    future.set_exception(self._stopping())

    async def enter(self, tenant: str) -> None:
        """Passes, at once or after waiting. Whoever passed must `leave`.

        Raises:
            UnavailableError: as many wait as may, it took too long, or the process stops.
        """
        at_once = self._rules.at_once
        if at_once is None or (self.running < at_once and not self.waiting):
            self.running += 1
            return
        if self._closed:
            raise self._stopping()
        if self.waiting >= self._rules.waiting:
            self._refused("full")
            raise self._busy("and as many requests wait for it as may")
        await self._wait(tenant)

    def leave(self, seconds: float) -> None:
        """Makes room.

        Args:
            seconds: How long the request took, for the estimate of when there is room.
        """
        self.running -= 1
        last = self._seconds
        self._seconds = seconds if last is None else last + (seconds - last) * _WEIGHT_OF_LATEST
        if self.waiting:
            self._admit()

    async def _wait(self, tenant: str) -> None:
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        begin = loop.time()
        timer = loop.call_later(self._rules.wait_seconds, self._expire, turn)
        self._queues.setdefault(tenant, {})[turn] = None
        self.waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                # Its turn came in the same moment as its end.
                self.running -= 1
                self._admit()
            raise
        finally:
            timer.cancel()
            self._forget(tenant, turn)
            self._waited(loop.time() - begin)

    def _admit(self) -> None:
        """Lets in whose turn it is, while there is room."""
        at_once = self._rules.at_once
        while self._queues and (at_once is None or self.running < at_once):
            tenant = next(iter(self._queues))
            turn = next(iter(self._queues[tenant]))
            self._forget(tenant, turn)
            if tenant in self._queues:  # behind the others
                self._queues[tenant] = self._queues.pop(tenant)
            if not turn.done():
                self.running += 1
                turn.set_result(None)

    def _forget(self, tenant: str, turn: asyncio.Future[None]) -> None:
        queue = self._queues.get(tenant)
        if queue is None or turn not in queue:
            return
        del queue[turn]
        self.waiting -= 1
        if not queue:
            del self._queues[tenant]

    def _expire(self, turn: asyncio.Future[None]) -> None:
        if not turn.done():
            self._refused("late")
            turn.set_exception(self._busy(f"and no turn came within {self._rules.wait_seconds:g} s"))

    def _busy(self, why: str) -> UnavailableError:
        return UnavailableError(
            f"The service {self._name} has as many requests as it takes at once, {why}: try again later.",
            retry_after=self._seconds_left(),
        )

    def _stopping(self) -> UnavailableError:
        return UnavailableError("The gateway is being stopped: try again.", retry_after=1)

    def _seconds_left(self) -> int:
        """Whole seconds after which those who wait now have been let in, at the pace of the last requests."""
        pace = (_FIRST_GUESS_SECONDS if self._seconds is None else self._seconds) / (self._rules.at_once or 1)
        return max(1, min(math.ceil(pace * (self.waiting + 1)), _LONGEST_RETRY_SECONDS))

"""What Redis has to be told when it answers again: what this process admitted and ended without it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from aiservice_gateway.models import UsageRecord
from aiservice_gateway.plans import MICROSECONDS, Plan, Reservation
from aiservice_gateway.stores.redis import RedisStore

_log = logging.getLogger(__name__)

_MOST: Final = 100_000
"""Requests that are remembered. Where more were made while Redis was away, the oldest count here only."""
_AT_ONCE: Final = 200


@dataclass(slots=True)
class _Item:
    """One request, and what Redis does not know of it."""

    reservation: Reservation
    plan: Plan | None
    """What it was admitted under here; None where Redis knows of the admission."""
    begun: float
    ended: bool = False
    record: UsageRecord | None = None
    """None at the end: no engine worked on it."""


class Backlog:
    """Requests in the order in which they were admitted or ended."""

    def __init__(self, shared: RedisStore | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._shared = shared
        self._clock = clock
        self._items: dict[str, _Item] = {}

    def __len__(self) -> int:
        return len(self._items)

    def admitted(self, plan: Plan, reservation: Reservation) -> None:
        """Remembers a request that was admitted here. Redis may know of it, if only its answer was lost."""
        if self._shared is not None:
            self._put(_Item(reservation, plan, self._clock()))

    def ended(self, reservation: Reservation, record: UsageRecord | None) -> None:
        """Remembers how a request ended.

        Args:
            reservation: The request, wherever it was admitted.
            record: What it used; None where no engine worked on it.
        """
        if self._shared is None:
            return
        item = self._items.get(reservation.request_id)
        if item is None:
            item = _Item(reservation, None, self._clock())
            self._put(item)
        item.ended, item.record = True, record

    async def tell(self) -> None:
        """Tells Redis everything; what comes up meanwhile too. Telling a part of it twice does no harm.

        Raises:
            StoreUnavailableError: it does not answer; what it was not told is still remembered.
        """
        told = len(self._items)
        while self._items:
            some = list(islice(self._items.values(), _AT_ONCE))
            results = await asyncio.gather(*map(self._tell, some), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
        if told:
            _log.info("Redis was told of %d requests that were admitted or ended without it", told)

    async def _tell(self, item: _Item) -> None:
        shared, reservation = self._shared, item.reservation
        if shared is None:
            return
        if item.plan is not None:
            await shared.tell(item.plan, reservation, int((self._clock() - item.begun) * MICROSECONDS))
            item.plan = None
        # It may have ended while Redis was told of its admission.
        if item.ended:
            await (shared.refund(reservation) if item.record is None else shared.settle(reservation, item.record))
        self._items.pop(reservation.request_id, None)

    def _put(self, item: _Item) -> None:
        if len(self._items) >= _MOST:
            del self._items[next(iter(self._items))]
        self._items[item.reservation.request_id] = item

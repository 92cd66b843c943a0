"""Lets old rows of `"AIUsage"` go, once they are part of their days' sums, and old days, once part of their months'.

Both are moved in batches, each in one transaction, so at every moment a record is a row or part of one sum. Whatever
ends in the middle, the next turn goes on where it was. Of several gateways one works; the others find the lock taken.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from aiservice_gateway.errors import RecordRefusedError, StoreUnavailableError
from aiservice_gateway.metrics import Metrics
from aiservice_gateway.stores.base import UsageStore

_log = logging.getLogger(__name__)

_BATCH = 5000
"""Rows, sums or ids."""
_PAUSE_SECONDS = 0.1
"""Between batches, so that records and reports get their turn."""
_INTERVAL_SECONDS = 3600.0
_AFTER_FAILURE_SECONDS = 60.0


def _now() -> datetime:
    return datetime.now(UTC)


class Retention:
    """Keeps rows for a number of days, and their sums by day for another, or as long as rows where that is longer."""

    def __init__(
        self, store: UsageStore, days: int, daily_days: int, metrics: Metrics, clock: Callable[[], datetime] = _now
    ) -> None:
        self._store = store
        self._kept = timedelta(days=days)
        self._daily_kept = timedelta(days=max(days, daily_days))
        self._metrics = metrics
        self._clock = clock
        self._working: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins at once, and looks again every hour."""
        self._working = asyncio.create_task(self._work(), name="usage-retention")

    async def close(self) -> None:
        """Ends; what a batch had begun is undone by the database."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)

    async def run(self) -> int:
        """Moves everything that is old enough; returns how many rows that were.

        Raises:
            StoreUnavailableError, RecordRefusedError: as `UsageStore.roll_up`.
        """
        before = self._midnight(self._kept)  # whole days, so that no day stays half in rows for long
        moved = 0
        while batch := await self._store.roll_up(before, _BATCH):
            moved += batch
            self._metrics.usage_rolled_up.inc(batch)
            await asyncio.sleep(_PAUSE_SECONDS)
        return moved

    async def sum_months(self) -> int:
        """Merges the days that are old enough into months; returns how many sums and ids went.

        Raises:
            StoreUnavailableError: as `UsageStore.sum_months`.
        """
        before, gone = self._midnight(self._daily_kept).replace(day=1), 0
        while batch := await self._store.sum_months(before, _BATCH):
            gone += batch
            await asyncio.sleep(_PAUSE_SECONDS)
        return gone

    def _midnight(self, ago: timedelta) -> datetime:
        return (self._clock() - ago).replace(hour=0, minute=0, second=0, microsecond=0)

    async def _work(self) -> None:
        while True:  # noqa: ASYNC110 - it waits for time to pass, not for an event
            await asyncio.sleep(_INTERVAL_SECONDS if await self._turn() else _AFTER_FAILURE_SECONDS)

    async def _turn(self) -> bool:
        """Runs once; whether that went well."""
        try:
            moved = await self.run()
            gone = await self.sum_months()
        except StoreUnavailableError as error:
            _log.warning("Old usage records are not rolled up while the database does not answer: %s", error)
        except RecordRefusedError as error:
            _log.error("Old usage records cannot be rolled up: %s", error)
        except Exception:  # noqa: BLE001 - nothing else depends on it, and it is tried again
            _log.exception("Old usage records were not rolled up")
        else:
            if moved:
                _log.info("%d usage records were rolled up and their rows deleted", moved)
            if gone:
                _log.info("%d sums of days and ids of their records went into sums of months", gone)
            return True
        return False

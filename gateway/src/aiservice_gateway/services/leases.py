"""Leases: a gateway's open requests are its own while it says so; those of a dead one are closed by the others."""

from __future__ import annotations

import asyncio
import logging

from aiservice_gateway.errors import StoreUnavailableError
from aiservice_gateway.stores.redis import RedisStore

_log = logging.getLogger(__name__)


class Leases:
    """Renews this process' lease, and looks for those that have run out."""

    def __init__(self, shared: RedisStore, lease_seconds: float) -> None:
        self._shared = shared
        self._interval = lease_seconds / 3

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            if self._shared.available:
                try:
                    await self._look()
                except StoreUnavailableError:
                    continue  # the next look is soon
                except Exception:  # noqa: BLE001 - a sweeper that died would leave slots taken for ever
                    _log.exception("The sweeper met something unexpected and goes on")

    async def _look(self) -> None:
        dead = await self._shared.renew()
        # After an absence of Redis all leases may have run out: first everybody renews.
        if not self._shared.settled_in:
            return
        for worker in dead:
            swept = await self._shared.sweep(worker)
            _log.warning("The gateway %s has died: %d of its requests are recorded as interrupted", worker, swept)

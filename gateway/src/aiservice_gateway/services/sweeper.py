"""Deletes jobs, webhooks, keys and bodies whose time is over."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from aiservice_gateway.errors import StoreUnavailableError
from aiservice_gateway.stores.database import Database
from aiservice_gateway.stores.expired import delete_expired

_log = logging.getLogger(__name__)

_INTERVAL_SECONDS: Final = 30.0


class Sweeper:
    """Looks now and then. Several gateways may: what one deletes the others do not find."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL_SECONDS)
            try:
                await delete_expired(self._database)
            except StoreUnavailableError as error:
                _log.warning("What has expired is not deleted while the database does not answer: %s", error)
            except Exception:  # noqa: BLE001 - nothing else depends on it, and it is tried again
                _log.exception("The sweeper met something unexpected and goes on")

"""Whether the database answers, found out by asking it: an idle gateway would not notice otherwise."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from aiservice_gateway.errors import StoreUnavailableError
from aiservice_gateway.stores.base import UsageStore

_log = logging.getLogger(__name__)

_ANSWER_SECONDS: Final = 2.0
_INTERVAL_SECONDS: Final = 2.0


class DatabaseWatch:
    """Asks every two seconds, off the path of requests."""

    def __init__(self, store: UsageStore) -> None:
        self._store = store
        self._up = True

    @property
    def up(self) -> bool:
        """Whether it answered in time when it was last asked."""
        return self._up

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL_SECONDS)
            try:
                await self.look()
            except Exception:  # noqa: BLE001 - a watch that died would tell of its last look for ever
                _log.exception("The watch of the database met something unexpected and goes on")

    async def look(self) -> None:
        """Asks once; returns when the store gives up, or has its answer."""
        asking = asyncio.create_task(self._store.ask(_ANSWER_SECONDS))
        try:
            # A file's disk that hangs lets nobody give up: that is told meanwhile, and no second question asked.
            answered, _ = await asyncio.wait({asking}, timeout=_ANSWER_SECONDS)
            if not answered:
                self._note(f"no answer within {_ANSWER_SECONDS:g} s")
            await asking
        except StoreUnavailableError as error:
            self._note(str(error))
        else:
            self._note(None)
        finally:
            asking.cancel()

    def _note(self, trouble: str | None) -> None:
        if trouble is not None and self._up:
            _log.warning("The database does not answer: %s", trouble)
        elif trouble is None and not self._up:
            _log.warning("The database answers again")
        self._up = trouble is None

"""Which watches are connected: seen from the HTTP session that they run on.

Kopf says neither when a watch breaks nor what was deleted meanwhile. Its requests tell: one that is answered is a
watch that has just begun, so the store is compared with a list then; one that goes unanswered is a watch that is lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any

import aiohttp
from yarl import URL

from aiservice_operator.kinds import RESOURCES, Kind

Watched = tuple[Kind, str | None]
"""A kind, in one namespace or (None) in all."""


class WatchMonitor:
    """Follows the watches of the given namespaces.

    Args:
        namespaces: Which are served; empty: all.
        kinds: Which are watched.
        began: Told of each watch that begins, with its kind.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        namespaces: Collection[str],
        kinds: Collection[Kind] = tuple(Kind),
        *,
        began: Callable[[Kind], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._tell = began
        started = clock()
        places: list[str | None] = [*sorted(namespaces)] or [None]
        self.expected: tuple[Watched, ...] = tuple((kind, namespace) for kind in kinds for namespace in places)
        self._paths: dict[str, Watched] = {RESOURCES[kind].path(where): (kind, where) for kind, where in self.expected}
        self._lost_since: dict[Watched, float] = dict.fromkeys(self.expected, started)
        self._stale: set[Watched] = set()
        self._began = asyncio.Event()

    def trace(self) -> aiohttp.TraceConfig:
        """Returns what an HTTP session calls for each of its requests."""
        config = aiohttp.TraceConfig()

        async def start(_: Any, context: SimpleNamespace, params: aiohttp.TraceRequestStartParams) -> None:
            context.watched = self._watched(params.url)
            if context.watched is not None:
                self._lost_since.setdefault(context.watched, self._clock())

        async def end(_: Any, context: SimpleNamespace, params: aiohttp.TraceRequestEndParams) -> None:
            if context.watched is not None and params.response.status == 200:
                self._lost_since.pop(context.watched, None)
                self._tell(context.watched[0])
                self._stale.add(context.watched)
                self._began.set()

        config.on_request_start.append(start)
        config.on_request_end.append(end)
        return config

    def _watched(self, url: URL) -> Watched | None:
        return self._paths.get(url.path) if "watch" in url.query else None

    def is_list(self, url: URL) -> bool:
        """Whether a request asks for all objects of a watched kind, to begin a watch of them."""
        return url.path in self._paths and "watch" not in url.query

    def lost_seconds(self) -> float:
        """Returns for how long the watch that is missing longest has been missing; 0 where all are connected."""
        return self._clock() - min(self._lost_since.values()) if self._lost_since else 0.0

    def missing(self) -> list[str]:
        """Returns the watches that are not connected, for people."""
        return sorted(f"{kind} in {where or 'all namespaces'}" for kind, where in self._lost_since)

    async def connected(self) -> None:
        """Waits until all watches have been connected at once."""
        while self._lost_since:
            self._began.clear()
            await self._began.wait()

    async def stale(self, patience: float) -> frozenset[Watched]:
        """Waits for watches that began anew.

        Args:
            patience: Seconds after which none is an answer too.

        Returns:
            What to compare with a list; it is not returned again.
        """
        try:
            async with asyncio.timeout(patience):
                while not self._stale:
                    self._began.clear()
                    await self._began.wait()
        except TimeoutError:
            pass
        found = frozenset(self._stale)
        self._stale.clear()
        return found

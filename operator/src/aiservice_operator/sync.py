"""Keeps the store true: compares it with lists at the start, after each break of a watch, and from time to time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from aiservice_operator.errors import KubeError
from aiservice_operator.kinds import Key, Kind, ObjectId
from aiservice_operator.kube import Kube
from aiservice_operator.metrics import Metrics
from aiservice_operator.store import Store
from aiservice_operator.watches import Watched, WatchMonitor

log = logging.getLogger(__name__)

RESYNC_SECONDS = 240.0
_SETTLE_SECONDS = 0.2
"""Watches break together: they are waited for, to be compared together."""
_RETRY_SECONDS = 1.0


class Synchroniser:
    """Compares the store with the API server.

    Args:
        store: What is known of the cluster.
        kube: The API server.
        monitor: Tells which watches began anew.
        metrics: Where lists are counted.
        notify: Takes the keys that a difference concerns.
    """

    def __init__(
        self,
        store: Store,
        kube: Kube,
        monitor: WatchMonitor,
        *,
        metrics: Metrics,
        notify: Callable[[frozenset[Key]], None],
    ) -> None:
        self._store = store
        self._kube = kube
        self._monitor = monitor
        self._metrics = metrics
        self._notify = notify
        self.synced = asyncio.Event()
        """Set once the store has held everything."""

    async def run(self) -> None:
        """Compares for ever."""
        await self._monitor.connected()
        await self._compare(self._monitor.expected)
        self.synced.set()
        log.info("the store holds %d objects", len(self._store))
        while True:
            stale = await self._monitor.stale(RESYNC_SECONDS)
            if stale:
                await asyncio.sleep(_SETTLE_SECONDS)
                stale |= await self._monitor.stale(0)
            await self._compare(stale or self._monitor.expected)

    async def _compare(self, watched: Iterable[Watched]) -> None:
        for kind, namespace in watched:
            while True:
                try:
                    await self._compare_one(kind, namespace)
                    break
                except KubeError as error:
                    log.warning("%s cannot be listed: %s", kind, error.message)
                    await asyncio.sleep(_RETRY_SECONDS)
            self._metrics.lists.labels(kind).inc()

    async def _compare_one(self, kind: Kind, namespace: str | None) -> None:
        listed: set[ObjectId] = set()
        version = 0
        async for page in self._kube.pages(kind, namespace):
            version = page.version
            for body in page.bodies:
                metadata = body["metadata"]
                listed.add(ObjectId(kind, metadata.get("namespace", ""), metadata["name"]))
                self._notify(self._store.put(kind, body))
        self._notify(self._store.forget_missing(kind, namespace, listed, version))

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
"""How often everything is compared, however often single watches begin anew and are compared by themselves."""
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
        self._versions: dict[Watched, int] = {}
        """Of the last complete lists: versions only grow, until etcd is restored."""
        self.synced = asyncio.Event()
        """Set once the store has held everything."""

    async def run(self) -> None:
        """Compares for ever."""
        await self._monitor.connected()
        failed = await self._compare(self._monitor.expected)
        while failed:
            await asyncio.sleep(_RETRY_SECONDS)
            failed = await self._compare(failed)
        self.synced.set()
        log.info("the store holds %d objects", len(self._store))
        clock = asyncio.get_running_loop().time
        due = clock() + RESYNC_SECONDS
        while True:
            left = max(due - clock(), 0)
            stale = await self._monitor.stale(min(left, _RETRY_SECONDS) if failed else left)
            if stale:
                await asyncio.sleep(_SETTLE_SECONDS)
                stale |= await self._monitor.stale(0)
            watched: Iterable[Watched] = stale | failed
            if clock() >= due:
                watched, due = self._monitor.expected, clock() + RESYNC_SECONDS
            failed = await self._compare(watched)

    async def _compare(self, watched: Iterable[Watched]) -> frozenset[Watched]:
        """Compares all that can be listed, and returns what cannot: one kind must not keep the others waiting."""
        failed: set[Watched] = set()
        for kind, namespace in watched:
            try:
                await self._compare_one(kind, namespace)
            except KubeError as error:
                log.warning("%s cannot be listed: %s", kind, error.message)
                failed.add((kind, namespace))
            else:
                self._metrics.lists.labels(kind).inc()
        return frozenset(failed)

    async def _compare_one(self, kind: Kind, namespace: str | None) -> None:
        held = max(self._store.newest(kind, namespace), self._versions.get((kind, namespace), 0))
        listed: set[ObjectId] = set()
        version = 0
        async for page in self._kube.pages(kind, namespace):
            version = page.version
            for body in page.bodies:
                metadata = body["metadata"]
                listed.add(ObjectId(kind, metadata.get("namespace", ""), metadata["name"]))
                self._notify(self._store.put(kind, body))
        self._versions[kind, namespace] = version
        if version < held:  # a list is never older than what was there before it was asked for
            await self._restore(kind, namespace)
            return
        self._notify(self._store.forget_missing(kind, namespace, listed, version))

    async def _restore(self, kind: Kind, namespace: str | None) -> None:
        """Begins anew with a kind whose versions went back. At once: half of it would look like deletions."""
        log.warning("%s: versions went back, as after a restore of etcd; what is listed now counts", kind)
        bodies = [body async for page in self._kube.pages(kind, namespace) for body in page.bodies]
        self._notify(self._store.replace(kind, namespace, bodies))
        await self._compare_one(kind, namespace)  # what watches told meanwhile may have been replaced

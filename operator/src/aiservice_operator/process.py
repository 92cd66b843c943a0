"""The running operator: everything wired together, and how it starts and stops."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from kubernetes.aio.client import ApiClient

from aiservice_operator import handlers, probes
from aiservice_operator.errors import KubeError, NotLeaderError, OperatorError, ThrottledError
from aiservice_operator.kinds import Apis, Json, Key, Kind, ObjectId
from aiservice_operator.kube import SERVICE_ACCOUNT_TOKEN, Kube, connect
from aiservice_operator.leader import Leadership
from aiservice_operator.metrics import Metrics
from aiservice_operator.queue import Queue, QueueClosedError
from aiservice_operator.reconcile import Reconciler, wall_clock
from aiservice_operator.settings import Identity, Settings
from aiservice_operator.store import Store
from aiservice_operator.sync import Synchroniser
from aiservice_operator.watches import WatchMonitor

log = logging.getLogger(__name__)

_WORKERS = 24
_LOST_WATCH_SECONDS = 60.0
"""How long a watch may be gone before the process counts as sick; a rolling API server is back sooner."""
_STOP_SECONDS = 4.0
_LOOK_SECONDS = 60.0
"""After which a key that waits for a moment in time is looked at anyhow: wall clocks jump."""
_DISCOVERY_SECONDS = 30.0
_CONFIRM_SECONDS = 3.0
_SETTLE_SECONDS = 0.2
"""How long pods and the status of children may change before they are looked at: controllers write several times in a
row."""
_GATHER_SECONDS = 0.5
"""How long users of a ModelCache that exists are gathered: it is written once for all of them."""


class Clocks(NamedTuple):
    """What the process tells the time by."""

    steady: Callable[[], float] = time.monotonic
    """Seconds that only grow, also while the process is frozen: for the Lease and lost watches."""
    wall: Callable[[], datetime] = wall_clock
    """For conditions and Events. It may jump."""


async def run(settings: Settings, identity: Identity | None, clocks: Clocks = Clocks()) -> bool:  # noqa: B008 - immutable
    """Runs one replica until SIGTERM or SIGINT, or until the cluster serves other APIs.

    Args:
        settings: The configuration.
        identity: Who it is; None where leader election is off.
        clocks: What it tells the time by.

    Returns:
        Whether to run again, with what the cluster serves now.

    Raises:
        OperatorError: it cannot go on.
    """
    client = await connect(in_cluster=SERVICE_ACCOUNT_TOKEN.exists())
    try:
        apis = await Kube(client, lambda: False).apis(settings.watch.namespaces)
        if apis.refused:
            log.warning(
                "PodMonitors are served and left alone, since the operator may not list them: give it the rights get, "
                "list, watch, create, patch and delete on podmonitors.monitoring.coreos.com: %s",
                apis.refused,
            )
        return await Operator(client, settings, identity, apis, clocks).run()
    finally:
        await client.close()  # type: ignore[no-untyped-call] # has no types


class Operator:
    """One replica."""

    def __init__(
        self, client: ApiClient, settings: Settings, identity: Identity | None, apis: Apis, clocks: Clocks
    ) -> None:
        self._settings = settings
        self._apis = apis
        self._stop = asyncio.Event()
        self._again = False
        self._acting = False
        self._store = Store()
        self._queue: Queue[Key] = Queue(jitter=lambda: random.uniform(0.8, 1.2))  # noqa: S311 - no secret
        self._metrics = Metrics()
        self._monitor = WatchMonitor(
            settings.watch.namespaces,
            apis.kinds,
            began=lambda kind: self._metrics.watches.labels(kind).inc(),
            clock=clocks.steady,
        )
        election = settings.leader_election
        self._leadership = Leadership(client, identity, election, clocks.steady) if identity is not None else None
        self._kube = Kube(client, self._may_write, self._metrics.wrote, settings.watch.selector)
        self._synchroniser = Synchroniser(
            self._store, self._kube, self._monitor, metrics=self._metrics, notify=self._notify
        )
        self._reconciler = Reconciler(
            self._store,
            self._kube,
            settings,
            apis=apis,
            metrics=self._metrics,
            notify=self._notify,
            reporter=identity.name if identity is not None else "aiservice-operator",
            busy=lambda: len(self._queue) > 0 or self._queue.working > _WORKERS // 2,
            clock=clocks.wall,
        )
        self._metrics.gauge("queue_depth", "Keys that wait to be reconciled.", lambda: len(self._queue))
        self._metrics.gauge("queue_age_seconds", "How long the first key in the queue has waited.", self._queue.age)
        self._metrics.gauge("objects", "Objects in the store.", lambda: len(self._store))
        self._metrics.gauge("leader", "1 while this replica acts.", lambda: self._acting and self._may_write())
        self._metrics.gauge("watch_lost_seconds", "For how long a watch has been gone.", self._monitor.lost_seconds)

    async def run(self) -> bool:
        """Runs until the process is told to stop, or the cluster serves other APIs.

        Returns:
            Whether it was the second.

        Raises:
            OperatorError: it cannot go on.
        """
        self._take_signals()
        server, port = await probes.serve(
            self._settings.probes.port, healthy=self._sickness, ready=self._unreadiness, metrics=self._metrics
        )
        log.info("probes and metrics on port %d", port)
        namespaces = self._settings.watch.namespaces
        watching = handlers.watch(self._kube, self._monitor, namespaces, self._note, self._take_signals)
        parts = {
            asyncio.create_task(watching, name="watching"),
            asyncio.create_task(self._synchroniser.run(), name="comparing"),
            asyncio.create_task(self._lead(), name="leading"),
            asyncio.create_task(self._discover(), name="discovering"),
        }
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
            if not self._stop.is_set():
                raise OperatorError(f"{', '.join(part.get_name() for part in done)} ended by itself")
        finally:
            # Kopf leaves generators behind that fail when the loop closes them; nobody can do anything about that.
            asyncio.get_running_loop().set_exception_handler(_say_quietly)
            for part in parts:
                part.cancel()
            await asyncio.wait(parts, timeout=_STOP_SECONDS)
            await server.cleanup()
        return self._again

    def _take_signals(self) -> None:
        """Kopf has handlers of its own, which would end everything at once: the Lease would not be given back."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)

    def _end(self) -> None:
        self._again = False
        self._stop.set()

    async def _discover(self) -> None:
        """Looks from time to time which of the optional APIs are served, and ends everything when others are.

        An API server that starts serves them one after the other: what it says counts when it says so twice.
        """
        while True:
            await asyncio.sleep(_DISCOVERY_SECONDS)
            found = await self._served()
            if found == self._apis:
                continue
            await asyncio.sleep(_CONFIRM_SECONDS)
            if found == await self._served():
                break
        log.info("the cluster serves other APIs than before: %s", found)
        self._again = True
        self._stop.set()
        await asyncio.Event().wait()  # until the others have ended

    async def _served(self) -> Apis:
        """Asks what is served; where nobody answers, it is as before."""
        try:
            return await self._kube.apis(self._settings.watch.namespaces)
        except KubeError:
            return self._apis

    async def _lead(self) -> None:
        if self._leadership is None:
            await self._work()
        else:
            await self._leadership.run(self._work, self._stop)

    async def _work(self) -> None:
        """Reconciles until the process is told to stop: what only one replica may do."""
        await self._synchroniser.synced.wait()
        self._acting = True
        self._notify(frozenset(self._store.keys()))
        workers = [asyncio.create_task(self._worker(), name=f"worker-{number}") for number in range(_WORKERS)]
        try:
            await self._stop.wait()
            self._queue.close()  # what is under way is finished
            await asyncio.gather(*workers)
        finally:
            self._acting = False
            for worker in workers:
                worker.cancel()

    async def _worker(self) -> None:
        with suppress(QueueClosedError):
            while True:
                key = await self._queue.get()
                try:
                    await self._reconcile(key)
                finally:
                    self._queue.done(key)

    async def _reconcile(self, key: Key) -> None:
        try:
            outcome = await self._reconciler.reconcile(key)
        except (KubeError, NotLeaderError) as error:
            at_least = error.retry_after if isinstance(error, ThrottledError) else 0.0
            delay = self._fail(key, error, at_least)
            log.info("%s: again in %.1f s: %s", key, delay, error)
        except Exception as error:  # one poisoned object must not stop the others
            delay = self._fail(key, error)
            log.exception("%s: again in %.1f s: unexpected", key, delay)
        else:
            if outcome.unsettled:
                self._fail(key, None)
            else:
                self._queue.forget(key)
            if outcome.again_after is not None:
                self._queue.add_after(key, min(outcome.again_after, _LOOK_SECONDS))

    def _fail(self, key: Key, error: Exception | None, at_least: float = 0.0) -> float:
        self._metrics.reconcile_errors.labels(key.kind, type(error).__name__ if error else "Unsettled").inc()
        return self._queue.retry(key, at_least)

    def _note(self, kind: Kind, event: str | None, body: Json) -> None:
        """Takes what a watch has seen."""
        if event == "DELETED":
            self._notify(self._store.remove(kind, body))
            return
        metadata = body["metadata"]
        identity = ObjectId(kind, metadata.get("namespace", ""), metadata["name"])
        before = self._store.generation(identity)
        concerned = self._store.put(kind, body)
        if kind is Kind.AISERVICE:
            caches = frozenset(key for key in concerned if key.kind is Kind.MODEL_CACHE and self._store.cache(key))
            self._notify(caches, _GATHER_SECONDS)
            self._notify(concerned - caches)
        elif kind is Kind.MODEL_CACHE or (kind is not Kind.POD and before != metadata.get("generation", 0)):
            self._notify(concerned)
        else:
            self._notify(concerned, _SETTLE_SECONDS)

    def _notify(self, keys: frozenset[Key], after: float = 0.0) -> None:
        """Enqueues keys; a replica that does not act takes all of them when it begins to."""
        if not self._acting:
            return
        for key in keys:
            if after > 0:
                self._queue.add_after(key, after)
            else:
                self._queue.add(key)

    def _may_write(self) -> bool:
        return self._leadership is None or self._leadership.held()

    def _sickness(self) -> str:
        if self._monitor.lost_seconds() > _LOST_WATCH_SECONDS:
            return f"watches are lost: {', '.join(self._monitor.missing())}"
        if self._acting and not self._may_write():
            return "the Lease is lost"
        return ""

    def _unreadiness(self) -> str:
        if not self._synchroniser.synced.is_set():
            return (
                f"the store is being filled; watches that are missing: {', '.join(self._monitor.missing()) or 'none'}"
            )
        return self._sickness()


def _say_quietly(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.debug("while stopping: %s: %r", context["message"], context.get("exception"))

"""Lists that keep the store true: one that is refused, and one that is older than what was known."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from aiservice_operator import sync
from aiservice_operator.errors import RefusedError
from aiservice_operator.kinds import Json, Key, Kind
from aiservice_operator.kube import Page
from aiservice_operator.metrics import Metrics
from aiservice_operator.store import Store
from aiservice_operator.sync import Synchroniser
from aiservice_operator.watches import Watched
from support.operator_objects import MODEL, NAMESPACE, metadata

MONITORS: Watched = (Kind.POD_MONITOR, None)
CACHES: Watched = (Kind.MODEL_CACHE, None)
FIRST, SECOND = (Key(Kind.MODEL_CACHE, NAMESPACE, name) for name in ("first", "second"))


def cache(name: str, version: int) -> Json:
    return {"metadata": metadata(name, resourceVersion=str(version)), "spec": MODEL}


class Server:
    """Lists what it has, in pages of one object."""

    def __init__(self, version: int, *bodies: Json) -> None:
        self.version = version
        self.bodies = list(bodies)
        self.refused: set[Kind] = set()

    async def pages(self, kind: Kind, _: str | None) -> AsyncIterator[Page]:
        if kind in self.refused:
            raise RefusedError(f"cannot list {kind}")
        yield Page([], self.version)
        if kind is Kind.MODEL_CACHE:
            for body in self.bodies:
                yield Page([body], self.version)


class Monitor:
    """All watches are connected; which begin anew, a test says."""

    expected = (MONITORS, CACHES)

    def __init__(self) -> None:
        self.began: asyncio.Queue[Watched] = asyncio.Queue()

    async def connected(self) -> None:
        return

    async def stale(self, patience: float) -> frozenset[Watched]:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                return frozenset({await self.began.get()})
        return frozenset()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(sync, "_SETTLE_SECONDS", 0)


class Running:
    """A synchroniser at work."""

    def __init__(self, server: Server) -> None:
        self.server, self.store, self.monitor = server, Store(), Monitor()
        self.told: set[Key] = set()
        self.synchroniser = Synchroniser(
            self.store,
            server,  # type: ignore[arg-type] # it only lists
            self.monitor,  # type: ignore[arg-type] # what is asked of it
            metrics=Metrics(),
            notify=self.told.update,
        )

    async def __aenter__(self) -> Running:
        self._task = asyncio.create_task(self.synchroniser.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def until_known(self, key: Key, version: int | None) -> None:
        """Waits until the store holds a version of an object; None: until it does not hold the object."""
        async with asyncio.timeout(10):
            while True:
                found = self.store.cache(key)
                if (found.meta.version if found is not None else None) == version:
                    return
                await asyncio.sleep(0.001)


async def test_a_kind_that_is_refused_keeps_no_other_waiting() -> None:
    server = Server(5, cache("first", 5))
    server.refused.add(Kind.POD_MONITOR)
    async with Running(server) as running:
        await running.until_known(FIRST, 5)
        assert not running.synchroniser.synced.is_set(), "not everything is known"
        server.refused.clear()
        await asyncio.wait_for(running.synchroniser.synced.wait(), 10)

        server.refused.add(Kind.POD_MONITOR)
        await running.monitor.began.put(MONITORS)
        server.version, server.bodies = 6, [cache("first", 6)]
        await running.monitor.began.put(CACHES)
        await running.until_known(FIRST, 6)


async def test_a_watch_that_begins_anew_all_the_time_does_not_put_off_the_comparison_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sync, "RESYNC_SECONDS", 0.05)
    server = Server(5, cache("first", 5))

    async def restless(monitor: Monitor) -> None:
        while True:
            await monitor.began.put(MONITORS)
            await asyncio.sleep(0.001)

    async with Running(server) as running, asyncio.TaskGroup() as group:
        await running.until_known(FIRST, 5)
        watch = group.create_task(restless(running.monitor))
        server.version, server.bodies = 6, []
        await running.until_known(FIRST, None)
        watch.cancel()


@pytest.mark.parametrize("deleted_last", [False, True])
async def test_versions_that_went_back_are_believed(deleted_last: bool) -> None:
    """After a restore of etcd everything is older than what is known, and some of it was deleted since."""
    server = Server(50, cache("first", 50), cache("second", 20))
    async with Running(server) as running:
        await asyncio.wait_for(running.synchroniser.synced.wait(), 10)
        if deleted_last:
            # Nothing newer than the restored list is held; what is remembered of deletions is.
            for body in (cache("first", 60), cache("second", 61)):
                running.store.remove(Kind.MODEL_CACHE, body)
        running.told.clear()
        server.version, server.bodies = 30, [cache("first", 25)]
        await running.monitor.began.put(CACHES)
        await running.until_known(FIRST, 25)
        await running.until_known(SECOND, None)
        assert FIRST in running.told


async def test_what_is_written_during_a_list_is_no_restore(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(10, cache("first", 10))

    class Busy(Server):
        async def pages(self, kind: Kind, namespace: str | None) -> AsyncIterator[Page]:
            async for page in server.pages(kind, namespace):
                if kind is Kind.MODEL_CACHE:
                    running.store.put(kind, cache("second", 11))
                yield page

    running = Running(Busy(0))
    async with running:
        await asyncio.wait_for(running.synchroniser.synced.wait(), 10)
        assert running.store.cache(SECOND) is not None
    assert "restore" not in caplog.text

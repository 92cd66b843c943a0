"""The watch of the database, over stores that answer, fail and hang."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from aiservice_gateway.errors import StoreUnavailableError
from aiservice_gateway.services import database_watch
from aiservice_gateway.services.database_watch import DatabaseWatch
from aiservice_gateway.stores.base import UsageStore


class Store:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.trouble: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def ask(self, within_seconds: float) -> None:
        self.asked += 1
        await self.answers.wait()
        if self.trouble is not None:
            raise self.trouble


async def test_it_tells_what_the_last_look_found() -> None:
    store = Store()
    watch = DatabaseWatch(cast(UsageStore, store))
    found = []
    for trouble in (None, StoreUnavailableError("away"), None):
        store.trouble = trouble
        await watch.look()
        found.append(watch.up)
    assert found == [True, False, True]


async def test_a_store_that_hangs_is_down_meanwhile_and_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_watch, "_ANSWER_SECONDS", 0.02)
    monkeypatch.setattr(database_watch, "_INTERVAL_SECONDS", 0.001)
    store = Store()
    watch = DatabaseWatch(cast(UsageStore, store))
    running = asyncio.create_task(watch.run())
    try:
        found = []
        for hangs in (True, False):
            if hangs:
                store.answers.clear()
            else:
                store.answers.set()
            await asyncio.sleep(0.2)
            before = store.asked
            await asyncio.sleep(0.1)
            found.append((watch.up, store.asked > before))
        assert found == [(False, False), (True, True)]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_what_is_unexpected_does_not_end_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database_watch, "_INTERVAL_SECONDS", 0.001)
    store = Store()
    store.trouble = RuntimeError("no such thing")
    watch = DatabaseWatch(cast(UsageStore, store))
    running = asyncio.create_task(watch.run())
    await asyncio.sleep(0.1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert store.asked > 1
    assert "goes on" in caplog.text

"""Nodes and the pods on them, asked for when a rollout needs to know."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from aiservice_operator.census import Census
from aiservice_operator.errors import KubeError, RefusedError, UnavailableError
from aiservice_operator.kinds import Json
from aiservice_operator.kube import Page
from support.operator_objects import condition

NODE: Json = {
    "metadata": {"name": "n1"},
    "status": {"allocatable": {"nvidia.com/gpu": "4"}, "conditions": [condition("Ready", "True")]},
}
POD: Json = {
    "metadata": {"namespace": "team"},
    "spec": {
        "nodeName": "n1",
        "containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "1"}}}],
    },
    "status": {"phase": "Running"},
}


class Server:
    """Answers lists, and counts them."""

    def __init__(self, failure: KubeError | None = None) -> None:
        self.failure = failure
        self.asked: list[str] = []

    async def pages_of(self, path: str, _: dict[str, str]) -> AsyncIterator[Page]:
        self.asked.append(path)
        if self.failure is not None:
            raise self.failure
        yield Page([NODE] if path.endswith("/nodes") else [POD], 1)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_answer_serves_all_who_ask_at_once() -> None:
    server, clock = Server(), Clock()
    census = Census(server, clock)  # type: ignore[arg-type] # it only lists

    async def ask() -> None:
        first, second = await asyncio.gather(census.look(), census.look())
        assert first is second
        assert first.nodes[0].free["nvidia.com/gpu"] == Decimal(3)
        clock.now = 2
        assert await census.look() is first
        clock.now = 2.1
        assert await census.look() is not first

    asyncio.run(ask())
    assert server.asked == ["/api/v1/nodes", "/api/v1/pods"] * 2


def test_what_nodes_offer_is_asked_for_without_pods_and_never_taken_for_what_they_have_left() -> None:
    server, clock = Server(), Clock()
    census = Census(server, clock)  # type: ignore[arg-type] # it only lists

    async def ask() -> None:
        offered = await census.look_at_nodes()
        assert offered.nodes[0].offers["nvidia.com/gpu"] == Decimal(4)
        assert await census.look_at_nodes() is offered
        assert server.asked == ["/api/v1/nodes"]
        left = (await census.look()).nodes[0]
        assert (left.free["nvidia.com/gpu"], left.offers["nvidia.com/gpu"]) == (Decimal(3), Decimal(4))

    asyncio.run(ask())


class Body(dict[str, Any]):
    """An object that tells when nobody holds it any more."""


class LargeServer(Server):
    """Has many pages of pods, and looks which of them are still held when the next is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[int] = []

    async def pages_of(self, path: str, query: dict[str, str]) -> AsyncIterator[Page]:
        if path.endswith("/nodes"):
            async for page in super().pages_of(path, query):
                yield page
            return
        given: list[weakref.ref[Body]] = []
        for _ in range(4):
            body = Body(POD)
            given.append(weakref.ref(body))
            yield Page([body], 1)
            del body
            gc.collect()
            self.held.append(sum(reference() is not None for reference in given))


def test_pods_are_not_kept() -> None:
    """A pod of a real cluster takes 46 kB, and there may be a hundred thousand."""
    server = LargeServer()
    seen = asyncio.run(Census(server).look())  # type: ignore[arg-type] # it only lists
    assert seen.nodes[0].free["nvidia.com/gpu"] == 0
    assert server.held == [1, 1, 1, 1], "the page that is being looked at, and no other"


def test_without_the_right_there_is_an_answer_too() -> None:
    server = Server(RefusedError('cannot list resource "nodes"'))
    seen = asyncio.run(Census(server).look())  # type: ignore[arg-type] # it only lists
    assert (seen.nodes, seen.refused) == ((), 'cannot list resource "nodes"')


def test_a_failure_that_may_pass_is_no_answer() -> None:
    server = Server(UnavailableError("away"))
    with pytest.raises(UnavailableError):
        asyncio.run(Census(server).look())  # type: ignore[arg-type] # it only lists

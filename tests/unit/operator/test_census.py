"""Nodes and the pods on them, asked for when a rollout needs to know."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from aiservice_operator.census import Census
from aiservice_operator.errors import KubeError, RefusedError, UnavailableError
from aiservice_operator.kinds import Json
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

    async def collect(self, path: str, query: dict[str, str]) -> list[Json]:
        self.asked.append(path)
        if self.failure is not None:
            raise self.failure
        return [NODE] if path.endswith("/nodes") else [POD]


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


def test_without_the_right_there_is_an_answer_too() -> None:
    server = Server(RefusedError('cannot list resource "nodes"'))
    seen = asyncio.run(Census(server).look())  # type: ignore[arg-type] # it only lists
    assert (seen.nodes, seen.refused) == ((), 'cannot list resource "nodes"')


def test_a_failure_that_may_pass_is_no_answer() -> None:
    server = Server(UnavailableError("away"))
    with pytest.raises(UnavailableError):
        asyncio.run(Census(server).look())  # type: ignore[arg-type] # it only lists

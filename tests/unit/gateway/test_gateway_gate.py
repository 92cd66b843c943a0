"""Who passes the gate of a service, who waits, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from aiservice_gateway.errors import UnavailableError
from aiservice_gateway.services.gate import Gate, Rules


@dataclass
class World:
    """A gate, and what it has told."""

    gate: Gate = field(init=False)
    rules: Rules = field(default_factory=lambda: Rules(at_once=1, waiting=100, wait_seconds=60.0))
    waits: list[float] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    served: list[str] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate = Gate("sdxl", self.rules, self.waits.append, self.refusals.append)

    async def come(self, name: str, tenant: str | None = None) -> asyncio.Task[None]:
        """A request that waits for its turn, and then for ever."""

        async def enter() -> None:
            await self.gate.enter(tenant or name[0])
            self.served.append(name)

        return await self.begin(enter())

    async def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self.tasks.append(task)
        await turns()
        return task

    async def leave(self, seconds: float = 1.0) -> None:
        self.gate.leave(seconds)
        await turns()


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_without_a_limit_everybody_passes() -> None:
    world = World(rules=Rules())
    for _ in range(1000):
        await world.gate.enter("a")
    assert (world.gate.running, world.gate.waiting, world.waits) == (1000, 0, [])


async def test_tenants_take_turns_and_each_is_served_in_the_order_of_arrival() -> None:
    world = World()
    await world.come("x0")
    for name in ("a1", "a2", "a3", "a4", "b1", "b2", "c1"):
        await world.come(name)
    assert (world.gate.running, world.gate.waiting) == (1, 7)
    for _ in range(7):
        await world.leave()
    assert world.served == ["x0", "a1", "b1", "c1", "a2", "b2", "a3", "a4"]
    assert len(world.waits) == 7
    await world.leave()
    assert (world.gate.running, world.gate.waiting) == (0, 0)


async def test_nobody_overtakes_those_who_wait() -> None:
    world = World(rules=Rules(at_once=2, waiting=10, wait_seconds=60))
    for name in ("a1", "a2", "b1"):
        await world.come(name)
    world.gate.leave(1.0)  # there is room for a moment, and it is b's
    await world.come("c1")
    assert world.served == ["a1", "a2", "b1"]
    assert world.gate.running == 2


async def test_a_full_queue_refuses_with_the_time_until_it_is_served() -> None:
    world = World(rules=Rules(at_once=2, waiting=3, wait_seconds=60))
    for number in range(5):
        await world.come(f"a{number}")
    with pytest.raises(UnavailableError) as caught:
        await world.gate.enter("b")
    assert caught.value.headers == {"Retry-After": "10"}  # no request has ended yet: 5 s each are assumed
    await world.leave(3.0)
    await world.come("a5")
    with pytest.raises(UnavailableError) as caught:
        await world.gate.enter("b")
    assert caught.value.headers == {"Retry-After": "6"}  # three wait, two at a time, 3 s each, and then this one
    assert world.refusals == ["full", "full"]


async def test_who_waits_too_long_is_refused() -> None:
    world = World(rules=Rules(at_once=1, waiting=3, wait_seconds=0.05))
    await world.come("a1")
    task = await world.come("b1")
    with pytest.raises(UnavailableError, match=r"no turn came within 0\.05 s"):
        await task
    assert (world.gate.running, world.gate.waiting, world.refusals) == (1, 0, ["late"])
    await world.leave()
    assert world.gate.running == 0


async def test_who_goes_away_leaves_the_queue() -> None:
    world = World(rules=Rules(at_once=1, waiting=2, wait_seconds=60))
    await world.come("x0")
    first, _ = await world.come("a1"), await world.come("b1")
    first.cancel()
    await turns()
    assert world.gate.waiting == 1
    await world.come("c1")
    for _ in range(3):
        await world.leave()
    assert world.served == ["x0", "b1", "c1"]
    assert (world.gate.running, world.gate.waiting) == (0, 0)


async def test_a_turn_that_comes_with_the_end_of_its_request_goes_to_the_next() -> None:
    world = World()
    await world.come("x0")
    first, _ = await world.come("a1"), await world.come("b1")
    world.gate.leave(1.0)  # a's turn
    first.cancel()  # before it could run
    await turns()
    assert world.served == ["x0", "b1"]
    assert world.gate.running == 1


async def test_the_end_of_the_process_sends_everybody_away_at_once() -> None:
    world = World()
    await world.come("x0")
    waiting = [await world.come("a1"), await world.come("b1")]
    world.gate.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [UnavailableError, UnavailableError]
    with pytest.raises(UnavailableError, match="being stopped"):
        await world.gate.enter("c")
    await world.leave()
    await world.come("d1")  # whoever need not wait is served
    assert world.served == ["x0", "d1"]


async def test_rules_can_change_while_requests_wait() -> None:
    world = World()
    for name in ("a1", "a2", "b1", "b2"):
        await world.come(name)
    world.gate.change(Rules(at_once=3, waiting=1, wait_seconds=60))
    await turns()
    assert world.served == ["a1", "a2", "b1"]
    world.gate.change(Rules(at_once=1, waiting=10, wait_seconds=60))
    await world.leave()
    await world.leave()
    assert world.served == ["a1", "a2", "b1"]
    await world.leave()
    assert world.served == ["a1", "a2", "b1", "b2"]
    world.gate.change(Rules())
    await world.come("c1")
    assert world.gate.running == 2


async def test_counts_are_exact_whatever_happens() -> None:
    """Requests that come, wait, are cancelled and end at random: never more at once than may, and none is forgotten."""
    world, running, most = World(rules=Rules(at_once=3, waiting=1000, wait_seconds=0.02)), 0, 0

    async def request(number: int) -> None:
        nonlocal running, most
        try:
            await world.gate.enter(f"tenant-{number % 7}")
        except UnavailableError:
            return
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(0.0005 * (number % 5))
        finally:
            running -= 1
            world.gate.leave(0.001)

    tasks = [asyncio.create_task(request(number)) for number in range(500)]
    for number, task in enumerate(tasks):
        if number % 3 == 0:
            asyncio.get_running_loop().call_later(0.0001 * (number % 200), task.cancel)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 3
    assert (running, world.gate.running, world.gate.waiting, world.gate._queues) == (0, 0, 0, {})

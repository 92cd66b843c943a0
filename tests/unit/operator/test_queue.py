"""The queue: one worker a key, no key twice, delays and retries."""

from __future__ import annotations

import asyncio

import pytest

from aiservice_operator.queue import LAST_RETRY_SECONDS, Queue, QueueClosedError


async def drained(queue: Queue[str]) -> list[str]:
    found = []
    while len(queue):
        item = await queue.get()
        queue.done(item)
        found.append(item)
    return found


async def test_an_item_is_there_once_however_often_it_was_added() -> None:
    queue: Queue[str] = Queue()
    for item in ("a", "b", "a", "a"):
        queue.add(item)
    assert await drained(queue) == ["a", "b"]


async def test_what_is_added_while_it_is_worked_on_comes_once_more_and_to_nobody_else() -> None:
    queue: Queue[str] = Queue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert await drained(queue) == ["a"]


async def test_between_two_items_others_get_their_turn() -> None:
    """The work on items that need no request never waits: without a turn for others the Lease would run out."""
    queue: Queue[str] = Queue()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    for number in range(100):
        queue.add(str(number))
    task = asyncio.create_task(other())
    assert len(await drained(queue)) == 100
    assert turns >= 100
    task.cancel()


async def test_the_shortest_of_several_delays_counts() -> None:
    queue: Queue[str] = Queue()
    queue.add_after("a", 60)
    queue.add_after("a", 0.01)
    queue.add_after("a", 30)
    assert len(queue) == 0
    async with asyncio.timeout(5):
        assert await queue.get() == "a"


async def test_work_on_an_item_ends_its_delay() -> None:
    queue: Queue[str] = Queue()
    queue.add_after("a", 0.02)
    queue.add("a")
    queue.done(await queue.get())
    await asyncio.sleep(0.05)
    assert len(queue) == 0


async def test_failures_come_back_later_and_later_until_one_goes_well() -> None:
    queue: Queue[str] = Queue()
    delays = [queue.retry("a") for _ in range(12)]
    assert delays[:4] == [0.2, 0.4, 0.8, 1.6]
    assert delays[-1] == LAST_RETRY_SECONDS
    assert queue.retry("b") == 0.2, "others are not held back"
    queue.forget("a")
    assert queue.retry("a") == 0.2
    assert queue.retry("c", at_least=7) == 7


async def test_the_age_is_that_of_the_first() -> None:
    now = [100.0]
    queue: Queue[str] = Queue(clock=lambda: now[0])
    assert queue.age() == 0
    queue.add("a")
    now[0] = 103.0
    queue.add("b")
    assert queue.age() == 3


async def test_closing_wakes_those_who_wait() -> None:
    queue: Queue[str] = Queue()
    waiting = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.add("a")
    queue.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(result == "a" or isinstance(result, QueueClosedError) for result in results)
    with pytest.raises(QueueClosedError):
        await queue.get()

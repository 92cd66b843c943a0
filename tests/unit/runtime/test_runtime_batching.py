"""Which pieces of work are computed together, decided without a device or a clock."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pytest

from aiservice_runtime import Answer, Prepared, RequestBody, Task
from aiservice_runtime.batching import Batch, Job, Rooms, Waiting


def task(name: str = "text-to-image", max_batch: int = 4) -> Task[Any, Any, Any]:
    return Task(name, "image", RequestBody, lambda _: work(), lambda works, _: works, max_batch=max_batch)


def work(*pieces: str, together: Hashable = "same", stream: Any = None) -> Prepared[Any, Any]:
    return Prepared(pieces or ("x",), lambda _: Answer({}, 1, 1), together, stream)


TASK = task()


def job(*pieces: str, together: Hashable = "same", of: Task[Any, Any, Any] = TASK, at: float = 0.0) -> Job:
    return Job(of, work(*pieces, together=together), submitted=at)


def waiting(*jobs: Job, window: float = 0.0) -> Waiting:
    queue = Waiting(window, lambda job: job.task.max_batch)
    for each in jobs:
        queue.put(each)
    return queue


def taken(queue: Waiting, now: float = 10.0, *, company: bool = False) -> list[str]:
    batch = queue.take(now, company=company)
    assert isinstance(batch, Batch)
    return batch.works


def test_nothing_waits() -> None:
    assert waiting().take(0, company=True) is None


def test_compatible_work_is_taken_together_and_the_rest_keeps_its_turn() -> None:
    queue = waiting(job("a"), job("b", together="other"), job("c"), job("d", together="other"), job("e"))
    assert taken(queue) == ["a", "c", "e"]
    assert taken(queue) == ["b", "d"]
    assert queue.take(10, company=False) is None


def test_those_who_were_answered_together_are_waited_for() -> None:
    queue = waiting(job("a", at=10.0), window=0.01)
    queue.answered(10.0, requests=3, seconds=0.8)
    assert queue.take(10.0, company=False) == pytest.approx(0.04), "a twentieth of what the batch took"
    queue.put(job("b", at=10.01))
    assert queue.take(10.03, company=False) == pytest.approx(0.01)
    queue.put(job("c", at=10.031))
    assert taken(queue, 10.031) == ["a", "b", "c"], "all three are there again"


def test_nobody_is_waited_for_long() -> None:
    queue = waiting(job("a", at=10.0), window=0.01)
    queue.answered(10.0, requests=3, seconds=60)
    assert queue.take(10.0, company=False) == pytest.approx(0.05), "five windows"
    assert taken(queue, 10.05) == ["a"]


@pytest.mark.parametrize(("window", "requests"), [(0.0, 3), (0.01, 1)])
def test_no_window_and_a_single_request_wait_for_nobody(window: float, requests: int) -> None:
    queue = waiting(job("a", at=10.0), window=window)
    queue.answered(10.0, requests=requests, seconds=1)
    assert taken(queue, 10.0) == ["a"]


def test_tasks_do_not_share_a_batch() -> None:
    queue = waiting(job("a"), job("b", of=task("image-to-image")))
    assert taken(queue) == ["a"]
    assert taken(queue) == ["b"]


def test_work_without_company_of_its_kind_goes_alone() -> None:
    queue = waiting(job("a", "b", together=None), job("c", together=None))
    assert [taken(queue), taken(queue), taken(queue)] == [["a"], ["c"], ["b"]]


def test_a_batch_takes_no_more_than_its_room() -> None:
    queue = waiting(*(job(name) for name in "abcdef"))
    assert taken(queue) == ["a", "b", "c", "d"]
    assert taken(queue) == ["e", "f"]


def test_a_request_of_many_pieces_waits_for_its_next_turn() -> None:
    queue = waiting(job("a1", "a2", "a3", "a4", "a5", "a6"), job("b"), job("c", together="other"))
    assert taken(queue) == ["a1", "a2", "a3", "a4"]
    assert taken(queue) == ["b", "a5", "a6"]
    assert taken(queue) == ["c"]


def test_a_batch_with_room_waits_for_those_who_are_on_their_way() -> None:
    queue = waiting(job("a", at=10.0), window=0.5)
    assert queue.take(10.1, company=True) == pytest.approx(0.4)
    queue.put(job("b", at=10.2))
    assert taken(queue, 10.5, company=True) == ["a", "b"]


def test_a_batch_does_not_wait_when_nobody_comes_or_when_it_is_full() -> None:
    assert taken(waiting(job("a", at=10.0), window=0.5), 10.0) == ["a"]
    assert len(taken(waiting(*(job("x", at=10.0) for _ in range(4)), window=0.5), 10.0, company=True)) == 4
    assert taken(waiting(job("a", at=10.0, together=None), window=0.5), 10.0, company=True) == ["a"]


def test_a_discarded_job_is_not_taken() -> None:
    first, second = job("a"), job("b")
    queue = waiting(first, second)
    queue.discard(first)
    first.abandon()
    assert taken(queue) == ["b"]
    queue.discard(second)
    assert len(queue) == 0


def test_halves_hold_everything_once() -> None:
    batch = waiting(job("a", "b"), job("c")).take(0, company=False)
    assert isinstance(batch, Batch)
    first, second = batch.halves()
    assert (first.works, second.works) == (["a", "b"], ["c"])
    assert len(list(batch.jobs())) == 2


@pytest.mark.parametrize(
    ("pieces", "together", "turns"),
    [
        ([], "same", 0),
        ([1], "same", 1),
        ([9], "same", 3),  # four at once
        ([3], None, 3),  # one at a time
        ([9, 5], "same", 4),  # first, second, first, second
        ([9, 1], "same", 2),
        ([2, 2, 2], None, 4),
    ],
)
def test_how_many_batches_it_takes_until_a_place_is_free(pieces: list[int], together: Hashable, turns: int) -> None:
    queue = waiting(*(job(*"x" * count, together=together) for count in pieces))
    assert queue.turns_to_done() == turns


def test_the_room_of_a_kind_is_the_half_that_was_never_too_much() -> None:
    rooms = Rooms()
    assert rooms.of("a", 0) is None
    rooms.ran_out("a", 8, 0)
    assert (rooms.of("a", 1), rooms.of("b", 1)) == (4, None)
    rooms.ran_out("a", 4, 1)
    rooms.ran_out("a", 8, 2)
    assert rooms.of("a", 3) == 2


def test_a_room_is_forgotten_after_a_while() -> None:
    rooms = Rooms(seconds=600)
    rooms.ran_out("a", 4, 0)
    assert (rooms.of("a", 599), rooms.of("a", 600)) == (2, None)
    rooms.ran_out("a", 8, 700)
    assert rooms.of("a", 701) == 4, "what was known before does not count any more"


def test_of_many_kinds_the_newest_are_remembered() -> None:
    rooms = Rooms(kinds=64)
    for number in range(1000):
        rooms.ran_out(number, 2, 0)
        rooms.ran_out("again and again", 4, 0)
    assert len(rooms) == 64
    assert (rooms.of(999, 1), rooms.of(0, 1), rooms.of("again and again", 1)) == (1, None, 2)

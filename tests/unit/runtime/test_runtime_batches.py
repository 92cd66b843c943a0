"""Batches in the running service: who shares one, who leaves one, and what happens when one fails."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest

from aiservice_runtime import Memory
from support.toy_engine import ToyEngine
from support.toy_service import PATH, StartToy, Toy, body, eventually


def waits(toy: Toy, count: int) -> bool:
    return toy.service.device.queue_depth == count


async def queued(toy: Toy, *bodies: dict[str, Any]) -> list[asyncio.Task[httpx.Response]]:
    """Sends requests one after the other while the device is held up by another one, and lets them run at once."""
    toy.engine.gate.clear()
    blocker = asyncio.create_task(toy.client.post(PATH, json=body(say="blocker")))
    await eventually(lambda: toy.engine.events[-1] == "run blocker")
    sent = []
    for number, one in enumerate(bodies, 1):
        sent.append(asyncio.create_task(toy.client.post(PATH, json=one)))
        await eventually(partial(waits, toy, number))
    toy.engine.gate.set()
    assert (await blocker).status_code == 200
    return sent


def runs(toy: Toy) -> list[str]:
    """What was computed together, after the blocker."""
    found = [event for event in toy.engine.events if event.startswith(("run", "recover"))]
    return found[found.index("run blocker") + 1 :] if "run blocker" in found else found


async def test_requests_of_a_group_share_a_batch_and_each_gets_its_own_answer(start_toy: StartToy) -> None:
    toy = await start_toy(ToyEngine(max_batch=4))
    sent = await queued(toy, *(body(say=name, group="g") for name in "abc"), body(say="d", group="other"))
    assert [(await answer).json()["text"] for answer in sent] == ["a", "b", "c", "d"]
    assert runs(toy) == ["run a + b + c", "run d"]
    assert toy.metric("aiservice_batch_size_sum", task="speech-to-text") == 5
    assert toy.metric("aiservice_batch_size_count", task="speech-to-text") == 3


async def test_the_seconds_of_a_batch_are_shared(start_toy: StartToy) -> None:
    toy = await start_toy(ToyEngine(max_batch=4))
    sent = await queued(toy, *(body(say=name, group="g", seconds=0.2) for name in "ab"))
    seconds = [float((await answer).headers["x-aiservice-device-seconds"]) for answer in sent]
    assert seconds[0] == seconds[1]
    assert 0.1 <= seconds[0] < sum(seconds) <= toy.metric("aiservice_device_seconds_total", task="speech-to-text")


async def test_an_answer_tells_how_long_it_waited_for_the_device(start_toy: StartToy) -> None:
    toy = await start_toy()
    sent = await queued(toy, body(say="a", seconds=0.2), body(say="b"), body(say="c", stream=2))
    first, second, streamed = [float((await answer).headers["x-aiservice-queue-seconds"]) for answer in sent]
    assert first < 10
    # Each came before the device began with the first, and waited for it.
    assert min(second, streamed) >= 0.2
    refused = await toy.client.post(PATH, json=body(refuse=True))
    assert refused.headers["x-aiservice-queue-seconds"] == "0.000000"


async def test_several_results_of_one_request_are_pieces_of_batches(start_toy: StartToy) -> None:
    toy = await start_toy(ToyEngine(max_batch=2))
    sent = await queued(toy, body(say="many", group="g", n=3), body(say="one", group="g"))
    assert (await sent[0]).json()["text"] == ["many"] * 3
    assert (await sent[1]).json()["text"] == "one"
    assert runs(toy) == ["run many + many", "run one + many"]


async def test_the_largest_batch_is_a_setting(start_toy: StartToy) -> None:
    toy = await start_toy(ToyEngine(max_batch=4), max_batch=2)
    await asyncio.gather(*await queued(toy, *(body(say=name, group="g") for name in "abcd")))
    assert runs(toy) == ["run a + b", "run c + d"]


async def test_a_lone_request_does_not_wait_for_the_window(start_toy: StartToy) -> None:
    toy = await start_toy(ToyEngine(max_batch=4), batch_window_ms=60_000)  # longer than the client waits
    assert (await toy.client.post(PATH, json=body(say="a", group="g"))).status_code == 200


async def test_a_request_that_is_still_arriving_is_waited_for(start_toy: StartToy) -> None:
    toy = await start_toy(ToyEngine(max_batch=2), batch_window_ms=60_000)
    first_sent = asyncio.Event()

    async def slow_body() -> Any:
        yield b'{"audio": "YWJj", "group": "g", '
        await first_sent.wait()
        yield b'"say": "slow"}'

    slow = asyncio.create_task(toy.client.post(PATH, content=slow_body(), headers={"Content-Type": "application/json"}))
    await eventually(lambda: toy.service.admission.held == 1)
    fast = asyncio.create_task(toy.client.post(PATH, json=body(say="fast", group="g")))
    await eventually(lambda: toy.service.device.queue_depth == 1)
    first_sent.set()
    assert [(await answer).json()["text"] for answer in (slow, fast)] == ["slow", "fast"]
    assert runs(toy) == ["run fast + slow"]


async def test_a_request_that_turns_out_bad_is_not_waited_for(start_toy: StartToy) -> None:
    toy = await start_toy(ToyEngine(max_batch=2), batch_window_ms=60_000)
    hold = asyncio.Event()

    async def bad_body() -> Any:
        yield b"{"
        await hold.wait()
        yield b"no json"

    bad = asyncio.create_task(toy.client.post(PATH, content=bad_body(), headers={"Content-Type": "application/json"}))
    await eventually(lambda: toy.service.admission.held == 1)
    good = asyncio.create_task(toy.client.post(PATH, json=body(say="good", group="g")))
    await eventually(lambda: toy.service.device.queue_depth == 1)
    hold.set()
    assert (await bad).status_code == 400
    assert (await good).status_code == 200


async def test_a_failure_in_a_batch_fails_only_the_request_that_causes_it(start_toy: StartToy) -> None:
    toy = await start_toy(ToyEngine(max_batch=4))
    sent = await queued(toy, *(body(say=name, group="g", fail=name == "c") for name in "abcd"))
    assert [(await answer).status_code for answer in sent] == [200, 200, 500, 200]
    assert runs(toy) == ["run a + b + c + d", "run a + b", "run c + d", "run c", "run d"]


async def test_out_of_memory_halves_the_batch_and_remembers_what_fits(start_toy: StartToy) -> None:
    toy = await start_toy(ToyEngine(max_batch=4))
    sent = await queued(toy, *(body(say=name, group="g", fits=2) for name in "abcdef"))
    assert [(await answer).json()["text"] for answer in sent] == list("abcdef")
    assert runs(toy) == ["run a + b + c + d", "recover", "run a + b", "run c + d", "run e + f"]
    assert toy.metric("aiservice_out_of_memory_total", task="speech-to-text") == 1


async def test_what_fits_is_remembered_for_its_kind_only(start_toy: StartToy) -> None:
    toy = await start_toy(ToyEngine(max_batch=2))
    await asyncio.gather(*await queued(toy, *(body(say="a", group="large", fits=1) for _ in range(2))))
    await asyncio.gather(*await queued(toy, *(body(say="b", group="small") for _ in range(2))))
    assert toy.engine.events[-1] == "run b + b"


async def test_a_request_without_room_even_alone_fails_alone(start_toy: StartToy) -> None:
    toy = await start_toy(ToyEngine(max_batch=2))
    huge, small = await queued(toy, body(say="huge", group="g", fits=0), body(say="small", group="g"))
    answer = await huge
    assert (answer.status_code, answer.json()["code"]) == (503, "out_of_memory")
    assert int(answer.headers["retry-after"]) > 0
    assert (await small).status_code == 200
    # Alone it is tried twice: what was freed may be enough.
    assert runs(toy) == ["run huge + small", "recover", "run huge", "recover", "run huge", "recover", "run small"]
    assert (await toy.client.post(PATH, json=body(say="next"))).status_code == 200


async def test_a_client_that_leaves_ends_its_computation(start_toy: StartToy) -> None:
    toy = await start_toy()
    leaver = asyncio.create_task(toy.client.post(PATH, json=body(say="leaver", seconds=60)))
    await eventually(lambda: toy.engine.events[-1] == "run leaver")
    leaver.cancel()
    assert (await toy.client.post(PATH, json=body(say="next"))).status_code == 200
    assert toy.metric("aiservice_device_seconds_total", task="speech-to-text") < 30


async def test_a_batch_goes_on_for_those_who_stay(start_toy: StartToy) -> None:
    toy = await start_toy(ToyEngine(max_batch=2))
    leaver, stayer = await queued(
        toy, body(say="leaver", group="g", seconds=0.5), body(say="stayer", group="g", seconds=0.5)
    )
    await eventually(lambda: toy.engine.events[-1] == "run leaver + stayer")
    leaver.cancel()
    assert (await stayer).json()["text"] == "stayer"


async def test_a_lost_device_fails_what_runs_and_liveness(start_toy: StartToy) -> None:
    toy = await start_toy()
    answer = await toy.client.post(PATH, json=body(say="x", lose=True))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    await eventually(lambda: toy.service.device.ended)
    assert "ToyDeviceError: no answer from the toy" in toy.service.device.failure
    assert (await toy.client.get("/health")).status_code == 503
    assert (await toy.client.get("/ready")).json() == {"status": "failed"}
    assert (await toy.client.post(PATH, json=body())).status_code == 503


async def test_a_device_that_cannot_recover_answers_everybody_and_ends(start_toy: StartToy) -> None:
    toy = await start_toy(ToyEngine(recover_error=RuntimeError("no way\nback")))
    running, waiting = await queued(toy, body(say="huge", fits=0), body(say="waiting"))
    for request in (running, waiting):
        answer = await asyncio.wait_for(request, 10)  # not after request_seconds
        assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")
    await eventually(lambda: toy.service.device.ended)
    assert toy.service.device.failure.startswith("The device thread failed: RuntimeError: no way. The process ends")
    ready = await toy.client.get("/ready")
    assert (ready.status_code, ready.json()) == (503, {"status": "failed"})
    assert (await toy.client.get("/health")).status_code == 503
    assert toy.engine.events[-1] == "release"


async def test_a_library_that_wants_to_exit_ends_no_thread_in_silence(start_toy: StartToy) -> None:
    toy = await start_toy(ToyEngine(exits=True))
    answer = await asyncio.wait_for(toy.client.post(PATH, json=body()), 10)
    assert answer.status_code == 503
    await eventually(lambda: toy.service.device.ended)
    assert "SystemExit" in toy.service.device.failure


async def test_a_result_too_few_fails_only_the_request_without_one(
    start_toy: StartToy, caplog: pytest.LogCaptureFixture
) -> None:
    toy = await start_toy(ToyEngine(max_batch=4))
    sent = await queued(toy, *(body(say=name, group="g", short=name == "b") for name in "abc"))
    assert [(await answer).status_code for answer in sent] == [200, 500, 200]
    assert "the engine gave 0 results for 1 pieces of work" in caplog.text
    assert toy.service.ready


async def test_device_memory_is_a_metric_where_the_device_has_its_own(start_toy: StartToy) -> None:
    toy = await start_toy()
    assert "aiservice_device_memory_bytes" not in (await toy.client.get("/metrics")).text
    toy.engine.held = Memory(used=5, free=7)
    page = (await toy.client.get("/metrics")).text
    assert 'aiservice_device_memory_bytes{kind="used"} 5.0' in page
    assert 'aiservice_device_memory_bytes{kind="free"} 7.0' in page


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_answer_is_lost_or_swapped_among_64_clients_who_come_and_go(start_toy: StartToy, seed: int) -> None:
    toy = await start_toy(ToyEngine(max_batch=8), queue_size=64)
    choose = random.Random(seed)
    outcomes: list[str] = []

    async def one_client(number: int) -> None:
        for turn in range(8):
            say = f"{number}-{turn}"
            kind = choose.choice(["plain", "many", "stream", "fail", "leave"])
            fields: dict[str, Any] = {"say": say, "group": choose.choice(["a", "b", None]), "seconds": 0.01}
            if kind == "leave":
                with pytest.raises(httpx.TimeoutException):
                    await toy.client.post(PATH, json=body(**fields | {"seconds": 5}), timeout=choose.uniform(0.01, 0.1))
            elif kind == "stream":
                answer = await toy.client.post(PATH, json=body(**fields, stream=3), timeout=120)
                assert answer.text.splitlines()[:3] == [f"{say} {chunk}" for chunk in range(3)]
            elif kind == "fail":
                answer = await toy.client.post(PATH, json=body(**fields, fail=True), timeout=120)
                assert answer.status_code == 500
            else:
                n = 3 if kind == "many" else 1
                answer = await toy.client.post(PATH, json=body(**fields, n=n), timeout=120)
                assert answer.json()["text"] == (say if n == 1 else [say] * n)
            outcomes.append(kind)

    await asyncio.gather(*(one_client(number) for number in range(64)))
    assert len(outcomes) == 64 * 8
    await eventually(lambda: toy.service.admission.held == 0)
    assert toy.service.device.queue_depth == 0
    assert (await toy.client.post(PATH, json=body(say="after"))).json()["text"] == "after"


@pytest.fixture
def unlogged() -> Iterator[None]:
    """Nothing is logged: pytest keeps every record, with the error in it."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


async def test_two_thousand_requests_leave_nothing_behind(start_toy: StartToy, unlogged: None) -> None:
    toy = await start_toy(ToyEngine(max_batch=8), queue_size=64)

    async def send(count: int) -> None:
        gate = asyncio.Semaphore(16)

        async def one(number: int) -> None:
            kind = ({"n": 2}, {"stream": 2}, {"fail": True}, {"refuse": True}, {"fits": 0})[number % 5]
            async with gate:
                await toy.client.post(PATH, json=body(say="x", group="ab"[number % 2], **kind), timeout=120)

        await asyncio.gather(*map(one, range(count)))
        toy.engine.events.clear()

    def objects() -> int:
        gc.collect()
        return len(gc.get_objects())

    await send(200)  # caches fill, threads start
    before = objects()
    await send(2000)
    await send(200)  # the client keeps its own tasks of the last time
    # One object a request would be 2,000.
    assert objects() - before < 1000

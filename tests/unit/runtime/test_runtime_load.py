"""More requests than can run, clients that leave, and the time before the model is there."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from functools import partial

import httpx
import pytest

from aiservice_runtime.body import Incoming
from support.toy_engine import ToyEngine
from support.toy_service import PATH, StartToy, Toy, body, eventually


async def test_health_answers_while_the_model_loads_and_readiness_waits(start_toy: StartToy) -> None:
    engine = ToyEngine()
    engine.load_gate.clear()
    toy = await start_toy(engine, wait=False)
    assert (await toy.client.get("/health")).status_code == 200
    ready = await toy.client.get("/ready")
    assert (ready.status_code, ready.json()) == (503, {"status": "loading"})
    answer = await toy.client.post(PATH, json=body())
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert int(answer.headers["retry-after"]) > 0
    engine.load_gate.set()
    await eventually(lambda: toy.service.ready)
    assert (await toy.client.post(PATH, json=body())).status_code == 200


def holds(toy: Toy, waiting: int) -> bool:
    """Whether the first request runs, and so many wait."""
    return toy.service.device.queue_depth == waiting and toy.engine.events[-1] == "run held 0"


async def hold(toy: Toy, requests: int) -> list[asyncio.Task[httpx.Response]]:
    """Sends requests while the device is held up; one runs, the others wait."""
    toy.engine.gate.clear()
    sent = []
    for number in range(requests):
        sent.append(asyncio.create_task(toy.client.post(PATH, json=body(say=f"held {number}"))))
        await eventually(partial(holds, toy, number))  # one after the other: two preparing threads may change the order
    return sent


async def test_a_full_queue_answers_503_before_the_body_is_read(start_toy: StartToy) -> None:
    toy = await start_toy(queue_size=2)
    held = await hold(toy, 3)
    assert toy.metric("aiservice_queue_depth") == 2
    assert toy.metric("aiservice_requests_in_flight", task="speech-to-text") == 3
    answer = await toy.client.post(PATH, json=body())
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    toy.engine.gate.set()
    assert [(await task).status_code for task in held] == [200] * 3
    assert (await toy.client.post(PATH, json=body())).status_code == 200
    assert toy.metric("aiservice_requests_in_flight", task="speech-to-text") == 0


async def test_a_request_of_many_batches_is_told_to_come_back_after_all_of_them(start_toy: StartToy) -> None:
    toy = await start_toy(queue_size=0)
    assert (await toy.client.post(PATH, json=body(seconds=1))).status_code == 200  # so that a batch takes a second
    toy.engine.gate.clear()
    large = asyncio.create_task(toy.client.post(PATH, json=body(say="large", n=8)))
    await eventually(lambda: toy.engine.events[-1] == "run large")
    refused = await toy.client.post(PATH, json=body())
    assert (refused.status_code, int(refused.headers["retry-after"]) >= 7) == (503, True)
    toy.engine.gate.set()
    assert (await large).status_code == 200


async def test_a_client_that_leaves_the_queue_costs_no_device_time(start_toy: StartToy) -> None:
    toy = await start_toy()
    [first] = await hold(toy, 1)
    _, writer = await asyncio.open_connection("127.0.0.1", toy.port)
    content = json.dumps(body(say="leaver")).encode()
    writer.write(
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n".encode()
        + content
    )
    await eventually(lambda: toy.service.device.queue_depth == 1)
    writer.close()
    await eventually(lambda: toy.service.device.queue_depth == 0 and toy.service.admission.held == 1)
    toy.engine.gate.set()
    assert (await first).status_code == 200
    assert (await toy.client.post(PATH, json=body(say="next"))).status_code == 200
    assert toy.engine.events[2:] == ["run held 0", "run next"]
    assert toy.metric("aiservice_request_seconds_count", task="speech-to-text", outcome="cancelled") == 1


class Form(dict[str, str | bytes]):
    """The parts of a form; unlike a plain dict, it can be referred to weakly."""


@pytest.fixture
def forms(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Form]]:
    """Notes the body of each request that comes from now on, as a form."""
    found: list[weakref.ref[Form]] = []
    read = Incoming.read

    async def noted(self: Incoming, seconds: float, *, files: int) -> Form:
        raw = await read(self, seconds, files=files)
        assert isinstance(raw, dict)
        form = Form(raw)
        found.append(weakref.ref(form))
        return form

    monkeypatch.setattr(Incoming, "read", noted)
    return found


async def test_bodies_of_clients_that_left_are_not_kept(start_toy: StartToy, forms: list[weakref.ref[Form]]) -> None:
    toy = await start_toy()
    toy.engine.prepare_gate.clear()

    def come(count: int) -> list[asyncio.Task[httpx.Response]]:
        return [asyncio.create_task(toy.client.post(PATH, files={"file": ("a", b"abc")})) for _ in range(count)]

    def kept() -> int:
        gc.collect()
        return sum(form() is not None for form in forms)

    async def leave(requests: list[asyncio.Task[httpx.Response]], remaining: int) -> None:
        for request in requests:
            request.cancel()
        await eventually(lambda: toy.service.admission.held == remaining)

    first = come(2)
    await eventually(lambda: len(toy.engine.preparing) == 2)  # every thread is busy
    second = come(4)
    await eventually(lambda: len(forms) == 6)
    assert kept() == 6
    await leave(second, remaining=2)
    assert kept() == 2
    # What a thread has begun it holds until it is through, and no other takes its place until then.
    await leave(first, remaining=0)
    third = come(4)
    await eventually(lambda: len(forms) == 10)
    await leave(third, remaining=0)
    assert (kept(), len(toy.engine.preparing)) == (2, 2)
    toy.engine.prepare_gate.set()
    [last] = await asyncio.gather(*come(1))
    assert last.status_code == 200
    assert kept() == 0


async def test_a_client_that_leaves_while_sending_frees_its_place(start_toy: StartToy) -> None:
    toy = await start_toy(queue_size=0)
    _, writer = await asyncio.open_connection("127.0.0.1", toy.port)
    writer.write(
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{{".encode()
    )
    await eventually(lambda: toy.service.admission.held == 1)
    assert (await toy.client.post(PATH, json=body())).status_code == 503
    writer.close()
    await eventually(lambda: toy.service.admission.held == 0)
    assert (await toy.client.post(PATH, json=body())).status_code == 200


async def test_a_client_that_leaves_during_the_run_does_not_stop_the_service(start_toy: StartToy) -> None:
    toy = await start_toy()
    [first] = await hold(toy, 1)
    first.cancel()
    await eventually(lambda: toy.service.admission.held == 0)
    toy.engine.gate.set()
    assert (await toy.client.post(PATH, json=body(say="next"))).status_code == 200


async def test_a_request_that_waits_too_long_is_dropped(start_toy: StartToy) -> None:
    toy = await start_toy(request_seconds=2)
    first, second = await hold(toy, 2)
    answers = await asyncio.gather(first, second)
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(503, "overloaded")] * 2
    assert "2 seconds" in answers[0].json()["error"]
    toy.engine.gate.set()
    assert (await toy.client.post(PATH, json=body(say="next"))).status_code == 200
    assert [event for event in toy.engine.events if event.startswith("run")] == ["run held 0", "run next"]


async def test_closing_fails_what_waits_with_a_hint_to_try_again(start_toy: StartToy) -> None:
    toy = await start_toy()
    first, second = await hold(toy, 2)
    toy.service.close()
    answer = await second
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    toy.engine.gate.set()
    assert (await first).status_code == 200
    await eventually(lambda: toy.engine.events[-1] == "release")


async def test_closing_refuses_what_waits_for_a_thread(start_toy: StartToy) -> None:
    toy = await start_toy()
    toy.engine.prepare_gate.clear()
    sent = [asyncio.create_task(toy.client.post(PATH, json=body())) for _ in range(3)]
    await eventually(lambda: len(toy.engine.preparing) == 2 and toy.service.admission.held == 3)
    toy.service.close()
    toy.engine.prepare_gate.set()
    for request in sent:
        answer = await request
        assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")


async def test_a_dead_device_thread_is_told(start_toy: StartToy, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = await start_toy()

    def defect() -> None:
        raise RuntimeError("a defect of the loop itself")

    monkeypatch.setattr(toy.service.device, "_next", defect)
    assert (await toy.client.post(PATH, json=body())).status_code == 200
    await eventually(lambda: toy.service.device.ended)
    assert (await toy.client.get("/health")).status_code == 503
    assert (await toy.client.get("/ready")).json() == {"status": "failed"}
    assert "RuntimeError: a defect of the loop itself" in toy.service.device.failure
    assert toy.engine.events[-1] == "release"

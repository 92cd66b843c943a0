"""Giving the device back for a while: POST /sleep and /wake."""

from __future__ import annotations

import asyncio

from support.toy_engine import ToyEngine, ToyMemoryError
from support.toy_service import PATH, StartToy, body, eventually


async def test_sleeping_frees_the_device_and_waking_takes_it_again(start_toy: StartToy) -> None:
    toy = await start_toy()
    answer = await toy.client.post("/sleep")
    assert (answer.status_code, answer.json()) == (200, {"status": "asleep"})
    assert toy.engine.events[-1] == "sleep"
    assert (await toy.client.get("/ready")).json() == {"status": "asleep"}
    assert (await toy.client.get("/health")).status_code == 200
    refused = await toy.client.post(PATH, json=body())
    assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
    answer = await toy.client.post("/wake")
    assert (answer.status_code, answer.json()) == (200, {"status": "serving"})
    assert (await toy.client.post(PATH, json=body(say="a"))).json()["text"] == "a"
    assert toy.metric("aiservice_loads_total") == 2
    assert toy.engine.threads == {"device"}


async def test_both_may_be_said_twice(start_toy: StartToy) -> None:
    toy = await start_toy()
    assert [(await toy.client.post(path)).status_code for path in ("/wake", "/sleep", "/sleep", "/wake")] == [200] * 4
    assert toy.engine.events == ["load", "warm up", "sleep", "wake"]


async def test_what_is_in_flight_is_answered_before_sleep(start_toy: StartToy) -> None:
    toy = await start_toy()
    toy.engine.gate.clear()
    first = asyncio.create_task(toy.client.post(PATH, json=body(say="first")))
    await eventually(lambda: toy.engine.events[-1] == "run first")
    sleeping = asyncio.create_task(toy.client.post("/sleep"))
    await eventually(lambda: toy.service.state == "falling asleep")
    assert (await toy.client.post(PATH, json=body())).status_code == 503
    toy.engine.gate.set()
    assert (await first).json()["text"] == "first"
    assert (await sleeping).json() == {"status": "asleep"}


async def test_nothing_to_sleep_or_wake_is_a_conflict(start_toy: StartToy) -> None:
    engine = ToyEngine()
    engine.load_gate.clear()
    toy = await start_toy(engine, wait=False)
    for path, verb in (("/sleep", "sleep"), ("/wake", "wake")):
        answer = await toy.client.post(path)
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        assert f"is loading; it can {verb} when" in answer.json()["error"]
    engine.load_gate.set()


async def test_an_engine_that_cannot_sleep_ends_the_process(start_toy: StartToy) -> None:
    toy = await start_toy(ToyEngine(sleep_error=RuntimeError("stuck")))
    answer = await toy.client.post("/sleep")
    assert answer.status_code == 503
    await eventually(lambda: toy.service.device.ended)
    assert "RuntimeError: stuck" in toy.service.device.failure
    assert (await toy.client.get("/health")).status_code == 503


async def test_an_order_that_was_taken_back_is_not_carried_out(start_toy: StartToy) -> None:
    toy = await start_toy()
    toy.engine.gate.clear()
    first = asyncio.create_task(toy.client.post(PATH, json=body(say="first")))
    await eventually(lambda: toy.engine.events[-1] == "run first")
    assert toy.service.device.sleep().cancel()
    toy.engine.gate.set()
    assert (await first).status_code == 200
    assert (await toy.client.post(PATH, json=body(say="next"))).status_code == 200
    assert "sleep" not in toy.engine.events


async def test_a_device_without_room_leaves_it_asleep(start_toy: StartToy) -> None:
    toy = await start_toy(ToyEngine(wake_error=ToyMemoryError()))
    await toy.client.post("/sleep")
    answer = await toy.client.post("/wake")
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    assert "no room for the model now" in answer.json()["error"]
    assert (await toy.client.get("/ready")).json() == {"status": "asleep"}
    toy.engine.wake_error = None
    assert (await toy.client.post("/wake")).json() == {"status": "serving"}
    assert (await toy.client.post(PATH, json=body(say="a"))).json()["text"] == "a"


async def test_a_sleeping_service_stops_at_once(start_toy: StartToy) -> None:
    toy = await start_toy()
    await toy.client.post("/sleep")
    toy.service.close()
    await eventually(lambda: toy.engine.events[-1] == "release")

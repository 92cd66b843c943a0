"""Answers that begin before they are complete."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from support.toy_engine import ToyEngine, ToyMemoryError
from support.toy_service import PATH, StartToy, body, eventually


async def test_a_stream_begins_before_it_is_complete_and_ends_with_its_usage(start_toy: StartToy) -> None:
    toy = await start_toy()
    price = {"X-AIService-Unit-Price": "0.5"}
    async with toy.client.stream("POST", PATH, json=body(say="a", stream=3), headers=price) as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == "a 0"
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["x-aiservice-units"] == "2.000"
        assert answer.headers["x-aiservice-unit"] == "audio-second"
        # How many tokens it will be, and how long it takes, nobody knows yet.
        assert "x-aiservice-tokens" not in answer.headers
        assert [line async for line in lines] == ["a 1", "a 2", "2.0 3 1.0"]
    assert toy.metric("aiservice_request_seconds_count", task="speech-to-text", outcome="ok") == 1
    assert toy.metric("aiservice_units_total", task="speech-to-text", unit="audio-second") == 2
    assert toy.metric("aiservice_first_byte_seconds_count", task="speech-to-text") == 1


async def test_the_first_chunk_arrives_while_the_device_computes_the_next(start_toy: StartToy) -> None:
    toy = await start_toy()
    async with toy.client.stream("POST", PATH, json=body(say="a", stream=2, hold=True)) as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == "a 0"
        assert toy.engine.events[-1] == "stream a"
        toy.engine.hold.set()
        assert await anext(lines) == "a 1"


async def test_a_failure_before_the_first_chunk_is_an_error_like_any_other(start_toy: StartToy) -> None:
    toy = await start_toy()
    refused = await toy.client.post(PATH, json=body(refuse=True, stream=1))
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")


async def test_a_failure_in_the_middle_is_told_where_the_format_has_words(start_toy: StartToy) -> None:
    toy = await start_toy()
    answer = await toy.client.post(PATH, json=body(say="a", stream=1, fail=True))
    assert answer.status_code == 200
    assert answer.text.splitlines()[0] == "a 0"
    assert answer.text.splitlines()[1].startswith("failed: The model failed on this request")
    assert "toy broke" not in answer.text
    assert toy.metric("aiservice_request_seconds_count", task="speech-to-text", outcome="internal") == 1


async def test_a_failure_in_the_middle_cuts_a_format_without_words(start_toy: StartToy) -> None:
    toy = await start_toy()
    with pytest.raises(httpx.RemoteProtocolError):
        await toy.client.post(PATH, json=body(say="a", stream=1, fail=True, words=False))
    assert (await toy.client.post(PATH, json=body(say="next"))).status_code == 200


async def test_out_of_memory_before_the_first_chunk_is_tried_once_more(start_toy: StartToy) -> None:
    toy = await start_toy(ToyEngine(stream_errors=[ToyMemoryError()]))
    answer = await toy.client.post(PATH, json=body(say="a", stream=1))
    assert (answer.status_code, answer.text.splitlines()[0]) == (200, "a 0")
    assert toy.engine.events[2:] == ["stream a", "recover", "stream a"]


async def test_a_stream_without_room_at_all_is_refused(start_toy: StartToy) -> None:
    toy = await start_toy(ToyEngine(stream_errors=[ToyMemoryError(), ToyMemoryError()]))
    answer = await toy.client.post(PATH, json=body(say="a", stream=1))
    assert (answer.status_code, answer.json()["code"]) == (503, "out_of_memory")
    assert toy.engine.events[2:] == ["stream a", "recover"] * 2


async def test_out_of_memory_in_a_stream_fails_it_alone(start_toy: StartToy) -> None:
    toy = await start_toy()
    answer = await toy.client.post(PATH, json=body(say="a", stream=1, fits=0))
    assert "no memory for this request" in answer.text
    assert toy.engine.events[2:] == ["stream a", "recover"]
    assert (await toy.client.post(PATH, json=body(say="next"))).status_code == 200


async def test_a_client_that_leaves_a_stream_ends_it(start_toy: StartToy) -> None:
    toy = await start_toy()
    async with toy.client.stream("POST", PATH, json=body(say="a", stream=1000, seconds=0.05)) as answer:
        assert await anext(answer.aiter_lines()) == "a 0"
    await eventually(lambda: toy.service.admission.held == 0)
    assert (await toy.client.post(PATH, json=body(say="next"))).status_code == 200
    assert toy.metric("aiservice_request_seconds_count", task="speech-to-text", outcome="cancelled") == 1


async def test_a_stream_that_takes_too_long_is_told_so(start_toy: StartToy) -> None:
    toy = await start_toy(request_seconds=0.5)
    answer = await toy.client.post(PATH, json=body(say="a", stream=1000, seconds=0.05))
    assert "no answer within 0.5 seconds" in answer.text.splitlines()[-1]
    await asyncio.wait_for(toy.client.post(PATH, json=body(say="next")), 20)

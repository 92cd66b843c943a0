"""What a client sends and gets back, over real HTTP."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest

from support.toy_engine import ToyEngine
from support.toy_service import PATH, StartToy, Toy, body


async def test_json_is_answered_with_usage(start_toy: StartToy) -> None:
    toy = await start_toy()
    answer = await toy.client.post(
        PATH, json=body(b"\xffsound", say="hello"), headers={"X-AIService-Unit-Price": "0.5", "X-Request-Id": "id-1"}
    )
    assert answer.status_code == 200
    assert answer.json() == {
        "request_id": "id-1",
        "text": "hello",
        "bytes": 6,
        "first": "ff",
        "usage": {"units": 1.235, "unit": "audio-second", "tokens": 5, "cost": 0.6175},
    }
    assert answer.headers["x-request-id"] == "id-1"
    assert answer.headers["x-aiservice-units"] == "1.235"
    assert answer.headers["x-aiservice-unit"] == "audio-second"
    assert answer.headers["x-aiservice-tokens"] == "5"
    assert float(answer.headers["x-aiservice-device-seconds"]) >= 0


@pytest.mark.parametrize(
    ("price", "told"),
    [("1000000000", 1.235e9), ("1e9", 1.235e9), ("1e-999999999", 0), ("0.1234567890123456789012345678", 0.152469)],
)
async def test_the_most_extreme_prices_have_a_cost(start_toy: StartToy, price: str, told: float) -> None:
    toy = await start_toy()
    answer = await toy.client.post(PATH, json=body(), headers={"X-AIService-Unit-Price": price})
    assert (answer.status_code, answer.json()["usage"]["cost"]) == (200, told)


@pytest.mark.parametrize("part", ["file", "audio"])
async def test_multipart_is_the_same_request(start_toy: StartToy, part: str) -> None:
    toy = await start_toy()
    big = bytes(range(256)) * 20_000  # 5 MB: over what the form parser would put on disk by itself
    answer = await toy.client.post(PATH, data={"say": "hi", "seconds": "0.01"}, files={part: ("a.wav", big)})
    assert (answer.status_code, answer.json()["text"], answer.json()["bytes"]) == (200, "hi", len(big))
    assert answer.json()["usage"]["cost"] is None


async def test_a_form_may_hold_several_files(start_toy: StartToy) -> None:
    toy = await start_toy()
    answer = await toy.client.post(PATH, files={"file": ("a.wav", b"abc"), "mask": ("m.png", b"12345")})
    assert (answer.json()["bytes"], answer.json()["mask"]) == (3, 5)


async def test_an_answer_may_be_no_json(start_toy: StartToy) -> None:
    toy = await start_toy()
    answer = await toy.client.post(PATH, json=body(say="hello", raw=True))
    assert (answer.status_code, answer.text) == (200, "hello")
    assert answer.headers["content-type"].startswith("text/toy")
    assert answer.headers["x-aiservice-units"] == "1.000"


@pytest.mark.parametrize("given", ["", "has space", "x" * 129, "a/b"])
async def test_a_bad_request_id_is_replaced(start_toy: StartToy, given: str) -> None:
    toy = await start_toy()
    answer = await toy.client.post(PATH, json=body(), headers={"X-Request-Id": given})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] != given
    assert len(answer.json()["request_id"]) == 32


async def test_one_app_serves_all_tasks(start_toy: StartToy) -> None:
    toy = await start_toy()
    answer = await toy.client.post("/api/image-to-text", json=body(say="x"))
    assert answer.json()["usage"]["unit"] == "image"


BAD_REQUESTS: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "not json": ({"content": b"{"}, 400, "invalid_request", "not valid JSON"),
    "not an object": ({"content": b"[1]"}, 400, "invalid_request", "JSON object"),
    "no media": ({"json": {"say": "x"}}, 400, "invalid_request", "audio (in a form: the part `file`) is missing"),
    "bad base64": ({"json": {"audio": "ab!!"}}, 400, "invalid_request", "audio: must be base64"),
    "base64 with line break": ({"json": {"audio": "YWJj\nYWJj"}}, 400, "invalid_request", "audio: must be base64"),
    "media not text": ({"json": {"audio": 5}}, 400, "invalid_request", "audio:"),
    "unknown field": ({"json": body(colour="red")}, 400, "invalid_request", "'colour' is no field"),
    "wrong type": ({"json": body(seconds="long")}, 400, "invalid_request", "seconds:"),
    "refused by the engine": ({"json": body(refuse=True)}, 400, "invalid_request", "The toy refuses."),
    "bad price": ({"json": body(), "headers": {"X-AIService-Unit-Price": "-1"}}, 400, "invalid_request", "Unit-Price"),
    "no number as price": (
        {"json": body(), "headers": {"X-AIService-Unit-Price": "a"}},
        400,
        "invalid_request",
        "Unit-Price",
    ),
    **{
        f"price {price}": (
            {"json": body(), "headers": {"X-AIService-Unit-Price": price}},
            400,
            "invalid_request",
            "from 0 to 1000000000, of at most 28 digits",
        )
        for price in ("1e30", "1e22", "1000000000.000001", "1" * 40, "0." + "1" * 40, "1e" + "9" * 30, "Infinity")
    },
    "plain text": (
        {"content": b"abc", "headers": {"Content-Type": "text/plain"}},
        415,
        "unsupported_media",
        "not 'text/plain'",
    ),
    "form without boundary": (
        {"content": b"abc", "headers": {"Content-Type": "multipart/form-data"}},
        400,
        "invalid_request",
        "boundary",
    ),
    "broken form": (
        {"content": b"abc", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        400,
        "invalid_request",
        "multipart",
    ),
    "cut form": (
        {
            "content": b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc',
            "headers": {"Content-Type": "multipart/form-data; boundary=x"},
        },
        400,
        "invalid_request",
        "before its last boundary",
    ),
    "one file twice": (
        {"files": [("file", ("a", b"1")), ("audio", ("b", b"2"))]},
        400,
        "invalid_request",
        "both `file` and `audio`",
    ),
    "more files than fields": (
        {"files": [("file", ("a", b"1")), ("mask", ("b", b"2")), ("more", ("c", b"3"))]},
        400,
        "invalid_request",
        "Too many files",
    ),
    "not a number": (
        {"content": b'{"audio": "YWJj", "seconds": NaN}'},
        400,
        "invalid_request",
        "seconds: Input should be a finite number",
    ),
    "file is a text": ({"files": {"file": (None, "abc")}}, 400, "invalid_request", "filename"),
    "field twice": (
        {"files": [("file", ("a", b"1")), ("say", (None, "a")), ("say", (None, "b"))]},
        400,
        "invalid_request",
        "more than one part",
    ),
    "huge field": ({"files": {"file": ("a", b"1"), "say": (None, "x" * 70_000)}}, 400, "invalid_request", "64KB"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_bad_requests_get_a_sentence(start_toy: StartToy, name: str) -> None:
    toy = await start_toy()
    arguments, status, code, sentence = BAD_REQUESTS[name]
    if "content" in arguments:
        arguments = {"headers": {"Content-Type": "application/json"}, **arguments}
    answer = await toy.client.post(PATH, **arguments)
    error = answer.json()
    assert (answer.status_code, error["code"]) == (status, code)
    assert sentence in error["error"]
    assert error["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["x-aiservice-units"] == "0"
    assert not [event for event in toy.engine.events if event.startswith("run")]
    await assert_works(toy)


async def assert_works(toy: Toy) -> None:
    assert (await toy.client.post(PATH, json=body(say="ok"))).json()["text"] == "ok"
    assert toy.service.admission.held == 0


@pytest.mark.parametrize(("method", "path", "status"), [("GET", PATH, 405), ("POST", "/api/text-to-image", 404)])
async def test_other_paths_are_errors_of_the_same_shape(
    start_toy: StartToy, method: str, path: str, status: int
) -> None:
    toy = await start_toy()
    answer = await toy.client.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "code", "request_id"}
    assert answer.headers["x-request-id"] == answer.json()["request_id"]


async def test_a_body_that_says_it_is_too_large_is_refused(start_toy: StartToy) -> None:
    toy = await start_toy(max_body_mib=1)
    # 4 MB are more than the socket buffers hold: the client must get the answer while it still sends.
    answer = await toy.client.post(PATH, files={"file": ("a", b"x" * 4_000_000)})
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert "1 MiB" in answer.json()["error"]
    await assert_works(toy)


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
async def test_a_body_without_length_is_cut_off_while_it_arrives(start_toy: StartToy, kind: str) -> None:
    toy = await start_toy(max_body_mib=1)
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        while sent < 8 * 1024**2:
            sent += 65536
            yield b"x" * 65536

    answer = await toy.client.post(PATH, content=endless(), headers={"Content-Type": kind})
    assert answer.status_code == 413
    await assert_works(toy)


async def test_expect_continue_saves_the_upload(start_toy: StartToy) -> None:
    toy = await start_toy(max_body_mib=1)
    reader, writer = await asyncio.open_connection("127.0.0.1", toy.port)
    writer.write(
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n"
        "Expect: 100-continue\r\n\r\n".encode()
    )
    answer = await asyncio.wait_for(reader.readuntil(b"}"), 5)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"payload_too_large" in answer


async def test_a_slow_body_is_given_up(start_toy: StartToy) -> None:
    toy = await start_toy(receive_seconds=0.2)

    async def slow() -> Any:
        yield b'{"audio": "'
        await asyncio.sleep(0.5)
        yield b'YWJj"}'

    answer = await toy.client.post(PATH, content=slow(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert "0.2 seconds" in answer.json()["error"]
    assert toy.service.admission.held == 0


async def test_an_engine_error_fails_one_request_only(start_toy: StartToy, caplog: pytest.LogCaptureFixture) -> None:
    toy = await start_toy()
    with caplog.at_level(logging.ERROR):
        answer = await toy.client.post(PATH, json=body(say="secret prompt", fail=True))
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "toy broke" not in answer.text
    assert "the toy broke" in str(caplog.records[0].exc_info)
    await assert_works(toy)
    assert toy.metric("aiservice_request_seconds_count", task="speech-to-text", outcome="internal") == 1


async def test_metrics_and_probes(start_toy: StartToy) -> None:
    toy = await start_toy()
    before = toy.metric("aiservice_last_request_timestamp_seconds")
    await toy.client.post(PATH, json=body(say="x", seconds=0.05))
    await toy.client.post(PATH, json={})
    page = (await toy.client.get("/metrics")).text
    labels = 'task="speech-to-text"'
    assert f'aiservice_request_seconds_count{{outcome="ok",{labels}}} 1.0' in page
    assert f'aiservice_request_seconds_count{{outcome="invalid_request",{labels}}} 1.0' in page
    assert "aiservice_queue_depth 0.0" in page
    assert "aiservice_ready 1.0" in page
    assert 'aiservice_requests_in_flight{task="image-to-text"} 0.0' in page
    assert 'aiservice_start_seconds{phase="load"}' in page
    assert toy.metric("aiservice_units_total", task="speech-to-text", unit="audio-second") == pytest.approx(1.23456)
    assert toy.metric("aiservice_device_seconds_total", task="speech-to-text") >= 0.05
    assert before == 0
    assert toy.metric("aiservice_last_request_timestamp_seconds") > 1e9
    assert (await toy.client.get("/health")).json() == {"status": "alive"}
    assert (await toy.client.get("/ready")).status_code == 200


async def test_the_engine_is_touched_by_one_thread(start_toy: StartToy) -> None:
    toy = await start_toy()
    await asyncio.gather(*(toy.client.post(PATH, json=body(say=str(number))) for number in range(5)))
    assert toy.engine.threads == {"device"}
    assert toy.engine.events[:2] == ["load", "warm up"]
    assert len(toy.engine.events) == 7


async def test_two_apps_in_one_process_keep_their_metrics_apart(start_toy: StartToy) -> None:
    one, two = await start_toy(), await start_toy(ToyEngine())
    await one.client.post(PATH, json=body())
    assert one.metric("aiservice_request_seconds_count", task="speech-to-text", outcome="ok") == 1
    assert two.metric("aiservice_request_seconds_count", task="speech-to-text", outcome="ok") == 0


async def test_keep_alive_survives_errors(start_toy: StartToy) -> None:
    toy = await start_toy()
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(base_url=toy.client.base_url, limits=limits) as client:
        for _ in range(3):
            assert (await client.post(PATH, json=body(refuse=True))).status_code == 400
            assert (await client.post(PATH, json=body())).status_code == 200

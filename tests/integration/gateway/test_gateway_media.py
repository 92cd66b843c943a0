"""Pictures and sound by themselves, and tokens of streamed answers, through the gateway from the real runtime."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.gateway import bearer, environment, eventually, gateway_here, write_services
from support.service_process import Process

RUNTIME = Path(__file__).parents[3] / ".venvs" / "runtime" / "bin" / "python"
TASKS = ["speech-to-text", "text-to-speech", "text-to-image"]
DRAW, SPEAK, HEAR = "/api/text-to-image", "/api/text-to-speech", "/api/speech-to-text"
SPOKEN = b"".join(str(number).encode() * 1000 for number in range(5)) + b"end"
PRICES = '{"text-to-image": 0.5, "text-to-speech": 0.25, "speech-to-text": 2}'


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not RUNTIME.exists():
        pytest.fail("the runtime's environment is missing: scripts/env runtime")
    variables = {"AISERVICE_PORTS": ",".join(f"{task}=0" for task in TASKS)}
    process = Process("support.contract_engine", tmp_path_factory.mktemp("runtime"), [], variables, python=RUNTIME)
    try:
        process.wait_for("ready")
        yield f"http://127.0.0.1:{process.ports()[TASKS[0]]}"  # each port has all tasks
    finally:
        process.child.kill()
        process.end()


@pytest.fixture
async def client(runtime: str, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    write_services(tmp_path / "services.yaml", {"name": "media", "tasks": TASKS, "url": runtime})
    async with gateway_here(environment(tmp_path, GATEWAY_PRICES=PRICES)) as client:
        yield client


async def post(
    client: aiohttp.ClientSession, path: str, body: Mapping[str, Any], accept: str = "*/*", **headers: str
) -> tuple[int, bytes, Mapping[str, str]]:
    sent = {**bearer(), "Accept": accept, **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with client.post(path, json=body, headers=sent) as answer:
        return answer.status, await answer.read(), answer.headers


async def records(client: aiohttp.ClientSession, count: int) -> list[dict[str, Any]]:
    """The usage records, the newest first, once they are so many."""
    found: list[dict[str, Any]] = []

    async def look() -> bool:
        async with client.get("/api/usage/records", headers=bearer()) as answer:
            found[:] = (await answer.json())["records"]
        return len(found) == count

    await eventually(look)
    return found


def charged(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(record[name] for name in ("service", "status", "units", "tokens", "cost"))


async def test_a_picture_by_itself_and_its_record(client: aiohttp.ClientSession) -> None:
    status, content, headers = await post(client, DRAW, {"prompt": "a cup", "seed": 3}, "image/webp, */*;q=0.5")
    assert (status, content) == (200, b"a cup" * 10_000)
    assert (headers["Content-Type"], headers["Content-Length"]) == ("image/webp", "50000")
    assert headers["Vary"] == "Accept"
    told = {
        name: headers[f"X-AIService-{name}"] for name in ("Format", "Size", "Seed", "Units", "Unit", "Tokens", "Cost")
    }
    assert told == {
        "Format": "webp",
        "Size": "64x64",
        "Seed": "3",
        "Units": "1.000",
        "Unit": "image",
        "Tokens": "5",
        "Cost": "0.500000",
    }
    _, document, headers = await post(client, DRAW, {"prompt": "a cup", "seed": 3})
    assert b64decode(json.loads(document)["images"][0]["b64"]) == content
    assert (headers["Vary"], "X-AIService-Seed" in headers) == ("Accept", False)
    both = await records(client, 2)
    assert {charged(record) for record in both} == {("text-to-image", "succeeded", 1.0, 5, 0.5)}


@pytest.mark.parametrize(
    ("path", "body", "accept", "sentence"),
    [
        (DRAW, {"prompt": "x", "n": 2}, "image/*", "n is not 1"),
        (DRAW, {"prompt": "x", "format": "png"}, "image/jpeg", "format is png, which Accept does not take"),
        (DRAW, {"prompt": "x"}, "text/html", "Accept takes nothing that this task answers"),
        (SPEAK, {"text": "x", "stream": True}, "application/json", "stream asks for the file itself"),
    ],
)
async def test_what_cannot_be_accepted_is_told_in_json_and_costs_nothing(
    client: aiohttp.ClientSession, path: str, body: dict[str, Any], accept: str, sentence: str
) -> None:
    status, content, headers = await post(client, path, body, accept)
    document = json.loads(content)
    assert (status, document["code"], headers["Content-Type"]) == (406, "not_acceptable", "application/json")
    assert document["error"].startswith(sentence)
    assert document["request_id"] == headers["X-Request-Id"]
    assert charged((await records(client, 1))[0])[1:] == ("failed", 0, 0, 0)


async def test_several_accept_headers_are_one_list(client: aiohttp.ClientSession) -> None:
    headers = [*bearer().items(), ("Accept", "application/json;q=0.5"), ("Accept", "image/jpeg")]
    async with client.post(DRAW, json={"prompt": "x"}, headers=headers) as answer:
        assert answer.content_type == "image/jpeg"


async def test_a_repeated_request_gets_the_same_bytes_and_another_accept_is_another_request(
    client: aiohttp.ClientSession,
) -> None:
    body, key = {"prompt": "a cup"}, "k-1"
    first = await post(client, DRAW, body, "image/jpeg", Idempotency_Key=key)
    again = await post(client, DRAW, body, "image/jpeg", Idempotency_Key=key)
    assert again[:2] == first[:2] == (200, b"a cup" * 10_000)
    assert again[2]["Idempotent-Replayed"] == "true"
    for name in ("Content-Type", "Vary", "X-AIService-Format", "X-AIService-Size", "X-AIService-Cost"):
        assert again[2][name] == first[2][name]
    for accept in ("image/png", "*/*"):
        status, content, _ = await post(client, DRAW, body, accept, Idempotency_Key=key)
        assert (status, json.loads(content)["code"]) == (422, "idempotency_key_reused")
    assert len(await records(client, 1)) == 1


async def test_jobs_answer_json_and_streamed_sound_as_it_is(client: aiohttp.ClientSession) -> None:
    for task, request, kind in (
        ("text-to-image", {"prompt": "a cup"}, "application/json"),
        ("text-to-speech", {"text": "Hello", "format": "mp3", "stream": True}, "audio/mpeg"),
    ):
        order = {"task": task, "request": request}
        async with client.post("/v1/jobs", json=order, headers=bearer() | {"Accept": "image/png"}) as answer:
            job = await answer.json()
        seen: dict[str, Any] = {}

        async def over(path: str = f"/v1/jobs/{job['id']}", seen: dict[str, Any] = seen) -> bool:
            async with client.get(path, headers=bearer()) as answer:
                seen |= await answer.json()
            return bool(seen["status"] == "succeeded")

        await eventually(over)
        async with client.get(f"/v1/jobs/{job['id']}/result", headers=bearer()) as answer:
            assert answer.content_type == kind == seen["result"]["content_type"]
            content = await answer.read()
        assert seen["usage"]["tokens"] == (5 if kind == "application/json" else 7)
    assert content == SPOKEN


async def test_sound_by_itself_whole_and_streamed_and_its_tokens(client: aiohttp.ClientSession) -> None:
    whole = await post(client, SPEAK, {"text": "Hello"}, "audio/mpeg")
    assert whole[:2] == (200, b"Hello")
    streamed = await post(client, SPEAK, {"text": "Hello", "stream": True}, "audio/mpeg")
    assert streamed[:2] == (200, SPOKEN)
    for _, _, headers in (whole, streamed):
        assert (headers["Content-Type"], headers["X-AIService-Voice"]) == ("audio/mpeg", "Ana")
        assert (headers["X-AIService-Tokens"], headers["X-AIService-Cost"]) == ("7", "1.250000")
    assert whole[2]["X-AIService-Audio-Seconds"] == "1.5"
    assert "X-AIService-Audio-Seconds" not in streamed[2]
    for record in await records(client, 2):
        assert charged(record) == ("text-to-speech", "succeeded", 5.0, 7, 1.25)


@pytest.mark.parametrize("stream_format", ["audio", "sse"])
async def test_speech_for_openais_clients_records_its_tokens(client: aiohttp.ClientSession, stream_format: str) -> None:
    body = {"model": "media", "voice": "Ana", "input": "Hello", "stream_format": stream_format}
    status, content, headers = await post(client, "/v1/audio/speech", body, "application/octet-stream")
    assert (status, headers["X-AIService-Tokens"]) == (200, "7")
    assert "Vary" not in headers, "Accept chooses nothing there"
    if stream_format == "audio":
        assert (content, headers["Content-Type"]) == (SPOKEN, "audio/mpeg")
    else:
        last = json.loads(content.strip().split(b"\n\n")[-1].removeprefix(b"data: "))
        assert last["usage"] == {"input_tokens": 7, "output_tokens": 0, "total_tokens": 7}
    assert charged((await records(client, 1))[0]) == ("text-to-speech", "succeeded", 5.0, 7, 1.25)


@pytest.mark.parametrize("path", [HEAR, "/v1/audio/transcriptions"])
async def test_a_streamed_transcript_records_the_tokens_of_its_last_event(
    client: aiohttp.ClientSession, path: str
) -> None:
    form = aiohttp.FormData({"stream": "true", **({} if path == HEAR else {"model": "media"})})
    form.add_field("file", b"RIFF" * 1000, filename="a.wav")
    async with client.post(path, data=form, headers=bearer()) as answer:
        assert answer.status == 200
        assert "X-AIService-Tokens" not in answer.headers, "nobody knows them yet"
        await answer.read()
    assert charged((await records(client, 1))[0]) == ("speech-to-text", "succeeded", 2.5, 5, 5.0)

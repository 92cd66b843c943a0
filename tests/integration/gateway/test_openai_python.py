"""OpenAI's own Python client, unchanged, against a gateway process and an engine that keeps to docs/inference.md."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from support.contract import SEGMENTS, SOUND, SRT, TEXT, VTT, Contract, picture, running_contract, services
from support.databases import free_port
from support.gateway import (
    GatewayProcess,
    bearer,
    environment,
    eventually,
    token,
    write_services,
)

# OpenAI deprecates routes of its own, such as translations.
pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")

MIB = 1024 * 1024
WAV = ("speech.wav", b"RIFF" * 5000, "audio/wav")
PNG = ("image.png", b"\x89PNG" * 3000, "image/png")


@dataclass(frozen=True)
class Door:
    """A gateway process, and where its engine will listen."""

    process: GatewayProcess
    engine_port: int


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("openai")
    port = free_port()
    down: list[dict[str, object]] = [
        {"name": "away", "tasks": ["speech-to-text"], "url": f"http://127.0.0.1:{free_port()}"},
        {"name": "theirs", "tasks": ["text-to-image"], "url": f"http://127.0.0.1:{port}", "tenants": ["others"]},
    ]
    file = write_services(folder / "services.yaml", *services(f"http://127.0.0.1:{port}"), *down)
    poor = {"metadata": {"name": "poor"}, "spec": {"limits": [{"measure": "spend", "maximum": 0.004}]}}
    file.write_text(f"{file.read_text()}\ntenants: {json.dumps([poor])}\n")
    variables = {"GATEWAY_UPSTREAM_TIMEOUT_SECONDS": "10", "GATEWAY_HELD_UPLOAD_BYTES": str(8 * MIB)}
    process = GatewayProcess(folder, environment(folder, **variables, GATEWAY_RATE_LIMIT_PER_HOUR="12"))
    try:
        asyncio.run(process.ready())
        yield Door(process, port)
    finally:
        process.kill()


@dataclass
class World:
    """A tenant's client, and what is behind the gateway."""

    client: openai.AsyncOpenAI
    engine: Contract
    url: str
    tenant: str

    async def used(self) -> dict[str, Any]:
        """The tenant's usage by task, from the ledger."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/api/usage", headers=bearer(self.tenant)) as answer,
        ):
            used: dict[str, Any] = (await answer.json())["services"]
            return used

    async def billed(self, task: str, count: int, units: float) -> None:
        """Waits until the ledger says so."""

        async def same() -> bool:
            used = (await self.used()).get(task, {"count": 0, "units": 0.0})
            return (used["count"], used["units"]) == (count, units)

        try:
            await eventually(same)
        except TimeoutError:
            raise AssertionError(await self.used()) from None


@pytest.fixture
async def world(door: Door) -> AsyncIterator[World]:
    tenant = f"t-{uuid.uuid4().hex}"
    async with (
        running_contract(door.engine_port) as engine,
        openai.AsyncOpenAI(api_key=token(tenant), base_url=f"{door.process.url}/v1", max_retries=0) as client,
    ):
        yield World(client, engine, door.process.url, tenant)


async def test_models_are_the_services_and_their_aliases(world: World) -> None:
    models = [model async for model in world.client.models.list()]
    assert {model.id for model in models} >= {"sdxl", "gpt-image-1", "whisper", "whisper-1", "away"}
    assert {(model.object, model.owned_by) for model in models} == {("model", "aiservice")}
    model = await world.client.models.retrieve("whisper-1")
    assert (model.id, model.to_dict()["tasks"]) == ("whisper-1", ["speech-to-text"])
    with pytest.raises(openai.NotFoundError) as caught:
        await world.client.models.retrieve("gpt-5")
    assert caught.value.code == "model_not_found"


async def test_a_model_of_other_tenants_is_not_there(world: World) -> None:
    assert "theirs" not in {model.id async for model in world.client.models.list()}
    with pytest.raises(openai.NotFoundError):
        await world.client.models.retrieve("theirs")
    with pytest.raises(openai.NotFoundError) as caught:
        await world.client.images.generate(model="theirs", prompt="a")
    assert caught.value.code == "model_not_found"
    theirs = other(world, api_key=token("others"))
    assert (await theirs.models.retrieve("theirs")).id == "theirs"
    assert (await theirs.images.generate(model="theirs", prompt="a")).data


async def test_images_from_text(world: World) -> None:
    made = await world.client.images.generate(
        model="sdxl", prompt="a dog", n=2, size="512x512", response_format="b64_json", extra_body={"steps": 4}
    )
    assert [base64.b64decode(image.b64_json or "") for image in made.data or []] == [picture(0, 300), picture(1, 300)]
    assert (made.output_format, made.size, made.usage and made.usage.input_tokens) == ("png", "512x256", 4)
    assert abs(made.created - time.time()) < 60
    [sent] = world.engine.sent
    assert (sent.task, sent.fields) == (
        "text-to-image",
        {"prompt": "a dog", "n": 2, "size": "512x512", "format": "png", "steps": 4},
    )
    assert sent.headers["content-type"] == "application/json"
    assert not {"authorization", "x-stainless-lang"} & set(sent.headers)
    await world.billed("text-to-image", 1, 2.0)


async def test_large_images(world: World) -> None:
    world.engine.orders.picture_bytes = 12 * MIB
    made = await world.client.images.generate(model="gpt-image-1", prompt="a dog")
    [image] = made.data or []
    assert base64.b64decode(image.b64_json or "") == picture(0, 12 * MIB)
    await world.billed("text-to-image", 1, 1.0)


async def test_images_that_were_filtered(world: World) -> None:
    world.engine.orders.filtered = (0,)
    made = await world.client.images.generate(model="sdxl", prompt="a dog", n=2)
    assert [base64.b64decode(image.b64_json or "") for image in made.data or []] == [picture(1, 300)]
    with pytest.raises(openai.BadRequestError) as caught:
        await world.client.images.generate(model="sdxl", prompt="a dog")
    assert (caught.value.code, caught.value.param) == ("moderation_blocked", "prompt")
    await world.billed("text-to-image", 2, 3.0)


async def test_an_edit(world: World) -> None:
    made = await world.client.images.edit(
        model="sdxl", image=PNG, mask=("mask.png", b"M" * 100), prompt="winter", output_format="jpeg", user="me"
    )
    assert (made.output_format, len(made.data or [])) == ("jpeg", 1)
    [sent] = world.engine.sent
    assert sent.task == "image-to-image"
    assert sent.fields == {"prompt": "winter", "format": "jpeg"}
    assert sent.files == {"file": PNG[1], "mask": b"M" * 100}
    await world.billed("image-to-image", 1, 1.0)


async def test_an_edit_of_a_list_of_images(world: World) -> None:
    await world.client.images.edit(model="sdxl", image=[PNG], prompt="winter")
    assert world.engine.sent[0].files == {"file": PNG[1]}
    with pytest.raises(openai.BadRequestError, match="More than one image") as caught:
        await world.client.images.edit(model="sdxl", image=[PNG, PNG], prompt="winter")
    assert caught.value.param == "image"
    await world.billed("image-to-image", 1, 1.0)


@pytest.mark.parametrize(("kind", "media_type"), [("mp3", "audio/mpeg"), ("wav", "audio/wav"), ("pcm", "audio/pcm")])
async def test_speech(world: World, kind: Any, media_type: str) -> None:
    answer = await world.client.audio.speech.create(
        model="tts-1", voice="alloy", input="Hello there", response_format=kind, speed=1.5
    )
    assert answer.content == SOUND
    assert answer.response.headers["content-type"].startswith(media_type)
    [sent] = world.engine.sent
    assert sent.fields == {"text": "Hello there", "voice": "alloy", "format": kind, "speed": 1.5, "stream": True}
    await world.billed("text-to-speech", 1, 11.0)


async def test_speech_is_heard_while_it_is_computed(world: World) -> None:
    world.engine.orders.pause, world.engine.orders.pieces = 0.3, 4
    loop = asyncio.get_running_loop()
    async with world.client.audio.speech.with_streaming_response.create(
        model="xtts", voice="default", input="Hello", response_format="mp3"
    ) as answer:
        times = [loop.time() async for _ in answer.iter_bytes()]
    assert times[-1] - times[0] > 0.6
    assert "voice" not in world.engine.sent[0].fields


async def test_speech_as_events(world: World) -> None:
    answer = await world.client.audio.speech.create(model="xtts", voice="default", input="Hello", stream_format="sse")
    events = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line]
    assert answer.response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]) == SOUND
    assert events[-1]["type"] == "speech.audio.done"


async def test_a_transcription(world: World) -> None:
    heard = await world.client.audio.transcriptions.create(model="whisper-1", file=WAV, language="en", temperature=0)
    assert heard.text == TEXT
    assert heard.to_dict()["usage"] == {"type": "duration", "seconds": 3.0}
    [sent] = world.engine.sent
    assert (sent.fields, sent.files) == ({"format": "json", "language": "en"}, {"file": WAV[1]})
    await world.billed("speech-to-text", 1, 3.0)


async def test_a_verbose_transcription(world: World) -> None:
    heard = await world.client.audio.transcriptions.create(
        model="whisper", file=WAV, response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert (heard.text, heard.language, heard.duration) == (TEXT, "en", 3.0)
    assert [segment.text for segment in heard.segments or []] == [segment["text"] for segment in SEGMENTS]
    assert [word.word for word in heard.words or []] == ["The", "It"]
    assert world.engine.sent[0].fields == {"format": "verbose_json", "timestamps": "word"}


@pytest.mark.parametrize(("kind", "content"), [("text", TEXT + "\n"), ("srt", SRT), ("vtt", VTT)])
async def test_texts_and_subtitles(world: World, kind: Any, content: str) -> None:
    heard: Any = await world.client.audio.transcriptions.create(model="whisper", file=WAV, response_format=kind)
    assert heard == content
    english: Any = await world.client.audio.translations.create(model="whisper", file=WAV, response_format=kind)
    assert english == content
    await world.billed("speech-to-text", 2, 6.0)


async def test_a_streamed_transcription(world: World) -> None:
    world.engine.orders.pause = 0.1
    events = []
    async for event in await world.client.audio.transcriptions.create(model="whisper", file=WAV, stream=True):
        events.append(event)
        if event.type == "transcript.text.done":
            # What was used is in the ledger before the client sees the end.
            assert (await world.used())["speech-to-text"]["count"] == 1
    assert "".join(event.delta for event in events if event.type == "transcript.text.delta") == TEXT
    last = events[-1]
    assert last.type == "transcript.text.done"
    assert last.text == TEXT
    assert last.usage
    assert last.usage.output_tokens == 8


async def test_a_streamed_transcription_that_fails(world: World) -> None:
    world.engine.orders.fail = "The device is lost."
    with pytest.raises(openai.APIError, match="The device is lost"):
        async for _ in await world.client.audio.transcriptions.create(model="whisper", file=WAV, stream=True):
            pass


async def test_a_translation(world: World) -> None:
    english = await world.client.audio.translations.create(model="whisper", file=WAV)
    assert english.text == TEXT
    assert world.engine.sent[0].fields == {"format": "json", "translate": "true"}
    verbose = await world.client.audio.translations.create(model="whisper", file=WAV, response_format="verbose_json")
    assert (len(verbose.segments or []), verbose.duration) == (2, 3.0)


def about(image: bytes, *texts: str) -> list[Any]:
    url = f"data:image/png;base64,{base64.b64encode(image).decode()}"
    return [
        {
            "role": "user",
            "content": [
                *({"type": "text", "text": text} for text in texts),
                {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
            ],
        }
    ]


async def test_a_caption_and_a_question(world: World) -> None:
    caption = await world.client.chat.completions.create(model="blip2", messages=about(PNG[1]))
    assert caption.choices[0].message.content == "a sign beside a road\n\nSPEED LIMIT\n50"
    answer = await world.client.chat.completions.create(
        model="gpt-4o", messages=about(PNG[1], "What is it?"), max_tokens=300
    )
    [choice] = answer.choices
    assert (choice.message.content, choice.finish_reason, answer.model) == ("a sign beside a road", "stop", "blip2")
    assert answer.usage
    assert answer.usage.completion_tokens == 9
    assert [base64.b64decode(sent.fields["image"]) for sent in world.engine.sent] == [PNG[1], PNG[1]]
    assert world.engine.sent[1].fields["prompt"] == "Question: What is it? Answer:"
    await world.billed("image-to-text", 2, 2.0)


async def test_a_streamed_completion_about_a_large_image(world: World) -> None:
    image = bytes(range(256)) * 4 * 4096
    stream = await world.client.chat.completions.create(
        model="blip2", messages=about(image, "What?"), stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == "a sign beside a road"
    assert chunks[-1].usage
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert base64.b64decode(world.engine.sent[0].fields["image"]) == image


async def test_an_address_of_an_image_is_not_fetched(world: World) -> None:
    messages: list[Any] = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"{world.engine.url}/image.png"}}]}
    ]
    with pytest.raises(openai.BadRequestError, match="addresses are never fetched") as caught:
        await world.client.chat.completions.create(model="blip2", messages=messages)
    assert caught.value.param == "messages"
    assert world.engine.sent == []


# Errors: the client's own classes.


def other(world: World, **options: Any) -> openai.AsyncOpenAI:
    return world.client.with_options(**{"max_retries": 0, **options})


async def test_no_good_token(world: World) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        await other(world, api_key="sk-nonsense").models.list()
    assert (caught.value.status_code, caught.value.code) == (401, "invalid_api_key")
    with pytest.raises(openai.PermissionDeniedError) as denied:
        await other(world, api_key=token("")).models.list()
    assert (denied.value.status_code, denied.value.code) == (403, "no_tenant")


async def test_no_such_model_and_no_such_path(world: World) -> None:
    for model in ("gpt-image-9", "whisper"):
        with pytest.raises(openai.NotFoundError, match="There are: sdxl") as caught:
            await world.client.images.generate(model=model, prompt="a")
        assert (caught.value.code, caught.value.type) == ("model_not_found", "invalid_request_error")
        assert caught.value.request_id
    with pytest.raises(openai.NotFoundError) as missing:
        await world.client.embeddings.create(model="sdxl", input="a")
    assert missing.value.code == "not_found"


async def test_a_bad_request_of_ours_and_of_the_service(world: World) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await world.client.images.generate(model="sdxl", prompt="a", response_format="url")
    assert (caught.value.param, caught.value.code) == ("response_format", "invalid_value")
    assert world.engine.sent == []
    world.engine.orders.status, world.engine.orders.error = 400, "size is more than 1.1 megapixels."
    with pytest.raises(openai.BadRequestError, match=r"1\.1 megapixels") as refused:
        await world.client.images.generate(model="sdxl", prompt="a")
    assert (refused.value.param, refused.value.code) == ("size", "invalid_request")
    assert refused.value.response.headers["content-type"] == "application/json"
    await world.billed("text-to-image", 1, 0.0)


@pytest.mark.parametrize(
    ("status", "error"),
    [(413, openai.APIStatusError), (415, openai.APIStatusError), (422, openai.UnprocessableEntityError)],
)
async def test_other_refusals_of_the_service(world: World, status: int, error: type[openai.APIStatusError]) -> None:
    world.engine.orders.status = status
    with pytest.raises(error) as caught:
        await world.client.audio.transcriptions.create(model="whisper", file=WAV)
    assert (caught.value.status_code, caught.value.body) == (
        status,
        {"message": "told to", "type": "invalid_request_error", "param": None, "code": "invalid_request"},
    )


async def test_the_limit(world: World) -> None:
    for _ in range(12):
        await world.client.images.generate(model="sdxl", prompt="a")
    with pytest.raises(openai.RateLimitError) as caught:
        await world.client.images.generate(model="sdxl", prompt="a")
    assert caught.value.code == "rate_limit_exceeded"
    assert 3500 < int(caught.value.response.headers["retry-after"]) <= 3600
    assert caught.value.response.headers["x-ratelimit-remaining"] == "0"
    # The limit is the task's, whichever route is used.
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{world.url}/api/text-to-image", json={"prompt": "a"}, headers=bearer(world.tenant)) as answer,
    ):
        assert (answer.status, (await answer.json())["error"]) == (429, "Rate limit exceeded")


async def test_the_budget(world: World) -> None:
    poor = other(world, api_key=token("poor"))
    assert (await poor.images.generate(model="sdxl", prompt="a")).data
    with pytest.raises(openai.RateLimitError) as caught:
        await poor.images.generate(model="sdxl", prompt="a")
    assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")
    assert int(caught.value.response.headers["retry-after"]) > 0


async def test_a_service_that_fails_is_busy_or_away(world: World) -> None:
    world.engine.orders.status, world.engine.orders.error = 500, "CUDA error"
    with pytest.raises(openai.InternalServerError, match="The service sdxl failed") as caught:
        await world.client.images.generate(model="sdxl", prompt="a")
    assert (caught.value.status_code, caught.value.type, caught.value.code) == (502, "server_error", "upstream_failed")
    world.engine.orders.status = 503
    with pytest.raises(openai.InternalServerError) as busy:
        await world.client.audio.transcriptions.create(model="whisper", file=WAV)
    assert (busy.value.status_code, busy.value.response.headers["retry-after"]) == (503, "3")
    with pytest.raises(openai.InternalServerError, match="cannot be reached"):
        await world.client.audio.transcriptions.create(model="away", file=WAV)
    await world.billed("text-to-image", 1, 0.0)


async def test_the_client_tries_again_by_itself(world: World) -> None:
    world.engine.orders.status, world.engine.orders.retry_after = 503, 1
    asking = asyncio.create_task(other(world, max_retries=1).images.generate(model="sdxl", prompt="a"))
    await eventually(lambda: world.engine.sent)
    world.engine.orders.status = 200
    assert (await asking).data
    assert len(world.engine.sent) == 2


@pytest.mark.parametrize("body", [b"nonsense", b"{}", b'{"images": [], "usage": {"tokens": 1}}'])
async def test_an_answer_that_is_not_as_promised(world: World, body: bytes) -> None:
    world.engine.orders.body = body
    with pytest.raises(openai.InternalServerError, match="not as promised"):
        await world.client.images.generate(model="sdxl", prompt="a")
    with pytest.raises(openai.InternalServerError, match="not as promised"):
        await world.client.audio.transcriptions.create(model="whisper", file=WAV)


async def test_an_answer_that_breaks_off(world: World) -> None:
    world.engine.orders.cut = True
    with pytest.raises(openai.APIConnectionError):
        await world.client.audio.speech.create(model="xtts", voice="default", input="Hello")
    await world.billed("text-to-speech", 1, 0.0)


async def test_a_service_that_takes_too_long(world: World) -> None:
    world.engine.orders.pause, world.engine.orders.pieces = 4.0, 100
    with pytest.raises(openai.APIConnectionError):
        await world.client.audio.speech.create(model="xtts", voice="default", input="Hello")
    await world.billed("text-to-speech", 1, 0.0)


async def test_a_client_that_goes_away_while_it_listens(world: World) -> None:
    world.engine.orders.pause, world.engine.orders.pieces = 0.05, 1000
    async with world.client.audio.speech.with_streaming_response.create(
        model="xtts", voice="default", input="Hello"
    ) as answer:
        async for _ in answer.iter_bytes(1000):
            break
    await eventually(lambda: world.engine.disconnects)
    await world.billed("text-to-speech", 1, 5.0)


async def test_a_client_that_goes_away_while_it_sends(world: World) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n'
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        while True:
            yield b"x" * 20_000
            await asyncio.sleep(0.05)

    headers = {**bearer(world.tenant), "Content-Type": "multipart/form-data; boundary=b"}
    async with aiohttp.ClientSession() as session:
        sending = asyncio.create_task(
            session.post(f"{world.url}/v1/audio/transcriptions", data=endless(), headers=headers)
        )
        await asyncio.sleep(1)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    await eventually(lambda: world.engine.disconnects)
    assert await world.used() == {}


async def test_a_large_upload_is_never_whole_in_memory(world: World, door: Door) -> None:
    size = 90 * MIB
    content = bytes(range(256)) * (size // 256)
    world.engine.largest = MIB
    before = resident(door)
    peak = 0
    sending = asyncio.create_task(
        world.client.audio.transcriptions.create(model="whisper", file=("a.wav", io.BytesIO(content)), timeout=60)
    )
    while not sending.done():
        peak = max(peak, resident(door))
        await asyncio.sleep(0.02)
    assert (await sending).text == TEXT
    assert world.engine.sent[0].files["file"] == hashlib.sha256(content).digest()
    assert peak - before < 30 * MIB


def resident(door: Door) -> int:
    """Bytes of memory that the gateway's process has."""
    status = Path(f"/proc/{door.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


async def test_files_before_their_model_are_held_within_bounds(world: World) -> None:
    async def post(size: int) -> tuple[int, Any]:
        form = aiohttp.FormData()
        form.add_field("file", io.BytesIO(b"x" * size), filename="a.wav")
        form.add_field("model", "whisper")
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{world.url}/v1/audio/transcriptions", data=form, headers=bearer(world.tenant)) as answer,
        ):
            return answer.status, await answer.json()

    for _ in range(3):  # what is held is given back
        assert (await post(5 * MIB))[0] == 200
    status, body = await post(9 * MIB)
    assert (status, body["error"]["code"]) == (503, "unavailable")
    assert "before the files" in body["error"]["message"]
    assert (await post(5 * MIB))[0] == 200

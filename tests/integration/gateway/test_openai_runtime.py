"""OpenAI's Python client, the gateway and the inference images' own runtime: speech in both directions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from support.gateway import environment, gateway_here, token, write_services
from support.service_process import Process

RUNTIME = Path(__file__).parents[3] / ".venvs" / "runtime" / "bin" / "python"
WAV = ("a.wav", b"RIFF" * 100_000, "audio/wav")


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not RUNTIME.exists():
        pytest.fail("the runtime's environment is missing: scripts/env runtime")
    variables = {"AISERVICE_PORTS": "speech-to-text=0,text-to-speech=0,text-to-image=0"}
    process = Process("support.contract_engine", tmp_path_factory.mktemp("runtime"), [], variables, python=RUNTIME)
    try:
        process.wait_for("ready")
        yield f"http://127.0.0.1:{process.ports()['speech-to-text']}"  # each port has all tasks
    finally:
        process.child.kill()
        process.end()


@pytest.fixture
async def client(runtime: str, tmp_path: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    tasks = ["speech-to-text", "text-to-speech"]
    write_services(tmp_path / "services.yaml", {"name": "speech", "tasks": tasks, "url": runtime})
    async with gateway_here(environment(tmp_path)) as gateway:
        url = str(gateway._base_url).rstrip("/")
        async with openai.AsyncOpenAI(api_key=token(), base_url=f"{url}/v1", max_retries=0) as client:
            yield client


async def test_a_recording_becomes_text(client: openai.AsyncOpenAI) -> None:
    heard = await client.audio.transcriptions.create(model="speech", file=WAV, language="de")
    assert heard.text == "400000 bytes in de"
    verbose = await client.audio.transcriptions.create(
        model="speech", file=WAV, response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert (verbose.duration, len(verbose.words or []), len(verbose.segments or [])) == (2.5, 1, 1)
    text: Any = await client.audio.transcriptions.create(model="speech", file=WAV, response_format="text")
    assert text == "400000 bytes in None\n"


async def test_a_recording_becomes_text_while_it_is_heard(client: openai.AsyncOpenAI) -> None:
    stream = await client.audio.transcriptions.create(model="speech", file=WAV, stream=True)
    events = [event async for event in stream]
    assert "".join(event.delta for event in events if event.type == "transcript.text.delta") == "0 1 2 3 4"
    last = events[-1]
    assert last.type == "transcript.text.done"
    assert last.usage
    assert (last.text, last.usage.output_tokens) == ("0 1 2 3 4", 5)


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
async def test_a_recording_becomes_english(client: openai.AsyncOpenAI) -> None:
    english = await client.audio.translations.create(model="speech", file=WAV)
    assert english.text == "400000 bytes in None in English"


async def test_text_becomes_speech(client: openai.AsyncOpenAI) -> None:
    spoken = await client.audio.speech.create(model="speech", voice="Ana", input="Hello", response_format="wav")
    assert spoken.content == b"".join(str(number).encode() * 1000 for number in range(5)) + b"end"
    assert spoken.response.headers["content-type"] == "audio/wav"
    assert spoken.response.headers["x-aiservice-units"] == "5.000"


async def test_what_the_runtime_refuses(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no such voice; it has Ana"):
        await client.audio.speech.create(model="speech", voice="alloy", input="Hello")
    with pytest.raises(openai.BadRequestError, match="no sound in the file") as caught:
        await client.audio.transcriptions.create(model="speech", file=("a.wav", b"text"))
    assert caught.value.code == "invalid_request"

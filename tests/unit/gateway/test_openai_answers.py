"""What the services' answers become on the way to OpenAI's clients."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.types import Message

from aiservice_gateway.errors import ParameterError, UpstreamFailedError
from aiservice_gateway.services.openai.answers import (
    AnswerChannel,
    Answered,
    Document,
    EventStream,
    Rewriter,
    Verbatim,
    refusal,
)
from aiservice_gateway.services.openai.calls import NAMES
from aiservice_gateway.services.openai.chat import Chat
from aiservice_gateway.services.openai.images import ImageGeneration
from aiservice_gateway.services.openai.parameters import Parameters
from aiservice_gateway.services.openai.speech import Speech
from aiservice_gateway.services.openai.transcriptions import Transcription, Translation
from support.contract import SEGMENTS, TEXT

ANSWERED = Answered("id-1", "svc", 1700000000, units=3.0, tokens=8)
MESSAGES = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,0"}}]}]


def rewritten(rewriter: Rewriter, answer: bytes, size: int = 7) -> tuple[bytes, bytes]:
    """What was sent while the answer came, and what after it."""
    passed = b"".join(rewriter.feed(answer[at : at + size]) for at in range(0, len(answer), size))
    return passed, rewriter.end()


def of(kind: type[Parameters], **given: Any) -> Rewriter:
    return kind.read(given).rewriter(ANSWERED)


def as_json(rewriter: Rewriter, answer: object) -> Any:
    assert rewriter.media_type == "application/json"
    return json.loads(b"".join(rewritten(rewriter, json.dumps(answer).encode())))


def as_events(content: bytes) -> list[Any]:
    events = content.decode().split("\n\n")
    assert events.pop() == ""
    return [event.removeprefix("data: ") if "[DONE]" in event else json.loads(event[6:]) for event in events]


def heard(**more: Any) -> dict[str, Any]:
    usage = {"units": 3.0, "unit": "audio-second", "tokens": 8, "cost": None}
    return {"text": TEXT, "language": "en", "duration": 3.0, "segments": SEGMENTS, "usage": usage, **more}


def test_a_transcription_in_json() -> None:
    assert as_json(of(Transcription), heard()) == {"text": TEXT, "usage": {"type": "duration", "seconds": 3.0}}


@pytest.mark.parametrize(
    ("granularities", "keys"),
    [
        (None, {"segments"}),
        (["segment"], {"segments"}),
        (["word"], {"words"}),
        (["word", "segment"], {"words", "segments"}),
    ],
)
def test_a_verbose_transcription(granularities: list[str] | None, keys: set[str]) -> None:
    given = {"response_format": "verbose_json", "timestamp_granularities": granularities}
    answer = as_json(of(Transcription, **given), heard())
    assert set(answer) == {"task", "language", "duration", "text", "usage"} | keys
    assert (answer["task"], answer["language"], answer["duration"]) == ("transcribe", "en", 3.0)
    if "segments" in keys:
        assert [segment["id"] for segment in answer["segments"]] == [0, 1]
        assert answer["segments"][1]["avg_logprob"] == -0.2
        assert "words" not in answer["segments"][0]
    if "words" in keys:
        assert answer["words"] == [
            {"word": "The", "start": 0.0, "end": 0.3},
            {"word": "It", "start": 1.5, "end": 1.8},
        ]


def test_a_translation() -> None:
    answer = as_json(of(Translation, response_format="verbose_json"), heard())
    assert (answer["task"], len(answer["segments"])) == ("translate", 2)


@pytest.mark.parametrize("kind", ["text", "srt", "vtt"])
def test_texts_and_subtitles_stay_as_they_are(kind: str) -> None:
    rewriter = of(Transcription, response_format=kind)
    assert rewriter.media_type is None
    assert rewritten(rewriter, b"WEBVTT\n\n") == (b"WEBVTT\n\n", b"")


@pytest.mark.parametrize("size", [1, 5, 64, 100_000])
def test_a_streamed_transcription(size: int) -> None:
    events = [{"type": "segment", **segment} for segment in SEGMENTS]
    events.insert(1, {"type": "segment", "start": 1, "end": 1, "text": ""})
    events.append({"type": "done", **heard()})
    raw = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    passed, last = rewritten(of(Transcription, stream=True), raw, size)
    deltas = as_events(passed)
    assert "".join(event["delta"] for event in deltas) == TEXT
    assert {event["type"] for event in deltas} == {"transcript.text.delta"}
    [done] = as_events(last)
    assert (done["type"], done["text"], done["usage"]["output_tokens"]) == ("transcript.text.done", TEXT, 8)


def test_a_transcription_that_fails_in_the_middle() -> None:
    raw = b'data: {"type": "segment", "text": "a"}\n\ndata: {"type": "error", "error": "The device is lost."}\n\n'
    passed, last = rewritten(of(Transcription, stream=True), raw)
    assert len(as_events(passed)) == 1
    assert as_events(last)[0]["error"]["message"] == "The device is lost."


def test_sound_as_it_is_and_in_events() -> None:
    assert isinstance(of(Speech, input="a"), Verbatim)
    passed, last = rewritten(of(Speech, input="a", stream_format="sse"), b"0123456789")
    assert b"".join(base64.b64decode(event["audio"]) for event in as_events(passed)) == b"0123456789"
    assert as_events(last)[0]["type"] == "speech.audio.done"


def images(*contents: bytes | None) -> dict[str, Any]:
    each = [
        {
            "b64": None if content is None else base64.b64encode(content).decode(),
            "format": "webp",
            "width": 64,
            "height": 32,
            "seed": number,
            "filtered": content is None,
        }
        for number, content in enumerate(contents)
    ]
    usage = {"units": 1.0, "unit": "image", "tokens": 5, "cost": 0.003}
    return {"request_id": "x", "images": each, "steps": 3, "guidance": 5.0, "usage": usage}


@pytest.mark.parametrize("size", [1, 9, 4096])
def test_images_pass_without_being_kept(size: int) -> None:
    contents = [random.Random(number).randbytes(length) for number, length in enumerate((30_000, 0, 7))]
    answer = json.dumps(images(*contents)).encode()
    rewriter = of(ImageGeneration, prompt="a")
    held = 0
    passed = bytearray()
    for at in range(0, len(answer), size):
        passed += rewriter.feed(answer[at : at + size])
        held = max(held, at + size - len(passed))
    assert held < 1000
    document = json.loads(bytes(passed) + rewriter.end())
    assert [base64.b64decode(image["b64_json"]) for image in document["data"]] == contents
    assert (document["created"], document["output_format"], document["size"]) == (1700000000, "webp", "64x32")
    assert (document["seeds"], document["filtered"], document["usage"]["total_tokens"]) == ([0, 1, 2], 0, 5)


def test_images_that_the_safety_filter_refused() -> None:
    document = as_json(of(ImageGeneration, prompt="a"), images(None, b"x", None))
    assert (len(document["data"]), document["seeds"], document["filtered"]) == (1, [1], 2)
    with pytest.raises(ParameterError) as caught:
        rewritten(of(ImageGeneration, prompt="a"), json.dumps(images(None, None)).encode())
    assert caught.value.reason == "moderation_blocked"


def seen(caption: str | None, text: str, tokens: int = 9) -> dict[str, Any]:
    return {"caption": caption, "text": text, "lines": [], "usage": {"units": 1, "unit": "image", "tokens": tokens}}


@pytest.mark.parametrize(
    ("answer", "given", "content", "reason"),
    [
        (seen("a dog", ""), {}, "a dog", "stop"),
        (seen("a dog", "STOP\n50"), {}, "a dog\n\nSTOP\n50", "stop"),
        (seen(None, "STOP"), {}, "STOP", "stop"),
        (seen("", ""), {}, "", "stop"),
        (seen("a b c d", "", 4), {"max_tokens": 4}, "a b c d", "stop"),
        (seen("a b c d", "", 4), {"max_tokens": 3}, "a b c", "length"),
        (seen("a b", "c\nd e", 5), {"max_completion_tokens": 3, "max_tokens": 1}, "a b\n\nc", "length"),
    ],
)
def test_a_completion(answer: dict[str, Any], given: dict[str, Any], content: str, reason: str) -> None:
    document = as_json(of(Chat, messages=MESSAGES, **given), answer)
    assert (document["object"], document["model"], document["id"]) == ("chat.completion", "svc", "chatcmpl-id-1")
    [choice] = document["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (content, reason)
    assert document["usage"]["total_tokens"] == answer["usage"]["tokens"]


@pytest.mark.parametrize("usage", [True, False])
def test_a_completion_in_events(usage: bool) -> None:
    rewriter = of(Chat, messages=MESSAGES, stream=True, stream_options={"include_usage": usage})
    passed, last = rewritten(rewriter, json.dumps(seen("a dog", "")).encode())
    assert passed == b""
    events = as_events(last)
    assert events.pop() == "[DONE]"
    if usage:
        assert events.pop()["usage"]["completion_tokens"] == 9
    assert [event["choices"][0]["delta"].get("content") for event in events] == ["", "a dog", None]
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("sentence", "param"),
    [
        ("size must be WIDTHxHEIGHT in multiples of 8 pixels.", "size"),
        ("text: String should have at least 1 character.", "input"),
        ("The voice is not known.", None),
        ("n is more than 4, the limit of this service.", "n"),
    ],
)
def test_a_refusal_of_a_service(sentence: str, param: str | None) -> None:
    document = as_json(refusal(400, NAMES), {"error": sentence, "code": "invalid_request", "request_id": "x"})
    error = document["error"]
    assert error == {"message": sentence, "type": "invalid_request_error", "param": param, "code": "invalid_request"}


BROKEN: list[tuple[Rewriter, bytes]] = [
    (of(Transcription), b"{"),
    (of(Transcription), b"[]"),
    (of(Transcription), b'{"text": "a"}'),
    (of(Transcription, response_format="verbose_json"), b'{"text":"a","duration":1,"language":"en","segments":[{}]}'),
    (of(Transcription, stream=True), b'data: {"type": "segment", "text": "a"}\n\n'),
    (of(Transcription, stream=True), b"data: nonsense\n\n"),
    (of(Transcription, stream=True), b"data: " + b"x" * 1024 * 1024 + b"y"),
    (of(ImageGeneration, prompt="a"), b'{"images": []'),
    (of(ImageGeneration, prompt="a"), b'{"images": {}, "usage": {"tokens": 1}}'),
    (of(ImageGeneration, prompt="a"), b'{"x": "' + b"x" * 300_000 + b'"}'),
    (of(Chat, messages=MESSAGES), b'{"caption": 1, "text": 2, "usage": {"tokens": 1}}'),
    (refusal(400, {}), b'{"detail": "x"}'),
    (Document(lambda _: b"", most=10), b'{"a": "0123456789"}'),
    (EventStream(lambda _: (b"", False)), b"data: []\n\n"),
]


@pytest.mark.parametrize(("rewriter", "answer"), BROKEN)
def test_an_answer_that_is_not_as_promised_is_the_services_failure(rewriter: Rewriter, answer: bytes) -> None:
    with pytest.raises(UpstreamFailedError):
        rewritten(rewriter, answer, 65536)


async def test_the_channel_sends_nothing_before_it_must() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    channel = AnswerChannel(send, lambda status, headers: Document(lambda each: each["a"].encode()))
    headers = [(b"content-type", b"x/y"), (b"content-length", b"10"), (b"x-aiservice-units", b"1")]
    await channel.send({"type": "http.response.start", "status": 200, "headers": headers})
    await channel.send({"type": "http.response.body", "body": b'{"a"', "more_body": True})
    assert (sent, channel.begun) == ([], False)
    await channel.send({"type": "http.response.body", "body": b':"bc"}', "more_body": False})
    start, body = sent
    assert Headers(raw=start["headers"]) == Headers(
        {"content-type": "application/json", "content-length": "2", "x-aiservice-units": "1"}
    )
    assert (body["body"], body["more_body"]) == (b"bc", False)


async def test_the_channel_passes_an_unchanged_answer_on_with_its_length() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    channel = AnswerChannel(send, lambda status, headers: Verbatim())
    headers = [(b"content-type", b"audio/mpeg"), (b"content-length", b"3")]
    await channel.send({"type": "http.response.start", "status": 200, "headers": headers})
    await channel.send({"type": "http.response.body", "body": b"ab", "more_body": True})
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["headers"] == headers
    await channel.send({"type": "http.response.body", "body": b"c", "more_body": False})
    assert sent[-1]["more_body"] is False

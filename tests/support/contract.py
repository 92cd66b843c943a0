"""An engine of all five tasks that plays a runtime by docs/inference.md, in the test's own event loop.

It takes forms apart by their boundary, not with the gateway's parser, and keeps what it was sent.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send

from support.gateway import serving

Answer = tuple[bytes, str, dict[str, str]]
"""Body, type and further headers."""

SEGMENTS = [
    {
        "start": number * 1.5,
        "end": number * 1.5 + 1.4,
        "text": text,
        "words": [{"word": text.split()[0], "start": number * 1.5, "end": number * 1.5 + 0.3, "probability": 0.9}],
        "temperature": 0.0,
        "avg_logprob": -0.2,
        "compression_ratio": 1.1,
        "no_speech_prob": 0.01,
    }
    for number, text in enumerate(("The quick brown fox.", "It jumps."))
]
TEXT = "The quick brown fox. It jumps."
SRT = "1\n00:00:00,000 --> 00:00:01,400\nThe quick brown fox.\n"
VTT = "WEBVTT\n\n00:00:00.000 --> 00:00:01.400\nThe quick brown fox.\n"
SOUND = bytes(range(256)) * 40
_MOST_IMAGES = 64


_DISPOSITION = re.compile(rb'Content-Disposition: form-data; name="([^"]+)"(; filename="[^"]*")?')


@dataclass
class Sent:
    """A request as the engine got it."""

    task: str
    headers: dict[str, str]
    fields: dict[str, Any]
    """Of a form, texts; files left out."""
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Orders:
    """What the engine is to do instead of its usual answer."""

    status: int = 200
    error: str = "told to"
    code: str = "invalid_request"
    retry_after: int = 3
    body: bytes | None = None
    """Answered as it is, as JSON."""
    picture_bytes: int = 300
    filtered: tuple[int, ...] = ()
    """Numbers of the images that the safety filter refuses."""
    pause: float = 0.0
    """Seconds between the pieces of a streamed answer."""
    pieces: int = 4
    """Of a streamed sound."""
    cut: bool = False
    """Whether a streamed answer breaks off after its first piece."""
    fail: str | None = None
    """Whether a streamed transcription ends with an error event of this sentence."""


@dataclass
class Contract:
    """The engine."""

    orders: Orders = field(default_factory=Orders)
    sent: list[Sent] = field(default_factory=list)
    disconnects: int = 0
    largest: int = 1024 * 1024
    """Most bytes of a file that are kept; larger ones are kept as their SHA-256."""
    url: str = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if not scope["path"].startswith("/api/"):
            await _respond(send, 200, b"{}", {})
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnects += 1
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        try:
            request = _parsed(scope["path"].removeprefix("/api/"), headers, bytes(body), self.largest)
            self.sent.append(request)
            await self._answer(request, receive, send)
        except (ValueError, KeyError, TypeError, AttributeError):
            refusal = {
                "error": "No such request.",
                "code": "invalid_request",
                "request_id": headers.get("x-request-id"),
            }
            await _respond(send, 400, json.dumps(refusal).encode(), {})

    async def _answer(self, request: Sent, receive: Receive, send: Send) -> None:
        headers = request.headers
        if self.orders.status != 200:
            document = {"error": self.orders.error, "code": self.orders.code, "request_id": headers["x-request-id"]}
            extra = {"retry-after": str(self.orders.retry_after)} if self.orders.status == 503 else {}
            await _respond(send, self.orders.status, json.dumps(document).encode(), extra)
        elif self.orders.body is not None:
            await _respond(send, 200, self.orders.body, _usage(1, "image", 4))
        elif str(request.fields.get("stream")).lower() == "true":
            await self._stream(request, receive, send)
        else:
            content, media_type, extra = _ANSWERS[request.task](request, self.orders)
            await _respond(send, 200, content, {"content-type": media_type, **extra})

    async def _stream(self, request: Sent, receive: Receive, send: Send) -> None:
        sound = request.task == "text-to-speech"
        pieces = _sound(self.orders.pieces) if sound else _events(self.orders)
        kind = {"mp3": "audio/mpeg", "wav": "audio/wav"}.get(request.fields["format"], "audio/pcm; rate=24000")
        headers = {"content-type": kind if sound else "text/event-stream; charset=utf-8"}
        unit = ("character", len(request.fields["text"])) if sound else ("audio-second", 3.0)
        headers |= {"x-aiservice-units": str(unit[1]), "x-aiservice-unit": unit[0]}
        if self.orders.cut:
            headers["content-length"] = "100000"
        await send({"type": "http.response.start", "status": 200, "headers": _raw(headers)})
        gone = asyncio.create_task(_gone(receive))
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            if self.orders.cut:
                gone.cancel()
                return
            await asyncio.sleep(self.orders.pause)
            if gone.done():
                self.disconnects += 1
                return
        gone.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _sound(pieces: int) -> list[bytes]:
    size = len(SOUND) // 4
    return [SOUND[number % 4 * size : (number % 4 + 1) * size] for number in range(pieces)]


def _events(orders: Orders) -> list[bytes]:
    told = ({name: segment[name] for name in ("start", "end", "text")} for segment in SEGMENTS)
    events: list[dict[str, Any]] = [{"type": "segment", **segment} for segment in told]
    usage = {"units": 3.0, "unit": "audio-second", "tokens": 8, "cost": None}
    done = {"type": "done", "text": TEXT, "language": "en", "duration": 3.0, "usage": usage}
    events.append(done if orders.fail is None else {"type": "error", "error": orders.fail})
    # As two writes, in the middle of a line: a reader must not count on whole events.
    return [part for each in events for part in (b"data: ", json.dumps(each).encode() + b"\n\n")]


def _usage(units: float, unit: str, tokens: int) -> dict[str, str]:
    return {"x-aiservice-units": str(units), "x-aiservice-unit": unit, "x-aiservice-tokens": str(tokens)}


def picture(number: int, size: int) -> bytes:
    """The bytes of an image that the engine makes."""
    return hashlib.sha256(str(number).encode()).digest() * (size // 32 + 1)


def _images(request: Sent, orders: Orders) -> Answer:
    count = int(request.fields.get("n", 1))
    if not 1 <= count <= _MOST_IMAGES:
        raise ValueError("n is out of range")
    images = [
        {
            "b64": None
            if number in orders.filtered
            else base64.b64encode(picture(number, orders.picture_bytes)).decode(),
            "format": request.fields["format"],
            "width": 512,
            "height": 256,
            "seed": 7 + number,
            "filtered": number in orders.filtered,
        }
        for number in range(count)
    ]
    usage = {"units": float(count), "unit": "image", "tokens": 4, "cost": None}
    document = {"request_id": "x", "images": images, "steps": 30, "guidance": 5.0, "usage": usage}
    return _compact(document), "application/json", _usage(count, "image", 4)


def _transcript(request: Sent, orders: Orders) -> Answer:
    del orders
    usage = _usage(3.0, "audio-second", 8)
    kind = request.fields.get("format", "json")
    plain = {"text": (TEXT + "\n", "text/plain"), "srt": (SRT, "application/x-subrip"), "vtt": (VTT, "text/vtt")}
    if kind in plain:
        return plain[kind][0].encode(), f"{plain[kind][1]}; charset=utf-8", usage
    names = ["start", "end", "text"]
    names += ["words"] if request.fields.get("timestamps") == "word" else []
    names += ["temperature", "avg_logprob", "compression_ratio", "no_speech_prob"] if kind == "verbose_json" else []
    segments = [{name: segment[name] for name in names} for segment in SEGMENTS]
    told = {"units": 3.0, "unit": "audio-second", "tokens": 8, "cost": None}
    document = {"request_id": "x", "text": TEXT, "language": "en", "duration": 3.0, "segments": segments, "usage": told}
    return _compact(document), "application/json", usage


def _seen(request: Sent, orders: Orders) -> Answer:
    del orders
    document: dict[str, Any]
    captions = request.fields.get("caption") in (None, True)
    reads = request.fields.get("ocr") in (None, True)
    document = {
        "request_id": "x",
        "caption": "a sign beside a road" if captions else None,
        "text": "SPEED LIMIT\n50" if reads else "",
        "lines": [],
        "width": 8,
        "height": 8,
        "usage": {"units": 1.0, "unit": "image", "tokens": 9, "cost": None},
    }
    return _compact(document), "application/json", _usage(1, "image", 9)


_ANSWERS: Mapping[str, Callable[[Sent, Orders], Answer]] = {
    "text-to-image": _images,
    "image-to-image": _images,
    "speech-to-text": _transcript,
    "image-to-text": _seen,
}


def _compact(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()  # as Starlette writes it


def _parsed(task: str, headers: Mapping[str, str], body: bytes, largest: int) -> Sent:
    kind = headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        return Sent(task, dict(headers), json.loads(body))
    boundary = b"\r\n--" + kind.partition("boundary=")[2].encode()
    *parts, end = (b"\r\n" + body).split(boundary)[1:]
    if end != b"--\r\n":
        raise ValueError("the form has no end")
    sent = Sent(task, dict(headers), {})
    for part in parts:
        head, _, content = part.partition(b"\r\n\r\n")
        found = _DISPOSITION.search(head)
        if found is None:
            raise ValueError("a part has no name")
        name = found[1].decode()
        if name in sent.fields | sent.files:
            raise ValueError("a name occurs twice")
        if found[2] is None:
            sent.fields[name] = content.decode()
        else:
            sent.files[name] = content if len(content) <= largest else hashlib.sha256(content).digest()
    return sent


async def _respond(send: Send, status: int, body: bytes, extra: Mapping[str, str]) -> None:
    headers = {"content-type": "application/json", **extra, "content-length": str(len(body))}
    await send({"type": "http.response.start", "status": status, "headers": _raw(headers)})
    await send({"type": "http.response.body", "body": body})


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


TASKS = ("text-to-image", "image-to-image", "text-to-speech", "speech-to-text", "image-to-text")
NAMES = {"sdxl": TASKS[:2], "xtts": TASKS[2:3], "whisper": TASKS[3:4], "blip2": TASKS[4:]}


def services(url: str) -> list[dict[str, object]]:
    """Entries for GATEWAY_SERVICES_FILE: a service of this engine for each family, with an alias that OpenAI uses."""
    aliases = {"sdxl": ["gpt-image-1"], "xtts": ["tts-1"], "whisper": ["whisper-1"], "blip2": ["gpt-4o"]}
    return [{"name": name, "tasks": list(tasks), "url": url, "names": aliases[name]} for name, tasks in NAMES.items()]


@asynccontextmanager
async def running_contract(port: int = 0) -> AsyncIterator[Contract]:
    """The engine, listening."""
    engine = Contract()
    async with serving(engine, port=port) as engine.url:
        yield engine

"""Answers on their way back: each is rewritten while it passes, and its end is kept until the call is settled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Send

from aiservice_gateway.errors import UpstreamFailedError
from aiservice_gateway.openai_errors import error_body

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"

_DOCUMENT_BYTES = 16 * 1024 * 1024  # word by word, half a day of speech
_EVENT_BYTES = 1024 * 1024
_ERROR_BYTES = 64 * 1024
_CLIENT_ERRORS = 400


@dataclass(frozen=True, slots=True)
class Answered:
    """What a translation may need beside the answer."""

    request_id: str
    service: str
    created: int
    """Seconds since the epoch."""
    units: float = 0.0
    """That the service measured, as far as its headers tell."""
    tokens: int = 0


class Rewriter(Protocol):
    """Rewrites one answer. Both methods raise GatewayError where the service's answer is not as promised."""

    media_type: str | None
    """Of the rewritten answer; None: it stays as it is, and so do its type and length."""

    def feed(self, chunk: bytes) -> bytes:
        """Takes some bytes; returns what can be sent on already."""

    def end(self) -> bytes:
        """Returns the last bytes, which are sent when the call is settled."""


class Verbatim:
    """Leaves an answer as it is."""

    media_type: str | None = None

    def feed(self, chunk: bytes) -> bytes:
        """Passes on."""
        return chunk

    def end(self) -> bytes:
        """Adds nothing."""
        return b""


class Document:
    """A JSON answer that is small enough to be translated whole."""

    def __init__(
        self, translate: Callable[[dict[str, Any]], bytes], media_type: str = JSON, most: int = _DOCUMENT_BYTES
    ) -> None:
        self.media_type: str | None = media_type
        self._translate = translate
        self._most = most
        self._content = bytearray()

    def feed(self, chunk: bytes) -> bytes:
        """Collects."""
        self._content += chunk
        if len(self._content) > self._most:
            raise broken()
        return b""

    def end(self) -> bytes:
        """Translates."""
        try:
            return self._translate(orjson.loads(self._content))
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise broken() from error


class EventStream:
    """Server-sent events, translated one by one. What the last one becomes is kept for the end."""

    media_type: str | None = EVENTS

    def __init__(self, translate: Callable[[dict[str, Any]], tuple[bytes, bool]]) -> None:
        """Begins.

        Args:
            translate: Makes bytes of an event's data, and says whether it is the last.
        """
        self._translate = translate
        self._buffer = bytearray()
        self._last: bytes | None = None

    def feed(self, chunk: bytes) -> bytes:
        """Translates the events that are complete."""
        self._buffer += chunk
        return b"".join(self._translated())

    def end(self) -> bytes:
        """Returns the last event."""
        if self._last is None:
            raise broken()
        return self._last

    def _translated(self) -> Iterator[bytes]:
        while (end := self._buffer.find(b"\n\n")) >= 0:
            event = bytes(self._buffer[:end])
            del self._buffer[: end + 2]
            try:
                data, last = self._translate(orjson.loads(event.removeprefix(b"data:")))
            except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
                raise broken() from error
            if last:
                self._last = data
            else:
                yield data
        if len(self._buffer) > _EVENT_BYTES:
            raise broken()


def event(data: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


def refusal(status: int, names: Mapping[str, str]) -> Document:
    """What makes OpenAI's error of a service's 4xx answer.

    Args:
        status: Of the answer.
        names: OpenAI's names of the service's fields, to find out which parameter the sentence is about.
    """

    def translate(document: dict[str, Any]) -> bytes:
        sentence = str(document["error"])
        field = sentence.partition(" ")[0].strip(":'`")
        return orjson.dumps(error_body(status, sentence, str(document.get("code")), names.get(field)))

    return Document(translate, most=_ERROR_BYTES)


class AnswerChannel:
    """Stands in for a client: takes the service's answer as ASGI messages and sends the rewritten one."""

    def __init__(self, send: Send, choose: Callable[[int, Headers], Rewriter]) -> None:
        """Begins.

        Args:
            send: Sends to the client.
            choose: The rewriter for an answer of this status and with these headers.
        """
        self._send = send
        self._choose = choose
        self._rewriter: Rewriter = Verbatim()
        self._start: Message = {}
        self.begun = False
        """Whether the client got something."""

    async def send(self, message: Message) -> None:
        """Takes the next message."""
        if message["type"] == "http.response.start":
            self._start = message
            self._rewriter = self._choose(message["status"], Headers(raw=message["headers"]))
            return
        last = not message.get("more_body", False)
        body = self._rewriter.feed(message.get("body", b""))
        if last:
            body += self._rewriter.end()
        if not body and not last:
            return
        if not self.begun:
            await self._begin(len(body) if last else None)
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})

    async def _begin(self, length: int | None) -> None:
        headers = MutableHeaders(raw=list(self._start["headers"]))
        del headers["vary"]  # Accept chooses nothing here
        if self._rewriter.media_type is not None:
            headers["content-type"] = self._rewriter.media_type
            del headers["content-length"]
            if length is not None:
                headers["content-length"] = str(length)
        self.begun = True
        await self._send({**self._start, "headers": headers.raw})


def broken() -> UpstreamFailedError:
    """The error for an answer that is not what docs/inference.md promises."""
    return UpstreamFailedError("The service gave an answer that is not as promised. The gateway's log has its id.")

"""HTTP/1.1 on the wire: uvicorn's protocol on httptools, with the bounds that it lacks.

httptools (llhttp, not lenient) refuses most of what lets two parsers see different requests: Content-Length beside
Transfer-Encoding, two Content-Lengths, chunked that is not last, blanks before a colon, bare line feeds, folded lines.
Left to us are the bounds on time (slow-loris) and on the size of a head; trailers, which uvicorn would take for
headers; transfer codings other than chunked; bodies of requests that ask for an Upgrade, which httptools takes for the
next request; and Host, which RFC 9112 section 3.2 wants exactly once.

Time is looked at once a second for all connections: a request costs no timer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote

import httptools
import orjson
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from aiservice_gateway.gathered import Gathered
from aiservice_gateway.ids import new_request_id
from aiservice_gateway.openai_errors import error_body, is_openai

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_MOST_HEADERS = 100
_MOST_HEAD_BYTES = 32 * 1024
_MOST_URL_BYTES = 8 * 1024
_LEAST_BYTES_PER_SECOND = 1024
_KEPT_BYTES = 32 * 1024
"""Of an answer, for a client that takes it slowly; beside what the kernel keeps."""
_STALLED = "aiservice_gateway.stalled"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client may take."""

    head_seconds: float
    """For a request's line and headers, from their first byte; or from the connection, for the first request."""
    body_seconds: float
    """Without a byte of a body; and, beside a second for each KiB, for all of it. Time in which the gateway does not
    read, because the service does not, is not the client's."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is wrong with a request that is not let in."""

    status: int
    code: str
    message: str


_MALFORMED = Refusal(400, "invalid_request", "This is not a valid HTTP/1.1 request.")
_HOST = Refusal(400, "invalid_request", "A request has exactly one Host header.")
_CODING = Refusal(501, "invalid_request", "The only Transfer-Encoding that is understood is chunked.")
_UPGRADE = Refusal(400, "invalid_request", "A request with a body cannot ask for an Upgrade: send it without.")
_VERSION = Refusal(505, "invalid_request", "The versions of HTTP that are understood are 1.1 and 1.0.")
_LONG_URL = Refusal(414, "uri_too_long", f"The request's target is longer than {_MOST_URL_BYTES} bytes.")
_LARGE_HEAD = Refusal(
    431,
    "headers_too_large",
    f"The request has more than {_MOST_HEADERS} headers, or more than {_MOST_HEAD_BYTES} bytes of them.",
)
_SLOW_HEAD = Refusal(408, "request_timeout", "The request's headers did not arrive in time.")


class RefusedError(Exception):
    """Leaves the parser when a request is not let in."""


def stalled(scope: Scope) -> bool:
    """Whether the body of a request does not come, or comes too slowly to be waited for."""
    return _STALLED in scope


class Guard:
    """Looks at all connections of a server once a second."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._connections: set[GuardedProtocol] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: GuardedProtocol) -> None:
        """Looks at a connection from now on."""
        self._connections.add(connection)
        if self._timer is None:
            self._timer = connection.loop.call_later(_LOOK_SECONDS, self._look, connection.loop)

    def discard(self, connection: GuardedProtocol) -> None:
        """Does not look at it any more."""
        self._connections.discard(connection)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in list(self._connections):
            connection.look(now)
        self._timer = loop.call_later(_LOOK_SECONDS, self._look, loop) if self._connections else None


class GuardedProtocol(HttpToolsProtocol):
    """One connection. `guarded` makes the class that uvicorn takes."""

    guard: Guard

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._running: RequestResponseCycle | None = None
        """The request whose answer is being made; `cycle` is the one that was read last."""
        self._refusal: Refusal | None = None
        self._deaf = False
        """Whether what comes is not read any more: the connection closes after the answer that is being made."""
        self._in_head = False
        self._in_body = False
        self._head_since: float | None = None
        self._head_bytes = 0
        self._body_bytes = 0
        self._between_bytes = 0
        """Of a body's framing (chunk extensions, trailers), since its last byte."""
        self._body_wait = 0.0
        self._last = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as the base has it
        """A client has connected."""
        transport.set_write_buffer_limits(high=_KEPT_BYTES)
        super().connection_made(Gathered(transport, self.loop.call_soon))
        self._last = self._head_since = self.loop.time()
        self.guard.add(self)

    def eof_received(self) -> None:
        """The client sends no more: what was written for it goes out, and nothing after it."""
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and with it every request that came over it."""
        self.guard.discard(self)
        super().connection_lost(exc)
        for cycle in (self._running, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        self._last = self.loop.time()
        if self._in_body:
            self._between_bytes += len(data)
        else:
            self._head_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(self._refusal or _MALFORMED)
            return
        if self._in_head:
            if self._head_bytes > _MOST_HEAD_BYTES + _MOST_URL_BYTES:
                self._refuse(_LARGE_HEAD)
        elif self._in_body and self._between_bytes > _MOST_HEAD_BYTES:
            self._refuse(_LARGE_HEAD)
        elif not self._in_body and self._head_since is None and self._idle():
            self._head_since = self._last  # empty lines, which belong to no request

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head, self._head_since = True, self._last

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has been read, or a trailer.

        Raises:
            RefusedError: there are too many.
        """
        if not self._in_head:
            return  # a trailer may not say anything that was decided by the headers: none is taken
        super().on_header(name, value)
        if len(self.headers) > _MOST_HEADERS:
            self._refusal = _LARGE_HEAD
            raise RefusedError

    def on_headers_complete(self) -> None:
        """All headers have been read: the request is let in.

        Raises:
            RefusedError: it is not.
        """
        self._refusal = _wrong(self.url, self.parser.get_http_version(), self.headers, self.parser.should_upgrade())
        if self._refusal is not None:
            raise RefusedError
        self._in_head, self._in_body, self._head_since = False, True, None
        self._body_bytes, self._between_bytes, self._body_wait = 0, 0, 0.0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body has come."""
        self._body_bytes += len(body)
        self._between_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request has been read to its end."""
        self._in_body, self._head_bytes = False, 0
        super().on_message_complete()

    def look(self, now: float) -> None:
        """Ends what takes too long.

        Args:
            now: The event loop's time.
        """
        patience = self.guard.patience
        if self.transport.is_closing():
            return
        if self._head_since is not None:
            if now - self._head_since > patience.head_seconds:
                self._refuse(_SLOW_HEAD if self._in_head else None)
        elif self._in_body and not self.flow.read_paused:
            self._body_wait += _LOOK_SECONDS
            allowed = patience.body_seconds + self._body_bytes / _LEAST_BYTES_PER_SECOND
            if now - self._last <= patience.body_seconds and self._body_wait <= allowed:
                return
            if self.cycle.response_complete:
                self.transport.close()  # it was answered, and nobody reads on
            else:
                cast(dict[str, Any], self.cycle.scope)[_STALLED] = True
                self.cycle.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _feed(self, data: bytes) -> None:
        """Parses; a wish for another protocol is passed over, as RFC 9110 section 7.8 lets a server do."""
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
            else:
                return

    def _idle(self) -> bool:
        return self._running is None or self._running.response_complete

    def _refuse(self, refusal: Refusal | None) -> None:
        """Closes the connection and says why; where another request is being answered on it, after that answer."""
        running = self._running
        if running is not None and not running.response_complete:
            if running is not self.cycle or self._in_head:
                self._deaf, running.keep_alive = True, False
                self.pipeline.clear()
                return
            running.disconnected = True  # it is the one that is wrong
            running.message_event.set()
        if refusal is not None and (running is None or running.response_complete or not running.response_started):
            # Between two requests `url` is still the last one's.
            self.transport.write(_render(refusal, self.url if self._in_head or self._in_body else b""))
            _log.info("A request was refused: %s", refusal.message)
        self.transport.close()


def _wrong(url: bytes, version: str, headers: Sequence[tuple[bytes, bytes]], upgrade: bool) -> Refusal | None:
    """What is wrong with a head, beside what the parser refuses."""
    size, hosts, lengths, codings = 0, 0, 0, []
    for name, value in headers:
        size += len(name) + len(value) + 4
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            lengths += 1
        elif name == b"transfer-encoding":
            codings.append(value.strip().lower())
    if size > _MOST_HEAD_BYTES or len(url) > _MOST_URL_BYTES:
        return _LONG_URL if len(url) > _MOST_URL_BYTES else _LARGE_HEAD
    if version not in {"1.1", "1.0"}:
        return _VERSION
    if hosts > 1 or (not hosts and version == "1.1"):
        return _HOST
    if codings and (version == "1.0" or codings != [b"chunked"]):
        return _CODING
    # llhttp takes the body of such a request for the next request.
    return _UPGRADE if upgrade and (lengths or codings) else None


def guarded(patience: Patience) -> type[GuardedProtocol]:
    """The protocol class of one server."""
    return type("GuardedProtocol", (GuardedProtocol,), {"guard": Guard(patience)})


def _render(refusal: Refusal, target: bytes) -> bytes:
    """The answer, in the shape of all errors.

    Args:
        refusal: What is wrong.
        target: The request's, as far as it was read; it decides whose shape.
    """
    request_id = new_request_id()
    if is_openai(_path(target)):
        content = error_body(refusal.status, refusal.message, refusal.code)
    else:
        content = {"error": refusal.message, "code": refusal.code, "request_id": request_id}
    body = orjson.dumps(content)
    return STATUS_LINE[refusal.status] + (
        b"content-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\nconnection: close\r\n\r\n%b"
        % (len(body), request_id.encode(), body)
    )


def _path(target: bytes) -> str:
    """The path of a request's target; nothing where it has none."""
    try:
        return unquote((httptools.parse_url(target).path or b"").decode("latin-1"))
    except httptools.HttpParserInvalidURLError:
        return ""

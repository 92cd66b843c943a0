"""One HTTP/1.1 connection to a service, for one request at a time, on httptools as uvicorn is on the other side.

A client library would do; what it can do beside this takes a seventh of a request's processor time (docs/decisions).
Left out is what a gateway must not do anyway: follow redirects, keep cookies, decompress, send again.

Framing is that of RFC 9112, strictly: a body ends by its length, with its last chunk, or, where an answer states
neither, with the connection. Whatever else a service sends ends the connection, and with it the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, cast

import httptools
from starlette.datastructures import Headers

from aiservice_gateway.services.upload import Body

_BUFFERED_BYTES: Final = 16 * 1024
"""Of a body, beyond which nothing more is read until it is taken; beside one read and what the kernel keeps."""
_MOST_HEAD_BYTES: Final = 64 * 1024
_MOST_BETWEEN_BYTES: Final = 2 * _MOST_HEAD_BYTES
"""That are no part of a body, one after the other: interim answers, the head, what is between chunks, trailers."""
_FIRST_STATUS: Final = 100
_FIRST_FINAL_STATUS: Final = 200
_WITHOUT_BODY: Final = frozenset({204, 304})


class WireError(Exception):
    """A service cannot be spoken to. The text can be logged: nothing of a request or an answer is in it."""


class UnreachedError(WireError):
    """No byte of the request was sent."""


class BrokenError(WireError):
    """The connection ended before the answer did; the service may be at work."""


class _NotUnderstoodError(Exception):
    """Leaves the parser."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose head has come. Whoever has it must `release` it."""

    status: int
    headers: Headers
    connection: Connection

    @property
    def content_type(self) -> str:
        """As the service says it; empty where it does not."""
        return self.headers.get("content-type", "")

    @property
    def length(self) -> int | None:
        """Bytes of the body, where the headers say how many."""
        stated = self.headers.get("content-length")
        return None if stated is None else int(stated)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes.

        Raises:
            BrokenError: the connection ended before it did.
        """
        while piece := await self.connection.piece():
            yield piece

    async def read(self) -> bytes:
        """All of the body.

        Raises:
            BrokenError: as `pieces`.
        """
        return b"".join([piece async for piece in self.pieces()])

    async def beginning(self, least: int) -> bytes:
        """So many bytes of the body, or more, if it has them.

        Raises:
            BrokenError: as `pieces`.
        """
        body = b""
        while len(body) < least and (piece := await self.connection.piece()):
            body += piece
        return body

    def release(self) -> None:
        """Lets go of the connection. It serves again only if all of the answer was read."""
        self.connection.let_go()


class Connection(asyncio.Protocol):
    """One connection."""

    def __init__(self, on_free: Callable[[Connection], None], on_lost: Callable[[Connection], None]) -> None:
        """Is connected by `asyncio.loop.create_connection`.

        Args:
            on_free: Called when an answer is over and another request can be sent.
            on_lost: Called once, when none can be sent any more.
        """
        self._on_free = on_free
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._sending: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        """Set while the service takes a body more slowly than it comes."""
        self._waiter: asyncio.Future[None] | None = None
        """Who waits for more of the answer."""
        self._busy = False
        self._paused = False
        self._begin()

    def _begin(self) -> None:
        """Forgets the last answer."""
        self._fields: list[tuple[bytes, bytes]] = []
        self._between_bytes = 0
        self._answer: Answer | None = None
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._lasts = False
        """Whether the connection may be used after the answer."""
        self._ends_with_connection = False
        self._complete = False
        self._error: BrokenError | None = None

    @property
    def usable(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._busy and not self._transport.is_closing()

    async def ask(self, head: bytes, body: Body, *, chunked: bool) -> Answer:
        """Sends a request, and returns when the head of its answer has come.

        Args:
            head: The request's line and headers, with the empty line.
            body: What follows.
            chunked: Whether the head says that the body, which then is a stream, comes in chunks.

        Raises:
            UnreachedError: the connection had ended before.
            BrokenError: the connection ended, or the body could not be read to its end.
        """
        if self._transport is None or self._transport.is_closing():
            raise UnreachedError("the connection was closed")
        self._begin()
        self._busy = True
        if isinstance(body, bytes):
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._sending = self._loop.create_task(self._send(body, chunked=chunked))
        try:
            while self._answer is None:
                if self._error is not None:
                    raise self._error
                await self._more()
        except BaseException:
            self.close()
            raise
        return self._answer

    async def piece(self) -> bytes:
        """What has come of the body since the last call, after waiting for something to; empty at its end.

        Raises:
            BrokenError: the connection ended before the body.
        """
        while True:
            if self._kept:
                piece = self._kept[0] if len(self._kept) == 1 else b"".join(self._kept)
                self._kept, self._kept_bytes = [], 0
                self._resume()
                return piece
            if self._complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._more()

    def let_go(self) -> None:
        """The answer is of no interest any more: the connection is free if it is over, and closed if it is not."""
        sent = self._sending is None or self._sending.done()
        if self._transport is None or not (self._complete and self._lasts and sent):
            self.close()
            return
        self._resume()
        self._begin()
        self._busy, self._sending = False, None
        self._on_free(self)

    def close(self) -> None:
        """Ends it, whatever is under way."""
        self._ends_with_connection = False
        if self._sending is not None:
            self._sending.cancel()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport's word that it is connected."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport's word that it is not connected any more."""
        self._transport = None
        if self._ends_with_connection and exc is None:
            self._complete = True
        else:
            self._fail(str(exc) if exc is not None else "the service closed the connection")
        self._wake()
        self.resume_writing()
        self._on_lost(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer."""
        if not self._busy:
            self.close()  # nothing was asked
            return
        self._between_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse()
            return
        if self._between_bytes > _MOST_BETWEEN_BYTES:
            self._refuse()

    def pause_writing(self) -> None:
        """The transport's word that it holds enough."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """The transport's word that it takes more."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def on_message_begin(self) -> None:
        """The parser's word: an answer begins, an interim one (1xx) or the only final one."""
        if self._answer is not None:
            raise _NotUnderstoodError
        self._fields = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """The parser's word: a header, or a trailer, which nobody waits for."""
        if self._answer is None:
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The parser's word: the head is whole.

        Raises:
            _NotUnderstoodError: it is too large, or the body's end could not be told.
        """
        status = self._parser.get_status_code()
        if status < _FIRST_FINAL_STATUS:
            if status < _FIRST_STATUS:
                raise _NotUnderstoodError
            return
        if sum(len(name) + len(value) for name, value in self._fields) > _MOST_HEAD_BYTES:
            raise _NotUnderstoodError
        headers = Headers(raw=self._fields)
        codings = headers.getlist("transfer-encoding")
        lengths = headers.getlist("content-length")
        if codings and (
            list(map(str.lower, codings)) != ["chunked"] or lengths or self._parser.get_http_version() != "1.1"
        ):
            raise _NotUnderstoodError
        framed = codings or lengths or status in _WITHOUT_BODY
        self._ends_with_connection = not framed
        self._lasts = self._parser.should_keep_alive()
        self._answer = Answer(status, headers, self)
        self._wake()

    def on_body(self, body: bytes) -> None:
        """The parser's word: more of the body."""
        self._between_bytes = 0
        self._kept.append(body)
        self._kept_bytes += len(body)
        if self._kept_bytes > _BUFFERED_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        """The parser's word: the answer is over."""
        self._complete = self._answer is not None
        self._wake()

    async def _send(self, body: Body, *, chunked: bool) -> None:
        """Sends a stream, as fast as the service takes it."""
        try:
            async for piece in body:  # type: ignore[union-attr] # bytes are sent with the head
                if self._transport is None:
                    return
                if piece:
                    self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                if self._writable is not None:
                    await self._writable
            if chunked and self._transport is not None:
                self._transport.write(b"0\r\n\r\n")
        except Exception:  # noqa: BLE001 - `Upload.failure` has it; here it ends the request, whatever it was
            self._fail("the request's body could not be read to its end")
            self._wake()

    def _resume(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    async def _more(self) -> None:
        """Waits until something happens."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _refuse(self) -> None:
        self._fail(
            f"the answer is not HTTP/1.1 as RFC 9112 has it, or its head is larger than {_MOST_HEAD_BYTES} bytes"
        )
        self.close()

    def _fail(self, why: str) -> None:
        """The answer does not come, or not to its end. One that is over already cannot fail."""
        self._lasts = False
        if not self._complete and self._error is None:
            self._error = BrokenError(why)

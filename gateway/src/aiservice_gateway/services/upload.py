"""A request's body on its way to a service: never whole in memory, and replayable only while it is small."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.types import Receive

from aiservice_gateway.errors import GatewayError

_REPLAYABLE_BYTES = 64 * 1024
_UNWATCHED_SECONDS = 0.05
"""A request that is answered sooner needs no task that watches for the client going away."""


class ClientGoneError(Exception):
    """The client closed the connection."""


class Upload:
    """Reads a request's body, and afterwards watches for the client going away."""

    def __init__(self, receive: Receive, on_gone: Callable[[], None]) -> None:
        """Reads nothing yet.

        Args:
            receive: The request's ASGI channel.
            on_gone: Called once when the client goes away after the whole body was read.
        """
        self._receive = receive
        self._on_gone = on_gone
        self._watching: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.complete = False
        """Whether the whole body was read."""
        self.gone = False
        """Whether the client went away."""
        self.failure: Exception | None = None
        """What reading raised. A stream is read inside the HTTP client, which hides it behind an error of its own."""

    async def start(self) -> Body:
        """Reads the beginning: all of a small body as bytes, which can be sent again; else a stream for one use.

        Raises:
            ClientGoneError: the client went away.
            GatewayError: the body is larger than allowed (from the middleware that counts it).
        """
        beginning = bytearray()
        while not self.complete and len(beginning) <= _REPLAYABLE_BYTES:
            beginning += await self._chunk()
        return bytes(beginning) if self.complete else Stream(self, bytes(beginning))

    async def rest(self) -> AsyncIterator[bytes]:
        """What comes after the beginning, piece by piece.

        Raises:
            ClientGoneError, GatewayError: as `start`.
        """
        while not self.complete:
            if chunk := await self._chunk():
                yield chunk

    def close(self) -> None:
        """Stops watching."""
        if self._watching is not None:
            self._watching.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    async def _chunk(self) -> bytes:
        try:
            message = await self._receive()
        except GatewayError as error:
            self.failure = error
            raise
        if message["type"] == "http.disconnect":
            self.gone = True
            self.failure = ClientGoneError()
            raise self.failure
        if not message.get("more_body", False):
            self.complete = True
            self._watching = asyncio.get_running_loop().call_later(_UNWATCHED_SECONDS, self._begin_to_watch)
        body: bytes = message.get("body", b"")
        return body

    def _begin_to_watch(self) -> None:
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._on_gone()


class Stream:
    """A body that is too large to keep. It can be sent to another place as long as nothing of it was read."""

    def __init__(self, upload: Upload, beginning: bytes) -> None:
        self._upload = upload
        self._beginning = beginning
        self.begun = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """All of it, once."""
        self.begun = True
        yield self._beginning
        async for chunk in self._upload.rest():
            yield chunk


Body = bytes | Stream


def repeatable(body: Body) -> bool:
    """Whether all of a body can still be sent."""
    return isinstance(body, bytes) or not body.begun

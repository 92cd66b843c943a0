"""One connection to Redis with many calls in flight: what is called within one turn of the event loop is one write.

A client library's pool gives a connection to one call at a time; here the gateway's concurrent requests share one,
which costs a fifth of the processor time (docs/decisions).
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

from aiservice_gateway.errors import SettingsError, StoreUnavailableError

Word = str | bytes | int

_CONNECT_SECONDS: Final = 1.0
_REPLY_SECONDS: Final = 1.0
_LOOKS: Final = 5
"""How often within that time a connection is looked at."""
_PORT: Final = 6379


class ReplyError(Exception):
    """Redis answered with an error."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and what to tell it first."""

    host: str
    port: int
    socket: str | None
    """Path of a Unix socket, which then is what is connected to."""
    tls: ssl.SSLContext | None
    user: str | None
    password: str | None
    database: int

    @property
    def greeting(self) -> list[tuple[Word, ...]]:
        """The first commands on a connection."""
        commands: list[tuple[Word, ...]] = []
        if self.password is not None:
            commands.append(("AUTH", self.password) if self.user is None else ("AUTH", self.user, self.password))
        if self.database:
            commands.append(("SELECT", self.database))
        return commands


def parse_address(url: str) -> Address:
    """Reads redis://, rediss:// (TLS) or unix:// URLs.

    Args:
        url: With user, password and database where they are needed; of rediss://, `ssl_ca_certs` may name a file of
            certificates to trust, and `ssl_cert_reqs=none` trusts any.

    Raises:
        SettingsError: it is no such URL.
    """
    try:
        parts = urlsplit(url)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        local = parts.scheme == "unix"
        database = query.get("db", "" if local else parts.path.strip("/"))
        return Address(
            host=parts.hostname or "localhost",
            port=parts.port or _PORT,
            socket=unquote(parts.path) if local else None,
            tls=_tls(query) if parts.scheme == "rediss" else None,
            user=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            database=int(database or 0),
        )
    except (ValueError, OSError) as error:  # never with the URL, which may hold a password
        raise SettingsError(
            f"REDIS_URL cannot be used: {type(error).__name__} in its port, database or TLS."
        ) from error


def _tls(query: dict[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=query.get("ssl_ca_certs"))
    if query.get("ssl_cert_reqs") == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Link(asyncio.Protocol):
    """A connection. Once it is lost it stays lost, and every call fails at once."""

    def __init__(self, on_lost: Callable[[str], None]) -> None:
        """Connects to nothing; see `open_link`.

        Args:
            on_lost: Called once with the reason, when the connection is lost other than by `close`.
        """
        self._loop = asyncio.get_running_loop()
        self._on_lost = on_lost
        self._reader = hiredis.Reader(replyError=ReplyError)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._unsent: list[bytes] = []
        self._reason = "not connected"
        self._closing = False
        self._looking: asyncio.TimerHandle | None = None
        self._slowest: asyncio.Future[Any] | None = None
        self._looks = 0

    @property
    def lost(self) -> bool:
        """Whether it is of no use any more."""
        return self._transport is None

    def send(self, *words: Word) -> asyncio.Future[Any]:
        """Sends a command. The future has the answer, or raises `ReplyError`, or `StoreUnavailableError`.

        An answer that was not received says nothing about whether the command was carried out.
        """
        future = self._loop.create_future()
        if self._transport is None:
            future.set_exception(StoreUnavailableError(f"Redis: {self._reason}"))
            return future
        self._waiting.append(future)
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(hiredis.pack_command(words))  # type: ignore[arg-type] # its type says tuple of one
        return future

    def close(self, reason: str = "closed") -> None:
        """Ends the connection, and every call that waits."""
        self._closing = True
        self._lose(reason)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport's word that it is connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._looking = self._loop.call_later(_REPLY_SECONDS / _LOOKS, self._look)

    def data_received(self, data: bytes) -> None:
        """Hands answers to the calls, in their order."""
        self._reader.feed(data)
        while self._waiting:
            try:
                answer = self._reader.gets()
            except hiredis.ProtocolError as error:
                self._lose(str(error))
                return
            if answer is False:
                return
            future = self._waiting.popleft()
            if future.done():
                continue  # its caller was cancelled
            if isinstance(answer, ReplyError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport's word that it is not connected any more."""
        self._lose(str(exc) if exc is not None else "the server closed the connection")

    def _flush(self) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def _look(self) -> None:
        """Loses a connection on which one call has waited for its answer all the time."""
        slowest = self._waiting[0] if self._waiting else None
        self._looks = self._looks + 1 if slowest is not None and slowest is self._slowest else 0
        self._slowest = slowest
        if self._looks >= _LOOKS:
            self._lose(f"no answer within {_REPLY_SECONDS:g} s")
        else:
            self._looking = self._loop.call_later(_REPLY_SECONDS / _LOOKS, self._look)

    def _lose(self, reason: str) -> None:
        if self._transport is None:
            return
        transport, self._transport, self._reason = self._transport, None, reason
        transport.abort()
        if self._looking is not None:
            self._looking.cancel()
        for future in self._waiting:
            if not future.done():
                future.set_exception(StoreUnavailableError(f"Redis: {reason}"))
        self._waiting.clear()
        if not self._closing:
            self._on_lost(reason)


async def open_link(address: Address, on_lost: Callable[[str], None]) -> Link:
    """Connects.

    Raises:
        StoreUnavailableError: the server cannot be reached, or does not let us in.
    """
    link = Link(on_lost)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            if address.socket is not None:
                await loop.create_unix_connection(lambda: link, address.socket)
            else:
                await loop.create_connection(lambda: link, address.host, address.port, ssl=address.tls)
            for words in address.greeting:
                await link.send(*words)
    except (OSError, ReplyError) as error:
        link.close()
        raise StoreUnavailableError(f"Redis: {str(error) or 'no connection in time'}") from error
    return link

"""Connections to services, kept open between requests."""

from __future__ import annotations

import asyncio
import base64
import functools
import socket
import ssl
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from aiservice_gateway.services.connection import Answer, Connection, UnreachedError
from aiservice_gateway.services.upload import Body

_CONNECT_SECONDS: Final = 5.0
_ADDRESS_SECONDS: Final = 1.0
_IDLE_SECONDS: Final = 4.0
"""Below the 5 s after which uvicorn closes, so that a connection is rarely found dead."""
_LOOK_SECONDS: Final = 1.0
_NAMES_SECONDS: Final = 10.0
"""For which the addresses of a name are taken to stay the same."""
_RECEIVED_BYTES: Final = 32 * 1024
_KNOWN_URLS: Final = 4096

Address = tuple[int, Any]
"""Family and what a socket of it connects to, as `getaddrinfo` has them."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a connection leads to."""

    host: str
    port: int
    tls: bool


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL says."""

    origin: Origin
    path: str
    fields: str
    """The headers that follow from it, as lines."""


@functools.lru_cache(_KNOWN_URLS)
def parse_target(url: str) -> Target:
    """Reads an absolute URL of http or https; a user and a password in it are sent (RFC 7617)."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    usual = 443 if tls else 80
    host, port = parts.hostname or "", usual if parts.port is None else parts.port
    fields = f"host: {parts.netloc.rpartition('@')[2]}\r\n"
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        fields += f"authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(Origin(host, port, tls), path, fields)


class Pool:
    """Hands out connections: of those to one place the one that was used last, so that what is not needed ends."""

    def __init__(self) -> None:
        """Needs a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._origins: dict[Connection, Origin] = {}
        """All that are open."""
        self._idle: dict[Origin, list[tuple[Connection, float]]] = {}
        """With the time since when."""
        self._names: dict[Origin, tuple[deque[Address], float]] = {}
        """With the time until when."""
        self._asking: dict[Origin, asyncio.Task[deque[Address]]] = {}
        self._looking: asyncio.TimerHandle | None = None
        self._trust: ssl.SSLContext | None = None
        self._closed = False

    async def request(self, method: str, url: str, headers: Mapping[str, str], body: Body = b"") -> Answer:
        """Sends a request once.

        Args:
            method: Of HTTP.
            url: Absolute.
            headers: Names in lower case. A `content-length` counts for a stream only, which comes in chunks without.
            body: All of it, or a stream.

        Raises:
            UnreachedError: nothing of it was sent.
            BrokenError: there is no answer; the service may be at work.
        """
        target = parse_target(url)
        head, chunked = _head(method, target, headers, body)
        connection = self._take(target.origin) or await self._connect(target.origin)
        return await connection.ask(head, body, chunked=chunked)

    def close(self) -> None:
        """Closes all connections, whatever is under way, and makes no new ones."""
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()
        for connection in list(self._origins):
            connection.close()

    def _take(self, origin: Origin) -> Connection | None:
        """An open connection that nothing is under way on."""
        idle = self._idle.get(origin)
        while idle:
            connection, since = idle.pop()
            if connection.usable and time.monotonic() - since < _IDLE_SECONDS:
                return connection
            connection.close()
        return None

    def _keep(self, connection: Connection) -> None:
        """Has a connection wait for the next request."""
        self._idle.setdefault(self._origins[connection], []).append((connection, time.monotonic()))
        if self._looking is None:
            self._looking = self._loop.call_later(_LOOK_SECONDS, self._look)

    def _forget(self, connection: Connection) -> None:
        """A connection is closed: where it waited for a request it is found to be of no use."""
        self._origins.pop(connection, None)

    def _look(self) -> None:
        """Closes what nobody needed for long."""
        oldest = time.monotonic() - _IDLE_SECONDS
        for origin, idle in list(self._idle.items()):
            kept: list[tuple[Connection, float]] = []
            for connection, since in idle:
                if since > oldest and connection.usable:
                    kept.append((connection, since))
                else:
                    connection.close()
            if kept:
                self._idle[origin] = kept
            else:
                del self._idle[origin]
        self._looking = self._loop.call_later(_LOOK_SECONDS, self._look) if self._idle else None

    async def _connect(self, origin: Origin) -> Connection:
        """A new connection.

        Raises:
            UnreachedError: there is none.
        """
        where = f"{origin.host}:{origin.port}"
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                connected = await self._socket(origin)
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._keep, self._forget),
                    sock=connected,
                    ssl=self._trusted() if origin.tls else None,
                    server_hostname=origin.host if origin.tls else None,
                )
        except TimeoutError as error:
            raise UnreachedError(f"{where}: no connection within {_CONNECT_SECONDS:g} s") from error
        except (OSError, ValueError) as error:  # ValueError: a name that can be none
            raise UnreachedError(f"{where}: {error}") from error
        if self._closed:
            connection.close()
            raise UnreachedError("the gateway stops")
        self._origins[connection] = origin
        return connection

    async def _socket(self, origin: Origin) -> socket.socket:
        """A socket that is connected to one of the addresses of a name, which take turns.

        Raises:
            OSError: none of them can be reached, or there is none.
        """
        problem = OSError("it has no address")
        addresses = await self._addresses(origin)
        for index, address in enumerate(addresses):
            try:
                # An address that does not answer leaves time for the others.
                async with asyncio.timeout(_ADDRESS_SECONDS if index + 1 < len(addresses) else None):
                    return await self._connected(address)
            except TimeoutError:
                problem = OSError(f"{address[1][0]} does not answer")
            except OSError as error:
                problem = error
        raise problem

    async def _connected(self, address: Address) -> socket.socket:
        made = socket.socket(address[0], socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            # Little is taken in at once, so that a slow client does not have much of its answer kept here.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVED_BYTES)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.sock_connect(made, address[1])
        except BaseException:
            made.close()
            raise
        return made

    async def _addresses(self, origin: Origin) -> list[Address]:
        """The addresses of a name, which take turns; who asks at once shares the look-up.

        Raises:
            OSError, ValueError: there is none.
        """
        known, until = self._names.get(origin, (None, 0.0))
        if known is None or time.monotonic() >= until:
            asking = self._asking.get(origin)
            if asking is None:
                asking = self._asking[origin] = self._loop.create_task(self._look_up(origin))
                asking.add_done_callback(lambda _: self._asking.pop(origin))
            known = await asyncio.shield(asking)
        turn = list(known)
        known.rotate(-1)
        return turn

    async def _look_up(self, origin: Origin) -> deque[Address]:
        found = await self._loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        addresses: deque[Address] = deque((family, address) for family, _, _, _, address in found)
        now = time.monotonic()
        self._names = {name: kept for name, kept in self._names.items() if kept[1] > now}
        self._names[origin] = addresses, now + _NAMES_SECONDS
        return addresses

    def _trusted(self) -> ssl.SSLContext:
        if self._trust is None:
            self._trust = ssl.create_default_context()
        return self._trust


def _head(method: str, target: Target, headers: Mapping[str, str], body: Body) -> tuple[bytes, bool]:
    """A request's line and headers, and whether its body comes in chunks.

    Raises:
        ValueError: a header would end its line.
    """
    chunked = False
    framing = ""
    if isinstance(body, bytes):
        headers = {name: value for name, value in headers.items() if name != "content-length"}
        framing = f"content-length: {len(body)}\r\n"
    elif "content-length" not in headers:
        framing, chunked = "transfer-encoding: chunked\r\n", True
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers) or "\0" in lines:
        raise ValueError("a header holds a line break")
    return f"{method} {target.path} HTTP/1.1\r\n{target.fields}{lines}{framing}\r\n".encode("latin-1"), chunked

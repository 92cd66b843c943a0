"""A client that costs little: one HTTP/1.1 request at a time over each kept-open connection, sent as bytes made before.

What a client library spends on a request would be most of what a fast gateway's figures show.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools


class WrongAnswerError(Exception):
    """Something other than a good answer was measured, so the figures mean nothing."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    request_id: str
    """The header X-Request-Id; empty without one."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Question:
    """One request, as it is sent."""

    host: str
    port: int
    wire: bytes
    expected: bytes
    """What the body of a good answer holds."""

    def check(self, answer: Answer) -> None:
        """Raises WrongAnswerError unless the answer is good."""
        if answer.status != 200 or self.expected not in answer.body:
            raise WrongAnswerError(f"port {self.port} answered {answer.status}: {answer.body[:300]!r}")


def question(url: str, body: bytes, headers: Mapping[str, str], expected: bytes) -> Question:
    """A POST of JSON."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    lines = {"Host": f"{host}:{port}", "Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    head = f"POST {parts.path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return Question(host, port, head.encode() + b"\r\n" + body, expected)


class Connection(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._body: list[bytes] = []
        self._request_id = ""

    async def ask(self, wire: bytes) -> Answer:
        """Sends a request and waits for all of the answer.

        Raises:
            ConnectionError: the connection is lost.
        """
        if self._transport is None:
            raise ConnectionResetError
        self._answer = asyncio.get_running_loop().create_future()
        self._body, self._request_id = [], ""
        self._transport.write(wire)
        return await self._answer

    def close(self) -> None:
        """Closes it."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport's word."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer."""
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport's word."""
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError(str(exc)))

    def on_header(self, name: bytes, value: bytes) -> None:
        """The parser's word."""
        if name.lower() == b"x-request-id":
            self._request_id = value.decode()

    def on_body(self, body: bytes) -> None:
        """The parser's word."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """The parser's word."""
        if self._answer is not None and not self._answer.done():
            status = self._parser.get_status_code()
            self._answer.set_result(Answer(status, self._request_id, b"".join(self._body)))


async def connect(host: str, port: int) -> Connection:
    """A connection that is open."""
    _, connection = await asyncio.get_running_loop().create_connection(Connection, host, port)
    return connection


@asynccontextmanager
async def connections(asked: Question, count: int) -> AsyncIterator[list[Connection]]:
    """Several, closed afterwards."""
    several = [await connect(asked.host, asked.port) for _ in range(count)]
    try:
        yield several
    finally:
        for connection in several:
            connection.close()


async def closed_loop(asked: Question, count: int, seconds: float) -> tuple[list[float], float]:
    """Over each connection one request after the other; latencies in seconds, and how long it took.

    Raises:
        WrongAnswerError, ConnectionError: something went wrong.
    """
    latencies: list[float] = []

    async def send(connection: Connection, until: float) -> None:
        while (begin := time.perf_counter()) < until:
            answer = await connection.ask(asked.wire)
            latencies.append(time.perf_counter() - begin)
            asked.check(answer)

    async with connections(asked, count) as several:
        begin = time.perf_counter()
        await asyncio.gather(*(send(connection, begin + seconds) for connection in several))
        return latencies, time.perf_counter() - begin


async def open_loop(asked: Question, rate: float, seconds: float, most: int) -> list[float]:
    """Requests at fixed times, whatever becomes of those before; latencies in seconds, from when each was due.

    Args:
        asked: The request.
        rate: Requests a second.
        seconds: For how long.
        most: Connections, opened before. A request that finds none free waits for one, which its latency shows.

    Raises:
        WrongAnswerError, ConnectionError: something went wrong.
    """
    latencies: list[float] = []
    async with connections(asked, most) as several:
        free: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
        for connection in several:
            free.put_nowait(connection)

        async def send(due: float) -> None:
            connection = await free.get()
            answer = await connection.ask(asked.wire)
            latencies.append(time.perf_counter() - due)
            free.put_nowait(connection)
            asked.check(answer)

        begin = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                due = begin + number / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(send(due))
    return latencies

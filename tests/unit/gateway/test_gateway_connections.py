"""Connections to services, against a server on a socket that says exactly what a test wants, in pieces as it wants."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiservice_gateway.services import pool as pool_module
from aiservice_gateway.services.connection import BrokenError, UnreachedError
from aiservice_gateway.services.pool import Origin, Pool, parse_target
from aiservice_gateway.services.upload import Body, Stream
from support.databases import free_port

MIB = 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Place:
    """A server that does on each connection what a test says."""

    url: str
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    """The heads of requests."""


@contextlib.asynccontextmanager
async def place(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Place]:
    """Serves until the end, and then closes what is open."""
    writers: list[asyncio.StreamWriter] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here.connections += 1
        writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await script(reader, writer)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    here = Place(f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield here
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    """Connections, closed afterwards."""
    made = Pool()
    yield made
    made.close()
    await asyncio.sleep(0)


def says(*pieces: bytes, asked: list[bytes] | None = None, close: bool = False) -> Script:
    """Answers every request of a connection with these pieces, a moment apart."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length")), 0)
            body = await reader.readexactly(length)
            if asked is not None:
                asked.append(head + body)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.002 if len(pieces) < 100 else 0)
            if close:
                return

    return script


async def ask(pool: Pool, url: str, body: Body = b"", **headers: str) -> tuple[int, bytes]:
    """A request, and all of its answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with asyncio.timeout(20):
        answer = await pool.request("POST", url, named, body)
        try:
            return answer.status, await answer.read()
        finally:
            answer.release()


class Source:
    """What `Stream` asks of an upload: the rest of a body, piece by piece."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = pieces
        self.taken = 0

    async def rest(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            await asyncio.sleep(0)
            if isinstance(piece, Exception):
                raise piece
            self.taken += len(piece)
            yield piece

    def stream(self, beginning: bytes = b"") -> Stream:
        return Stream(cast(Any, self), beginning)


async def test_a_request_on_the_wire(pool: Pool) -> None:
    asked: list[bytes] = []
    async with place(says(OK, asked=asked)) as here:
        headers = {"content_type": "text/plain", "x_request_id": "r", "content_length": "99"}
        assert await ask(pool, f"{here.url}/base/api/x?y=z", b"hello", **headers) == (200, b"ok")
        host = here.url.removeprefix("http://")
    head = (
        f"POST /base/api/x?y=z HTTP/1.1\r\nhost: {host}\r\ncontent-type: text/plain\r\nx-request-id: r\r\n"
        "content-length: 5\r\n\r\n"
    )
    assert asked == [head.encode() + b"hello"]


async def test_one_connection_serves_one_request_after_the_other(pool: Pool) -> None:
    async with place(says(OK)) as here:
        for _ in range(5):
            assert await ask(pool, here.url) == (200, b"ok")
        assert here.connections == 1
        await asyncio.gather(*(ask(pool, here.url) for _ in range(4)))
        assert here.connections == 4


@pytest.mark.parametrize(
    ("wire", "status", "body"),
    [
        (OK, 200, b"ok"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nx-a: b\r\n\r\n",
            200,
            b"abcd",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", 304, b""),
        (b"HTTP/1.1 500 \r\ncontent-length: 0\r\n\r\n", 500, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Wait\r\nx-a: b\r\n\r\n" + OK, 200, b"ok"),
    ],
)
async def test_answers_however_they_come(pool: Pool, wire: bytes, status: int, body: bytes) -> None:
    for pieces in ([wire], [wire[index : index + 1] for index in range(len(wire))]):
        async with place(says(*pieces)) as here:
            assert await ask(pool, here.url) == (status, body)
            assert await ask(pool, here.url) == (status, body)
            assert here.connections == 1


@settings(deadline=None, max_examples=60)
@given(
    body=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    cuts=st.lists(st.integers(0, 400), max_size=12),
    chunked=st.booleans(),
)
async def test_an_answer_cut_anywhere_is_the_same(body: Sequence[bytes], cuts: Sequence[int], *, chunked: bool) -> None:
    whole = b"".join(body)
    if chunked:
        framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in body) + b"0\r\n\r\n"
        wire = CHUNKED + framed
    else:
        wire = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(whole), whole)
    ends = sorted({min(cut, len(wire)) for cut in cuts} | {0, len(wire)})
    pieces = [wire[begin:end] for begin, end in itertools.pairwise(ends)]
    pool = Pool()
    try:
        async with place(says(*pieces)) as here:
            for _ in range(2):
                assert await ask(pool, here.url) == (200, whole)
            assert here.connections == 1
    finally:
        pool.close()


async def test_a_body_that_ends_with_the_connection(pool: Pool) -> None:
    async with place(says(b"HTTP/1.1 200 OK\r\n\r\nabc", b"def", close=True)) as here:
        for count in (1, 2):
            assert await ask(pool, here.url) == (200, b"abcdef")
            assert here.connections == count


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother",
        OK + b"nonsense",
    ],
    ids=["close", "1.0", "two answers", "more than an answer"],
)
async def test_a_connection_that_is_not_used_again(pool: Pool, wire: bytes) -> None:
    async with place(says(wire)) as here:
        for count in (1, 2):
            assert await ask(pool, here.url) == (200, b"ok")
            assert here.connections == count


async def test_what_comes_unasked_closes_the_connection(pool: Pool) -> None:
    late = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await asyncio.sleep(0.02)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged")
        assert await reader.read() == b""
        late.set()

    async with place(script) as here:
        assert await ask(pool, here.url) == (200, b"ok")
        await asyncio.wait_for(late.wait(), 5)


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 8000,
        b"HTTP/1.1 099 Early\r\ncontent-length: 4\r\n\r\nevil" + OK,
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\nconnection: keep-alive\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        CHUNKED + b"2\r\nok\r\n0\r\nx-trailer: " + b"a" * 300_000,
        CHUNKED + b"2;" + b"a" * 300_000,
    ],
    ids=[
        "2",
        "nonsense",
        "both",
        "two",
        "negative",
        "gzip",
        "gzip-chunked",
        "upgrade",
        "large",
        "endless",
        "below 100",
        "chunks in 1.0",
        "endless trailer",
        "endless extension",
    ],
)
async def test_what_is_no_answer(pool: Pool, wire: bytes) -> None:
    async with place(says(wire)) as here:
        with pytest.raises(BrokenError, match=r"HTTP/1\.1"):
            await ask(pool, here.url)


@pytest.mark.parametrize("wire", [b"", b"HTTP/1.1 200 OK\r\ncont", OK[:-1], OK.replace(b": 2", b": 3")])
async def test_an_answer_that_breaks_off(pool: Pool, wire: bytes) -> None:
    async with place(says(wire, close=True)) as here:
        with pytest.raises(BrokenError, match="closed"):
            await ask(pool, here.url)


async def test_what_came_before_the_end_is_handed_on(pool: Pool) -> None:
    async with place(says(CHUNKED + b"3\r\nabc\r\n", b"2\r\nde\r\n", close=True)) as here:
        answer = await pool.request("POST", here.url, {})
        assert await answer.beginning(5) == b"abcde"
        with pytest.raises(BrokenError):
            await answer.read()
        answer.release()


async def test_nobody_there(pool: Pool) -> None:
    with pytest.raises(UnreachedError, match=r"127\.0\.0\.1"):
        await pool.request("POST", f"http://127.0.0.1:{free_port()}", {})
    with pytest.raises(UnreachedError, match=r"no-such-host\.invalid"):
        await pool.request("POST", "http://no-such-host.invalid", {})


@pytest.mark.parametrize("url", ["http://a..b", f"http://{'a' * 64}.example", "http://127.0.0.1:0"])
async def test_an_address_that_is_none(pool: Pool, url: str) -> None:
    with pytest.raises(UnreachedError):
        await pool.request("POST", url, {})


async def test_of_several_addresses_one_that_is_silent_does_not_take_all_the_time(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_ADDRESS_SECONDS", 0.1)
    asked: list[str] = []
    async with place(says(OK)) as here, contextlib.AsyncExitStack() as stack:
        port = int(here.url.rpartition(":")[2])
        silent = stack.enter_context(socket.create_server(("127.0.0.2", port), backlog=0))
        for _ in range(4):  # a full backlog swallows whoever else comes
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(silent.getsockname())

        async def look_up(origin: Origin) -> deque[pool_module.Address]:
            asked.append(origin.host)
            await asyncio.sleep(0.02)
            return deque((socket.AF_INET, (address, port)) for address in ("127.0.0.2", "127.0.0.1"))

        monkeypatch.setattr(pool, "_look_up", look_up)
        answers = await asyncio.gather(*(ask(pool, f"http://engine:{port}") for _ in range(20)))
        assert answers == [(200, b"ok")] * 20
        assert asked == ["engine"]


async def test_a_connection_that_is_closing_is_not_used(pool: Pool) -> None:
    async with place(says(OK)) as here:
        answer = await pool.request("POST", here.url, {})
        await answer.read()
        answer.release()
        answer.connection.close()  # its end is told in the next turn of the event loop
        assert not answer.connection.usable
        with pytest.raises(UnreachedError):
            await answer.connection.ask(b"", b"", chunked=False)
        assert await ask(pool, here.url) == (200, b"ok")
        assert here.connections == 2


async def test_only_what_is_of_no_use_is_closed(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_LOOK_SECONDS", 0.05)
    async with place(says(OK)) as here:
        answers = [await pool.request("POST", here.url, {}) for _ in range(3)]
        for answer in answers:
            await answer.read()
            answer.release()
        answers[1].connection.close()
        await asyncio.sleep(0.2)
        assert [answer.connection.usable for answer in answers] == [True, False, True]


async def test_an_answer_that_came_and_is_not_read_costs_no_connection(pool: Pool) -> None:
    async with place(says(OK)) as here:
        for _ in range(5):
            answer = await pool.request("POST", here.url, {})
            await asyncio.sleep(0.01)
            answer.release()
        assert here.connections == 1
        assert await ask(pool, here.url) == (200, b"ok")


async def test_closing_everything_does_not_make_half_an_answer_whole(pool: Pool) -> None:
    async with place(says(b"HTTP/1.1 200 OK\r\n\r\nhalf")) as here:
        answer = await pool.request("POST", here.url, {})
        assert await answer.beginning(4) == b"half"
        pool.close()
        with pytest.raises(BrokenError):
            await answer.read()


async def test_nothing_is_connected_to_after_the_end(pool: Pool) -> None:
    async with place(says(OK)) as here:
        asking = asyncio.create_task(pool.request("POST", here.url, {}))
        await asyncio.sleep(0)
        pool.close()
        with pytest.raises(UnreachedError, match="stops"):
            await asking
        with pytest.raises(UnreachedError, match="stops"):
            await pool.request("POST", here.url, {})


async def test_a_stream_by_its_length_and_in_chunks(pool: Pool) -> None:
    asked: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            asked.append(await (reader.readuntil(b"0\r\n\r\n") if b"chunked" in head else reader.readexactly(7)))
            writer.write(OK)

    async with place(script) as here:
        assert await ask(pool, here.url, Source(b"cde", b"fg").stream(b"ab"), content_length="7") == (200, b"ok")
        assert await ask(pool, here.url, Source(b"", b"cde").stream(b"ab")) == (200, b"ok")
    assert asked == [b"abcdefg", b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"]


async def test_a_body_that_cannot_be_read_ends_the_request(pool: Pool) -> None:
    ended = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        with contextlib.suppress(ConnectionError):
            while await reader.read(100):
                pass
        ended.set()

    async with place(script) as here:
        with pytest.raises(BrokenError, match="could not be read"):
            await ask(pool, here.url, Source(b"cd", ValueError("gone")).stream(b"ab"))
        await asyncio.wait_for(ended.wait(), 5)


async def test_an_answer_before_the_body_was_sent(pool: Pool) -> None:
    source = Source(*[b"x" * MIB] * 200)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK.replace(b"200 OK", b"413 Too Large"))
        await writer.drain()
        await asyncio.sleep(30)

    async with place(script) as here:
        assert await ask(pool, here.url, source.stream(b"ab")) == (413, b"ok")
        assert await ask(pool, here.url, b"") == (413, b"ok")
        assert here.connections == 2
        assert source.taken < 200 * MIB


async def test_a_service_that_takes_a_body_slowly_holds_the_client_up(pool: Pool) -> None:
    source = Source(*[b"x" * 64 * 1024] * 1600)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.3)
        taken.append(source.taken)
        rest = b""
        while not rest.endswith(b"0\r\n\r\n"):
            rest = (rest + await reader.read(MIB))[-5:]
        writer.write(OK)
        await reader.read()

    taken: list[int] = []
    async with place(script) as here:
        assert await ask(pool, here.url, source.stream()) == (200, b"ok")
    assert taken[0] < 20 * MIB
    assert source.taken == 100 * MIB


async def test_a_client_that_takes_an_answer_slowly_holds_the_service_up(pool: Pool) -> None:
    sent: list[int] = [0]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (100 * MIB))
        for _ in range(1600):
            writer.write(b"x" * 64 * 1024)
            await writer.drain()
            sent[0] += 64 * 1024
        await says(OK)(reader, writer)

    async with place(script) as here:
        answer = await pool.request("POST", here.url, {})
        await asyncio.sleep(0.3)
        assert sent[0] < 20 * MIB
        largest = size = 0
        async for piece in answer.pieces():
            size += len(piece)
            largest = max(largest, len(piece))
        answer.release()
        assert size == 100 * MIB
        assert largest <= MIB
        assert await ask(pool, here.url) == (200, b"ok")
        assert here.connections == 1


async def test_an_answer_that_is_let_go_early_closes_its_connection(pool: Pool) -> None:
    closed = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK[:-1])
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        closed.set()

    async with place(script) as here:
        answer = await pool.request("POST", here.url, {})
        assert await answer.beginning(1) == b"o"
        answer.release()
        await asyncio.wait_for(closed.wait(), 5)


async def test_who_is_cancelled_leaves_no_connection(pool: Pool) -> None:
    closed = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        closed.set()

    async with place(script) as here:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await ask(pool, here.url)
        await asyncio.wait_for(closed.wait(), 5)


async def test_what_is_idle_for_long_is_closed(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_IDLE_SECONDS", 0.1)
    monkeypatch.setattr(pool_module, "_LOOK_SECONDS", 0.02)
    closed = asyncio.Semaphore(0)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await says(OK)(reader, writer)
        closed.release()

    async with place(script) as here, asyncio.timeout(10):
        await asyncio.gather(*(ask(pool, here.url) for _ in range(3)))
        for _ in range(3):
            await closed.acquire()


async def test_a_connection_that_the_service_closed_is_not_used(pool: Pool) -> None:
    async with place(says(OK, close=True)) as here:
        for _ in range(3):
            assert await ask(pool, here.url) == (200, b"ok")
            await asyncio.sleep(0.02)
        assert here.connections == 3


async def test_tls(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=engine"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    made = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    assert await made.wait() == 0
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    async with place(says(OK), tls) as here:
        with pytest.raises(UnreachedError, match="certificate"):
            await ask(pool, here.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        trusting = Pool()
        for _ in range(3):
            assert await ask(trusting, here.url) == (200, b"ok")
        trusting.close()
        assert here.connections == 1  # the other one was none yet


@pytest.mark.parametrize(
    ("url", "origin", "path", "fields"),
    [
        ("http://engine/api/x", Origin("engine", 80, tls=False), "/api/x", "host: engine\r\n"),
        ("https://engine", Origin("engine", 443, tls=True), "/", "host: engine\r\n"),
        ("http://[fd00::1]:7860/a?b=c", Origin("fd00::1", 7860, tls=False), "/a?b=c", "host: [fd00::1]:7860\r\n"),
        (
            "http://me:p%40ss@engine:1/x", Origin("engine", 1, tls=False), "/x",
            "host: engine:1\r\nauthorization: Basic bWU6cEBzcw==\r\n",
        ),
    ],
)  # fmt: skip
def test_urls(url: str, origin: Origin, path: str, fields: str) -> None:
    target = parse_target(url)
    assert (target.origin, target.path, target.fields) == (origin, path, fields)


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "a\0"])
async def test_a_header_cannot_begin_another(pool: Pool, value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        await pool.request("POST", "http://127.0.0.1:1", {"content-type": value})

"""The gateway on the wire, byte by byte: what could be understood in two ways is refused, and nobody holds it up.

The real process, spoken to over sockets. A request of its own follows whatever is sent: if the gateway took a part of
a body for a request, or the other way round, it would answer once too often, or the wrong thing.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import pytest

from bench.report import memory_mib
from support.gateway import (
    Engine,
    GatewayProcess,
    bearer,
    environment,
    gateway_process,
    running_engine,
    whisper,
    write_services,
)

T = TypeVar("T")
SPEECH = b"/api/speech-to-text"
OPENAI = b"/v1/audio/transcriptions"
AUTHORIZATION = f"Authorization: {bearer()['Authorization']}\r\n".encode()
POST = b"POST /api/speech-to-text HTTP/1.1\r\nHost: gateway\r\n" + AUTHORIZATION
NEXT = b"GET /livez HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"
PATIENCE = 1.0


@dataclass
class Answer:
    """One answer on the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The word for programs of an error in the gateway's own shape."""
        body = json.loads(self.body)
        assert body == {"error": body["error"], "code": body["code"], "request_id": self.headers["x-request-id"]}
        code: str = body["code"]
        return code

    @property
    def openai_code(self) -> str:
        """The same of an error in OpenAI's shape."""
        error = json.loads(self.body)["error"]
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        assert error == {"message": error["message"], "type": kind, "param": None, "code": error["code"]}
        code: str = error["code"]
        return code

    def code_of(self, path: bytes) -> str:
        """The same, in the shape that a path has."""
        return self.openai_code if path.startswith(b"/v1") else self.code


@dataclass
class Wire:
    """The process, and an engine behind it in a thread of its own."""

    gateway: GatewayProcess
    engine: Engine

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.gateway.port), timeout=20)

    def exchange(self, *parts: bytes) -> list[Answer]:
        """Sends bytes and reads all that comes until the gateway closes."""
        with self.connect() as connection:
            with suppress(ConnectionError):  # it may close before everything was sent
                for part in parts:
                    connection.sendall(part)
            return answers(read(connection))


def read(connection: socket.socket) -> bytes:
    received = b""
    with suppress(ConnectionError):
        while data := connection.recv(65536):
            received += data
    return received


def answers(received: bytes) -> list[Answer]:
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers["content-length"])
        found.append(Answer(int(first.split()[1]), headers, rest[:length]))
        received = rest[length:]
    return found


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    folder: Path = tmp_path_factory.mktemp("wire")
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()

    def run(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(90)

    stack = AsyncExitStack()

    async def start() -> Wire:
        engine = await stack.enter_async_context(running_engine())
        write_services(folder / "services.yaml", whisper(engine.url))
        variables = environment(
            folder,
            GATEWAY_RATE_LIMIT_PER_HOUR="100000",
            GATEWAY_HEADER_TIMEOUT_SECONDS=str(PATIENCE),
            GATEWAY_BODY_TIMEOUT_SECONDS=str(PATIENCE),
        )
        return Wire(await stack.enter_async_context(gateway_process(folder, variables)), engine)

    try:
        yield run(start())
    finally:
        run(stack.aclose())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def fresh(wire: Wire) -> Wire:
    wire.engine.seen.clear()
    return wire


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
HELLO = b"5\r\nhello\r\n0\r\n\r\n"

UNDERSTOOD_IN_TWO_WAYS = {
    "length and chunked": POST + b"Content-Length: 5\r\n" + CHUNKED + b"0\r\n\r\n",
    "chunked and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "the same length twice": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "a length with a sign": POST + b"Content-Length: +5\r\n\r\nhello",
    "a negative length": POST + b"Content-Length: -5\r\n\r\nhello",
    "a length as Python writes it": POST + b"Content-Length: 1_0\r\n\r\nhellohello",
    "no length": POST + b"Content-Length:\r\n\r\nhello",
    "a length beyond 64 bits": POST + b"Content-Length: 99999999999999999999\r\n\r\nhello",
    "chunked that is not last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + HELLO,
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + HELLO,
    "the coding identity": POST + b"Transfer-Encoding: identity\r\n\r\n" + HELLO,
    "a coding that is not decoded": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + HELLO,
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\n" + CHUNKED + HELLO,
    "chunked behind a control character": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + HELLO,
    "chunked in HTTP/1.0": POST.replace(b"HTTP/1.1", b"HTTP/1.0") + CHUNKED + HELLO,
    "a folded header": POST + b"X-Note: a\r\n b\r\nContent-Length: 5\r\n\r\nhello",
    "a folded coding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + HELLO,
    "a folded length": POST + b"Content-Length:\r\n 5\r\n\r\nhello",
    "a blank before the first header": POST.replace(b"\r\nHost", b"\r\n Host") + b"Content-Length: 5\r\n\r\nhello",
    "a blank before a colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "bare line feeds": (POST + b"Content-Length: 5\r\n\r\nhello").replace(b"\r\n", b"\n"),
    "one bare line feed": POST + b"X-Note: a\nContent-Length: 5\r\n\r\nhello",
    "one bare carriage return": POST + b"X-Note: a\rContent-Length: 5\r\n\r\nhello",
    "NUL in a value": POST + b"X-Note: a\x00b\r\nContent-Length: 5\r\n\r\nhello",
    "NUL in a name": POST + b"X\x00Note: a\r\nContent-Length: 5\r\n\r\nhello",
    "NUL in the target": POST.replace(SPEECH, SPEECH + b"\x00") + b"Content-Length: 5\r\n\r\nhello",
    "a header without a name": POST + b": a\r\nContent-Length: 5\r\n\r\nhello",
    "a header without a colon": POST + b"note\r\nContent-Length: 5\r\n\r\nhello",
    "a chunk size that ends in a line feed": POST + CHUNKED + b"5\nhello\r\n0\r\n\r\n",
    "a chunk extension that ends in a line feed": POST + CHUNKED + b"5;a\nhello\r\n0\r\n\r\n",
    "a chunk longer than its size": POST + CHUNKED + b"5\r\nhelloXX0\r\n\r\n",
    "a chunk size with a prefix": POST + CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a negative chunk size": POST + CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "a chunk size beyond 64 bits": POST + CHUNKED + b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
    "a body behind an Upgrade": POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello",
    "no Host": POST.replace(b"Host: gateway\r\n", b"") + b"Content-Length: 5\r\n\r\nhello",
    "two Hosts": POST + b"Host: other\r\nContent-Length: 5\r\n\r\nhello",
    "a tunnel": b"CONNECT gateway:8000 HTTP/1.1\r\nHost: gateway\r\n" + AUTHORIZATION + b"\r\n",
    "more than a version": POST.replace(b"HTTP/1.1\r", b"HTTP/1.1 x\r", 1) + b"Content-Length: 5\r\n\r\nhello",
    "HTTP/2 from the start": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version that nobody speaks": POST.replace(b"HTTP/1.1", b"HTTP/2.0") + b"Content-Length: 5\r\n\r\nhello",
    "no version": b"GET /livez\r\n\r\n",
}


UNREAD = {"NUL in the target", "a tunnel", "HTTP/2 from the start", "no version"}
"""Those of them that have no path, or none that could be read."""


@pytest.mark.parametrize("path", [SPEECH, OPENAI])
@pytest.mark.parametrize("name", UNDERSTOOD_IN_TWO_WAYS)
def test_what_could_be_understood_in_two_ways_is_refused_and_ends_the_connection(
    fresh: Wire, name: str, path: bytes
) -> None:
    [answer] = fresh.exchange(UNDERSTOOD_IN_TWO_WAYS[name].replace(SPEECH, path) + NEXT)
    assert answer.status in {400, 501, 505}
    assert (answer.code if name in UNREAD else answer.code_of(path)) == "invalid_request"
    assert answer.headers["connection"] == "close"
    assert len(answer.headers["x-request-id"]) == 36
    # The body of a request that was let in before its chunks turned out wrong never ends, so no engine has it.
    assert fresh.engine.seen == []


GOOD = {
    "a length": POST + b"Content-Length: 5\r\n\r\nhello",
    "a length with blanks around it": POST + b"Content-Length:  5 \t\r\n\r\nhello",
    "chunks": POST + CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    "chunks with extensions": POST + CHUNKED + b'5;name="a b";other\r\nhello\r\n0;last\r\n\r\n',
    "chunks in capitals": POST + b"TRANSFER-ENCODING: Chunked\r\n\r\n0005\r\nhello\r\n000\r\n\r\n",
    "trailers": POST + CHUNKED + b"5\r\nhello\r\n0\r\nX-Checksum: 1\r\n\r\n",
}


@pytest.mark.parametrize("sent", GOOD.values(), ids=GOOD)
def test_a_body_reaches_the_engine_as_it_was_meant(fresh: Wire, sent: bytes) -> None:
    first, second = fresh.exchange(sent + NEXT)
    assert (first.status, second.status) == (200, 200)
    [seen] = fresh.engine.seen
    assert seen.body_bytes == 5
    assert not {"transfer-encoding", "trailer", "x-checksum"} & set(seen.headers)
    assert seen.headers["content-length"] == "5"


def test_trailers_are_not_taken_for_headers(fresh: Wire) -> None:
    """Neither for who asks, nor for what is passed on."""
    without = POST.replace(AUTHORIZATION, b"")
    first, second = fresh.exchange(without + CHUNKED + b"5\r\nhello\r\n0\r\n" + AUTHORIZATION + b"\r\n" + NEXT)
    assert (first.status, second.status) == (401, 200)
    typed = POST + CHUNKED + b"5\r\nhello\r\n0\r\nContent-Type: text/late\r\nContent-Encoding: gzip\r\n\r\n"
    assert [answer.status for answer in fresh.exchange(typed + NEXT)] == [200, 200]
    [seen] = fresh.engine.seen
    assert "content-type" not in seen.headers


@pytest.mark.parametrize("endless", [b"0\r\nX-Trailer: ", b"5;extension="], ids=["trailer", "chunk extension"])
def test_what_is_around_a_body_is_bounded(fresh: Wire, endless: bytes) -> None:
    sent = 0
    with fresh.connect() as connection, suppress(ConnectionError):
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n" + endless)
        while sent < 32 * 1024 * 1024:
            connection.sendall(b"a" * 65536)
            sent += 65536
    assert sent < 16 * 1024 * 1024
    assert memory_mib(fresh.gateway.pid) < 300


def test_a_wish_for_another_protocol_is_passed_over(fresh: Wire) -> None:
    """Some clients ask for HTTP/2 with every first request."""
    wish = (
        b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n"
    )
    assert [answer.status for answer in fresh.exchange(wish + b"\r\n" + NEXT)] == [200, 200]


def test_what_is_wrong_behind_a_good_request_does_not_hurt_it(fresh: Wire) -> None:
    body = b'{"do": {"sleep": 0.3}}'
    good = POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    [answer] = fresh.exchange(good + b"nonsense\r\n\r\n" + NEXT)
    assert answer.status == 200
    assert len(fresh.engine.seen) == 1


def test_requests_in_a_row_are_answered_in_a_row(fresh: Wire) -> None:
    several = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n" * 20
    assert [answer.status for answer in fresh.exchange(several + NEXT)] == [200] * 21


TOO_LARGE = {
    "one header": (431, POST + b"X-Note: " + b"a" * 33_000 + b"\r\n\r\n"),
    "all headers": (431, POST + (b"X-Note: " + b"a" * 1000 + b"\r\n") * 40 + b"\r\n"),
    "the number of headers": (431, POST + b"X: a\r\n" * 100 + b"\r\n"),
    "a header that never ends": (431, POST + b"X-Note: " + b"a" * 200_000),
    "a name that never ends": (431, POST + b"a" * 200_000),
    "the target": (414, POST.replace(SPEECH, SPEECH + b"?" + b"a" * 9000) + b"\r\n"),
}


@pytest.mark.parametrize("path", [SPEECH, OPENAI])
@pytest.mark.parametrize(("status", "sent"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_the_size_of_a_head_is_bounded(fresh: Wire, status: int, sent: bytes, path: bytes) -> None:
    [answer] = fresh.exchange(sent.replace(SPEECH, path, 1))
    assert answer.status == status
    assert answer.code_of(path) == {414: "uri_too_long", 431: "headers_too_large"}[status]
    assert fresh.engine.seen == []


def test_a_usual_head_passes(fresh: Wire) -> None:
    head = POST + (b"X-Note: " + b"a" * 300 + b"\r\n") * 90 + b"Content-Length: 0\r\nConnection: close\r\n\r\n"
    assert [answer.status for answer in fresh.exchange(head)] == [200]


def test_headers_of_one_connection_and_of_who_asks_stop_at_the_gateway(fresh: Wire) -> None:
    headers = (
        b"Connection: close, Accept, X-AIService-Unit-Price\r\n"
        b"Accept: audio/wav\r\nContent-Type: audio/wav\r\nKeep-Alive: 5\r\nTE: trailers\r\nTrailer: X-A\r\n"
        b"Proxy-Authorization: Basic abc\r\nProxy-Connection: keep-alive\r\nCookie: session=1\r\n"
        b"X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nX-Tenant-Id: other\r\n"
        b"X-Request-Id: mine\r\nX-AIService-Unit-Price: 0\r\nX-Original-URL: /admin\r\nX-HTTP-Method-Override: GET\r\n"
        b"Idempotency-Key: abc\r\nBaggage: user=1\r\nOrigin: http://evil\r\nRange: bytes=0-1\r\nIf-Match: x\r\n"
    )
    [answer] = fresh.exchange(POST + headers + b"Content-Length: 5\r\n\r\nhello")
    assert answer.status == 200
    [seen] = fresh.engine.seen
    assert seen.headers.pop("x-request-id") == answer.headers["x-request-id"]
    assert seen.headers.pop("host") == fresh.engine.url.removeprefix("http://")
    assert seen.headers.pop("user-agent").startswith("aiservice-gateway/")
    assert float(seen.headers.pop("x-aiservice-unit-price")) > 0
    assert seen.headers == {"content-type": "audio/wav", "content-length": "5", "accept-encoding": "identity"}


def timed(connection: socket.socket) -> tuple[list[Answer], float]:
    begin = time.monotonic()
    received = read(connection)
    return answers(received), time.monotonic() - begin


def test_a_connection_that_says_nothing_is_closed(fresh: Wire) -> None:
    with fresh.connect() as connection:
        assert timed(connection)[0] == []


@pytest.mark.parametrize("path", [SPEECH, OPENAI])
def test_headers_that_do_not_come_end_the_wait(fresh: Wire, path: bytes) -> None:
    with fresh.connect() as connection:
        connection.sendall(POST.replace(SPEECH, path))
        [answer], _ = timed(connection)
    assert (answer.status, answer.code_of(path)) == (408, "request_timeout")


def test_headers_that_drip_end_the_wait(fresh: Wire) -> None:
    with fresh.connect() as connection, suppress(ConnectionError):
        connection.sendall(POST)
        for _ in range(100):
            connection.sendall(b"X-A: b\r\n")
            time.sleep(0.1)
        pytest.fail("it read on for ten seconds")


def test_empty_lines_do_not_keep_a_connection(fresh: Wire) -> None:
    with fresh.connect() as connection, suppress(ConnectionError):
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        for _ in range(100):
            connection.sendall(b"\r\n")
            time.sleep(0.1)
        pytest.fail("it read on for ten seconds")


def test_what_follows_a_request_is_refused_in_no_shape_of_that_request(fresh: Wire) -> None:
    """What cannot be read has no path; the one before does not count for it."""
    first = b"GET /v1/nothing HTTP/1.1\r\nHost: a\r\n\r\n"
    with fresh.connect() as connection:
        connection.sendall(first)
        received = connection.recv(65536)
        connection.sendall(b"\x00\r\n\r\n")
        found = answers(received + read(connection))
    assert [answer.status for answer in found] == [404, 400]
    assert found[0].openai_code == "not_found"
    assert found[1].code == "invalid_request"


STATUSES = {
    b"Transfer-Encoding: gzip\r\n\r\n": 501,
    b"Host: other\r\n\r\n": 400,
    b"": 408,
}


@pytest.mark.parametrize(("status", "rest"), [(status, rest) for rest, status in STATUSES.items()])
@pytest.mark.parametrize("target", [b"http://gateway/v1/models", b"/%761/models", b"/v1", b"/v1?a=b"])
def test_however_a_path_is_written_it_decides_the_shape(fresh: Wire, target: bytes, status: int, rest: bytes) -> None:
    [answer] = fresh.exchange(POST.replace(SPEECH, target) + rest)
    assert answer.status == status
    assert answer.openai_code == ("request_timeout" if status == 408 else "invalid_request")


def test_a_body_that_stops_ends_the_wait(fresh: Wire) -> None:
    for length in (b"1000", b"10000000"):  # one that would be held, and one that would be streamed
        with fresh.connect() as connection:
            connection.sendall(
                POST + b"Content-Length: " + length + b"\r\n\r\nhello" + b"a" * 100_000 * (len(length) > 4)
            )
            [answer], _ = timed(connection)
        assert (answer.status, answer.code) == (408, "request_timeout")
        assert answer.headers["connection"] == "close"


def test_a_body_that_drips_ends_the_wait(fresh: Wire) -> None:
    with fresh.connect() as connection, suppress(ConnectionError):
        connection.sendall(POST + b"Content-Length: 1000\r\n\r\n")
        for _ in range(100):
            connection.sendall(b"a")
            time.sleep(0.1)
        pytest.fail("it read on for ten seconds")


def test_a_body_that_nobody_reads_does_not_keep_a_connection(fresh: Wire) -> None:
    with fresh.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
        [answer], _ = timed(connection)
    assert answer.status == 200


def test_a_slow_upload_at_a_fair_pace_is_waited_for(fresh: Wire) -> None:
    """Longer than the patience in all, but never without bytes for so long, and more than a KiB a second."""
    with fresh.connect() as connection:
        connection.sendall(POST + b"Content-Length: 40000\r\nConnection: close\r\n\r\n")
        for _ in range(20):
            connection.sendall(b"a" * 2000)
            time.sleep(0.15)
        [answer], _ = timed(connection)
    assert answer.status == 200
    assert fresh.engine.seen[0].body_bytes == 40_000


def test_many_that_wait_for_nothing_do_not_hold_up_the_others(fresh: Wire) -> None:
    idle = [fresh.connect() for _ in range(300)]
    for number, connection in enumerate(idle):
        connection.sendall(POST if number % 2 else POST + b"Content-Length: 9\r\n\r\na")
    assert [
        answer.status for answer in fresh.exchange(POST + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello")
    ] == [200]
    for connection in idle:
        [answer] = answers(read(connection))
        assert answer.status == 408
        connection.close()

"""The proxy: streams both ways, bounded, and whatever ends badly ends with a clear answer and a right bill."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.databases import free_port
from support.gateway import (
    Engine,
    bearer,
    environment,
    eventually,
    gateway_here,
    running_engine,
    serving,
    whisper,
    write_services,
)

SPEECH = "/api/speech-to-text"
MIB = 1024 * 1024
LARGEST = 64 * MIB


@dataclass
class World:
    """A gateway without Redis and PostgreSQL, and what is behind it."""

    client: aiohttp.ClientSession
    engine: Engine
    folder: Path
    url: str

    async def ask(self, do: dict[str, Any] | None = None) -> tuple[int, dict[str, Any], Any]:
        """A request with orders for the engine; returns status, body and headers."""
        async with self.client.post(SPEECH, json={"do": do or {}}, headers=bearer()) as answer:
            return answer.status, await answer.json(), answer.headers

    async def used(self) -> tuple[int, float, int]:
        """Requests and units in the ledger, and what the limit has counted."""
        async with self.client.get("/api/usage", headers=bearer()) as answer:
            body = await answer.json()
        services = body["services"].get("speech-to-text", {"count": 0, "units": 0.0})
        return services["count"], services["units"], 100 - body["limits"]["speech-to-text"]["remaining"]

    async def billed(self) -> bool:
        """Whether a request is in the ledger."""
        return (await self.used())[0] == 1

    async def connect(self, *lines: str, body: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Sends the beginning of a request by hand."""
        reader, writer = await asyncio.open_connection(*_address(self.url))
        head = [f"POST {SPEECH} HTTP/1.1", "Host: gateway", f"Authorization: {bearer()['Authorization']}", *lines]
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        return reader, writer


@pytest.fixture
async def world(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    """A gateway that gives engines a minute, or the seconds of the parameter."""
    # What was asked a moment ago is to be in the answer, however slow the disk.
    monkeypatch.setattr("aiservice_gateway.services.usage._FLUSH_SECONDS", 30.0)
    seconds = getattr(request, "param", "60")
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        variables = environment(tmp_path, GATEWAY_UPSTREAM_TIMEOUT_SECONDS=seconds, GATEWAY_MAX_BODY_BYTES=str(LARGEST))
        async with gateway_here(variables) as client:
            yield World(client, engine, tmp_path, str(client._base_url).rstrip("/"))


impatient = pytest.mark.parametrize("world", ["2"], indirect=True)


async def test_a_good_request_is_billed(world: World) -> None:
    status, _, headers = await world.ask()
    assert status == 200
    assert headers["x-ratelimit-remaining"] == "99"
    assert await world.used() == (1, 2.5, 1)


async def test_a_refusal_of_the_engine_is_passed_on_and_not_billed(world: World) -> None:
    status, body, headers = await world.ask({"status": 400, "error": "The audio is empty."})
    assert (status, body["error"]) == (400, "The audio is empty.")
    assert body["request_id"] == headers["X-Request-Id"]
    assert await world.used() == (1, 0.0, 1)


@pytest.mark.parametrize("upstream", [500, 502, 501, 302])
async def test_why_an_engine_failed_stays_in_the_log(
    world: World, upstream: int, caplog: pytest.LogCaptureFixture
) -> None:
    status, body, headers = await world.ask({"status": upstream, "error": "CUDA error at kernel 7"})
    assert (status, body["code"]) == (502, "upstream_failed")
    assert "CUDA" not in str(body)
    assert headers["x-ratelimit-remaining"] == "99"
    [record] = [record for record in caplog.records if record.message == "A service failed"]
    fields = record.__dict__["fields"]
    assert fields["reason"] == "CUDA error at kernel 7"
    assert fields["request_id"] == body["request_id"]
    assert await world.used() == (1, 0.0, 1)


async def test_a_busy_engine_costs_nothing(world: World) -> None:
    status, body, headers = await world.ask({"status": 503, "retry_after": 7})
    assert (status, body["code"], headers["Retry-After"]) == (503, "unavailable", "7")
    assert headers["x-ratelimit-remaining"] == "100"
    assert await world.used() == (0, 0.0, 0)


@impatient
async def test_an_engine_that_takes_too_long(world: World) -> None:
    status, body, _ = await world.ask({"sleep": 30})
    assert (status, body["code"]) == (504, "upstream_timeout")
    assert "within 2 s" in body["error"]
    await eventually(lambda: world.engine.disconnects)
    assert await world.used() == (1, 0.0, 1)


async def test_a_client_that_goes_away_takes_its_request_along(world: World) -> None:
    request = asyncio.create_task(world.client.post(SPEECH, json={"do": {"sleep": 120}}, headers=bearer()))
    await eventually(lambda: world.engine.seen)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    # Sooner than the gateway's own time limit.
    await eventually(lambda: world.engine.disconnects)
    await eventually(world.billed)
    assert await world.used() == (1, 0.0, 1)


async def test_a_client_that_goes_away_during_the_answer_pays_for_the_work(world: World) -> None:
    async with world.client.post(SPEECH, json={"do": {"chunks": 1000, "pause": 0.05}}, headers=bearer()) as answer:
        assert answer.status == 200
        await answer.content.readexactly(3000)
        answer.close()
    await eventually(world.billed)
    assert await world.used() == (1, 2.5, 1)


async def test_an_answer_is_streamed_as_it_comes(world: World) -> None:
    started = asyncio.get_running_loop().time()
    async with world.client.post(SPEECH, json={"do": {"chunks": 10, "pause": 0.1}}, headers=bearer()) as answer:
        assert answer.headers["Content-Type"] == "audio/wav"
        await answer.content.readexactly(1000)
        first = asyncio.get_running_loop().time() - started
        rest = await answer.content.read()
    assert len(rest) == 9000
    assert asyncio.get_running_loop().time() - started > first + 0.5
    assert await world.used() == (1, 2.5, 1)


async def test_an_answer_that_breaks_off_is_not_passed_off_as_whole(world: World) -> None:
    async with world.client.post(SPEECH, json={"do": {"chunks": 3, "cut": True}}, headers=bearer()) as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    assert await world.used() == (1, 0.0, 1)


@impatient
async def test_an_answer_that_does_not_end_is_cut(world: World) -> None:
    async with world.client.post(SPEECH, json={"do": {"chunks": 1000, "pause": 0.1}}, headers=bearer()) as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    assert await world.used() == (1, 0.0, 1)


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 5 * MIB])
@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_of_every_size_arrive_whole(world: World, size: int, *, chunked: bool) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(0, size, 100_000):
            yield b"a" * min(100_000, size)

    whole = b"a" * size
    sent = len(whole) if not chunked else -(-size // 100_000) * min(100_000, size)
    async with world.client.post(SPEECH, data=body() if chunked else io.BytesIO(whole), headers=bearer()) as answer:
        assert answer.status == 200
        await answer.read()
    assert world.engine.seen[0].body_bytes == sent
    assert await world.used() == (1, 2.5, 1)


async def test_a_body_declared_too_large_is_not_read(world: World) -> None:
    reader, writer = await world.connect(f"Content-Length: {LARGEST + 1}")
    answer = await reader.read()  # to its end: the gateway closes the connection
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"payload_too_large"' in answer
    writer.close()
    await writer.wait_closed()
    assert world.engine.seen == []
    assert await world.used() == (0, 0.0, 0)


async def test_a_body_that_turns_out_too_large_is_cut(world: World) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(LARGEST // MIB + 4):
            yield b"a" * MIB

    try:
        async with world.client.post(SPEECH, data=body(), headers=bearer()) as answer:
            assert answer.status == 413
    except aiohttp.ClientConnectionError:
        pass  # the answer came, and the connection closed, while the client was still sending
    assert await world.used() == (0, 0.0, 0)


@impatient
async def test_a_body_that_does_not_come(world: World) -> None:
    reader, writer = await world.connect("Content-Length: 1000", body=b"abc")
    answer = await reader.readuntil(b"}")
    assert answer.startswith(b"HTTP/1.1 408 ")
    writer.close()
    await writer.wait_closed()
    assert await world.used() == (0, 0.0, 0)


async def test_a_compressed_body_is_refused(world: World) -> None:
    headers = {**bearer(), "Content-Encoding": "gzip"}
    async with world.client.post(SPEECH, data=b"x", headers=headers) as answer:
        assert answer.status == 415
    assert await world.used() == (0, 0.0, 0)


@pytest.mark.parametrize("size", [10, 2 * MIB])
async def test_a_service_that_cannot_be_reached(world: World, size: int) -> None:
    write_services(world.folder / "services.yaml", whisper(f"http://127.0.0.1:{free_port()}"))
    await asyncio.sleep(1.2)
    async with world.client.post(SPEECH, data=io.BytesIO(b"a" * size), headers=bearer()) as answer:
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "5"
        assert answer.headers["x-ratelimit-remaining"] == "100"
        assert (await answer.json())["error"].startswith("The service cannot be reached")
    assert await world.used() == (0, 0.0, 0)


@pytest.mark.parametrize("size", [10, 2 * MIB])
async def test_a_connection_that_breaks_after_the_request_was_sent_is_not_tried_again(world: World, size: int) -> None:
    """The engine may have begun, and may have died of this very request."""
    connections = 0

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read(1)
        writer.transport.abort()

    server = await asyncio.start_server(break_off, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    write_services(world.folder / "services.yaml", whisper(f"http://127.0.0.1:{port}"))
    await asyncio.sleep(1.2)
    async with world.client.post(SPEECH, data=io.BytesIO(b"a" * size), headers=bearer()) as answer:
        assert (answer.status, (await answer.json())["code"]) == (502, "upstream_failed")
    assert connections == 1
    assert await world.used() == (1, 0.0, 1)
    server.close()
    await server.wait_closed()


def _address(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("http://").split(":")
    return host, int(port)


async def test_a_restarted_engine_is_found_again(world: World) -> None:
    port = _address(world.engine.url)[1]
    other = free_port()
    write_services(world.folder / "services.yaml", whisper(f"http://127.0.0.1:{other}"))
    await asyncio.sleep(1.2)
    for _ in range(2):
        engine = Engine()
        async with serving(engine, port=other):
            assert (await world.ask())[0] == 200
            assert len(engine.seen) == 1
        assert (await world.ask())[0] == 503
    assert port != other


async def test_an_engine_that_measures_nonsense_is_billed_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    status, _, _ = await world.ask({"headers": {"x-aiservice-units": "-1"}})
    assert status == 200
    assert await world.used() == (1, 0.0, 1)
    assert "measures nonsense" in caplog.text


async def test_large_uploads_do_not_pile_up_when_the_engine_reads_slowly(world: World) -> None:
    """The kernel's and the servers' buffers take some MiB; the rest must stay with the client."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    write_services(world.folder / "services.yaml", whisper(f"http://127.0.0.1:{port}"))
    await asyncio.sleep(1.2)
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(60 * 16):
            yield b"a" * (MIB // 16)
            sent += MIB // 16

    request = asyncio.create_task(world.client.post(SPEECH, data=body(), headers=bearer()))
    await asyncio.sleep(1.0)
    assert sent < 40 * MIB
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    listener.close()


async def test_logs_hold_no_token_and_no_content(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    headers = bearer("tenant-7")
    async with world.client.post(
        f"{SPEECH}?service=whisper", json={"prompt": "very private words"}, headers=headers
    ) as answer:
        await answer.read()
        assert answer.status == 200
    async with world.client.get("/private/path?with=words", headers=headers) as answer:
        assert answer.status == 404
    everything = "".join(str(record.__dict__) for record in caplog.records if record.name.startswith("aiservice"))
    assert "tenant-7" in everything
    for secret in (headers["Authorization"].split()[1], "private"):
        assert secret not in everything

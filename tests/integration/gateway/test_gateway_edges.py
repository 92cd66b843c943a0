"""What stays at the gateway's edges: browsers' rules, what is private, memory, and a drain with requests that wait."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aiservice_gateway.services.auth import Authenticator
from support.gateway import (
    GatewayProcess,
    bearer,
    environment,
    gateway_here,
    gateway_process,
    running_engine,
    token,
    whisper,
    write_services,
)

SPEECH = "/api/speech-to-text"
APP = "https://app.example.com"
MIB = 1024 * 1024


def preflight(origin: str) -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, x-stainless-os",
    }


async def test_pages_of_the_app_may_call_and_others_may_not(tmp_path: Path) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        variables = environment(tmp_path, GATEWAY_CORS_ORIGINS=f"{APP}, http://localhost:3000")
        async with gateway_here(variables) as client:
            async with client.options(SPEECH, headers=preflight(APP)) as answer:
                assert answer.status == 200
                assert answer.headers["Access-Control-Allow-Origin"] == APP
                assert answer.headers["Access-Control-Allow-Credentials"] == "true"
                assert "POST" in answer.headers["Access-Control-Allow-Methods"]
                assert "authorization" in answer.headers["Access-Control-Allow-Headers"]
                assert "x-ratelimit-limit" not in answer.headers
            for origin in ("https://evil.example.com", f"{APP}.evil.com", "null", APP.upper()):
                async with client.options(SPEECH, headers=preflight(origin)) as answer:
                    assert answer.status == 400
                    assert "Access-Control-Allow-Origin" not in answer.headers

            async with client.post(SPEECH, json={}, headers={**bearer(), "Origin": APP}) as answer:
                assert answer.status == 200
                assert answer.headers["Access-Control-Allow-Origin"] == APP
                assert "Origin" in answer.headers["Vary"]
                exposed = answer.headers["Access-Control-Expose-Headers"].lower().split(", ")
                told = {name.lower() for name in answer.headers}
                usual = ("x-request-id", "x-ratelimit-", "x-aiservice-", "retry-after")
                assert {name for name in told if name.startswith(usual)} <= set(exposed)
            # An error must be readable as well.
            async with client.post(SPEECH, json={}, headers={"Origin": APP}) as answer:
                assert answer.status == 401
                assert answer.headers["Access-Control-Allow-Origin"] == APP
            async with client.post(
                SPEECH, json={}, headers={**bearer(), "Origin": "https://evil.example.com"}
            ) as answer:
                assert "Access-Control-Allow-Origin" not in answer.headers
        assert all("origin" not in seen.headers for seen in engine.seen)


@pytest.mark.parametrize("path", [SPEECH, "/v1/models", "/nothing"])
async def test_a_refused_preflight_is_an_error_like_all_others(
    tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write_services(tmp_path / "services.yaml")
    asked = {**preflight(APP), "Access-Control-Request-Method": "PATCH"}
    evil = preflight("https://evil.example.com")
    async with gateway_here(environment(tmp_path, GATEWAY_CORS_ORIGINS=APP)) as client:
        for headers, reason, allowed in ((asked, "method", APP), (evil, "origin", None)):
            async with client.options(path, headers=headers) as answer:
                assert answer.status == 400
                assert answer.content_type == "application/json"
                assert answer.headers.get("Access-Control-Allow-Origin") == allowed
                assert answer.headers["Access-Control-Allow-Methods"] == "GET, POST, DELETE"
                assert "Origin" in answer.headers["Vary"]
                told, name = await answer.json(), answer.headers["X-Request-Id"]
            sentence = f"A page may not send this request because of its {reason}."
            if path.startswith("/v1"):
                error = {"type": "invalid_request_error", "param": None, "code": "invalid_request"}
                assert told == {"error": {"message": sentence, **error}}
            else:
                assert told == {"error": sentence, "code": "invalid_request", "request_id": name}
            assert name in str([record.__dict__ for record in caplog.records])
        async with client.options(path, headers=preflight(APP)) as answer:
            assert (answer.status, len(answer.headers["X-Request-Id"])) == (200, 36)
        async with client.get("/metrics") as answer:
            metrics = await answer.text()
    assert 'requests_total{method="OPTIONS",route="preflight",status="400"} 2.0' in metrics
    assert 'requests_total{method="OPTIONS",route="preflight",status="200"} 1.0' in metrics


async def broken(*_: Any) -> None:
    raise RuntimeError("a fault")


@pytest.mark.parametrize("path", [SPEECH, "/api/usage", "/v1/models"])
async def test_a_page_may_read_what_goes_wrong_inside(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Authenticator, "identify", broken)
    write_services(tmp_path / "services.yaml")
    async with (
        gateway_here(environment(tmp_path, GATEWAY_CORS_ORIGINS=APP)) as client,
        client.request("POST" if path == SPEECH else "GET", path, headers={"Origin": APP}) as answer,
    ):
        assert answer.status == 500
        assert answer.headers.getall("Access-Control-Allow-Origin") == [APP]
        assert "x-request-id" in answer.headers["Access-Control-Expose-Headers"].lower()
        assert len(answer.headers.getall("X-Request-Id")) == 1


async def test_all_pages_only_without_credentials_and_none_unless_asked(tmp_path: Path) -> None:
    write_services(tmp_path / "services.yaml")
    async with (
        gateway_here(environment(tmp_path, GATEWAY_CORS_ORIGINS="*")) as client,
        client.options(SPEECH, headers=preflight("https://anyone.example.com")) as answer,
    ):
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers
    async with (
        gateway_here(environment(tmp_path)) as client,
        client.options(SPEECH, headers=preflight(APP)) as answer,
    ):
        assert answer.status == 405
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_logs_hold_nothing_private_wherever_it_is_put(tmp_path: Path) -> None:
    """A word of its own in every place of a request and of an engine's answer, in every way that a request can end."""
    planted: list[str] = []

    def plant(place: str) -> str:
        planted.append(f"canary{place}{uuid.uuid4().hex[:12]}")
        return planted[-1]

    def headers(**more: str) -> dict[str, str]:
        names = ("X-Api-Key", "Cookie", "User-Agent", "X-Request-Id", "Referer", "traceparent", "Idempotency-Key")
        return {name: plant("header") for name in names} | more

    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        variables = environment(
            tmp_path, GATEWAY_LOG_LEVEL="DEBUG", GATEWAY_UPSTREAM_TIMEOUT_SECONDS="3", GATEWAY_MAX_BODY_BYTES="100000"
        )
        async with gateway_process(tmp_path, variables) as gateway, aiohttp.ClientSession(gateway.url) as client:

            async def ask(path: str = SPEECH, **options: Any) -> None:
                try:
                    async with client.post(path, **options) as answer:
                        await answer.read()
                except (aiohttp.ClientError, TimeoutError):
                    pass

            signed = token()
            planted.append(signed)
            genuine = {"Authorization": f"Bearer {signed}"}
            ways: list[dict[str, Any]] = [
                {},
                {"status": 400, "error": plant("refusal")},
                {"status": 500},
                {"status": 503},
                {"sleep": 10},
                {"chunks": 3, "cut": True},
                {"headers": {"x-aiservice-units": "-1", "x-note": plant("answer")}},
            ]
            for do in ways:
                body = {"prompt": plant("prompt"), "audio": plant("media"), "do": do}
                await ask(f"{SPEECH}?note={plant('query')}", json=body, headers=headers(**genuine))
            form = aiohttp.FormData()
            form.add_field("file", plant("file").encode(), filename=plant("name"), content_type="audio/wav")
            form.add_field("prompt", plant("field"))
            await ask(data=form, headers=headers(**genuine))
            await ask(data=plant("large").encode() + b"a" * 200_000, headers=headers(**genuine))
            await ask(data=plant("packed"), headers=headers(**genuine, **{"Content-Encoding": "gzip"}))
            await ask(f"{SPEECH}?service={plant('service')}", json={}, headers=headers(**genuine))
            await ask(f"/{plant('path')}", json={}, headers=headers(**genuine))
            await ask(f"/api/{plant('task')}", json={}, headers=headers())
            for wrong in (
                f"Bearer {plant('token')}",
                f"Basic {plant('basic')}",
                token(secret=plant("secret") + "x" * 32),
            ):
                await ask(json={}, headers=headers(Authorization=wrong))
                planted.append(wrong.split()[-1])
            raw = (
                f"POST {SPEECH} HTTP/1.1\r\nHost: a\r\nContent-Length : {plant('raw')}\r\nX-A: {plant('line')}\r\n\r\n"
            )
            await asyncio.to_thread(send, gateway, raw.encode())
            gone = asyncio.create_task(
                ask(json={"prompt": plant("gone"), "do": {"sleep": 9}}, headers=headers(**genuine))
            )
            await asyncio.sleep(0.5)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            gateway.signal(signal.SIGTERM)
            assert await gateway.ended() == 0
    log = gateway.log.read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    assert sum(line["message"] == "request" for line in lines) >= 15
    assert [word for word in planted if word in log] == []


def send(gateway: GatewayProcess, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(sent)
        return connection.recv(65536)


async def test_a_drain_sends_those_who_wait_away_at_once_and_lets_streams_end(tmp_path: Path) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url, maxConcurrency=1))
        variables = environment(tmp_path, GATEWAY_DRAIN_DELAY_SECONDS="3")
        async with (
            gateway_process(tmp_path, variables) as gateway,
            aiohttp.ClientSession(gateway.url, headers=bearer()) as client,
            client.post(SPEECH, json={"do": {"chunks": 40, "pause": 0.1}}) as stream,
        ):
            await stream.content.readexactly(1000)

            async def ask() -> tuple[int, str]:
                async with client.post(SPEECH, json={}) as answer:
                    return answer.status, (await answer.json())["error"]

            async def draining() -> bool:
                async with client.get("/readyz") as answer:
                    return bool((await answer.json())["draining"])

            waits = [asyncio.create_task(ask()) for _ in range(3)]
            await asyncio.sleep(0.3)
            begin = asyncio.get_running_loop().time()
            gateway.signal(signal.SIGTERM)
            refused = await asyncio.gather(*waits)
            assert {status for status, _ in refused} == {503}
            assert {error for _, error in refused} == {"The gateway is being stopped: try again."}
            assert asyncio.get_running_loop().time() - begin < 2.5  # they would have waited for the stream's end
            assert await draining()
            assert (await ask())[0] == 503  # nor does anybody begin to wait
            assert len(await stream.content.read()) == 39_000
            assert await gateway.ended() == 0
        assert len(engine.seen) == 1


def resident_mib(gateway: GatewayProcess) -> float:
    status = Path(f"/proc/{gateway._process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


async def test_large_bodies_and_slow_readers_do_not_pile_up_in_memory(tmp_path: Path) -> None:
    """100 MB to an engine that reads slowly, and 40 answers of 20 MB to clients that read nothing at first."""
    pieces, size = 100 * 16, MIB // 16

    async def answer_much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (20 * MIB))
        try:
            for _ in range(20 * 16):
                writer.write(b"a" * size)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    received = 0

    async def read_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        await reader.readuntil(b"\r\n\r\n")
        while received < pieces * size:
            received += len(await reader.read(size))
            await asyncio.sleep(0.0005)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    much = await asyncio.start_server(answer_much, "127.0.0.1", 0)
    slow = await asyncio.start_server(read_slowly, "127.0.0.1", 0)
    urls = [f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in (much, slow)]
    write_services(
        tmp_path / "services.yaml",
        whisper(urls[0], name="much", default=True),
        whisper(urls[1], name="slow"),
    )

    async def body() -> AsyncIterator[bytes]:
        for _ in range(pieces):
            yield b"a" * size

    connector = aiohttp.TCPConnector(limit=0)
    async with (
        gateway_process(tmp_path, environment(tmp_path)) as gateway,
        aiohttp.ClientSession(gateway.url, headers=bearer(), connector=connector, read_bufsize=1024) as client,
    ):
        async with client.get("/livez") as answer:
            await answer.read()
        before = resident_mib(gateway)
        streams = [await client.post(SPEECH, data=b"x") for _ in range(40)]
        headers = {"Content-Length": str(pieces * size)}
        upload = asyncio.create_task(client.post(f"{SPEECH}?service=slow", data=body(), headers=headers))
        peak = before
        while not upload.done():
            peak = max(peak, resident_mib(gateway))
            await asyncio.sleep(0.05)
        assert (await upload).status == 200
        assert received == pieces * size
        total = [len(await stream.content.read()) for stream in streams]
        peak = max(peak, resident_mib(gateway))
        assert total == [20 * MIB] * 40
    assert peak - before < 40, f"{before:.0f} MiB before, {peak:.0f} MiB at most"
    for server in (much, slow):
        server.close()
        await server.wait_closed()


ODD_ANSWERS = {
    "a length beside chunks": (
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        {None, b"hello"},
    ),
    "headers for one connection": (
        b"Connection: X-AIService-Units, close\r\nX-AIService-Units: 9\r\nContent-Length: 5\r\n\r\nhello",
        {b"hello"},
    ),
    "a new line in a header": (
        b"X-AIService-Unit: a\rSet-Cookie: b\r\nContent-Length: 5\r\n\r\nhello",
        {None, b"hello"},
    ),
    "two lengths": (b"Content-Length: 5\r\nContent-Length: 2\r\n\r\nhello", {None}),
    "more than its length": (b"Content-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", {b"hello"}),
    "headers of its own": (
        b"Set-Cookie: a=b\r\nServer: engine\r\nX-Internal: 1\r\nX-Request-Id: its\r\nContent-Length: 5\r\n\r\nhello",
        {b"hello"},
    ),
}


@pytest.mark.parametrize(("answer", "bodies"), ODD_ANSWERS.values(), ids=ODD_ANSWERS)
async def test_an_odd_answer_of_an_engine_cannot_mislead_a_client(
    tmp_path: Path, answer: bytes, bodies: set[bytes | None]
) -> None:
    """`None` among the bodies: an error of the gateway will do as well."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\nx")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n" + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    write_services(tmp_path / "services.yaml", whisper(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    allowed = {"content-type", "content-length", "transfer-encoding", "x-request-id", "date", "connection", "server"}
    async with gateway_here(environment(tmp_path)) as client:
        for _ in range(3):  # an answer that was left over would be taken for the next one's
            async with client.post(SPEECH, data=b"x", headers=bearer()) as got:
                body: bytes | None = await got.read()
                if got.status == 502:
                    body = None
                else:
                    names = {name.lower() for name in got.headers if "ratelimit" not in name.lower()}
                    assert names <= allowed
                    assert got.headers["Server"] == "uvicorn"  # this process'; not the engine's
                    assert len(got.headers["X-Request-Id"]) == 36
                assert body in bodies
    server.close()
    await server.wait_closed()


async def test_a_small_answer_that_breaks_off_is_an_error_and_one_that_stalls_too(tmp_path: Path) -> None:
    """Nothing of it was sent yet, so the client is told instead of cut off."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(5)
            assert head
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhel")
            if body == b"stall":
                await reader.read()
        writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    write_services(tmp_path / "services.yaml", whisper(url, timeoutSeconds=1))
    async with gateway_here(environment(tmp_path)) as client:
        for body, status, code in ((b"break", 502, "upstream_failed"), (b"stall", 504, "upstream_timeout")):
            async with client.post(SPEECH, data=body, headers=bearer()) as answer:
                assert (answer.status, (await answer.json())["code"]) == (status, code)
        async with client.get("/api/usage/records", headers=bearer()) as answer:
            assert [record["status"] for record in (await answer.json())["records"]] == ["failed", "failed"]
    server.close()
    await server.wait_closed()

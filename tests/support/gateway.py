"""A gateway under test: in this process or as its own, and an engine behind it that plays a runtime by its contract."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import uvicorn
import yaml
from starlette.types import ASGIApp, Receive, Scope, Send

from aiservice_gateway.app import create_app
from aiservice_gateway.factory import prepare
from aiservice_gateway.settings import Settings
from support.databases import free_port

SECRET = "Zk3vR8qLw1xT6bNf9sHd2mYc7pJg4aUe"


async def eventually(look: Callable[[], Awaitable[object] | object], seconds: float = 30) -> None:
    """Waits until `look`, which may be a coroutine function, answers something true."""
    async with asyncio.timeout(seconds):
        while True:
            found = look()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.02)


def token(tenant: str = "acme", *, secret: str = SECRET, lifetime: float = 600, **claims: object) -> str:
    """A token as the application would issue it."""
    return jwt.encode(
        {"tenantId": tenant, "sub": "user-1", "exp": int(time.time() + lifetime), **claims}, secret, "HS256"
    )


def bearer(tenant: str = "acme") -> dict[str, str]:
    """The header of a tenant's requests, good for as long as any run of tests or benchmarks takes."""
    return {"Authorization": f"Bearer {token(tenant, lifetime=86400)}"}


@dataclass
class Seen:
    """A request as the engine got it."""

    path: str
    headers: dict[str, str]
    body_bytes: int


@dataclass
class Engine:
    """Plays a runtime. What a request's JSON body says under `do` is done to it; everything is noted."""

    ready: bool = True
    status: int = 0
    """Answered to every request; 0: what the request says."""
    retry_after: int = 7
    """Said with a 503 of that kind."""
    seen: list[Seen] = field(default_factory=list)
    probes: int = 0
    disconnects: int = 0
    url: str = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["path"] == "/ready":
            self.probes += 1
            await _answer(send, 200 if self.ready else 503, b"{}", {})
            return
        body, size = bytearray(), 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message.get("body", b""))
            if size < 65536:
                body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append(Seen(scope["path"], headers, size))
        orders = json.loads(body).get("do", {}) if body.startswith(b"{") and size < 65536 else {}
        if self.status:
            orders = {"status": self.status, "retry_after": self.retry_after}
        await self._obey(orders, headers, receive, send)

    async def _obey(self, orders: Mapping[str, Any], headers: dict[str, str], receive: Receive, send: Send) -> None:
        if seconds := orders.get("sleep"):
            gone = asyncio.create_task(_until_gone(receive))
            done, _ = await asyncio.wait({gone}, timeout=seconds)
            gone.cancel()
            if done:
                self.disconnects += 1
                return
        if status := orders.get("status"):
            document = {"error": orders.get("error", "told to"), "code": "told", "request_id": headers["x-request-id"]}
            extra = {"retry-after": str(orders["retry_after"])} if "retry_after" in orders else {}
            await _answer(send, status, json.dumps(document).encode(), extra)
        elif segments := orders.get("segments"):
            await _transcribe(send, segments, orders.get("pause", 0.0))
        elif chunks := orders.get("chunks"):
            await _stream(send, chunks, orders.get("pause", 0.0), cut=orders.get("cut", False))
        else:
            usage = {"units": 2.5, "unit": "audio-second", "tokens": 7}
            document = {"request_id": headers["x-request-id"], "text": "hello", "usage": usage}
            await _answer(send, 200, json.dumps(document).encode(), orders.get("headers", {}))


_MEASURED = {"x-aiservice-units": "2.5", "x-aiservice-unit": "audio-second", "x-aiservice-tokens": "7"}


async def _answer(send: Send, status: int, body: bytes, extra: Mapping[str, str]) -> None:
    headers = {"content-type": "application/json", "content-length": str(len(body)), "x-internal": "secret"}
    headers |= {**(_MEASURED if status == 200 else {}), **extra}
    await send({"type": "http.response.start", "status": status, "headers": _raw(headers)})
    await send({"type": "http.response.body", "body": body})


async def _stream(send: Send, chunks: int, pause: float, *, cut: bool) -> None:
    headers = {"content-type": "audio/wav", **_MEASURED, **({"content-length": "1000000"} if cut else {})}
    await send({"type": "http.response.start", "status": 200, "headers": _raw(headers)})
    for _ in range(chunks):
        await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
        await asyncio.sleep(pause)
    if not cut:
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _transcribe(send: Send, segments: int, pause: float) -> None:
    """Segments of 2.5 s each, as a runtime streams them: headers tell the units of all, the last event the tokens."""
    units = 2.5 * segments
    headers = {
        "content-type": "text/event-stream; charset=utf-8",
        "x-aiservice-units": str(units),
        "x-aiservice-unit": "audio-second",
    }
    await send({"type": "http.response.start", "status": 200, "headers": _raw(headers)})
    events: list[dict[str, object]] = [
        {"type": "segment", "start": 2.5 * n, "end": 2.5 * n + 2.5} for n in range(segments)
    ]
    usage = {"units": units, "unit": "audio-second", "tokens": 7 * segments}
    for event in [*events, {"type": "done", "text": "hello", "usage": usage}]:
        body = b"data: " + json.dumps(event).encode() + b"\n\n"
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await asyncio.sleep(pause)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


@asynccontextmanager
async def serving(
    app: ASGIApp, *, port: int = 0, lifespan: bool = False, host: str = "127.0.0.1"
) -> AsyncIterator[str]:
    """Serves an application with the real uvicorn, in this event loop; yields its base URL."""
    port = port or free_port()
    config = uvicorn.Config(
        app, host=host, port=port, lifespan="on" if lifespan else "off", log_config=None, access_log=False,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=75,  # longer than any client of a slow test is silent
    )  # fmt: skip
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:
        assert not running.done(), running.result()
        await asyncio.sleep(0.01)
    try:
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        await running


@asynccontextmanager
async def running_engine(port: int = 0, host: str = "127.0.0.1") -> AsyncIterator[Engine]:
    """An engine that listens."""
    engine = Engine()
    async with serving(engine, port=port, host=host) as engine.url:
        yield engine


def write_services(
    path: Path, *services: Mapping[str, object], tenants: Mapping[str, Sequence[Mapping[str, object]]] | None = None
) -> Path:
    """Writes services for GATEWAY_SERVICES_FILE, and the limits of tenants."""
    document: dict[str, object] = {"services": list(services)}
    if tenants:
        document["tenants"] = [
            {"metadata": {"name": name}, "spec": {"limits": list(limits)}} for name, limits in tenants.items()
        ]
    path.write_text(yaml.safe_dump(document))
    return path


def whisper(url: str, **more: object) -> dict[str, object]:
    """The entry of a service that transcribes."""
    return {"name": "whisper", "tasks": ["speech-to-text"], "url": url, "model": "openai/whisper-tiny", **more}


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """The environment of a gateway whose files are in a folder: services.yaml, usage.sqlite3, spool."""
    return {
        "JWT_SECRET": SECRET,
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_SERVICES_FILE": str(folder / "services.yaml"),
        "GATEWAY_SQLITE_FILE": str(folder / "usage.sqlite3"),
        "GATEWAY_SPOOL_DIR": str(folder / "spool"),
        "GATEWAY_DRAIN_DELAY_SECONDS": "0.3",
        **variables,
    }


@asynccontextmanager
async def gateway_here(variables: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientSession]:
    """A gateway in this process; yields a client whose requests go there."""
    settings = Settings.load(variables)
    await prepare(settings)
    async with (
        serving(create_app(settings), lifespan=True) as url,
        aiohttp.ClientSession(url, headers={"User-Agent": "test"}) as client,
    ):
        yield client


class GatewayProcess:
    """A gateway as its own process, as it runs in a container."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"gateway-{uuid.uuid4().hex[:8]}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "aiservice_gateway", "serve"],
                env={"PATH": os.environ["PATH"], **variables, "GATEWAY_PORT": str(self.port)},
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ready(self, seconds: float = 60) -> None:
        """Waits until it is ready."""
        async with aiohttp.ClientSession() as client, asyncio.timeout(seconds):
            while True:
                assert self._process.poll() is None, self.log.read_text()
                try:
                    async with client.get(f"{self.url}/readyz") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)

    def signal(self, which: signal.Signals) -> None:
        """Sends it a signal."""
        self._process.send_signal(which)

    async def ended(self, seconds: float = 30) -> int:
        """Waits until it has ended; returns its exit code."""
        return await asyncio.to_thread(self._process.wait, seconds)

    def kill(self) -> None:
        """Makes sure that it is gone."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)


@asynccontextmanager
async def gateway_process(folder: Path, variables: Mapping[str, str]) -> AsyncIterator[GatewayProcess]:
    """A gateway process that is ready, and gone afterwards."""
    gateway = GatewayProcess(folder, variables)
    try:
        await gateway.ready()
        yield gateway
    finally:
        gateway.kill()


@asynccontextmanager
async def gateway_processes(folder: Path, *variables: Mapping[str, str]) -> AsyncIterator[list[GatewayProcess]]:
    """Several of them."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(gateway_process(folder, one)) for one in variables]


async def transcribed(client: aiohttp.ClientSession, tenant: str = "acme") -> tuple[int, float]:
    """How many records a tenant has of speech-to-text, and what they cost."""
    async with client.get("/api/usage", headers=bearer(tenant)) as answer:
        speech = (await answer.json())["services"].get("speech-to-text", {"count": 0, "cost": 0.0})
    return speech["count"], speech["cost"]


async def recorded(client: aiohttp.ClientSession, count: int, cost: float) -> None:
    """Waits until a tenant's records are so many; those of one that was killed wait for its leases."""

    async def look() -> bool:
        return await transcribed(client) == (count, cost)

    await eventually(look)


@dataclass
class Stage:
    """An engine, and what gateways need to share it, their Redis and their database."""

    engine: Engine
    folder: Path
    settings: dict[str, str]


@asynccontextmanager
async def staged(folder: Path, redis_url: str, database_url: str) -> AsyncIterator[Stage]:
    """A stage for gateways whose leases are short."""
    async with running_engine() as engine:
        write_services(folder / "services.yaml", whisper(engine.url))
        shared = {"REDIS_URL": redis_url, "DATABASE_URL": database_url, "GATEWAY_LEASE_SECONDS": "1"}
        yield Stage(engine, folder, environment(folder, **shared))


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m aiservice_gateway` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "aiservice_gateway", *arguments],
        env={"PATH": os.environ["PATH"], **variables}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

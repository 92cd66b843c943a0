"""The toy engine behind the real app, on a loopback port, in the test's own event loop."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from aiservice_runtime.app import build_app
from aiservice_runtime.device import Phase
from aiservice_runtime.server import chosen_tasks
from aiservice_runtime.service import Service
from aiservice_runtime.settings import RuntimeSettings
from support.toy_engine import ToyEngine

PATH = "/api/speech-to-text"


def body(audio: bytes = b"abc", **fields: Any) -> dict[str, Any]:
    """Returns a JSON body for the toy."""
    return {"audio": base64.b64encode(audio).decode(), **fields}


async def eventually(condition: Callable[[], bool], seconds: float = 15) -> None:
    """Waits until the condition holds; fails after some seconds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


@dataclass
class Toy:
    """A running toy service."""

    engine: ToyEngine
    service: Service
    client: httpx.AsyncClient
    port: int

    def metric(self, name: str, **labels: str) -> float:
        """Returns one value of /metrics; 0 if it is not there yet."""
        value = self.service.metrics.registry.get_sample_value(name, labels or None)
        return value or 0


@asynccontextmanager
async def running(engine: ToyEngine, settings: dict[str, Any], wait: bool) -> AsyncIterator[Toy]:
    """Serves the engine until the block ends."""
    chosen = RuntimeSettings(**settings)
    service = Service(engine, chosen, chosen_tasks(engine, chosen))
    server = uvicorn.Server(
        uvicorn.Config(build_app(service), host="127.0.0.1", port=0, http="h11", log_config=None, lifespan="off")
    )
    serving = asyncio.create_task(server._serve())
    await eventually(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    service.device.start(lambda: None)
    if wait:
        await eventually(lambda: service.device.phase is Phase.SERVING)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        try:
            yield Toy(engine, service, client, port)
        finally:
            engine.gate.set()
            engine.load_gate.set()
            engine.prepare_gate.set()
            service.close()
            await asyncio.to_thread(service.device.join, 10)
    server.should_exit = True
    await serving


StartToy = Callable[..., Awaitable[Toy]]

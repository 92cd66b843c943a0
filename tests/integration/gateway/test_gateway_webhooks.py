"""Webhooks, received by real servers that fail, hang, redirect and are where they must not be."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from starlette.types import Receive, Scope, Send

from support.databases import free_port
from support.gateway import (
    Engine,
    bearer,
    environment,
    eventually,
    gateway_here,
    gateway_process,
    running_engine,
    serving,
    whisper,
    write_services,
)

KEY = bytes(range(7, 39))
WEBHOOKS = {
    "GATEWAY_WEBHOOK_SECRET": f"whsec_{base64.b64encode(KEY).decode()}",
    "GATEWAY_WEBHOOK_ALLOW_HTTP": "true",
    "GATEWAY_WEBHOOK_RETRY_SECONDS": "0.2,0.2,0.2",
}
PRIVATE = {"GATEWAY_WEBHOOK_ALLOW_PRIVATE": "true"}


@dataclass
class Receiver:
    """What a tenant runs: answers as told, and notes what it gets."""

    statuses: list[int] = field(default_factory=list)
    """Answered in turn; then 204."""
    location: str = ""
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    delay: float = 0.0
    endless: bool = False
    url: str = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Takes one message."""
        body, more = b"", True
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        self.got.append(({name.decode(): value.decode() for name, value in scope["headers"]}, body))
        await asyncio.sleep(self.delay)
        status = self.statuses.pop(0) if self.statuses else 204
        headers = [(b"location", self.location.encode())] if self.location else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        while self.endless:
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with serving(receiver, port=port) as receiver.url:
        yield receiver


@dataclass
class World:
    client: aiohttp.ClientSession
    engine: Engine
    receiver: Receiver
    folder: Path


@asynccontextmanager
async def world_of(folder: Path, **more: str) -> AsyncIterator[World]:
    async with running_engine() as engine, receiving() as receiver:
        write_services(folder / "services.yaml", whisper(engine.url))
        async with gateway_here(environment(folder, **WEBHOOKS, **more)) as client:
            yield World(client, engine, receiver, folder)


@pytest.fixture(params=["sqlite", "postgresql"])
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    more = {"DATABASE_URL": request.getfixturevalue("migrated_database")} if request.param == "postgresql" else {}
    async with world_of(tmp_path, **PRIVATE, **more) as world:
        yield world


async def order(client: aiohttp.ClientSession, url: str, **do: object) -> tuple[int, dict[str, Any]]:
    body = {"task": "speech-to-text", "request": {"do": do}, "webhook": {"url": url}}
    async with client.post("/v1/jobs", json=body, headers=bearer()) as answer:
        return answer.status, await answer.json()


async def told(client: aiohttp.ClientSession, job: Mapping[str, Any], status: str) -> dict[str, Any]:
    """Waits until a job's webhook has a status."""
    found: dict[str, Any] = {}

    async def there() -> bool:
        async with client.get(f"/v1/jobs/{job['id']}", headers=bearer()) as answer:
            found.update(await answer.json())
        return bool(found["webhook"]["status"] == status)

    await eventually(there)
    return found


async def secret_of(client: aiohttp.ClientSession, tenant: str = "acme") -> str:
    async with client.get("/v1/webhook_secret", headers=bearer(tenant)) as answer:
        assert answer.status == 200
        return str((await answer.json())["secret"])


def hmac_sha256(key: bytes, text: bytes) -> bytes:
    """RFC 2104, from its words: a second opinion on what the gateway signs."""
    key = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + text).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest()


def verified(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """As a receiver does it, by the Standard Webhooks specification."""
    assert abs(time.time() - int(headers["webhook-timestamp"])) < 300
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    made = hmac_sha256(base64.b64decode(secret.removeprefix("whsec_")), signed)
    return headers["webhook-signature"] == f"v1,{base64.b64encode(made).decode()}"


async def test_a_job_that_is_over_is_told_of_with_a_signature(world: World) -> None:
    status, job = await order(world.client, f"{world.receiver.url}/hook?x=1")
    assert status == 202
    assert job["webhook"] == {"url": f"{world.receiver.url}/hook?x=1", "status": None, "attempts": 0}
    done = await told(world.client, job, "delivered")
    [(headers, body)] = world.receiver.got
    assert verified(await secret_of(world.client), headers, body)
    assert not verified(await secret_of(world.client, "other"), headers, body)
    assert not verified(await secret_of(world.client), headers, body + b" ")
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == f"msg_{job['id']}"
    document = json.loads(body)
    assert document["type"] == "job.succeeded"
    assert document["timestamp"] == done["finished_at"]
    expected = {name: value for name, value in done.items() if name != "webhook"} | {"url": f"/v1/jobs/{job['id']}"}
    assert document["data"] == expected
    assert "hello" not in body.decode()
    async with world.client.get("/metrics") as answer:
        assert 'aiservice_gateway_webhooks_total{state="delivered"} 1.0' in await answer.text()


@pytest.mark.parametrize("do", [{"status": 500}, {"sleep": 60}])
async def test_failed_and_cancelled_jobs_are_told_of_too(world: World, do: dict[str, Any]) -> None:
    _, job = await order(world.client, world.receiver.url, **do)
    await eventually(lambda: len(world.engine.seen) == 1)
    if "sleep" in do:
        async with world.client.delete(f"/v1/jobs/{job['id']}", headers=bearer()) as answer:
            assert answer.status == 200
    await told(world.client, job, "delivered")
    document = json.loads(world.receiver.got[0][1])
    assert document["type"] == ("job.cancelled" if "sleep" in do else "job.failed")


async def test_a_receiver_that_fails_is_asked_again_with_the_same_message(world: World) -> None:
    world.receiver.statuses = [500, 302]
    world.receiver.location = world.receiver.url
    _, job = await order(world.client, world.receiver.url)
    assert (await told(world.client, job, "delivered"))["webhook"]["attempts"] == 3
    assert len(world.receiver.got) == 3  # no redirect was followed
    secret = await secret_of(world.client)
    assert all(verified(secret, headers, body) for headers, body in world.receiver.got)
    assert (
        len({body for _, body in world.receiver.got}) == len({one["webhook-id"] for one, _ in world.receiver.got}) == 1
    )


async def test_a_receiver_that_never_takes_it_is_given_up(world: World) -> None:
    world.receiver.statuses = [503] * 10
    _, job = await order(world.client, world.receiver.url)
    assert (await told(world.client, job, "dead"))["webhook"]["attempts"] == 4
    world.receiver.statuses = [410]
    _, job = await order(world.client, world.receiver.url)
    assert (await told(world.client, job, "dead"))["webhook"]["attempts"] == 1


async def test_an_endless_answer_is_not_read(world: World) -> None:
    world.receiver.endless, world.receiver.statuses = True, [200]
    _, job = await order(world.client, world.receiver.url)
    assert (await told(world.client, job, "delivered"))["webhook"]["attempts"] == 1
    world.receiver.endless = False


async def test_a_slow_receiver_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiservice_gateway.services.jobs.webhooks._SEND_SECONDS", 0.5)
    async with world_of(tmp_path, **PRIVATE) as world:
        world.receiver.delay = 3.0
        _, job = await order(world.client, world.receiver.url)
        await eventually(lambda: len(world.receiver.got) >= 2)
        world.receiver.delay = 0.0
        assert (await told(world.client, job, "delivered"))["webhook"]["attempts"] >= 3


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1/", "not a public address"),
        ("https://169.254.169.254/latest", "not a public address"),
        ("https://[::1]/", "not a public address"),
        ("https://[::ffff:10.0.0.1]/", "not a public address"),
        ("ftp://example.com/", "begins with"),
        ("https://user:word@example.com/", "no user"),
        ("https://example.com:99999/", "port"),
        ("nonsense", "begins with"),
    ],
)
async def test_addresses_that_are_refused_at_once(tmp_path: Path, url: str, says: str) -> None:
    async with world_of(tmp_path) as world:
        status, answer = await order(world.client, url)
        assert status == 400
        assert answer["error"]["param"] == "webhook.url"
        assert says in answer["error"]["message"]
        assert not world.engine.seen


async def test_a_name_that_leads_to_a_private_address_is_not_connected_to(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world:
        port = world.receiver.url.rpartition(":")[2]
        # A name, and the same address as a number in other ways of writing it.
        for host in ("localhost", "2130706433", "0x7f000001", "127.1"):
            status, job = await order(world.client, f"http://{host}:{port}/")
            assert status == 202, host
            assert (await told(world.client, job, "dead"))["webhook"]["attempts"] == 4
        assert world.receiver.got == []


async def test_plain_http_needs_a_setting_and_webhooks_a_secret(tmp_path: Path) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        secret = {"GATEWAY_WEBHOOK_SECRET": WEBHOOKS["GATEWAY_WEBHOOK_SECRET"]}
        async with gateway_here(environment(tmp_path, **secret)) as client:
            status, answer = await order(client, "http://example.com/")
            assert (status, "https://" in answer["error"]["message"]) == (400, True)
        async with gateway_here(environment(tmp_path)) as client:
            status, answer = await order(client, "https://example.com/")
            assert (status, "GATEWAY_WEBHOOK_SECRET" in answer["error"]["message"]) == (400, True)
            async with client.get("/v1/webhook_secret", headers=bearer()) as found:
                assert found.status == 400


async def test_a_message_outlives_its_gateway(tmp_path: Path) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        port = free_port()
        settings = environment(tmp_path, **WEBHOOKS | PRIVATE | {"GATEWAY_WEBHOOK_RETRY_SECONDS": "3,3,3"})
        async with gateway_process(tmp_path, settings) as first, aiohttp.ClientSession(first.url) as client:
            _, job = await order(client, f"http://127.0.0.1:{port}/")
            await told(client, job, "waiting")
            first.signal(signal.SIGKILL)
        async with (
            receiving(port) as receiver,
            gateway_process(tmp_path, settings) as second,
            aiohttp.ClientSession(second.url) as client,
        ):
            await told(client, job, "delivered")
            assert len(receiver.got) == 1

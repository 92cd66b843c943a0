"""Every error that a client can meet, with its status and word, in both shapes: the gateway's own and OpenAI's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from aiservice_gateway.services.auth import Authenticator
from support.contract import Contract, running_contract, services
from support.databases import free_port
from support.gateway import bearer, environment, gateway_here, gateway_process, token, write_services

NATIVE, OPENAI = "/api/text-to-image", "/v1/images/generations"
PAGE = "https://app.example.com"
INVALID, SERVER, PERMISSION = "invalid_request_error", "server_error", "permission_error"


@dataclass(frozen=True)
class Asked:
    """A request: by default one that is as it should be, for an image."""

    path: str
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=bearer)
    body: Any = None


@dataclass(frozen=True)
class Refused:
    """An error, and two requests that meet it: one of the gateway's own routes, and one of OpenAI's."""

    status: int
    code: str
    kind: str
    native: Asked
    openai: Asked
    openai_code: str = ""

    @property
    def word(self) -> str:
        return self.openai_code or self.code


def both(status: int, code: str, kind: str, openai_code: str = "", **more: Any) -> Refused:
    """The same request of both routes."""
    return Refused(status, code, kind, Asked(NATIVE, **more), Asked(OPENAI, **more), openai_code)


def of_service(name: str) -> tuple[Asked, Asked]:
    return Asked(f"{NATIVE}?service={name}"), Asked(OPENAI, body={"model": name, "prompt": "a dog"})


def gets(native: str, openai: str) -> tuple[Asked, Asked]:
    return Asked(native, "GET"), Asked(openai, "GET")


REFUSED = {
    "no token": both(401, "unauthenticated", INVALID, "invalid_api_key", headers={}),
    "no tenant": both(
        403, "no_tenant", PERMISSION, headers={"Authorization": f"Bearer {token(tenant='', lifetime=86400)}"}
    ),
    "suspended": both(403, "tenant_suspended", PERMISSION, headers=bearer("suspended")),
    "unknown": both(403, "unknown_tenant", PERMISSION, headers=bearer("stranger")),
    "another's": Refused(
        403, "forbidden", PERMISSION, *gets("/api/usage?tenant=someone", "/v1/jobs?tenant=someone")
    ),
    "a wrong parameter": Refused(400, "invalid_request", INVALID, *gets("/api/usage?from=x", "/v1/jobs?limit=0")),
    "no such path": Refused(404, "not_found", INVALID, *gets("/api/nothing", "/v1/nothing")),
    "no such service": Refused(404, "not_found", INVALID, *of_service("nobody"), "model_not_found"),
    "another method": Refused(405, "method_not_allowed", INVALID, *gets(NATIVE, OPENAI)),
    "too large": both(413, "payload_too_large", INVALID, body={"prompt": "a" * 200_000}),
    "compressed": both(415, "unsupported_media", INVALID, headers={**bearer(), "Content-Encoding": "gzip"}),
    "broken": Refused(502, "upstream_failed", SERVER, *of_service("broken")),
    "away": Refused(503, "unavailable", SERVER, *of_service("away")),
    "slow": Refused(504, "upstream_timeout", SERVER, *of_service("slow")),
    "a preflight": both(
        400, "invalid_request", INVALID, method="OPTIONS",
        headers={"Origin": "https://evil.example.com", "Access-Control-Request-Method": "POST"},
    ),
}  # fmt: skip


@dataclass
class World:
    client: aiohttp.ClientSession
    engine: Contract
    port: int

    async def ask(self, asked: Asked) -> tuple[int, Any]:
        """Status and body of an answer, without its request id, which is looked at."""
        usual = {"prompt": "a dog", "format": "png"} if asked.path.startswith(NATIVE) else {"prompt": "a dog"}
        body = usual if asked.body is None else asked.body
        sent = None if asked.method == "GET" else body
        async with self.client.request(asked.method, asked.path, headers=asked.headers, json=sent) as answer:
            told = await answer.json()
            name = told.pop("request_id", answer.headers["X-Request-Id"])
            assert name == answer.headers["X-Request-Id"] or answer.status == 200  # the engine's own
        return answer.status, told

    async def send(self, sent: bytes) -> tuple[int, Any]:
        """The same of bytes on the wire."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        head, _, body = (await asyncio.wait_for(reader.read(), 20)).partition(b"\r\n\r\n")
        writer.close()
        told = json.loads(body)
        if "request_id" in told:
            assert f"x-request-id: {told.pop('request_id')}" in head.decode().lower()
        return int(head.split()[1]), told


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        engine, broken = [await stack.enter_async_context(running_contract()) for _ in range(2)]
        broken.orders.status = 500
        slow = await stack.enter_async_context(await asyncio.start_server(silent, "127.0.0.1", 0))
        places = {"broken": broken.url, "away": f"http://127.0.0.1:{free_port()}"}
        places["slow"] = f"http://127.0.0.1:{slow.sockets[0].getsockname()[1]}"
        others = [
            {"name": name, "tasks": ["text-to-image"], "url": url, "timeoutSeconds": 1} for name, url in places.items()
        ]
        first, *rest = services(engine.url)
        tenants: list[dict[str, Any]] = [
            {"metadata": {"name": "acme"}, "spec": {}},
            {"metadata": {"name": "suspended"}, "spec": {"suspend": True}},
            {
                "metadata": {"name": "counted"},
                "spec": {"limits": [{"measure": "requests", "maximum": 1, "window": "1h"}]},
            },
            {"metadata": {"name": "spending"}, "spec": {"limits": [{"measure": "spend", "maximum": "0.000001"}]}},
        ]
        document = {"services": [first | {"default": True}, *rest, *others], "tenants": tenants}
        (tmp_path / "services.yaml").write_text(yaml.safe_dump(document))
        variables = environment(
            tmp_path, GATEWAY_REQUIRE_TENANT="true", GATEWAY_MAX_BODY_BYTES="100000", GATEWAY_CORS_ORIGINS=PAGE,
            GATEWAY_HEADER_TIMEOUT_SECONDS="1", GATEWAY_BODY_TIMEOUT_SECONDS="1", GATEWAY_IDEMPOTENCY_MAX_BYTES="1024",
        )  # fmt: skip
        gateway = await stack.enter_async_context(gateway_process(tmp_path, variables))
        client = await stack.enter_async_context(aiohttp.ClientSession(gateway.url))
        yield World(client, engine, gateway.port)


def check(native: tuple[int, Any], openai: tuple[int, Any], refused: Refused) -> None:
    """Compares the answers to the two requests with the error."""
    status, told = native
    assert status == refused.status
    if status == 429:
        assert told == {"error": "Rate limit exceeded", "retry_after": told["retry_after"]}
        assert told["retry_after"] > 0
    else:
        assert told == {"error": told["error"], "code": refused.code}
    status, told = openai
    assert status == refused.status
    message = told["error"].pop("message")
    assert message.endswith(".") or status == 429
    told["error"].pop("param")
    assert told == {"error": {"type": refused.kind, "code": refused.word}}


async def test_every_refusal_in_both_shapes(world: World) -> None:
    for name, refused in REFUSED.items():
        print(name)  # shown where one fails
        check(await world.ask(refused.native), await world.ask(refused.openai), refused)


async def test_limits_in_both_shapes(world: World) -> None:
    """The first request is all of one limit, and more than the other."""
    for tenant, code, openai_code in (
        ("counted", "rate_limited", "rate_limit_exceeded"),
        ("spending", "budget_exhausted", "insufficient_quota"),
    ):
        kind = "requests" if tenant == "counted" else "insufficient_quota"
        refused = both(429, code, kind, openai_code, headers=bearer(tenant))
        await world.ask(refused.native)
        check(await world.ask(refused.native), await world.ask(refused.openai), refused)


async def test_idempotency_keys_in_both_shapes(world: World) -> None:
    keyed = {**bearer(), "Idempotency-Key": "one"}
    large = both(410, "gone", INVALID, headers=keyed)
    reused = both(422, "idempotency_key_reused", INVALID, headers=keyed, body={"prompt": "a cat"})
    world.engine.orders.picture_bytes = 3000
    for asked in (large.native, large.openai):
        assert (await world.ask(asked))[0] == 200
    check(await world.ask(large.native), await world.ask(large.openai), large)
    check(await world.ask(reused.native), await world.ask(reused.openai), reused)


async def test_a_request_at_work_in_both_shapes(world: World) -> None:
    """The first one's body is on its way."""
    again = both(409, "in_progress", INVALID, headers={**bearer(), "Idempotency-Key": "two"})
    head = f"Host: a\r\nAuthorization: {bearer()['Authorization']}\r\nIdempotency-Key: two\r\n"
    head += 'Content-Type: application/json\r\nContent-Length: 19\r\n\r\n{"prompt": '
    firsts = [asyncio.create_task(world.send(f"POST {path} HTTP/1.1\r\n{head}".encode())) for path in (NATIVE, OPENAI)]
    await asyncio.sleep(0.3)
    check(await world.ask(again.native), await world.ask(again.openai), again)
    late = both(408, "request_timeout", INVALID)
    check(await firsts[0], await firsts[1], late)


WIRE = {
    "no Host": (400, "invalid_request", INVALID, "GET {} HTTP/1.1\r\n\r\n"),
    "headers that do not come": (408, "request_timeout", INVALID, "GET {} HTTP/1.1\r\nHost: a\r\n"),
    "a long target": (414, "uri_too_long", INVALID, "GET {}?" + "a" * 9000 + " HTTP/1.1\r\nHost: a\r\n\r\n"),
    "many headers": (431, "headers_too_large", INVALID, "GET {} HTTP/1.1\r\nHost: a\r\n" + "X: a\r\n" * 101 + "\r\n"),
    "a coding": (501, "invalid_request", SERVER, "POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
    "a version": (505, "invalid_request", SERVER, "GET {} HTTP/2.0\r\nHost: a\r\n\r\n"),
}


async def test_refusals_on_the_wire_in_both_shapes(world: World) -> None:
    for name, (status, code, kind, sent) in WIRE.items():
        print(name)  # shown where one fails
        answers = [await world.send(sent.format(path).encode()) for path in (NATIVE, OPENAI)]
        check(answers[0], answers[1], both(status, code, kind))


async def broken_inside(*_: object) -> None:
    raise RuntimeError("a fault")


async def test_a_fault_of_the_gateway_in_both_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is: in the routes that do without FastAPI, or in those of FastAPI. Nothing of it is told."""
    monkeypatch.setattr(Authenticator, "identify", broken_inside)
    write_services(tmp_path / "services.yaml")
    async with gateway_here(environment(tmp_path)) as client:
        world = World(client, Contract(), 0)
        fault = both(500, "internal", SERVER)
        check(await world.ask(fault.native), await world.ask(fault.openai), fault)
        keyed = both(500, "internal", SERVER, headers={"Idempotency-Key": "three"})
        check(await world.ask(keyed.native), await world.ask(keyed.openai), keyed)
        listed = Refused(500, "internal", SERVER, *gets("/api/usage", "/v1/models"))
        check(await world.ask(listed.native), await world.ask(listed.openai), listed)

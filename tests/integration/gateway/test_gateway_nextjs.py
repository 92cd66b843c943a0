"""examples/nextjs, run by Node against a gateway that is a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import npm
from support.databases import free_port
from support.gateway import (
    SECRET,
    Engine,
    environment,
    eventually,
    gateway_process,
    running_engine,
    whisper,
    write_services,
)

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "nextjs"
ANN = {"tenantId": "acme", "sub": "ann"}
UNAVAILABLE = {"error": "AI is not available at the moment."}


@dataclass
class Application:
    """The example in a folder of its own, with its environment."""

    folder: Path
    variables: dict[str, str]
    engine: Engine

    async def ask(self, what: str, **given: object) -> Any:
        """Asks the route for a task, or the library for `usage`."""
        process = await asyncio.create_subprocess_exec(
            "node", "ask.mjs", what, json.dumps(given), cwd=self.folder,
            env={"PATH": os.environ["PATH"], **self.variables}, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        self.errors = errors.decode()
        return json.loads(out)


@pytest.fixture
async def application(tmp_path: Path, migrated_database: str, redis_url: str) -> AsyncIterator[Application]:
    folder = tmp_path / "app"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    folder.joinpath("node_modules").symlink_to(npm.installed(EXAMPLE) / "node_modules")
    shutil.copy(ROOT / "tests" / "data" / "nextjs" / "ask.mjs", folder)
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        variables = environment(
            tmp_path, DATABASE_URL=migrated_database, REDIS_URL=redis_url, GATEWAY_RATE_LIMIT_PER_HOUR="2"
        )
        async with gateway_process(tmp_path, variables) as gateway:
            own = {"AI_GATEWAY_URL": gateway.url, "USE_AI_GATEWAY": "true", "JWT_SECRET": SECRET}
            assert set(re.findall(r"^(\w+)=", (EXAMPLE / ".env.example").read_text(), re.MULTILINE)) == set(own)
            yield Application(folder, own, engine)


async def test_a_request_counts_for_the_tenant_who_is_signed_in(application: Application) -> None:
    form = '--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--b--\r\n'
    answer = await application.ask("speech-to-text", session=ANN, body=form, type="multipart/form-data; boundary=b")
    assert (answer["status"], answer["body"]["text"]) == (200, "hello")
    assert answer["headers"]["x-request-id"] == answer["body"]["request_id"]
    assert answer["headers"]["x-ratelimit-remaining"] == "1"
    assert "x-aiservice-units" not in answer["headers"]
    [seen] = application.engine.seen
    assert seen.headers["content-type"] == "multipart/form-data; boundary=b"
    assert seen.body_bytes == len(form)
    usage = await application.ask("usage", who={"tenantId": "acme"}, query={"group_by": "service,user"})
    [group] = usage["groups"]
    assert (group["service"], group["user"], group["count"]) == ("speech-to-text", "ann", 1)
    report = await application.ask("usage", who={"tenantId": "other"})
    assert (report["tenantId"], report["services"]) == ("other", {})
    wrong = await application.ask("usage", who={"tenantId": "acme"}, query={"tenant": "other"})
    assert "own tenant only" in wrong["message"]


async def test_the_gateways_refusals_reach_the_browser(application: Application) -> None:
    missing = await application.ask("text-to-image", session=ANN)
    assert missing["status"] == 404
    assert missing["body"]["error"].startswith("No service here does text-to-image")
    for expected in (200, 200, 429):
        answer = await application.ask("speech-to-text", session=ANN)
        assert answer["status"] == expected
    assert answer["body"] == {"error": "Rate limit exceeded", "retry_after": int(answer["headers"]["retry-after"])}


@pytest.mark.parametrize("session", [None, {"sub": "ann"}, {**ANN, "secret": "0" + SECRET}])
async def test_who_is_not_signed_in_gets_nothing(application: Application, session: dict[str, str] | None) -> None:
    answer = await application.ask("speech-to-text", session=session)
    assert (answer["status"], answer["body"]) == (401, {"error": "Sign in first."})
    assert (await application.ask("chess", session=ANN))["status"] == 404
    assert application.engine.seen == []


async def test_two_secrets_are_the_operators_fault_not_the_users(application: Application) -> None:
    application.variables["JWT_SECRET"] = SECRET[::-1]
    answer = await application.ask("speech-to-text", session=ANN)
    assert (answer["status"], answer["body"]) == (502, UNAVAILABLE)
    assert "the gateway refused the token (request " in application.errors


@pytest.mark.parametrize(
    "change", [{"USE_AI_GATEWAY": "false"}, {"AI_GATEWAY_URL": f"http://127.0.0.1:{free_port()}"}], ids=["off", "away"]
)
async def test_without_the_gateway_the_other_provider_answers(application: Application, change: dict[str, str]) -> None:
    application.variables |= change
    answer = await application.ask("speech-to-text", session=ANN)
    assert (answer["status"], answer["body"]) == (503, UNAVAILABLE)
    application.folder.joinpath("lib", "other-provider.js").write_text(
        """export async function otherProvider(task, body, headers, who) {
             return Response.json({ task, bytes: body.byteLength, type: headers['content-type'], tenant: who.tenantId })
           }"""
    )
    answer = await application.ask("speech-to-text", session=ANN, body='{"audio": ""}')
    assert answer["body"] == {"task": "speech-to-text", "bytes": 13, "type": "application/json", "tenant": "acme"}
    assert application.engine.seen == []


OTHER_PROVIDER = "export const otherProvider = async () => Response.json({ from: 'the other' })"
LOST = {"error": "The answer got lost. Try again later."}


@asynccontextmanager
async def listener(answer: bytes | None) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A gateway that reads a request's head, writes this and hangs up; None: it stays silent. With what it read."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads


@pytest.mark.parametrize(
    ("answer", "given"),
    [(b"", {}), (b"HTTP/1.1 200 OK\r\ncontent-le", {}), (None, {"waits": {"headersTimeout": 1000}})],
    ids=["nothing", "half a head", "silence"],
)
async def test_a_gateway_that_breaks_off_is_not_computed_twice(
    application: Application, answer: bytes | None, given: dict[str, Any]
) -> None:
    application.folder.joinpath("lib", "other-provider.js").write_text(OTHER_PROVIDER)
    async with listener(answer) as (url, heads):
        application.variables["AI_GATEWAY_URL"] = url
        got = await application.ask("speech-to-text", session=ANN, **given)
    assert (got["status"], got["body"]) == (502, LOST)
    assert "did not answer to the end" in application.errors
    assert len(heads) == 1


@pytest.mark.parametrize("url", ["http://gateway.invalid:8000", "http://[::1]:{port}", "http://localhost:{port}"])
async def test_who_cannot_be_connected_to_has_computed_nothing(application: Application, url: str) -> None:
    application.folder.joinpath("lib", "other-provider.js").write_text(OTHER_PROVIDER)
    application.variables["AI_GATEWAY_URL"] = url.format(port=free_port())
    got = await application.ask("speech-to-text", session=ANN)
    assert got["body"] == {"from": "the other"}
    assert "cannot be reached" in application.errors


async def test_a_connection_that_is_not_accepted_in_time_has_computed_nothing(application: Application) -> None:
    application.folder.joinpath("lib", "other-provider.js").write_text(OTHER_PROVIDER)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as waiting:
        for _ in range(8):  # more than it queues: what comes then gets no answer
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        application.variables["AI_GATEWAY_URL"] = f"http://127.0.0.1:{full.getsockname()[1]}"
        got = await application.ask("speech-to-text", session=ANN, waits={"connectTimeout": 1000})
    assert got["body"] == {"from": "the other"}
    assert "UND_ERR_CONNECT_TIMEOUT" in application.errors


async def test_a_failing_service_is_not_computed_twice(application: Application) -> None:
    application.folder.joinpath("lib", "other-provider.js").write_text(
        "export const otherProvider = async () => Response.json({})"
    )
    answer = await application.ask("speech-to-text", session=ANN, body='{"do": {"status": 500}}')
    assert (answer["status"], answer["body"]["code"]) == (502, "upstream_failed")


async def test_a_browser_that_goes_away_ends_the_work(application: Application) -> None:
    answer = await application.ask("speech-to-text", session=ANN, body='{"do": {"sleep": 30}}', hangUp=1500)
    assert answer["thrown"] in {"AbortError", "TimeoutError"}
    await eventually(lambda: application.engine.disconnects)

"""The process: how it starts, stops and answers on the wire."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import aiohttp
import pytest

from support.databases import free_port
from support.gateway import (
    bearer,
    command,
    environment,
    eventually,
    gateway_process,
    running_engine,
    whisper,
    write_services,
)

SPEECH = "/api/speech-to-text"


async def test_sigterm_lets_requests_finish(tmp_path: Path) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        variables = environment(tmp_path, GATEWAY_DRAIN_DELAY_SECONDS="3")
        async with (
            gateway_process(tmp_path, variables) as gateway,
            aiohttp.ClientSession(gateway.url, headers=bearer()) as client,
        ):

            async def ask(seconds: float) -> int:
                async with client.post(SPEECH, json={"do": {"sleep": seconds}}) as answer:
                    await answer.read()
                    return answer.status

            async def draining() -> bool:
                async with client.get("/readyz") as answer:
                    return answer.status == 503 and (await answer.json())["draining"] is True

            async def refused() -> bool:
                try:
                    async with aiohttp.ClientSession(gateway.url) as other, other.get("/livez"):
                        return False
                except aiohttp.ClientConnectorError:
                    return True
                except aiohttp.ClientError:
                    return False  # between closing the listener and the last connections

            slow = asyncio.create_task(ask(10))
            await eventually(lambda: engine.seen)
            gateway.signal(signal.SIGTERM)
            await eventually(draining)
            assert await ask(0) == 200  # whoever has not heard yet that it is not ready is served
            await eventually(refused)
            assert not slow.done()
            assert await slow == 200
            assert await gateway.ended() == 0
        async with (
            gateway_process(tmp_path, variables) as gateway,
            aiohttp.ClientSession(gateway.url, headers=bearer()) as client,
            client.get("/api/usage") as answer,
        ):
            assert (await answer.json())["services"]["speech-to-text"]["count"] == 2


async def test_what_does_not_finish_while_it_drains_is_cut_and_recorded(tmp_path: Path) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        variables = environment(tmp_path, GATEWAY_DRAIN_SECONDS="1")
        async with (
            gateway_process(tmp_path, variables) as gateway,
            aiohttp.ClientSession(gateway.url, headers=bearer()) as client,
        ):
            request = asyncio.create_task(client.post(SPEECH, json={"do": {"sleep": 60}}))
            await eventually(lambda: engine.seen)
            gateway.signal(signal.SIGTERM)
            assert await gateway.ended() == 0
            async with await request as answer:
                assert answer.status == 503
                assert (await answer.json())["code"] == "unavailable"
        async with (
            gateway_process(tmp_path, variables) as gateway,
            aiohttp.ClientSession(gateway.url, headers=bearer()) as client,
            client.get("/api/usage") as answer,
        ):
            used = (await answer.json())["services"]["speech-to-text"]
            assert (used["count"], used["cost"]) == (1, 0)


async def test_the_log_is_json_and_the_answer_says_nothing_of_the_server(tmp_path: Path) -> None:
    write_services(tmp_path / "services.yaml")
    async with (
        gateway_process(tmp_path, environment(tmp_path, GATEWAY_PROT="8000")) as gateway,
        aiohttp.ClientSession(gateway.url) as client,
    ):
        async with client.post(SPEECH, headers=bearer()) as answer:
            assert answer.status == 404
            assert "Server" not in answer.headers
            request_id = answer.headers["X-Request-Id"]
        async with client.get("/health") as answer:
            assert (answer.status, (await answer.json())["services"]) == (503, {})
        gateway.signal(signal.SIGINT)
        assert await gateway.ended() == 0
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines()]
    assert any(line["message"].startswith("GATEWAY_PROT is no setting") for line in lines)
    [request] = [line for line in lines if line.get("route") == SPEECH]
    assert request["request_id"] == request_id
    assert (request["tenant"], request["status"], request["error"]) == ("acme", 404, "not_found")


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"JWT_SECRET": ""}, "JWT_SECRET is not set"),
        ({"JWT_SECRET": "your_jwt_secret_here"}, "JWT_SECRET: it is shorter than 32 bytes"),
        ({"GATEWAY_SERVICES_FILE": "/nowhere.yaml"}, "GATEWAY_SERVICES_FILE: /nowhere.yaml cannot be read"),
        ({"GATEWAY_SERVICES_FILE": ""}, "There is no Kubernetes to find services in"),
        ({"GATEWAY_SERVICES_FILE": "", "KUBECONFIG": "/nowhere"}, "There is no Kubernetes to find services in"),
        ({"GATEWAY_SQLITE_FILE": "/nowhere/usage.sqlite3"}, "Set GATEWAY_SQLITE_FILE"),
        ({"GATEWAY_SPOOL_DIR": "/proc/spool"}, "Set GATEWAY_SPOOL_DIR"),
    ],
)
def test_what_is_wrong_stops_the_start_with_a_sentence(tmp_path: Path, variables: dict[str, str], says: str) -> None:
    write_services(tmp_path / "services.yaml")
    done = command("serve", **{**environment(tmp_path), "HOME": str(tmp_path), **variables})
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_port_that_is_taken_ends_the_start(tmp_path: Path) -> None:
    write_services(tmp_path / "services.yaml")
    port = free_port()
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", port)
    done = await asyncio.to_thread(command, "serve", **environment(tmp_path, GATEWAY_PORT=str(port)))
    server.close()
    await server.wait_closed()
    assert done.returncode != 0
    assert "address already in use" in done.stderr

"""Several workers on one port: real processes that are killed, stopped and orphaned."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import aiohttp

from support.databases import PostgresServer
from support.gateway import (
    GatewayProcess,
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
COUNT = 'SELECT COUNT(*) FROM "AIUsage"'


def variables(folder: Path, redis_url: str, database: str, **more: str) -> Mapping[str, str]:
    return environment(
        folder,
        REDIS_URL=redis_url,
        DATABASE_URL=database,
        GATEWAY_WORKERS="2",
        GATEWAY_LEASE_SECONDS="1",
        GATEWAY_RATE_LIMIT_PER_HOUR="1000000",
        **more,
    )


def workers_of(gateway: GatewayProcess) -> list[int]:
    children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text()
    return [int(child) for child in children.split()]


def lives(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and ") Z " not in state.read_text()


async def ask(url: str, **do: object) -> tuple[int, str]:
    """Asks over a connection of its own, so that the kernel chooses the worker anew."""
    async with (
        aiohttp.ClientSession(headers=bearer()) as client,
        client.post(f"{url}{SPEECH}", json={"do": do}) as answer,
    ):
        await answer.read()
        return answer.status, answer.headers["X-Request-Id"]


async def metric(url: str, pattern: str) -> float:
    """The sum of the samples whose line begins so."""
    async with aiohttp.ClientSession() as client, client.get(f"{url}/metrics") as answer:
        text = await answer.text()
    return sum(float(value) for value in re.findall(rf"^{pattern}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


async def test_a_killed_worker_is_replaced_and_no_record_is_lost(
    tmp_path: Path, redis_url: str, migrated_database: str, postgres_server: PostgresServer
) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        async with gateway_process(tmp_path, variables(tmp_path, redis_url, migrated_database)) as gateway:
            answered: list[str] = []
            broken = 0
            stop = False

            async def client_loop() -> None:
                nonlocal broken
                while not stop:
                    try:
                        status, name = await ask(gateway.url)
                    except aiohttp.ClientError:
                        broken += 1
                    else:
                        assert status == 200
                        answered.append(name)

            def reached(goal: int) -> bool:
                return len(answered) >= goal

            clients = [asyncio.create_task(client_loop()) for _ in range(8)]
            killed = set()
            for round_ in range(4):
                await eventually(partial(reached, len(answered) + 60))
                await eventually(lambda: len(workers_of(gateway)) == 2)
                victim = workers_of(gateway)[round_ % 2]
                killed.add(victim)
                os.kill(victim, signal.SIGKILL)
            await eventually(partial(reached, len(answered) + 60))
            await eventually(lambda: len(set(workers_of(gateway)) - killed) == 2)
            stop = True
            await asyncio.gather(*clients)
            assert broken <= 8 * len(killed)  # what was in flight; nobody is turned away while a worker is missing

            async def recorded() -> bool:
                names = await asyncio.to_thread(postgres_server.psql, migrated_database, 'SELECT id FROM "AIUsage"')
                return set(names.splitlines()) >= set(answered)

            await eventually(recorded)
            assert len(answered) == len(set(answered))
            gateway.signal(signal.SIGTERM)
            assert await gateway.ended() == 0


async def test_metrics_are_of_all_workers_those_that_died_included(
    tmp_path: Path, redis_url: str, migrated_database: str
) -> None:
    counted = r"aiservice_gateway_requests_total{.*speech-to-text.*}"
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        async with gateway_process(tmp_path, variables(tmp_path, redis_url, migrated_database)) as gateway:
            for _ in range(40):
                assert (await ask(gateway.url))[0] == 200
            seen = {await metric(gateway.url, re.escape("aiservice_gateway_rate_limited_total")) for _ in range(4)}
            assert seen == {0}
            assert {await metric(gateway.url, counted) for _ in range(8)} == {40}
            assert await metric(gateway.url, r"aiservice_gateway_services_ready{.*}") == 1
            assert await metric(gateway.url, r"aiservice_gateway_dependency_up{dependency=.redis.}") == 1

            slow = [asyncio.create_task(ask(gateway.url, sleep=5)) for _ in range(12)]
            await eventually(lambda: len(engine.seen) == 52)

            async def running() -> bool:
                return await metric(gateway.url, r"aiservice_gateway_service_requests{.*}") == 12

            await eventually(running)
            os.kill(workers_of(gateway)[0], signal.SIGKILL)

            async def fewer() -> bool:  # the gauges of a dead worker are gone, its counters are kept
                return 0 < await metric(gateway.url, r"aiservice_gateway_service_requests{.*}") < 12

            await eventually(fewer)
            results = await asyncio.gather(*slow, return_exceptions=True)
            answered = [one for one in results if not isinstance(one, BaseException)]
            assert 0 < len(answered) < 12
            assert await metric(gateway.url, counted) == 40 + len(answered)


async def test_sigterm_drains_all_workers(
    tmp_path: Path, redis_url: str, migrated_database: str, postgres_server: PostgresServer
) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        async with gateway_process(tmp_path, variables(tmp_path, redis_url, migrated_database)) as gateway:
            workers = workers_of(gateway)
            slow = [asyncio.create_task(ask(gateway.url, sleep=3)) for _ in range(12)]
            await eventually(lambda: len(engine.seen) == 12)
            gateway.signal(signal.SIGTERM)

            async def refused() -> bool:
                try:
                    async with aiohttp.ClientSession() as client, client.get(f"{gateway.url}/livez"):
                        return False
                except aiohttp.ClientConnectorError:
                    return True
                except aiohttp.ClientError:
                    return False

            await eventually(refused)
            assert [status for status, _ in await asyncio.gather(*slow)] == [200] * 12
            assert await gateway.ended() == 0
            assert not any(map(lives, workers))
    assert await asyncio.to_thread(postgres_server.psql, migrated_database, COUNT) == "12"


async def test_workers_without_a_parent_stop_by_themselves(
    tmp_path: Path, redis_url: str, migrated_database: str
) -> None:
    write_services(tmp_path / "services.yaml")
    async with gateway_process(tmp_path, variables(tmp_path, redis_url, migrated_database)) as gateway:
        workers = workers_of(gateway)
        assert len(workers) == 2
        gateway.signal(signal.SIGKILL)

        await eventually(lambda: not any(map(lives, workers)))


async def test_a_worker_that_cannot_start_ends_the_gateway(
    tmp_path: Path, redis_url: str, migrated_database: str
) -> None:
    write_services(tmp_path / "services.yaml")
    async with gateway_process(tmp_path, variables(tmp_path, redis_url, migrated_database)) as gateway:
        (tmp_path / "services.yaml").unlink()
        os.kill(workers_of(gateway)[0], signal.SIGKILL)
        assert await gateway.ended() == 3


def test_workers_that_would_count_limits_each_for_itself_are_refused(tmp_path: Path) -> None:
    write_services(tmp_path / "services.yaml")
    done = command("serve", **environment(tmp_path, GATEWAY_WORKERS="2"))
    assert done.returncode == 1
    assert "GATEWAY_WORKERS: several workers need REDIS_URL" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_port_that_is_taken_ends_the_start_with_a_sentence(
    tmp_path: Path, redis_url: str, migrated_database: str
) -> None:
    write_services(tmp_path / "services.yaml")
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = variables(tmp_path, redis_url, migrated_database, GATEWAY_PORT=str(port))
    done = await asyncio.to_thread(command, "serve", **settings)
    server.close()
    await server.wait_closed()
    assert done.returncode == 1
    assert f"The gateway cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr

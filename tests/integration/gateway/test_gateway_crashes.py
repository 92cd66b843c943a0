"""Real gateway processes that die or stop in the middle: every answered request is in the table once, and no other."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest

from support.databases import PostgresServer, RedisServer
from support.gateway import (
    GatewayProcess,
    bearer,
    environment,
    eventually,
    gateway_here,
    gateway_process,
    running_engine,
    whisper,
    write_services,
)

SPEECH = "/api/speech-to-text"
ROWS = 'SELECT id, status, units::float8 FROM "AIUsage" ORDER BY id'


async def post(client: aiohttp.ClientSession, url: str, **do: object) -> tuple[int, str]:
    """Asks for something to be done; the answer's status and the request's id."""
    async with client.post(f"{url}{SPEECH}", json={"do": do}) as answer:
        await answer.read()
        return answer.status, answer.headers["X-Request-Id"]


async def rows(postgres: PostgresServer, database: str) -> dict[str, tuple[str, float]]:
    lines = (await asyncio.to_thread(postgres.psql, database, ROWS)).splitlines()
    return {name: (status, float(units)) for name, status, units in (line.split("|") for line in lines)}


def variables(folder: Path, redis_url: str, database: str) -> dict[str, str]:
    return environment(folder, REDIS_URL=redis_url, DATABASE_URL=database, GATEWAY_LEASE_SECONDS="1")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_gateway_that_dies_or_stalls_leaves_nothing_open(
    tmp_path: Path,
    redis_url: str,
    migrated_database: str,
    postgres_server: PostgresServer,
    how: signal.Signals,
) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        settings = variables(tmp_path, redis_url, migrated_database)
        async with (
            gateway_process(tmp_path, settings) as struck,
            gateway_process(tmp_path, settings) as bystander,
            aiohttp.ClientSession(headers=bearer()) as client,
        ):
            answered = {(await post(client, gateway.url))[1] for gateway in (struck, bystander) for _ in range(5)}
            long = asyncio.create_task(post(client, struck.url, sleep=2))
            kept = asyncio.create_task(post(client, bystander.url, sleep=4))
            await eventually(lambda: len(engine.seen) == 12)
            struck.signal(how)

            async def closed() -> bool:
                statuses = [status for status, _ in (await rows(postgres_server, migrated_database)).values()]
                return statuses.count("interrupted") == 1

            await eventually(closed)
            seen = await rows(postgres_server, migrated_database)
            assert {name for name, row in seen.items() if row == ("succeeded", 2.5)} >= answered
            if how == signal.SIGSTOP:
                struck.signal(signal.SIGCONT)
                status, name = await long
                assert status == 200
                answered.add(name)
            else:
                with pytest.raises(aiohttp.ClientError):
                    await long
            answered.add((await kept)[1])

            async def recorded() -> bool:
                seen = await rows(postgres_server, migrated_database)
                return {name for name, row in seen.items() if row == ("succeeded", 2.5)} == answered

            await eventually(recorded)
            dead = 1 if how == signal.SIGKILL else 0
            assert len(await rows(postgres_server, migrated_database)) == len(answered) + dead
            async with client.get(f"{bystander.url}/api/usage") as answer:
                body = await answer.json()
            assert body["today"]["speech-to-text"]["count"] == body["services"]["speech-to-text"]["count"] == 12
            assert body["limits"]["speech-to-text"]["remaining"] == 88


async def test_what_a_dead_gateway_held_of_a_tenants_limits_is_free_after_its_lease(
    tmp_path: Path, redis_url: str, migrated_database: str
) -> None:
    limits = [
        {"measure": "concurrency", "maximum": 2},
        {"measure": "spend", "maximum": 0.005},  # two estimates of 0.0024
        {"measure": "units", "maximum": 121, "window": "1h"},
    ]
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url), tenants={"acme": limits})
        settings = variables(tmp_path, redis_url, migrated_database)
        async with (
            gateway_process(tmp_path, settings) as struck,
            gateway_process(tmp_path, settings) as bystander,
            aiohttp.ClientSession(headers=bearer()) as client,
        ):

            async def left() -> dict[str, float]:
                async with client.get(f"{bystander.url}/api/limits") as answer:
                    return {one["measure"]: one["remaining"] for one in (await answer.json())["limits"]}

            lost = [asyncio.create_task(post(client, struck.url, sleep=60)) for _ in range(2)]
            await eventually(lambda: len(engine.seen) == 2)
            assert (await left()).items() >= {"concurrency": 0, "spend": 0.0002, "units": 1}.items()
            async with client.post(f"{bystander.url}{SPEECH}", json={}) as answer:
                assert answer.status == 429
                refused = await answer.json()
            # The month's budget is what refuses for longest: a slot may be free in a second.
            assert refused == {"error": "Rate limit exceeded", "retry_after": int(answer.headers["Retry-After"])}
            assert answer.headers["x-ratelimit-limit"] == "0.005"
            struck.signal(signal.SIGKILL)

            async def free() -> bool:
                return (await left())["concurrency"] == 2

            await eventually(free)
            assert all(
                isinstance(one, aiohttp.ClientError) for one in await asyncio.gather(*lost, return_exceptions=True)
            )
            assert (await left()).items() >= {"concurrency": 2, "spend": 0.005, "units": 121}.items()
            assert (await post(client, bystander.url))[0] == 200
            assert (await left()).items() >= {"concurrency": 2, "spend": 0.0049, "units": 118.5}.items()


@pytest.mark.parametrize(
    ("do", "units", "tokens"),
    [
        ({"segments": 40, "pause": 0.05}, None, 0),  # cut: what was heard so far
        ({"segments": 4}, 10.0, 28),  # whole: the last event has the tokens
        ({"chunks": 40, "pause": 0.05}, 2.5, 7),  # sound, cut: nothing tells how much of the text it is
    ],
)
async def test_a_streamed_answer_is_recorded_with_what_was_delivered(
    tmp_path: Path, do: Mapping[str, object], units: float | None, tokens: int
) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        async with gateway_here(environment(tmp_path)) as client:
            received = b""
            async with client.post(SPEECH, json={"do": do}, headers=bearer()) as answer:
                async for chunk in answer.content.iter_any():
                    received += chunk
                    if "pause" in do and len(received) > 200:
                        break
            heard = 2.5 * received.count(b'"type": "segment"')

            async def recorded() -> bool:
                async with client.get("/api/usage", headers=bearer()) as answer:
                    services = (await answer.json())["services"]
                if not services:
                    return False
                used = services["speech-to-text"]
                # What is under way when the client goes counts as delivered.
                right = heard <= used["units"] <= heard + 5 if units is None else used["units"] == units
                return bool(right and used["total_tokens"] == tokens and used["count"] == 1)

            await eventually(recorded)


async def test_nothing_is_missing_and_nothing_double_after_all_of_it(
    tmp_path: Path, redis_url: str, migrated_database: str, postgres_server: PostgresServer, redis_server: RedisServer
) -> None:
    """PostgreSQL is stopped for a while, Redis restarted, workers are killed and replaced, all of it under load."""
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        settings = variables(tmp_path, redis_url, migrated_database) | {"GATEWAY_RATE_LIMIT_PER_HOUR": "1000000"}
        workers = [GatewayProcess(tmp_path, settings) for _ in range(2)]
        try:
            for worker in workers:
                await worker.ready()
            answered: list[str] = []
            broken = 0
            stop = False

            async def client_loop(number: int) -> None:
                nonlocal broken
                chance = random.Random(number)
                async with aiohttp.ClientSession(headers=bearer(f"tenant-{number % 5}")) as client:
                    while not stop:
                        worker = chance.choice(workers)
                        try:
                            status, name = await post(client, worker.url)
                        except aiohttp.ClientError:
                            broken += 1
                            await asyncio.sleep(0.05)
                        else:
                            assert status == 200, status
                            answered.append(name)

            async def answers(count: int) -> None:
                goal = len(answered) + count
                await eventually(lambda: len(answered) >= goal, 120)

            clients = [asyncio.create_task(client_loop(number)) for number in range(12)]
            await answers(200)
            postgres_server.stop(signal.SIGQUIT)
            await answers(200)
            for round_ in range(3):
                victim = workers[round_ % 2]
                victim.kill()
                await answers(100)
                workers[round_ % 2] = GatewayProcess(tmp_path, settings)
                await workers[round_ % 2].ready()
                await answers(100)
                if round_ == 1:
                    redis_server.stop(signal.SIGKILL)
                    await answers(200)
                    redis_server.start()
                    await answers(200)
            postgres_server.launch()
            await asyncio.to_thread(postgres_server.wait)
            await answers(200)
            stop = True
            await asyncio.gather(*clients)
            assert len(answered) == len(set(answered)) >= 1800
            assert broken

            async def complete() -> bool:
                seen = await rows(postgres_server, migrated_database)
                return {name for name, row in seen.items() if row == ("succeeded", 2.5)} >= set(answered)

            await eventually(complete, 60)
            # The others were in flight when their worker was killed: recorded and not heard of, or interrupted.
            seen = await rows(postgres_server, migrated_database)
            others = {name: row for name, row in seen.items() if name not in set(answered)}
            assert len(others) <= broken
            assert {status for status, _ in others.values()} <= {"interrupted", "succeeded"}
        finally:
            for worker in workers:
                worker.kill()

"""Limits against a real Redis: exact, shared by all gateways, and never lifted."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from aiservice_api.tasks import Task
from aiservice_gateway.errors import StoreUnavailableError
from aiservice_gateway.models import Admission
from aiservice_gateway.stores.redis import RedisStore
from support.databases import RedisServer
from support.gateway import (
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
TASK = Task.SPEECH_TO_TEXT
# The gateway has 32 connections to Redis; who waits for one longer than a second counts as without Redis.
_AT_ONCE = 32


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisStore]:
    made = RedisStore(redis_url, "test")
    await eventually(made.ping)
    yield made
    await made.close()


@pytest.mark.parametrize("seed", range(5))
async def test_the_window_slides_exactly(store: RedisStore, seed: int) -> None:
    """Against a model, on Redis' own clock, in a window of a fraction of a second."""
    rng = random.Random(seed)
    limit, window = rng.randint(1, 8), 0.3
    admitted: list[tuple[float, float]] = []  # before and after the call: when it counted is between them
    waits: list[tuple[float, Admission]] = []
    ends = time.monotonic() + 1.5
    number = 0
    while time.monotonic() < ends:
        number += 1
        before = time.monotonic()
        admission = await store.admit("acme", TASK, str(number), limit, window)
        after = time.monotonic()
        surely_inside = [moment for moment in admitted if moment[0] > after - window]
        maybe_inside = [moment for moment in admitted if moment[1] > before - window]
        assert len(surely_inside) < limit or not admission.allowed
        assert len(maybe_inside) >= limit or admission.allowed
        if admission.allowed:
            admitted.append((before, after))
        else:
            waits.append((after, admission))
            assert 0 < admission.quota.reset_seconds <= window
            if rng.random() < 0.3:
                await asyncio.sleep(admission.quota.reset_seconds)
                number += 1
                assert (await store.admit("acme", TASK, str(number), limit, window)).allowed
                admitted.append((after, time.monotonic()))
        await asyncio.sleep(rng.random() * window / limit if waits else 0)  # until one was refused: as fast as can be
    assert admitted
    assert waits


async def test_requests_at_once_pass_up_to_the_limit(store: RedisStore) -> None:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def admit(one: int) -> Admission:
        async with gate:
            return await store.admit("acme", TASK, str(one), 100, 3600)

    admissions = await asyncio.gather(*map(admit, range(150)))
    assert sum(admission.allowed for admission in admissions) == 100
    refused = next(admission for admission in admissions if not admission.allowed)
    assert 3590 < refused.quota.reset_seconds <= 3600


async def test_a_refund_makes_room(store: RedisStore) -> None:
    assert (await store.admit("acme", TASK, "1", 1, 3600)).allowed
    assert not (await store.admit("acme", TASK, "2", 1, 3600)).allowed
    await store.refund("acme", TASK, "1")
    assert (await store.admit("acme", TASK, "3", 1, 3600)).allowed


async def test_a_lowered_limit_tells_when_enough_have_left(store: RedisStore) -> None:
    for number in range(4):
        await store.admit("acme", TASK, str(number), 10, 2)
        await asyncio.sleep(0.05)
    refused = await store.admit("acme", TASK, "more", 2, 2)
    assert not refused.allowed
    await asyncio.sleep(refused.quota.reset_seconds)
    assert (await store.admit("acme", TASK, "later", 2, 2)).allowed


async def test_quotas_are_read_without_being_used(store: RedisStore) -> None:
    for number in range(3):
        await store.admit("acme", TASK, str(number), 10, 3600)
    for _ in range(2):
        quotas = await store.quotas("acme", 10, 3600)
        assert {task: quota.remaining for task, quota in quotas.items()} == {
            task: 10 - 3 * (task is TASK) for task in Task
        }
    assert 3590 < quotas[TASK].reset_seconds <= 3600
    assert quotas[Task.IMAGE_TO_TEXT].reset_seconds == 0


async def test_counted_requests_do_not_stay_for_ever(store: RedisStore, redis_server: RedisServer) -> None:
    await store.admit("acme", TASK, "1", 10, 3600)
    lifetime = int(redis_server.command("PTTL", "aiservice:limit:speech-to-text:acme").removeprefix(":"))
    assert 3_590_000 < lifetime <= 3_600_000


async def test_while_redis_is_away_every_call_fails_at_once(store: RedisStore, redis_server: RedisServer) -> None:
    assert await store.ping()
    redis_server.stop(signal.SIGKILL)
    with pytest.raises(StoreUnavailableError):
        await store.admit("acme", TASK, "1", 10, 3600)
    started = time.monotonic()
    for _ in range(100):
        with pytest.raises(StoreUnavailableError):
            await store.admit("acme", TASK, "1", 10, 3600)
    assert time.monotonic() - started < 0.5
    redis_server.start()
    await eventually(lambda: store.available)
    assert (await store.admit("acme", TASK, "2", 10, 3600)).allowed


async def test_over_the_limit_the_answer_is_the_guides(tmp_path: Path, redis_url: str) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        variables = environment(tmp_path, REDIS_URL=redis_url, GATEWAY_RATE_LIMIT_PER_HOUR="3")
        async with gateway_here(variables) as client:
            for remaining in ("2", "1", "0"):
                async with client.post(SPEECH, json={}, headers=bearer()) as answer:
                    assert (answer.status, answer.headers["x-ratelimit-remaining"]) == (200, remaining)
                    await answer.read()
            async with client.post(SPEECH, json={}, headers=bearer()) as answer:
                assert answer.status == 429
                body = await answer.json()
            assert body == {"error": "Rate limit exceeded", "retry_after": body["retry_after"]}
            assert 3590 <= body["retry_after"] <= 3600
            assert answer.headers["Retry-After"] == str(body["retry_after"])
            assert answer.headers["x-ratelimit-limit"] == "3"
            assert answer.headers["x-ratelimit-remaining"] == "0"
            assert answer.headers["x-ratelimit-reset"] == str(body["retry_after"])
            assert len(engine.seen) == 3
            async with client.post(SPEECH, json={}, headers=bearer("other")) as answer:
                assert answer.status == 200
                await answer.read()
            async with client.post("/api/text-to-image", json={}, headers=bearer()) as answer:
                assert answer.status == 404


async def test_two_gateways_share_one_limit(tmp_path: Path, redis_url: str, migrated_database: str) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        variables = environment(tmp_path, REDIS_URL=redis_url, DATABASE_URL=migrated_database)
        async with (
            gateway_process(tmp_path, variables) as one,
            gateway_process(tmp_path, variables) as other,
            aiohttp.ClientSession(headers=bearer()) as client,
        ):
            gate = asyncio.Semaphore(_AT_ONCE)

            async def ask(number: int) -> int:
                url = (one, other)[number % 2].url
                async with gate, client.post(f"{url}{SPEECH}", json={}) as answer:
                    await answer.read()
                    return answer.status

            statuses = await asyncio.gather(*map(ask, range(160)))
            assert statuses.count(200) == 100
            assert statuses.count(429) == 60
            assert len(engine.seen) == 100
            for gateway in (one, other):
                async with client.get(f"{gateway.url}/api/usage") as answer:
                    assert (await answer.json())["services"]["speech-to-text"]["count"] == 100


async def test_without_redis_requests_go_on_and_limits_hold(
    tmp_path: Path, redis_url: str, redis_server: RedisServer
) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        variables = environment(tmp_path, REDIS_URL=redis_url, GATEWAY_RATE_LIMIT_PER_HOUR="10")
        async with gateway_here(variables) as client:

            async def ask() -> int:
                async with client.post(SPEECH, json={}, headers=bearer()) as answer:
                    await answer.read()
                    return answer.status

            assert [await ask() for _ in range(4)] == [200] * 4
            redis_server.stop(signal.SIGKILL)
            # What Redis let pass is remembered here: six are left, not ten.
            assert [await ask() for _ in range(8)] == [200] * 6 + [429] * 2
            async with client.get("/health") as answer:
                assert (answer.status, (await answer.json())["status"]) == (200, "degraded")
            async with client.get("/readyz") as answer:
                assert answer.status == 200
                assert (await answer.json())["dependencies"]["redis"] is False
            async with client.get("/metrics") as answer:
                assert 'dependency_up{dependency="redis"} 0.0' in await answer.text()
            async with client.get("/api/usage", headers=bearer()) as answer:
                body = await answer.json()
            assert body["limits"]["speech-to-text"]["remaining"] == 0
            assert body["today"]["speech-to-text"]["count"] == 10
            redis_server.start()

            async def healthy() -> bool:
                async with client.get("/health") as answer:
                    return bool((await answer.json())["status"] == "healthy")

            await eventually(healthy)
            # Redis counted four, and does not give away again the six that passed without it.
            assert [await ask() for _ in range(3)] == [429] * 3
            async with client.get("/api/usage", headers=bearer()) as answer:
                assert (await answer.json())["services"]["speech-to-text"]["count"] == 10

"""The header Idempotency-Key: one answer and one charge for a request, however often and wherever it is sent."""

from __future__ import annotations

import asyncio
import json
import signal
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aiservice_gateway.stores.database import PostgresDatabase, SqliteDatabase, fetch
from aiservice_gateway.stores.expired import delete_expired
from support.databases import PostgresServer
from support.gateway import (
    Engine,
    Stage,
    bearer,
    environment,
    eventually,
    gateway_here,
    gateway_processes,
    recorded,
    running_engine,
    transcribed,
    whisper,
    write_services,
)

SPEECH = "/api/speech-to-text"
TRANSCRIBE = "/v1/audio/transcriptions"


@dataclass
class World:
    client: aiohttp.ClientSession
    engine: Engine
    folder: Path
    settings: Mapping[str, str]


@dataclass
class Answer:
    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


async def post(
    client: aiohttp.ClientSession, path: str = SPEECH, key: str = "k-1", tenant: str = "acme", **do: Any
) -> Answer:
    async with client.post(path, json={"do": do}, headers={**bearer(tenant), "Idempotency-Key": key}) as answer:
        return Answer(answer.status, await answer.json(), answer.headers)


@pytest.fixture(params=["sqlite", "postgresql"])
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    variables = environment(tmp_path, GATEWAY_LEASE_SECONDS="1", GATEWAY_IDEMPOTENCY_MAX_BYTES="100000")
    if request.param == "postgresql":
        variables["DATABASE_URL"] = request.getfixturevalue("migrated_database")
        variables["REDIS_URL"] = request.getfixturevalue("redis_url")
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        async with gateway_here(variables) as client:
            yield World(client, engine, tmp_path, variables)


async def test_a_repeated_request_gets_the_first_answer_and_is_charged_once(world: World) -> None:
    first = await post(world.client)
    again = await post(world.client, key='"k-1"')  # as the draft writes it
    assert first.status == again.status == 200
    assert again.body == first.body
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    for name in ("Content-Type", "X-AIService-Units", "X-AIService-Tokens"):
        assert again.headers[name] == first.headers[name]
    assert again.headers["X-Request-Id"] != first.headers["X-Request-Id"] == first.body["request_id"]
    assert len(world.engine.seen) == 1
    assert await transcribed(world.client) == (1, 0.0001)
    async with world.client.get("/metrics") as metrics:
        assert f'route="{SPEECH}",status="200"}} 2.0' in await metrics.text()


async def test_keys_are_those_of_a_tenant_and_a_route(world: World) -> None:
    await post(world.client)
    await post(world.client, tenant="other")
    form = aiohttp.FormData({"model": "whisper", "response_format": "text"})
    form.add_field("file", b"RIFF" * 10, filename="a.wav")
    async with world.client.post(TRANSCRIBE, data=form, headers={**bearer(), "Idempotency-Key": "k-1"}) as answer:
        assert answer.status == 200, await answer.text()
    assert len(world.engine.seen) == 3


@pytest.mark.parametrize("path", [SPEECH, f"{SPEECH}?service=whisper"])
async def test_the_same_key_with_another_request_is_refused(world: World, path: str) -> None:
    await post(world.client, path)
    async with world.client.post(path, json={"other": 1}, headers={**bearer(), "Idempotency-Key": "k-1"}) as answer:
        assert answer.status == 422
        assert (await answer.json())["code"] == "idempotency_key_reused"
    other = SPEECH if "?" in path else f"{SPEECH}?service=whisper"
    assert (await post(world.client, other)).status == 422
    assert len(world.engine.seen) == 1


async def test_a_form_is_the_same_with_another_boundary(world: World) -> None:
    answers = []
    for content in (b"RIFF" * 100_000, b"RIFF" * 100_000, b"riff" * 100_000):
        form = aiohttp.FormData({"model": "whisper", "response_format": "text"})
        form.add_field("file", content, filename="a.wav")
        async with world.client.post(TRANSCRIBE, data=form, headers={**bearer(), "Idempotency-Key": "f"}) as answer:
            answers.append((answer.status, await answer.text()))
    assert [status for status, _ in answers] == [200, 200, 422]
    assert answers[0] == answers[1]
    assert json.loads(answers[2][1])["error"]["code"] == "idempotency_key_reused"
    assert len(world.engine.seen) == 1


async def test_while_the_first_is_at_work_a_repeat_is_told_to_wait(world: World) -> None:
    tasks = [asyncio.create_task(post(world.client, sleep=1.5)) for _ in range(5)]
    answers = await asyncio.gather(*tasks)
    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409, 409]
    refused = next(answer for answer in answers if answer.status == 409)
    assert refused.body["code"] == "in_progress"
    assert refused.headers["Retry-After"] == "1"
    assert (await post(world.client, sleep=1.5)).status == 200
    assert len(world.engine.seen) == 1
    assert await transcribed(world.client) == (1, 0.0001)


async def test_a_client_that_lost_its_connection_gets_its_answer_when_it_comes_back(world: World) -> None:
    lost = asyncio.create_task(post(world.client, sleep=1.5))
    await eventually(lambda: len(world.engine.seen) == 1)
    lost.cancel()
    await asyncio.gather(lost, return_exceptions=True)

    async def answered() -> bool:
        return (await post(world.client, sleep=1.5)).status == 200

    await eventually(answered)
    assert (len(world.engine.seen), world.engine.disconnects) == (1, 0)
    assert await transcribed(world.client) == (1, 0.0001)


@pytest.mark.parametrize(
    ("do", "status", "asked"),
    [({"status": 503}, 503, 2), ({"status": 500}, 502, 2), ({"status": 400}, 400, 1), ({"status": 422}, 422, 1)],
)
async def test_what_did_no_work_may_be_tried_again_and_what_an_engine_said_is_kept(
    world: World, do: dict[str, Any], status: int, asked: int
) -> None:
    answers = [await post(world.client, **do) for _ in range(2)]
    assert [answer.status for answer in answers] == [status, status]
    assert len(world.engine.seen) == asked
    assert await transcribed(world.client) == ((0 if status == 503 else asked), 0.0)


async def test_a_refusal_by_a_limit_is_not_kept(tmp_path: Path) -> None:
    async with running_engine() as engine:
        limits = [{"measure": "requests", "maximum": 1, "window": "1s"}]
        write_services(tmp_path / "services.yaml", whisper(engine.url), tenants={"acme": limits})
        async with gateway_here(environment(tmp_path)) as client:
            assert (await post(client, key="a")).status == 200
            assert (await post(client, key="b")).status == 429
            assert (await post(client, key="a")).status == 200  # a repeat takes nothing of a limit

            async def passes() -> bool:
                return (await post(client, key="b")).status == 200

            await eventually(passes)


async def test_a_streamed_answer_is_kept_with_its_pieces_and_one_that_is_too_large_is_not(world: World) -> None:
    async def stream(key: str, chunks: int) -> tuple[int, bytes]:
        headers = {**bearer(), "Idempotency-Key": key}
        async with world.client.post(SPEECH, json={"do": {"chunks": chunks}}, headers=headers) as answer:
            return answer.status, await answer.read()

    assert await stream("small", 90) == await stream("small", 90) == (200, b"x" * 90_000)
    assert await stream("large", 300) == (200, b"x" * 300_000)
    status, body = await stream("large", 300)
    assert status == 410
    assert b"too large" in body
    assert len(world.engine.seen) == 2
    assert (await transcribed(world.client))[0] == 2


async def test_an_answer_that_breaks_off_may_be_tried_again(world: World) -> None:
    for _ in range(2):
        with pytest.raises(aiohttp.ClientError):
            await post(world.client, chunks=3, cut=True)
    assert len(world.engine.seen) == 2
    assert (await transcribed(world.client))[1] == 0


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "ä"])
async def test_a_key_that_is_none_is_refused(world: World, key: str) -> None:
    answer = await post(world.client, key=key)
    assert answer.status == 400
    assert "Idempotency-Key" in answer.body["error"]
    assert not world.engine.seen


async def test_a_key_needs_a_token_and_errors_of_v1_are_openais(world: World) -> None:
    async with world.client.post(SPEECH, json={}, headers={"Idempotency-Key": "k"}) as answer:
        assert answer.status == 401
    headers = {**bearer(), "Idempotency-Key": "k k"}
    async with world.client.post("/v1/audio/speech", json={}, headers=headers) as answer:
        assert (answer.status, (await answer.json())["error"]["type"]) == (400, "invalid_request_error")


async def test_what_has_expired_is_deleted_and_the_key_is_new(tmp_path: Path, migrated_database: str) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        for number, more in enumerate(({}, {"DATABASE_URL": migrated_database}), 1):
            settings = environment(tmp_path, GATEWAY_IDEMPOTENCY_SECONDS="1", **more)
            database = PostgresDatabase(migrated_database) if more else SqliteDatabase(tmp_path / "usage.sqlite3")
            async with gateway_here(settings) as client:
                await post(client)
                await asyncio.sleep(1.1)
                assert await delete_expired(database) == 2
                assert await fetch(database, "SELECT * FROM {keys}") == []
                assert await fetch(database, "SELECT * FROM {pieces}") == []
                assert (await post(client)).status == 200
            await database.close()
            assert len(engine.seen) == 2 * number


async def test_two_gateways_do_one_request_once(stage: Stage) -> None:
    engine, settings = stage.engine, stage.settings
    async with gateway_processes(stage.folder, settings, settings) as gateways, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(aiohttp.ClientSession(one.url)) for one in gateways]
        keys = [uuid.uuid4().hex for _ in range(10)]
        rounds = await asyncio.gather(*(post(client, key=key) for key in keys for client in clients * 3))
        assert {answer.status for answer in rounds} <= {200, 409}
        for key in keys:
            one, two = [await post(client, key=key) for client in clients]
            assert (one.status, two.status) == (200, 200)
            assert one.body == two.body
        assert len(engine.seen) == len(keys)
        assert (await transcribed(clients[0]))[0] == len(keys)


async def test_a_repeat_takes_over_from_a_gateway_that_died(stage: Stage, postgres_server: PostgresServer) -> None:
    engine, settings = stage.engine, stage.settings
    async with (
        gateway_processes(stage.folder, settings, settings) as (struck, other),
        aiohttp.ClientSession(struck.url) as first,
        aiohttp.ClientSession(other.url) as second,
    ):
        lost = asyncio.create_task(post(first, sleep=2))
        await eventually(lambda: len(engine.seen) == 1)
        struck.signal(signal.SIGKILL)
        await asyncio.gather(lost, return_exceptions=True)

        async def answered() -> bool:
            return (await post(second, sleep=2)).status == 200

        await eventually(answered)
        assert len(engine.seen) == 2
        await recorded(second, 2, 0.0001)  # one interrupted, which costs nothing
        rows = postgres_server.psql(settings["DATABASE_URL"], 'SELECT status FROM "AIUsage" ORDER BY status')
        assert rows.split() == ["interrupted", "succeeded"]


async def test_a_gateway_that_stood_still_too_long_charges_nothing(stage: Stage) -> None:
    engine, settings = stage.engine, stage.settings
    async with (
        gateway_processes(stage.folder, settings, settings) as (struck, other),
        aiohttp.ClientSession(struck.url) as first,
        aiohttp.ClientSession(other.url) as second,
    ):
        stalled = asyncio.create_task(post(first, sleep=1))
        await eventually(lambda: len(engine.seen) == 1)
        struck.signal(signal.SIGSTOP)

        async def answered() -> bool:
            return (await post(second, sleep=1)).status == 200

        await eventually(answered)
        struck.signal(signal.SIGCONT)
        with pytest.raises(aiohttp.ClientError):  # it had begun its answer, which another one replaces
            await stalled
        await recorded(second, 2, 0.0001)
        assert (await post(first, sleep=1)).body == (await post(second, sleep=1)).body


async def test_without_the_database_a_request_with_a_key_is_put_off_and_others_are_answered(
    tmp_path: Path, migrated_database: str, postgres_server: PostgresServer
) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        async with gateway_here(environment(tmp_path, DATABASE_URL=migrated_database)) as client:
            postgres_server.stop(signal.SIGQUIT)
            refused = await post(client)
            assert refused.status == 503
            assert int(refused.headers["Retry-After"]) > 0
            async with client.post(SPEECH, json={}, headers=bearer()) as answer:
                assert answer.status == 200
            postgres_server.launch()
            await asyncio.to_thread(postgres_server.wait)
            assert (await post(client)).status == 200
            assert len(engine.seen) == 2

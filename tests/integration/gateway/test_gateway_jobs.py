"""Jobs: handed in, worked on by real gateways that die and stop, cancelled, fetched, told of; each charged once."""

from __future__ import annotations

import asyncio
import io
import json
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

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
    token,
    transcribed,
    whisper,
    write_services,
)

TASK = "speech-to-text"
OVER = {"succeeded", "failed", "cancelled", "expired"}


@dataclass
class World:
    client: aiohttp.ClientSession
    engine: Engine
    folder: Path
    database: str | None


@pytest.fixture(params=["sqlite", "postgresql"])
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    variables = environment(
        tmp_path, GATEWAY_LEASE_SECONDS="1", GATEWAY_ADMIN_ROLE="root", GATEWAY_JOB_MAX_OPEN="20",
        GATEWAY_JOB_CONCURRENCY="2", GATEWAY_JOB_OUTPUT_BYTES="2000000", GATEWAY_JOB_INPUT_BYTES="3000000",
    )  # fmt: skip
    if request.param == "postgresql":
        variables["DATABASE_URL"] = request.getfixturevalue("migrated_database")
        variables["REDIS_URL"] = request.getfixturevalue("redis_url")
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        async with gateway_here(variables) as client:
            yield World(client, engine, tmp_path, variables.get("DATABASE_URL"))


async def order(
    client: aiohttp.ClientSession, tenant: str = "acme", *, more: Mapping[str, object] | None = None, **do: object
) -> dict[str, Any]:
    """Hands a job in."""
    body = {"task": TASK, "request": {"do": do}, **(more or {})}
    async with client.post("/v1/jobs", json=body, headers=bearer(tenant)) as answer:
        assert answer.status == 202, await answer.text()
        job: dict[str, Any] = await answer.json()
        assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
        return job


async def look(client: aiohttp.ClientSession, job: Mapping[str, Any], tenant: str = "acme") -> dict[str, Any]:
    async with client.get(f"/v1/jobs/{job['id']}", headers=bearer(tenant)) as answer:
        assert answer.status == 200, await answer.text()
        found: dict[str, Any] = await answer.json()
        return found


async def over(
    client: aiohttp.ClientSession, job: Mapping[str, Any], tenant: str = "acme", seconds: float = 60
) -> dict[str, Any]:
    """Waits until a job is over."""
    async with asyncio.timeout(seconds):
        while True:
            if (found := await look(client, job, tenant))["status"] in OVER:
                return found
            await asyncio.sleep(0.05)


async def result(client: aiohttp.ClientSession, job: Mapping[str, Any]) -> tuple[int, bytes, Mapping[str, str]]:
    async with client.get(f"/v1/jobs/{job['id']}/result", headers=bearer()) as answer:
        return answer.status, await answer.read(), answer.headers


async def test_a_job_from_order_to_result(world: World) -> None:
    job = await order(world.client)
    assert (job["object"], job["task"], job["result"]) == ("job", TASK, None)
    assert job["status"] in {"queued", "running"}  # a gateway may have taken it meanwhile
    done = await over(world.client, job)
    assert done["status"] == "succeeded"
    assert done["usage"] == {"units": 2.5, "unit": "audio-second", "tokens": 7, "cost": 0.0001}
    assert done["created_at"] <= done["started_at"] <= done["finished_at"] < done["expires_at"]
    status, body, headers = await result(world.client, job)
    assert status == 200
    assert json.loads(body)["text"] == "hello"
    assert done["result"] == {
        "url": f"/v1/jobs/{job['id']}/result", "status": 200, "content_type": "application/json", "bytes": len(body),
    }  # fmt: skip
    assert headers["X-AIService-Units"] == "2.5"
    assert headers["Content-Length"] == str(len(body))
    [seen] = world.engine.seen
    assert seen.headers["x-request-id"] == done["request_id"] == json.loads(body)["request_id"] != job["id"]
    assert seen.headers["content-type"] == "application/json"
    assert await transcribed(world.client) == (1, 0.0001)


async def test_a_form_is_passed_on_with_its_file_and_without_what_the_job_is_told(world: World) -> None:
    form = aiohttp.FormData()
    form.add_field("file", io.BytesIO(b"RIFF" * 500_000), filename="a.wav")
    for name, value in (("task", TASK), ("language", "en"), ("service", "whisper"), ("deadline_seconds", "600")):
        form.add_field(name, value)
    async with world.client.post("/v1/jobs", data=form, headers=bearer()) as answer:
        assert answer.status == 202, await answer.text()
        job = await answer.json()
    assert job["service"] == "whisper"
    assert (await over(world.client, job))["status"] == "succeeded"
    [seen] = world.engine.seen
    assert seen.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert 2_000_000 < seen.body_bytes == int(seen.headers["content-length"]) < 2_000_600


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "task"),
        ({"task": "chess", "request": {}}, 400, "task"),
        ({"task": TASK}, 400, "request"),
        ({"task": TASK, "request": []}, 400, "request"),
        ({"task": TASK, "request": {}, "model": "x"}, 400, "model"),
        ({"task": TASK, "request": {}, "deadline_seconds": 1e9}, 400, "deadline_seconds"),
        ({"task": TASK, "request": {}, "webhook": {"url": "https://example.com/"}}, 400, "webhook.url"),
        ({"task": TASK, "request": {}, "service": "nobody"}, 404, None),
        ({"task": TASK, "request": {}, "service": "a\0"}, 400, "service"),
        ({"task": "text-to-image", "request": {}}, 404, None),
        ({"task": TASK, "request": {"x": "x" * 3_000_000}}, 413, None),
        ([], 400, "body"),
    ],
)
async def test_wrong_orders_are_refused_in_openais_shape(
    world: World, body: object, status: int, param: str | None
) -> None:
    headers, sent = {**bearer(), "Content-Type": "application/json"}, io.BytesIO(json.dumps(body).encode())
    async with world.client.post("/v1/jobs", data=sent, headers=headers) as answer:
        error = (await answer.json())["error"]
        assert (answer.status, error["param"]) == (status, param), error
    assert not world.engine.seen


async def test_only_the_tenant_and_administrators_see_a_job(world: World) -> None:
    job = await order(world.client)
    await over(world.client, job)
    path, admin = f"/v1/jobs/{job['id']}", {"Authorization": f"Bearer {token('boss', role='root')}"}
    for method, one in (("GET", path), ("GET", f"{path}/result"), ("POST", f"{path}/cancel"), ("DELETE", path)):
        async with world.client.request(method, one, headers=bearer("other")) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (404, "not_found")
        async with world.client.request(method, one, headers=admin) as answer:
            assert answer.status == 200
        async with world.client.request(method, one) as answer:
            assert answer.status == 401
    async with world.client.get("/v1/jobs", headers=bearer("other")) as answer:
        assert (await answer.json())["data"] == []
    async with world.client.get("/v1/jobs?tenant=acme", headers=bearer("other")) as answer:
        assert answer.status == 403
    for query in ("tenant=acme", "tenant=*"):
        async with world.client.get(f"/v1/jobs?{query}", headers=admin) as answer:
            assert [one["id"] for one in (await answer.json())["data"]] == [job["id"]]


@pytest.mark.parametrize("name", ["nonsense", "%00", "..%2f", "0199c3a6-1d9e-7cc0-8f6b-2f2d7d5a4c11"])
async def test_what_is_no_job(world: World, name: str) -> None:
    for method, path in (("GET", ""), ("GET", "/result"), ("POST", "/cancel"), ("DELETE", "")):
        url = URL(f"/v1/jobs/{name}{path}", encoded=True)
        async with world.client.request(method, url, headers=bearer()) as answer:
            assert answer.status == 404
    if name == "%00":
        for query in ("after", "tenant"):
            url = URL(f"/v1/jobs?{query}=%00", encoded=True)
            async with world.client.get(url, headers=bearer()) as answer:
                assert answer.status == 400


async def test_jobs_are_listed_in_pages(world: World) -> None:
    jobs = [await order(world.client) for _ in range(5)]
    await asyncio.gather(*(over(world.client, job) for job in jobs))
    seen, after = [], ""
    while True:
        async with world.client.get(f"/v1/jobs?limit=2{after}", headers=bearer()) as answer:
            page = await answer.json()
        seen += [one["id"] for one in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert seen == sorted((job["id"] for job in jobs), reverse=True)
    async with world.client.get("/v1/jobs?status=queued", headers=bearer()) as answer:
        assert (await answer.json())["data"] == []
    async with world.client.get("/v1/jobs?status=nonsense", headers=bearer()) as answer:
        assert answer.status == 400


async def test_cancelling_while_it_runs_and_while_it_is_queued(world: World) -> None:
    running = [await order(world.client, sleep=60) for _ in range(2)]
    await eventually(lambda: len(world.engine.seen) == 2)
    waiting = [await order(world.client) for _ in range(2)]
    assert [(await look(world.client, job))["position"] for job in waiting] == [0, 1]
    status, _, headers = await result(world.client, running[0])
    assert (status, headers["Retry-After"]) == (409, "1")
    async with world.client.delete(f"/v1/jobs/{waiting[0]['id']}", headers=bearer()) as answer:
        assert (await answer.json())["status"] == "cancelled"
    assert (await look(world.client, waiting[1]))["position"] == 0
    for job in running:
        async with world.client.post(f"/v1/jobs/{job['id']}/cancel", headers=bearer()) as answer:
            assert answer.status == 200
        assert (await over(world.client, job))["status"] == "cancelled"
    await eventually(lambda: world.engine.disconnects == 2)
    assert (await over(world.client, waiting[1]))["status"] == "succeeded"
    assert (await result(world.client, running[0]))[0] == 410
    async with world.client.delete(f"/v1/jobs/{waiting[1]['id']}", headers=bearer()) as answer:
        assert (await answer.json())["status"] == "succeeded"
    assert await transcribed(world.client) == (3, 0.0001)


@pytest.mark.parametrize(
    ("do", "code", "kept"),
    [
        ({"status": 400}, "refused", 400),
        ({"status": 500}, "upstream_failed", 410),
        ({"chunks": 2, "cut": True}, "upstream_failed", 410),
    ],
)
async def test_what_an_engine_refuses_or_fails_at(world: World, do: dict[str, Any], code: str, kept: int) -> None:
    job = await over(world.client, await order(world.client, **do))
    assert (job["status"], job["error"]["code"], job["attempts"]) == ("failed", code, 1)
    status, body, _ = await result(world.client, job)
    assert status == kept
    assert b"told to" in body or kept == 410
    assert len(world.engine.seen) == 1
    assert await transcribed(world.client) == (1, 0.0)


async def test_large_results_are_kept_in_pieces_and_too_large_ones_are_not(world: World) -> None:
    job = await over(world.client, await order(world.client, chunks=1500))
    assert (await result(world.client, job))[1] == b"x" * 1_500_000
    job = await over(world.client, await order(world.client, chunks=2500))
    assert (job["status"], job["error"]["code"]) == ("failed", "payload_too_large")


async def test_a_busy_service_is_asked_again_without_counting(world: World) -> None:
    world.engine.status, world.engine.retry_after = 503, 1
    job = await order(world.client)
    await eventually(lambda: len(world.engine.seen) >= 4)
    world.engine.status = 0
    done = await over(world.client, job)
    assert (done["status"], done["attempts"]) == ("succeeded", 1)
    assert await transcribed(world.client) == (1, 0.0001)


async def test_what_is_not_done_by_its_deadline_expires(world: World) -> None:
    jobs = [await order(world.client, sleep=60, more={"deadline_seconds": 2}) for _ in range(3)]
    ended = [await over(world.client, job) for job in jobs]
    assert [job["status"] for job in ended] == ["expired"] * 3
    await eventually(lambda: world.engine.disconnects == len(world.engine.seen))
    assert (await transcribed(world.client))[1] == 0


async def test_tenants_take_turns_and_may_have_so_many_jobs(world: World) -> None:
    many = [await order(world.client, sleep=0.4) for _ in range(20)]
    async with world.client.post("/v1/jobs", json={"task": TASK, "request": {}}, headers=bearer()) as answer:
        assert answer.status == 429
        assert int(answer.headers["Retry-After"]) > 0
        assert "20 jobs" in (await answer.json())["error"]["message"]
    one = await over(world.client, await order(world.client, "other", sleep=0.4), "other")
    assert one["status"] == "succeeded"
    left = [job for job in many if (await look(world.client, job))["status"] == "queued"]
    assert len(left) >= 10
    for job in left:
        async with world.client.delete(f"/v1/jobs/{job['id']}", headers=bearer()) as answer:
            assert answer.status == 200


async def test_limits_put_a_job_off_and_a_spent_budget_ends_it(tmp_path: Path) -> None:
    async with running_engine() as engine:
        limits = {
            "slow": [{"measure": "requests", "maximum": 1, "window": "2s"}],
            "single": [{"measure": "concurrency", "maximum": 1}],
            "poor": [{"measure": "spend", "maximum": 0.00001}],
        }
        write_services(tmp_path / "services.yaml", whisper(engine.url), tenants=limits)
        async with gateway_here(environment(tmp_path)) as client:
            for tenant in ("slow", "single"):
                jobs = [await order(client, tenant, sleep=0.5) for _ in range(3)]
                ended = [await over(client, job, tenant) for job in jobs]
                assert {(job["status"], job["attempts"]) for job in ended} == {("succeeded", 1)}
                assert (await transcribed(client, tenant))[0] == 3
            job = await over(client, await order(client, "poor"), "poor")
            assert job["status"] == "succeeded"  # a budget below the estimate lets one pass at a time
            job = await over(client, await order(client, "poor"), "poor")
            assert (job["status"], job["error"]["code"]) == ("failed", "budget_exhausted")
            assert "budget" in job["error"]["message"]


async def test_a_job_waits_for_its_service(tmp_path: Path) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper("http://127.0.0.1:9"))
        async with gateway_here(environment(tmp_path)) as client:
            job = await order(client)
            await asyncio.sleep(1)
            write_services(tmp_path / "services.yaml", whisper(engine.url))
            assert (await over(client, job))["status"] == "succeeded"


async def test_what_has_expired_is_deleted(tmp_path: Path, migrated_database: str) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        for more in ({}, {"DATABASE_URL": migrated_database}):
            database = PostgresDatabase(migrated_database) if more else SqliteDatabase(tmp_path / "usage.sqlite3")
            settings = environment(
                tmp_path, GATEWAY_JOB_RETENTION_SECONDS="1", GATEWAY_JOB_DEADLINE_SECONDS="1", **more
            )
            async with gateway_here(settings) as client:
                job = await over(client, await order(client))
                await asyncio.sleep(1.5)
                assert await delete_expired(database) >= 1
                async with client.get(f"/v1/jobs/{job['id']}", headers=bearer()) as answer:
                    assert answer.status == 404
                assert await fetch(database, "SELECT * FROM {jobs}") == []
                await fetch(database, "UPDATE {pieces} SET expires_at = 0")  # they may stay longer than their job
                await delete_expired(database)
                assert await fetch(database, "SELECT * FROM {pieces}") == []
            await database.close()


async def test_an_order_with_a_key_is_one_job(world: World) -> None:
    async def ask() -> tuple[int, str, str]:
        headers = {**bearer(), "Idempotency-Key": "j"}
        async with world.client.post("/v1/jobs", json={"task": TASK, "request": {}}, headers=headers) as answer:
            body = await answer.json()
            assert answer.status == 202, body
            return answer.status, body["id"], answer.headers["Location"]

    first, again = await ask(), await ask()
    assert first == again
    assert first[0] == 202
    await over(world.client, {"id": first[1]})
    assert len(world.engine.seen) == 1


async def test_jobs_are_described_and_counted(world: World) -> None:
    async with world.client.get("/openapi.json") as answer:
        document = await answer.json()
    made = document["paths"]["/v1/jobs"]["post"]
    assert set(made["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    example = made["requestBody"]["content"]["application/json"]["example"]
    assert set(example) <= set(made["requestBody"]["content"]["application/json"]["schema"]["properties"])
    assert {"202", "400", "401", "404", "413", "429"} <= set(made["responses"])
    job = await over(world.client, await order(world.client))
    for described in (
        made["responses"]["202"],
        document["paths"]["/v1/jobs/{job_id}"]["get"]["responses"]["200"],
    ):
        assert set(described["content"]["application/json"]["example"]) <= set(job)
    async with world.client.get("/metrics") as answer:
        text = await answer.text()
    assert 'aiservice_gateway_jobs_total{state="succeeded",task="speech-to-text"} 1.0' in text
    assert 'aiservice_gateway_jobs_open{state="queued"} 0.0' in text


async def test_a_job_whose_gateway_is_killed_is_done_by_another_and_charged_once(
    stage: Stage, postgres_server: PostgresServer
) -> None:
    engine, settings = stage.engine, stage.settings
    async with gateway_processes(stage.folder, settings) as (struck,), aiohttp.ClientSession(struck.url) as client:
        jobs = [await order(client, sleep=2) for _ in range(3)]
        await eventually(lambda: len(engine.seen) == 3)
        struck.signal(signal.SIGKILL)
        async with gateway_processes(stage.folder, settings) as (other,), aiohttp.ClientSession(other.url) as second:
            done = [await over(second, job) for job in jobs]
            assert {(job["status"], job["attempts"]) for job in done} == {("succeeded", 2)}
            assert len(engine.seen) == 6
            await recorded(second, 6, 0.0003)
            rows = postgres_server.psql(settings["DATABASE_URL"], 'SELECT id, status FROM "AIUsage"').splitlines()
            charged = {row.split("|")[0] for row in rows if row.endswith("succeeded")}
            assert charged == {job["request_id"] for job in done}


async def test_a_job_that_kills_its_gateways_is_given_up(stage: Stage) -> None:
    engine, settings = stage.engine, stage.settings | {"GATEWAY_JOB_ATTEMPTS": "2"}
    async with (
        gateway_processes(stage.folder, settings | {"GATEWAY_JOB_CONCURRENCY": "0"}) as (desk,),
        aiohttp.ClientSession(desk.url) as client,
    ):
        job = await order(client, sleep=60)
        for number in (1, 2):
            async with gateway_processes(stage.folder, settings) as (victim,):
                await eventually(lambda: len(engine.seen) == number)  # noqa: B023 - within this turn
                victim.signal(signal.SIGKILL)
        async with gateway_processes(stage.folder, settings):
            done = await over(client, job)
            assert (done["status"], done["error"]["code"]) == ("failed", "interrupted")
            assert len(engine.seen) == 2


async def test_a_gateway_that_stood_still_charges_nothing_for_what_another_has_done(stage: Stage) -> None:
    engine, settings = stage.engine, stage.settings
    async with gateway_processes(stage.folder, settings) as (struck,), aiohttp.ClientSession(struck.url) as client:
        job = await order(client, sleep=1)
        await eventually(lambda: len(engine.seen) == 1)
        struck.signal(signal.SIGSTOP)
        async with gateway_processes(stage.folder, settings) as (other,), aiohttp.ClientSession(other.url) as second:
            done = await over(second, job)
            assert (done["status"], done["attempts"]) == ("succeeded", 2)
            struck.signal(signal.SIGCONT)
            await asyncio.sleep(2)
            assert await look(second, job) == done == await look(client, job)
            assert (await transcribed(second))[1] == 0.0001


async def test_an_answer_that_was_kept_is_charged_by_another_gateway_and_not_made_again(
    stage: Stage, postgres_server: PostgresServer
) -> None:
    """The gateway dies between the mark and the charge: as the row is then, without a record anywhere."""
    engine, settings = stage.engine, stage.settings
    async with gateway_processes(stage.folder, settings) as (one,), aiohttp.ClientSession(one.url) as client:
        job = await over(client, await order(client))
        await transcribed(client)
        postgres_server.psql(
            settings["DATABASE_URL"],
            "UPDATE aiservice.jobs SET state = 'running', lease_until = 0, finished_at = NULL;DELETE FROM \"AIUsage\"",
        )
        again = await over(client, job)
        assert (again["status"], again["request_id"]) == ("succeeded", job["request_id"])
        assert again["usage"] == job["usage"]
        await recorded(client, 1, 0.0001)
        assert (await result(client, job))[0] == 200
        assert len(engine.seen) == 1


async def test_a_gateway_that_stops_in_order_ends_its_jobs_or_hands_them_on(stage: Stage) -> None:
    engine, settings = stage.engine, stage.settings | {"GATEWAY_DRAIN_SECONDS": "2"}
    async with gateway_processes(stage.folder, settings) as (stopping,), aiohttp.ClientSession(stopping.url) as client:
        short = await order(client, sleep=1)
        long = await order(client, sleep=5)
        await eventually(lambda: len(engine.seen) == 2)
        stopping.signal(signal.SIGTERM)
        assert await stopping.ended() == 0
    async with gateway_processes(stage.folder, settings) as (other,), aiohttp.ClientSession(other.url) as client:
        done = await over(client, short), await over(client, long)
        assert [(job["status"], job["attempts"]) for job in done] == [("succeeded", 1), ("succeeded", 1)]
        assert len(engine.seen) == 3
        assert (await transcribed(client))[1] == 0.0002


async def test_jobs_outlive_a_restart_without_postgresql_and_redis(tmp_path: Path) -> None:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        settings = environment(tmp_path, GATEWAY_LEASE_SECONDS="1", GATEWAY_JOB_CONCURRENCY="1")
        async with gateway_processes(tmp_path, settings) as (first,), aiohttp.ClientSession(first.url) as client:
            jobs = [await order(client, sleep=1) for _ in range(2)]
            await eventually(lambda: len(engine.seen) == 1)
            first.signal(signal.SIGKILL)
        async with gateway_processes(tmp_path, settings) as (second,), aiohttp.ClientSession(second.url) as client:
            done = [await over(client, job) for job in jobs]
            assert [(job["status"], job["attempts"]) for job in done] == [("succeeded", 2), ("succeeded", 1)]
            await recorded(client, 2, 0.0002)


async def test_two_gateways_share_the_queue_and_do_each_job_once(stage: Stage) -> None:
    engine, settings = stage.engine, stage.settings | {"GATEWAY_JOB_CONCURRENCY": "3"}
    async with gateway_processes(stage.folder, settings, settings) as both, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(aiohttp.ClientSession(one.url)) for one in both]
        jobs = await asyncio.gather(*(order(clients[number % 2], sleep=0.1) for number in range(40)))
        done = [await over(clients[0], job) for job in jobs]
        assert {(job["status"], job["attempts"]) for job in done} == {("succeeded", 1)}
        assert len(engine.seen) == len({one.headers["x-request-id"] for one in engine.seen}) == 40
        await recorded(clients[0], 40, 0.004)


async def test_cancelling_at_another_gateway(stage: Stage) -> None:
    engine, settings = stage.engine, stage.settings
    async with (
        gateway_processes(stage.folder, settings, settings | {"GATEWAY_JOB_CONCURRENCY": "0"}) as (_, desk),
        aiohttp.ClientSession(desk.url) as client,
    ):
        job = await order(client, sleep=60)
        await eventually(lambda: len(engine.seen) == 1)
        async with client.delete(f"/v1/jobs/{job['id']}", headers=bearer()) as answer:
            assert answer.status == 200
        assert (await over(client, job))["status"] == "cancelled"
        await eventually(lambda: engine.disconnects == 1)


async def test_while_the_database_is_away(stage: Stage, postgres_server: PostgresServer) -> None:
    engine, settings = stage.engine, stage.settings
    async with gateway_processes(stage.folder, settings) as (one,), aiohttp.ClientSession(one.url) as client:
        job = await order(client, sleep=2)
        await eventually(lambda: len(engine.seen) == 1)
        postgres_server.stop(signal.SIGQUIT)
        async with client.post("/v1/jobs", json={"task": TASK, "request": {}}, headers=bearer()) as answer:
            assert answer.status == 503
            assert answer.headers["Retry-After"]
        async with client.get(f"/v1/jobs/{job['id']}", headers=bearer()) as answer:
            assert answer.status == 503
        await asyncio.sleep(2.5)  # the engine has answered
        postgres_server.launch()
        await asyncio.to_thread(postgres_server.wait)
        done = await over(client, job)
        assert (done["status"], done["attempts"]) == ("succeeded", 1)
        assert len(engine.seen) == 1

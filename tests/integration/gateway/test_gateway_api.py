"""The public API against real Redis, PostgreSQL and an engine behind it: every shape that is promised."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from starlette.datastructures import Headers

from aiservice_api.tasks import Task
from aiservice_gateway.cors import cors
from aiservice_gateway.services.upstream import response_headers
from support.databases import PostgresServer
from support.gateway import (
    SECRET,
    Engine,
    bearer,
    environment,
    gateway_here,
    running_engine,
    token,
    whisper,
    write_services,
)

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
SPEECH = "/api/speech-to-text"

BRIEF_SQL = """
SELECT service, COUNT(*) as count, SUM(tokens) as total_tokens
FROM "AIUsage"
WHERE "tenantId" = 'your-tenant-id'
  AND "createdAt" >= date_trunc('month', CURRENT_DATE)
GROUP BY service;
"""


@dataclass
class World:
    """Everything that a request meets."""

    client: aiohttp.ClientSession
    engine: Engine
    folder: Path
    database_url: str
    postgres: PostgresServer


@pytest.fixture
async def world(
    tmp_path: Path, redis_url: str, migrated_database: str, postgres_server: PostgresServer
) -> AsyncIterator[World]:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        variables = environment(tmp_path, REDIS_URL=redis_url, DATABASE_URL=migrated_database)
        async with gateway_here(variables) as client:
            yield World(client, engine, tmp_path, migrated_database, postgres_server)


async def test_a_request_in_json(world: World) -> None:
    async with world.client.post(SPEECH, json={"audio": "AAAA"}, headers=bearer()) as answer:
        assert answer.status == 200
        body = await answer.json()
    assert body["text"] == "hello"
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert answer.headers["X-AIService-Units"] == "2.5"
    assert answer.headers["x-ratelimit-limit"] == "100"
    assert answer.headers["x-ratelimit-remaining"] == "99"
    assert answer.headers["x-ratelimit-reset"] == "3600"
    assert "X-Internal" not in answer.headers
    [seen] = world.engine.seen
    assert seen.path == SPEECH
    assert seen.headers["x-request-id"] == body["request_id"]
    assert seen.headers["x-aiservice-unit-price"] == "0.00004"
    assert seen.headers["content-type"] == "application/json"
    assert "authorization" not in seen.headers


async def test_a_request_in_multipart(world: World) -> None:
    form = aiohttp.FormData()
    form.add_field("language", "en")
    form.add_field("file", b"RIFF" * 100_000, filename="a.wav", content_type="audio/wav")
    async with world.client.post(SPEECH, data=form, headers=bearer()) as answer:
        assert answer.status == 200
    [seen] = world.engine.seen
    assert seen.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert seen.body_bytes > 400_000


async def test_what_a_client_says_about_itself_is_not_believed(world: World) -> None:
    claims = {"X-Request-Id": "mine", "X-Tenant-Id": "other", "X-AIService-Unit-Price": "0", "Cookie": "a=b"}
    async with world.client.post(SPEECH, json={}, headers={**bearer(), **claims}) as answer:
        assert answer.headers["X-Request-Id"] != "mine"
    headers = world.engine.seen[0].headers
    assert headers["x-request-id"] == answer.headers["X-Request-Id"]
    assert headers["x-aiservice-unit-price"] == "0.00004"
    assert not {"x-tenant-id", "cookie", "authorization"} & set(headers)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "unauthenticated"),
        ({"Authorization": "Bearer nonsense"}, 401, "unauthenticated"),
        ({"Authorization": f"Bearer {token(lifetime=-60)}"}, 401, "unauthenticated"),
        ({"Authorization": f"Bearer {token(secret='0' + SECRET)}"}, 401, "unauthenticated"),
        ({"Authorization": f"Bearer {token(tenant='', lifetime=86400)}"}, 403, "no_tenant"),
    ],
)
@pytest.mark.parametrize("path", [SPEECH, "/api/text-to-image", "/api/usage?from=nonsense"])
async def test_without_a_good_token_nothing_is_told_and_nothing_read(
    world: World, headers: dict[str, str], status: int, code: str, path: str
) -> None:
    method = "GET" if "usage" in path else "POST"
    async with world.client.request(method, path, headers=headers) as answer:
        assert answer.status == status
        assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
        body = await answer.json()
    assert body == {"error": body["error"], "code": code, "request_id": answer.headers["X-Request-Id"]}
    assert body["error"].endswith(".")
    assert world.engine.seen == []


@pytest.mark.parametrize("task", [task for task in Task if task is not Task.SPEECH_TO_TEXT])
async def test_a_task_that_no_service_serves(world: World, task: Task) -> None:
    async with world.client.post(f"/api/{task}", json={}, headers=bearer()) as answer:
        assert answer.status == 404
        assert (await answer.json())["error"].startswith(f"No service here does {task}.")


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/nothing", 404, "nothing at this path"),
        ("POST", "/api/chess", 404, "nothing at this path"),
        ("GET", SPEECH, 405, "use POST"),
        ("POST", f"{SPEECH}?service=nobody", 404, "There are: whisper."),
        ("GET", "/api/usage?from=yesterday", 400, "from: "),
        ("GET", "/api/usage?from=2026-02-01&to=2026-01-01", 400, "ends before it starts"),
    ],
)
async def test_wrong_requests_are_answered_with_a_sentence(
    world: World, method: str, path: str, status: int, says: str
) -> None:
    async with world.client.request(method, path, headers=bearer()) as answer:
        assert answer.status == status
        body = await answer.json()
    assert says in body["error"]
    assert body["request_id"] == answer.headers["X-Request-Id"]


@pytest.mark.parametrize(
    "path", ["/api/text-to-speech/", "/api/usage/", "/v1/jobs/", "/v1/chat/completions/", "/health/"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_slash_at_the_end_leads_nowhere(world: World, method: str, path: str) -> None:
    """A redirect would name whatever host the client stated."""
    headers = {**bearer(), "Host": "evil.example.com"}
    async with world.client.request(method, path, headers=headers, allow_redirects=False) as answer:
        assert answer.status == 404
        assert "Location" not in answer.headers
        body = await answer.json()
    code = body["error"]["code"] if path.startswith("/v1/") else body["code"]
    assert code == "not_found"


async def test_a_service_is_chosen_by_name(world: World) -> None:
    async with running_engine() as other:
        write_services(
            world.folder / "services.yaml",
            whisper(world.engine.url, default=True),
            {"name": "big", "tasks": ["speech-to-text"], "url": other.url, "names": ["large"]},
        )
        async with asyncio.timeout(30):  # the file is looked at every second
            while True:
                async with world.client.post(f"{SPEECH}?service=large", json={}, headers=bearer()) as answer:
                    if answer.status == 200:
                        break
                await asyncio.sleep(0.1)
        async with world.client.post(SPEECH, json={}, headers=bearer()) as answer:
            assert (await answer.json())["text"] == "hello"
        assert len(other.seen) == 1
        assert len(world.engine.seen) == 1


async def test_an_empty_name_is_the_default(world: World) -> None:
    for query in ("?service=", "?service=whisper&service="):
        async with world.client.post(f"{SPEECH}{query}", json={}, headers=bearer()) as answer:
            assert (await answer.json())["text"] == "hello"


async def test_probes_answer_head_as_they_answer_get(world: World) -> None:
    async def head(path: str) -> int:
        async with world.client.get(path) as answer:
            status, size = answer.status, int(answer.headers["Content-Length"])
            assert len(await answer.read()) == size
        async with world.client.head(path) as answer:
            assert (answer.status, answer.content_type) == (status, "application/json")
            assert (int(answer.headers["Content-Length"]) == size) or path == "/health"  # the time that it took
            assert await answer.read() == b""
        return status

    assert [await head(path) for path in ("/livez", "/readyz", "/health")] == [200] * 3
    async with world.client.get("/metrics") as answer:
        assert 'requests_total{method="HEAD",route="/livez",status="200"} 1.0' in await answer.text()


async def test_health_has_the_guides_shape(world: World) -> None:
    async with world.client.get("/health") as answer:
        assert answer.status == 200
        body = await answer.json()
    assert list(body) == ["status", "services", "timestamp"]
    assert body["status"] == "healthy"
    assert TIMESTAMP.fullmatch(body["timestamp"])
    assert list(body["services"]) == ["speech-to-text"]
    assert list(body["services"]["speech-to-text"]) == ["status", "response_time"]
    assert body["services"]["speech-to-text"]["status"] == "healthy"
    assert 0 < body["services"]["speech-to-text"]["response_time"] < 2


async def test_health_does_not_pass_every_question_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiservice_gateway.services.health._FRESH_SECONDS", 3600.0)
    for _ in range(20):
        async with world.client.get("/health") as answer:
            assert answer.status == 200
    assert world.engine.probes == 1


async def test_health_says_when_a_service_is_not_ready(world: World) -> None:
    world.engine.ready = False
    async with world.client.get("/health") as answer:
        assert answer.status == 503
        body = await answer.json()
    assert body["status"] == "unhealthy"
    assert body["services"] == {"speech-to-text": {"status": "unhealthy", "response_time": None}}


async def test_usage_tells_what_was_used_and_what_is_left(world: World) -> None:
    for tenant, requests in (("acme", 3), ("other", 1)):
        for _ in range(requests):
            async with world.client.post(SPEECH, json={}, headers=bearer(tenant)) as answer:
                assert (await answer.json())["text"] == "hello"
    async with world.client.get("/api/usage", headers=bearer()) as answer:
        assert answer.status == 200
        body = await answer.json()
    assert body["tenantId"] == "acme"
    assert TIMESTAMP.fullmatch(body["period"]["from"])
    assert body["period"]["from"].endswith("-01T00:00:00.000Z")
    used = {"count": 3, "total_tokens": 21, "units": 7.5, "cost": 0.0003}
    assert body["services"] == {"speech-to-text": {**used, "unit": "audio-second"}}
    assert body["today"] == {"speech-to-text": used}
    assert set(body["limits"]) == set(Task)
    limit = body["limits"]["speech-to-text"]
    assert (limit["limit"], limit["remaining"], limit["window"]) == (100, 97, 3600)
    assert 3590 <= limit["reset"] <= 3600
    assert body["limits"]["text-to-image"] == {"limit": 100, "remaining": 100, "reset": 0, "window": 3600}


async def test_usage_of_a_period(world: World) -> None:
    async with world.client.post(SPEECH, json={}, headers=bearer()) as answer:
        assert (await answer.json())["text"] == "hello"
    for query, services in {
        "from=2020-01-01&to=2020-02-01": [],
        "from=2020-01-01": ["speech-to-text"],
        "from=2020-01-01T00:00:00%2B02:00&to=2999-12-31": ["speech-to-text"],
        "to=2020-02-15": [],
    }.items():
        async with world.client.get(f"/api/usage?{query}", headers=bearer()) as answer:
            assert answer.status == 200
            body = await answer.json()
        assert list(body["services"]) == services
    assert body["period"] == {"from": "2020-02-01T00:00:00.000Z", "to": "2020-02-15T00:00:00.000Z"}


async def test_the_guides_sql_runs_as_written(world: World) -> None:
    headers = bearer("your-tenant-id")
    for _ in range(2):
        async with world.client.post(SPEECH, json={}, headers=headers) as answer:
            assert (await answer.json())["text"] == "hello"
    async with world.client.get("/api/usage", headers=headers) as answer:  # waits for what was settled
        assert answer.status == 200
    assert world.postgres.psql(world.database_url, BRIEF_SQL) == "speech-to-text|2|14"
    columns = '"tenantId", "userId", service, model, tokens, units::float8, unit, cost, status, id = "requestId"'
    row = world.postgres.psql(world.database_url, f'SELECT {columns} FROM "AIUsage" LIMIT 1')
    assert row == ("your-tenant-id|user-1|speech-to-text|openai/whisper-tiny|7|2.5|audio-second|0.00010000|succeeded|t")


async def test_the_platforms_routes(world: World) -> None:
    async with world.client.get("/livez") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ok"})
    async with world.client.get("/readyz") as answer:
        dependencies = {"database": True, "discovery": True, "redis": True}
        assert await answer.json() == {"ready": True, "draining": False, "dependencies": dependencies}
    async with world.client.post(SPEECH, json={}, headers=bearer("secret-tenant")) as answer:
        assert (await answer.json())["text"] == "hello"
    async with world.client.get("/secret-path") as answer:
        assert answer.status == 404
    async with world.client.get("/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        text = await answer.text()
    assert 'aiservice_gateway_requests_total{method="POST",route="/api/speech-to-text",status="200"} 1.0' in text
    assert 'route="unmatched",status="404"} 1.0' in text
    assert 'aiservice_gateway_services_ready{service="whisper",task="speech-to-text"} 1.0' in text
    assert 'aiservice_gateway_dependency_up{dependency="redis"} 1.0' in text
    assert "secret" not in text


async def test_the_api_is_described(world: World) -> None:
    async with world.client.get("/openapi.json") as answer:
        document = await answer.json()
    assert document["openapi"].startswith("3.1")
    for task in Task:
        operation = document["paths"][f"/api/{task}"]["post"]
        assert operation["security"] == [{"HTTPBearer": []}]
        content = operation["requestBody"]["content"]
        assert set(content["application/json"]["example"]) <= set(content["application/json"]["schema"]["properties"])
        has_file = task in {Task.SPEECH_TO_TEXT, Task.IMAGE_TO_IMAGE, Task.IMAGE_TO_TEXT}
        assert ("multipart/form-data" in content) == has_file
        assert {"200", "401", "403", "404", "413", "429", "502", "503", "504"} <= set(operation["responses"])
        answer = operation["responses"]["200"]
        assert answer["content"]["application/json"]["example"]["usage"]["cost"] > 0
        by_itself = task in {Task.TEXT_TO_IMAGE, Task.IMAGE_TO_IMAGE, Task.TEXT_TO_SPEECH}
        assert ("406" in operation["responses"]) == (len(answer["content"]) > 1) == by_itself
        for name in answer.get("headers", {}):
            assert response_headers(Headers({name: "x"})), f"{name} does not reach clients"
            assert name in {"Vary", *cors(("*",))["expose_headers"]}, f"scripts of a page cannot read {name}"
    async with world.client.get("/docs") as answer:
        page = await answer.text()
    assert "//" not in re.sub(r"<!--.*?-->|// .*", "", page).replace("https://fastapi", "")
    for asset in re.findall(r'(?:src|href)="([^"]+)"', page):
        async with world.client.get(asset) as answer:
            assert answer.status == 200

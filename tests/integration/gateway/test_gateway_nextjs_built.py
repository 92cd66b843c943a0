"""examples/nextjs in an application that Next.js itself builds and serves, asked through to a real gateway."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from support.databases import free_port
from support.gateway import (
    SECRET,
    Engine,
    environment,
    eventually,
    gateway_process,
    running_engine,
    token,
    whisper,
    write_services,
)
from support.nextjs import APPLICATION, EXAMPLE, NextApplication

ROUTE = "/api/ai/speech-to-text"
ANN = {"session": token(lifetime=86400, sub="ann")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NextApplication]:
    application = NextApplication(tmp_path_factory.mktemp("nextjs") / "app")
    printed = application.build()
    assert "ƒ /api/ai/[task]" in printed  # made for each request, not once at the build
    yield application
    shutil.rmtree(application.folder)  # which pytest would keep for three runs


@dataclass
class World:
    """The application, served; and what is behind it."""

    browser: aiohttp.ClientSession
    engine: Engine


@pytest.fixture
async def world(built: NextApplication, tmp_path: Path) -> AsyncIterator[World]:
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        async with gateway_process(tmp_path, environment(tmp_path, GATEWAY_RATE_LIMIT_PER_HOUR="3")) as gateway:
            settings = {"AI_GATEWAY_URL": gateway.url, "USE_AI_GATEWAY": "true", "JWT_SECRET": SECRET}
            async with built.serving(settings) as url, aiohttp.ClientSession(url, cookies=ANN) as browser:
                yield World(browser, engine)


def test_the_application_has_what_the_example_asks_for() -> None:
    application, example = (json.loads((folder / "package.json").read_text()) for folder in (APPLICATION, EXAMPLE))
    assert application["dependencies"].items() >= example["dependencies"].items()


async def test_requests_go_through_to_the_service_and_count(world: World) -> None:
    form = aiohttp.FormData()
    form.add_field("file", io.BytesIO(b"R" * 20_000_000), filename="a.wav")
    async with world.browser.post(ROUTE, data=form) as answer:
        body = await answer.json()
        assert (answer.status, body["text"]) == (200, "hello")
        assert answer.headers["x-request-id"] == body["request_id"]
        assert answer.headers["x-ratelimit-remaining"] == "2"
        assert "x-aiservice-units" not in answer.headers
    [seen] = world.engine.seen
    assert seen.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert seen.body_bytes > 20_000_000
    async with world.browser.get("/") as answer:
        assert (answer.status, "speech-to-text: 1" in await answer.text()) == (200, True)
    for expected in (200, 200, 429):
        async with world.browser.post(ROUTE, json={}) as answer:
            body = await answer.json()
            assert answer.status == expected
    assert body == {"error": "Rate limit exceeded", "retry_after": int(answer.headers["retry-after"])}


async def test_who_is_not_signed_in_gets_nothing(world: World) -> None:
    world.browser.cookie_jar.clear()
    async with world.browser.post(ROUTE, json={}) as answer:
        assert (answer.status, await answer.json()) == (401, {"error": "Sign in first."})
    async with world.browser.get("/") as answer:
        assert "Sign in first." in await answer.text()
    async with world.browser.post("/api/ai/chess", json={}) as answer:
        assert answer.status == 404
    async with world.browser.get(ROUTE) as answer:
        assert answer.status == 405
    assert world.engine.seen == []


async def test_an_answer_is_passed_on_while_it_is_made(world: World) -> None:
    began = time.monotonic()
    async with world.browser.post(ROUTE, json={"do": {"chunks": 4, "pause": 1.0}}) as answer:
        assert await answer.content.readexactly(1000) == b"x" * 1000
        assert time.monotonic() - began < 3  # of four seconds
        assert len(await answer.read()) == 3000
    assert answer.headers["content-type"] == "audio/wav"


async def test_a_browser_that_goes_away_ends_the_work(world: World) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2), world.browser.post(ROUTE, json={"do": {"sleep": 60}}):
            pass
    await eventually(lambda: world.engine.disconnects)


async def test_without_a_gateway(built: NextApplication) -> None:
    settings = {
        "AI_GATEWAY_URL": f"http://127.0.0.1:{free_port()}",
        "USE_AI_GATEWAY": "true",
        "JWT_SECRET": SECRET,
    }
    async with (
        built.serving(settings) as url,
        aiohttp.ClientSession(url, cookies=ANN) as browser,
        browser.post(ROUTE, json={}) as answer,
    ):
        assert (answer.status, await answer.json()) == (503, {"error": "AI is not available at the moment."})


async def test_a_gateway_that_breaks_off(built: NextApplication) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        settings = {
            "AI_GATEWAY_URL": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",
            "USE_AI_GATEWAY": "true",
            "JWT_SECRET": SECRET,
        }
        async with (
            built.serving(settings) as url,
            aiohttp.ClientSession(url, cookies=ANN) as browser,
            browser.post(ROUTE, json={}) as answer,
        ):
            assert (answer.status, await answer.json()) == (502, {"error": "The answer got lost. Try again later."})

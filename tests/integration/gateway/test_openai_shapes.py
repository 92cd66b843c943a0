"""What no client library sends: hostile forms and JSON, wrong methods and types. Each is answered in OpenAI's shape."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.contract import Contract, running_contract, services
from support.gateway import bearer, environment, gateway_here, write_services

FORM = "multipart/form-data; boundary=b"
JSON = "application/json"
LARGEST = 4 * 1024 * 1024
HEARING = "/v1/audio/transcriptions"


@dataclass
class World:
    client: aiohttp.ClientSession
    engine: Contract
    url: str


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running_contract() as engine:
        write_services(tmp_path / "services.yaml", *services(engine.url))
        variables = environment(tmp_path, GATEWAY_MAX_BODY_BYTES=str(LARGEST), GATEWAY_UPSTREAM_TIMEOUT_SECONDS="3")
        async with gateway_here(variables) as client:
            yield World(client, engine, str(client._base_url).rstrip("/"))


async def refused(world: World, method: str, path: str, status: int, **request: Any) -> dict[str, Any]:
    """Sends a request that must be refused with a status; returns the error."""
    headers = {**bearer(), **request.pop("headers", {})}
    async with world.client.request(method, path, headers=headers, **request) as answer:
        body = await answer.json()
        assert answer.status == status, body
        assert answer.headers["x-request-id"]
    assert body.keys() == {"error"}
    error: dict[str, Any] = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"].endswith(".") or status == 429
    return error


def text(name: str, value: str = "", more: str = "") -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}\r\n'.encode()


def file(content: str = "RIFF", name: str = "a.wav") -> bytes:
    return text("file", content, f'; filename="{name}"')


NESTED = file("--c\r\nContent-Disposition: file; filename=x\r\n\r\nRIFF\r\n--c--").replace(
    b"\r\n\r\n--c", b"\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c", 1
)
END = b"--b--\r\n"
MODEL = text("model", "whisper")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"", 400, None),
        (MODEL + file()[:-2], 400, None),
        (MODEL + file(), 400, None),
        (b"--x\r\n\r\n--x--", 400, None),
        (text("include[]") * 10_000 + END, 400, None),
        (MODEL + file() + text("include[]") * 10_000 + END, 400, None),
        (text("language", "x" * 2_000_000) + END, 413, None),
        (MODEL + text("model", "whisper") + file() + END, 400, "model"),
        (MODEL + file() + MODEL + END, 400, "model"),
        (text("model", "whisper", '; filename="m"') + file() + END, 400, "model"),
        (MODEL + END, 400, "file"),
        (MODEL + file() + text("prompt", "Ada") + END, 400, "prompt"),
        (MODEL + file() + text("\x01\u2603") + END, 400, "\x01\u2603"),
        (text("model", "no\r\nsuch") + file() + END, 404, None),
        (MODEL + file("x" * (LARGEST + 10)) + END, 413, None),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_hostile_forms(world: World, body: bytes, status: int, param: str | None, *, chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 50_000):
            yield body[at : at + 50_000]

    try:
        error = await refused(
            world,
            "POST",
            HEARING,
            status,
            data=pieces() if chunked else io.BytesIO(body),
            headers={"Content-Type": FORM},
        )
    except aiohttp.ClientConnectionError:
        assert status == 413  # the connection was closed while the client was still sending
        return
    assert error["param"] == param
    assert error["code"]
    assert world.engine.sent == []
    async with world.client.get("/api/usage", headers=bearer()) as answer:
        usage = await answer.json()
    assert usage["services"] == {}
    assert usage["limits"]["speech-to-text"]["remaining"] == 100


@pytest.mark.parametrize("name", ["a%0D%0AContent-Type: x", "../../etc/passwd", "ünïcode.wav", ""])
async def test_names_of_files_and_nested_forms_are_not_passed_on(world: World, name: str) -> None:
    for part in (file(name=name), NESTED):
        headers = {**bearer(), "Content-Type": FORM}
        async with world.client.post(HEARING, data=MODEL + part + END, headers=headers) as answer:
            assert answer.status == 200
    assert world.engine.sent[0].files == {"file": b"RIFF"}
    assert world.engine.sent[1].files["file"].startswith(b"--c")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1", 404, "not_found"),
        ("GET", "/v1/", 404, "not_found"),
        ("POST", "/v1/embeddings", 404, "not_found"),
        ("GET", "/v1/models/a/b/c", 404, "model_not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models/whisper", 405, "method_not_allowed"),
    ],
)
async def test_paths_and_methods(world: World, method: str, path: str, status: int, code: str) -> None:
    assert (await refused(world, method, path, status))["code"] == code


@pytest.mark.parametrize(
    ("data", "content_type", "status", "code"),
    [
        (b"", JSON, 400, "invalid_request"),
        (b"{", JSON, 400, "invalid_request"),
        (b"[" * 200_000, JSON, 400, "invalid_request"),
        (b'{"a":' * 200_000, JSON, 400, "invalid_request"),
        (b'"text"', JSON, 400, "invalid_request"),
        (b'{"prompt": "\xff"}', JSON, 400, "invalid_request"),
        (b'{"prompt": "\\ud800"}', JSON, 400, "invalid_request"),
        (b'{"prompt": "a", "n": 1e400}', JSON, 400, "invalid_request"),
        (b'{"prompt": "a", "n": 99999999999999999999}', JSON, 400, "invalid_value"),
        (b'{"prompt": "' + b"a" * 1_100_000 + b'"}', JSON, 413, "payload_too_large"),
        (b'{"prompt": "a"}', "text/plain", 415, "unsupported_media"),
        (b'{"prompt": "a"}', FORM, 415, "unsupported_media"),
        (b'{"prompt": "a", "model": 5}', JSON, 400, "invalid_value"),
        (b'{"prompt": "a", "model": ""}', JSON, 404, "model_not_found"),
    ],
)
async def test_json_that_is_none(world: World, data: bytes, content_type: str, status: int, code: str) -> None:
    error = await refused(
        world, "POST", "/v1/images/generations", status, data=io.BytesIO(data), headers={"Content-Type": content_type}
    )
    assert error["code"] == code
    assert world.engine.sent == []


async def test_without_a_token_nothing_is_read(world: World) -> None:
    error = await refused(world, "POST", HEARING, 401, data=b"nonsense", headers={"Authorization": "Bearer x"})
    assert error["code"] == "invalid_api_key"


async def test_a_compressed_body(world: World) -> None:
    headers = {"Content-Type": JSON, "Content-Encoding": "gzip"}
    await refused(world, "POST", "/v1/images/generations", 415, data=b"{}", headers=headers)


async def test_a_body_that_is_declared_too_large(world: World) -> None:
    host, port = world.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {HEARING} HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGEST + 1}\r\n"
    writer.write(f"{head}Authorization: {bearer()['Authorization']}\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "payload_too_large"


@pytest.mark.parametrize("sent", [b"", MODEL, MODEL + file()[:-20], b"--b\r\nContent-Dispos"])
async def test_a_body_that_does_not_come(world: World, sent: bytes) -> None:
    host, port = world.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {HEARING} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nContent-Type: {FORM}\r\n"
    writer.write(f"{head}Authorization: {bearer()['Authorization']}\r\n\r\n".encode() + sent)
    answer = await reader.readuntil(b"}}")
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"


async def test_the_native_routes_keep_their_shape(world: World) -> None:
    async with world.client.get("/api/nothing", headers=bearer()) as answer:
        assert (await answer.json()).keys() == {"error", "code", "request_id"}


def is_openais(item: dict[str, Any]) -> bool:
    """Whether a path of the description is one of OpenAI's; jobs are the gateway's own."""
    return any("OpenAI-compatible" in operation["tags"] for operation in item.values())


async def test_the_description_has_every_route_with_an_example(world: World) -> None:
    async with world.client.get("/openapi.json") as answer:
        document = await answer.json()
    described = {path: item for path, item in document["paths"].items() if is_openais(item)}
    assert sorted(described) == [
        "/v1/audio/speech",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/chat/completions",
        "/v1/images/edits",
        "/v1/images/generations",
        "/v1/models",
        "/v1/models/{model}",
    ]
    for item in described.values():
        for operation in item.values():
            assert {"200", "401", "403", "503"} <= operation["responses"].keys()
            for each in operation.get("requestBody", {"content": {}})["content"].values():
                assert each["example"].keys() <= each["schema"]["properties"].keys()
            for response in operation["responses"].values():
                assert all("example" in each for each in response["content"].values())


async def test_the_examples_of_the_description_are_answered(world: World) -> None:
    async with world.client.get("/openapi.json") as answer:
        document = await answer.json()
    for path, item in document["paths"].items():
        if not is_openais(item) or "post" not in item:
            continue
        [(kind, each)] = item["post"]["requestBody"]["content"].items()
        body: Any = {"json": each["example"]}
        if kind != JSON:
            file = "image" if "images" in path else "file"
            form = aiohttp.FormData({name: value for name, value in each["example"].items() if name != file})
            form.add_field(file, b"bytes", filename="x")
            body = {"data": form}
        async with world.client.post(path, headers=bearer(), **body) as response:
            assert response.status == 200, await response.text()
            assert response.content_type in item["post"]["responses"]["200"]["content"]

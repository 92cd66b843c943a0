"""The description that a process serves of itself, held to what the process does."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from aiservice_runtime import Answer, FileBody, Prepared, RequestBody, Task, openapi
from support.openapi import check_examples, check_refusal, described, operations
from support.toy_engine import FACTS, FILES, ToyBody, ToyEngine
from support.toy_service import PATH, StartToy, Toy

DOCS = Path(__file__).parents[3] / "docs" / "inference.md"


def client(toy: Toy) -> httpx.Client:
    return httpx.Client(base_url=toy.client.base_url, timeout=20)


async def test_every_example_is_answered_as_described(start_toy: StartToy) -> None:
    toy = await start_toy()
    with client(toy) as own:
        done = await asyncio.to_thread(check_examples, own)
        await asyncio.to_thread(check_refusal, own, PATH)
    assert len(done) == (4 + 5) * 2  # the examples of two tasks, JSON and form


async def test_it_is_there_while_the_model_loads(start_toy: StartToy) -> None:
    engine = ToyEngine()
    engine.load_gate.clear()
    toy = await start_toy(engine, wait=False)
    with client(toy) as own:
        document = await asyncio.to_thread(described, own)
    assert (await toy.client.get("/ready")).json() == {"status": "loading"}
    assert set(operations(document)) == {"/api/speech-to-text", "/api/image-to-text"}


async def test_every_route_is_described(start_toy: StartToy) -> None:
    toy = await start_toy(tasks=("speech-to-text",))
    document = (await toy.client.get("/openapi.json")).json()
    paths = {(method, path) for path, item in document["paths"].items() for method in item}
    assert paths == {
        ("post", "/api/speech-to-text"),
        ("post", "/sleep"),
        ("post", "/wake"),
        *(("get", path) for path in ("/health", "/ready", "/metrics", "/openapi.json")),
    }
    for method, path in paths:
        if path.startswith("/api/"):
            continue
        answer = await toy.client.request(method, path)
        told = document["paths"][path][method]["responses"][str(answer.status_code)]["content"]
        assert answer.headers["content-type"].partition(";")[0] in told


def made(body: type[RequestBody] = ToyBody) -> dict[str, Any]:
    task = Task(
        "image-to-text",
        "image",
        body,
        lambda _: Prepared([1], lambda _: Answer({}, 1, 1)),
        lambda works, _: works,
        files=FILES if issubclass(body, FileBody) else {},
        facts=FACTS,
    )
    return openapi.document([task])


def test_a_form_has_files_texts_and_the_alias() -> None:
    form = made()["components"]["schemas"]["ToyBodyForm"]
    fields = form["properties"]
    assert fields["file"]["contentMediaType"] == fields["mask"]["contentMediaType"] == "application/octet-stream"
    assert "anyOf" not in fields["say"], "a form has no null"
    assert fields["tags"]["contentSchema"]["type"] == "array"
    assert form["oneOf"] == [{"required": ["file"]}, {"required": ["audio"]}]
    assert "audio" not in form.get("required", [])


def test_the_text_below_a_field_describes_it() -> None:
    fields = made()["components"]["schemas"]["ToyBody"]["properties"]
    assert fields["n"]["description"] == "How many results."
    assert fields["audio"] == {"type": "string", "contentEncoding": "base64"}
    assert "title" not in fields["n"]


def test_errors_are_those_of_the_documentation() -> None:
    section = DOCS.read_text().partition("### Errors")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| (\d{3})[^|]*\| `(\w+)` \|", section, re.MULTILINE))
    document = made()
    told = {
        (status, code)
        for item in document["paths"].values()
        for operation in item.values()
        for status, response in operation["responses"].items()
        for code in response.get("content", {}).get("application/json", {}).get("examples", {})
        if status != "200"
    }
    assert told == documented


async def test_only_a_task_with_files_looks_at_accept(start_toy: StartToy) -> None:
    toy = await start_toy()
    document = (await toy.client.get("/openapi.json")).json()
    told = {path: operation["responses"] for path, operation in operations(document).items()}
    assert "406" not in told["/api/speech-to-text"]
    assert "406" in told["/api/image-to-text"]
    names = {"Vary", "X-AIService-Format", "X-AIService-Said"}
    assert names & set(told["/api/speech-to-text"]["200"]["headers"]) == set()
    assert names <= set(told["/api/image-to-text"]["200"]["headers"])


@pytest.mark.parametrize("status", ["400", "406", "413", "415", "500", "503"])
def test_a_refusal_that_may_be_tried_again_says_when(status: str) -> None:
    response = made()["paths"]["/api/image-to-text"]["post"]["responses"][status]
    assert ("Retry-After" in response["headers"]) == (status == "503")

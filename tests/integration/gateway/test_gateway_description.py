"""The OpenAPI description, operation by operation: examples of everything, and the answers that there are."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from aiservice_api.tasks import Task
from support.gateway import environment, gateway_here, write_services

Document = dict[str, Any]
JSON = "application/json"
STATES = {"/health", "/readyz"}
"""Their 503 is no error."""
ASKING = {"401", "403", "503"}
KEY = {"409", "410", "422"}
"""Answers where an idempotency key was sent."""
FORWARDED = ASKING | KEY | {"400", "404", "408", "413", "415", "429", "502", "504"}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Document:
    return asyncio.run(described(tmp_path_factory.mktemp("description")))


async def described(folder: Path) -> Document:
    write_services(folder / "services.yaml")
    async with gateway_here(environment(folder)) as client, client.get("/openapi.json") as answer:
        found: Document = await answer.json()
    return found


@pytest.fixture
def operations(document: Document) -> dict[str, Document]:
    """By method and path."""
    items = document["paths"].items()
    return {f"{method.upper()} {path}": operation for path, item in items for method, operation in item.items()}


def examples(media: Document) -> list[Any]:
    named = [example["value"] for example in media.get("examples", {}).values()]
    return [media["example"], *named] if "example" in media else named


def parts(operation: Document) -> list[tuple[str, Document]]:
    """All that an operation takes and answers, and what it is called in messages."""
    found = [(status, answer) for status, answer in operation["responses"].items()]
    return [*found, ("request", operation["requestBody"])] if "requestBody" in operation else found


def test_everything_that_is_sent_has_examples_that_fit(document: Document, operations: dict[str, Document]) -> None:
    bare = [
        f"{name}: {part}"
        for name, operation in operations.items()
        for part, described in parts(operation)
        if not described.get("content") or not all(map(examples, described["content"].values()))
    ]
    assert bare == []
    for operation in operations.values():
        for _, described in parts(operation):
            for media in described["content"].values():
                schema = {**media.get("schema", {}), "components": document["components"]}
                for example in examples(media):
                    jsonschema_rs.Draft202012Validator(schema).validate(example)


def test_no_answer_is_described_that_never_comes(document: Document) -> None:
    """FastAPI would add its own 422."""
    assert document["openapi"].startswith("3.1")
    assert "ValidationError" not in json.dumps(document)


def test_whoever_asks_for_a_token_says_so(operations: dict[str, Document]) -> None:
    asking = {name for name in operations if " /api/" in name or " /v1/" in name}
    assert len(asking) > 20
    for name in asking:
        assert operations[name]["security"] == [{"HTTPBearer": []}]
        assert set(operations[name]["responses"]) >= ASKING, name
    assert [name for name in operations if name not in asking and "security" in operations[name]] == []


def test_whoever_can_be_asked_wrongly_answers_400(operations: dict[str, Document]) -> None:
    for name, operation in operations.items():
        taken = {parameter["in"] for parameter in operation.get("parameters", [])}
        if "query" in taken or "requestBody" in operation:
            assert "400" in operation["responses"], name


def test_what_is_forwarded_can_fail_in_every_way(operations: dict[str, Document]) -> None:
    names = [f"POST /api/{task}" for task in Task] + [name for name in operations if name.startswith("POST /v1/")]
    for name in names:
        if "/jobs" not in name:
            assert set(operations[name]["responses"]) >= FORWARDED, name
    assert set(operations["POST /v1/jobs"]["responses"]) >= FORWARDED - {"502", "504"}


def test_idempotency_keys_are_described_where_they_are_taken(operations: dict[str, Document]) -> None:
    for name, operation in operations.items():
        header = [each for each in operation.get("parameters", []) if each["in"] == "header"]
        taken = name.startswith("POST ") and "{" not in name
        assert [each["name"] for each in header] == ["Idempotency-Key"] * taken, name
        if taken:
            assert set(operation["responses"]) >= KEY
            jsonschema_rs.validate(header[0]["schema"], header[0]["example"])


def test_every_error_is_shown_in_its_routes_shape(operations: dict[str, Document]) -> None:
    for name, operation in operations.items():
        path = name.split()[1]
        for status, answer in operation["responses"].items():
            if status.startswith("2") or path in STATES:
                continue
            [shown] = examples(answer["content"][JSON])
            required = answer["content"][JSON]["schema"]["required"]
            if path.startswith("/v1/"):
                assert shown.keys() == {"error"}
                assert shown["error"].keys() == {"message", "type", "param", "code"}, (name, status)
            else:
                keys = {"error", "retry_after"} if status == "429" else {"error", "code", "request_id"}
                assert shown.keys() == set(required) == keys, (name, status)

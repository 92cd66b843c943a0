"""Holds a running service to its own /openapi.json: every example is sent, and every answer must be as described."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import httpx
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

JSON, FORM, EVENTS = "application/json", "multipart/form-data", "text/event-stream"

Document = dict[str, Any]


def described(client: httpx.Client) -> Document:
    """Returns the service's document, which must be proper OpenAPI 3.1, with examples that fit their schemas."""
    answer = client.get("/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, JSON)
    document: Document = answer.json()
    OpenAPIV31SpecValidator(document).validate()
    for operation in operations(document).values():
        for part in (operation["requestBody"], *operation["responses"].values()):
            for media in part["content"].values():
                for example in media.get("examples", {}).values():
                    validate(document, media["schema"], example["value"])
    return document


def operations(document: Document) -> dict[str, Document]:
    """Returns what is described of each task, by its path."""
    return {path: item["post"] for path, item in document["paths"].items() if path.startswith("/api/")}


def check_examples(client: httpx.Client) -> list[str]:
    """Sends every example as JSON and as a form. Returns which were answered, as described, with status 200."""
    document = described(client)
    done = []
    for path, operation in operations(document).items():
        content = operation["requestBody"]["content"]
        media = _media_fields(document, content[JSON]["schema"])
        for name, example in content[JSON]["examples"].items():
            sent = example["value"]
            form = content[FORM]["examples"][name]["value"]
            accept = {"Accept": _accept(operation, name)}
            for kind, arguments in ((JSON, {"json": sent}), (FORM, _as_form(sent, form, media))):
                answer = client.post(path, headers=accept, **arguments)
                assert answer.status_code == 200, f"{path} {name} as {kind}: {answer.text[:500]}"
                _check_answer(document, operation, answer)
                done.append(f"{path} {name} {kind}")
    return done


def _accept(operation: Document, name: str) -> str:
    """What gets the answer that is shown to an example: its media type, where that is a picture's or a sound's."""
    content = operation["responses"]["200"]["content"]
    [media_type] = [kind for kind, media in content.items() if name in media.get("examples", {})]
    return str(media_type) if media_type.startswith(("image/", "audio/")) else "*/*"


def check_refusal(client: httpx.Client, path: str) -> None:
    """Sends what no task takes, and checks that the refusal is as described."""
    document = described(client)
    for status, arguments in ((400, {"json": {"no such field": 1}}), (415, {"content": b"x"})):
        answer = client.post(path, **arguments)
        assert answer.status_code == status
        schema = operations(document)[path]["responses"][str(status)]["content"][JSON]["schema"]
        validate(document, schema, answer.json())


def validate(document: Document, schema: Document, value: Any) -> None:
    """Fails unless a value is what a schema says, with no key that it does not name."""
    parts = copy.deepcopy(document["components"]["schemas"])
    for part in parts.values():
        if "properties" in part:
            part.setdefault("additionalProperties", False)
    OAS31Validator({**schema, "components": {"schemas": parts}}).validate(value)


def _check_answer(document: Document, operation: Document, answer: httpx.Response) -> None:
    told = operation["responses"]["200"]
    kind = answer.headers["content-type"].partition(";")[0]
    schema = told["content"][kind]["schema"]
    if kind == EVENTS:
        for event in answer.text.strip().split("\n\n"):
            validate(document, schema["x-event-data"], json.loads(event.removeprefix("data: ")))
    else:
        validate(document, schema, answer.json() if kind == JSON else answer.text)
    missing = {name for name in told["headers"] if name not in answer.headers}
    facts = {name for name, header in told["headers"].items() if "$ref" not in header}
    itself = kind.startswith(("image/", "audio/"))
    streamed = "content-length" not in answer.headers
    assert facts & missing <= ({"X-AIService-Voice", "X-AIService-Audio-Seconds"} if itself else facts)
    assert ("X-AIService-Device-Seconds" in missing) == streamed
    assert missing - facts - {"X-AIService-Device-Seconds"} <= {"X-AIService-Cost"} | (
        {"X-AIService-Tokens"} if streamed else set()
    ), "there was no price, and the tokens of a stream may not be known before it begins"


def _media_fields(document: Document, schema: Document) -> set[str]:
    body = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return {name for name, field in body["properties"].items() if '"contentEncoding": "base64"' in json.dumps(field)}


def _as_form(sent: Document, form: Document, media: set[str]) -> dict[str, Any]:
    """The arguments of a request: the example's form, with the files of the same example in JSON."""
    [alias] = set(form) - set(sent) or {""}
    files = {
        alias if name not in form else name: ("upload", base64.b64decode(sent[name])) for name in media if name in sent
    }
    texts = {name: _as_text(value) for name, value in form.items() if name not in files}
    if files:
        return {"files": files, "data": texts}
    return {"files": {name: (None, text) for name, text in texts.items()}}  # httpx makes a form of parts only


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

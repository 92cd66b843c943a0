"""The description of a process's HTTP API that it serves at /openapi.json: OpenAPI 3.1, made of its tasks.

Bodies come from the tasks' Pydantic models, errors from their classes, examples from the tasks. Nothing here knows an
engine, and nothing is read at run time: the document is the same as long as the process lives.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from aiservice_runtime.engine import Example, RequestBody, Shape, Task, Usage
from aiservice_runtime.errors import (
    ConflictError,
    InternalError,
    InvalidRequestError,
    NotAcceptableError,
    NotReadyError,
    OutOfMemoryError,
    OverloadedError,
    PayloadTooLargeError,
    RequestError,
    UnsupportedMediaError,
)

JSON, FORM = "application/json", "multipart/form-data"
VERSION = "1"
"""Of the API, not of the image: it counts up when clients have to change."""

Schema = dict[str, Any]
Tasks = Iterable[Task[Any, Any, Any]]

_REQUEST_ERRORS: Sequence[tuple[type[RequestError], str]] = (
    (InvalidRequestError, "The request can never succeed as it is."),
    (PayloadTooLargeError, "Over the limit of bytes, seconds of audio or pixels."),
    (UnsupportedMediaError, "The body is neither JSON nor multipart."),
    (InternalError, "A defect; the service's log has the details."),
    (OverloadedError, "All places are taken, or there was no answer in time."),
    (OutOfMemoryError, "The device has no room for this request, even alone."),
    (NotReadyError, "Loading, asleep or draining."),
)
_FORM_ERRORS: Sequence[tuple[type[RequestError], str]] = (
    (NotAcceptableError, "Accept takes none of the forms that the answer can have."),
)
"""Of tasks whose answers have several forms that Accept chooses between."""
_STATE_ERRORS: Sequence[tuple[type[RequestError], str]] = (
    (ConflictError, "Not in a state in which it can be done."),
    (OverloadedError, "The device has no room now, or the process is stopping."),
)
_REQUEST_ID = "3f0c2d8e7a5b4c1f9e6d8a7b0c1d2e3f"
_FILE = "(the bytes of the file)"


def document(tasks: Tasks) -> dict[str, Any]:
    """Returns the OpenAPI document of these tasks, JSON-ready."""
    tasks = list(tasks)
    names = ", ".join(task.name for task in tasks)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AIService inference",
            "version": VERSION,
            "description": f"Serves {names}. Every path is on each port of the process.",
        },
        "paths": {**{f"/api/{task.name}": {"post": _operation(task)} for task in tasks}, **_process_paths()},
        "components": {"schemas": _schemas(tasks), "headers": _HEADERS, "parameters": _PARAMETERS},
    }


class _Untitled(GenerateJsonSchema):
    """Leaves out titles that only repeat the name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Says no: the key is the title."""
        return False


def _schemas(tasks: Tasks) -> dict[str, Schema]:
    """Every model by name, for requests and answers alike; the bodies of forms have a schema of their own."""
    bodies = list(dict.fromkeys(task.body for task in tasks))
    answers = [model for task in tasks for shape in task.answers for model in _models(shape)]
    models: list[type[BaseModel]] = list(dict.fromkeys([*bodies, *answers, Usage]))
    _, found = models_json_schema(
        [(model, "validation") for model in models],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Untitled,
    )
    definitions: dict[str, Schema] = found["$defs"]
    asked = {name for body in bodies for name in _reached(_ref(body), definitions)}
    for name in definitions.keys() - asked:
        _leave_out(definitions[name])
    forms = {_form_name(body): _form(body, definitions[body.__name__]) for body in bodies}
    return {**definitions, **forms, "Error": _ERROR, "Status": _STATUS}


def _models(shape: Shape) -> Iterator[type[BaseModel]]:
    if shape.body is not None:
        yield shape.body
    yield from shape.events


def _reached(schema: Any, definitions: Mapping[str, Schema]) -> Iterator[str]:
    """The names of all definitions that a schema refers to, over however many steps."""
    if isinstance(schema, list):
        for part in schema:
            yield from _reached(part, definitions)
    elif isinstance(schema, dict):
        reference = schema.get("$ref")
        if isinstance(reference, str):
            name = reference.rpartition("/")[2]
            yield name
            yield from _reached(definitions[name], definitions)
        for part in schema.values():
            yield from _reached(part, definitions)


def _leave_out(schema: Schema) -> None:
    """Tells of an answer's fields without a value that they are left out, not null (see Described)."""
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        if name not in required and field.get("default", ...) is None:
            schema["properties"][name] = _not_null({key: value for key, value in field.items() if key != "default"})


def _not_null(schema: Schema) -> Schema:
    """The schema without null as a choice."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) != 1:
        return schema
    return {**choices[0], **{key: value for key, value in schema.items() if key not in {"anyOf", "default"}}}


def _form(body: type[RequestBody], schema: Schema) -> Schema:
    """The same fields as parts of a form: media are files, lists are JSON texts, and null is to leave it out."""
    parts = {name: _part(field) for name, field in schema["properties"].items()}
    form = {**schema, "properties": parts, "description": f"{body.__name__} as a form."}
    required = [name for name in schema.get("required", ()) if name != body.file_field]
    form.pop("required", None)
    if required:
        form["required"] = required
    if body.file_field is not None:
        alias = {**parts[body.file_field], "description": f"The same as `{body.file_field}`; send one of them."}
        form["properties"] = {"file": alias, **parts}
        both = [{"required": ["file"]}, {"required": [body.file_field]}]
        form |= {"oneOf": both} if body.file_field in schema.get("required", ()) else {"not": {"allOf": both}}
    return form


def _part(field: Schema) -> Schema:
    field = _not_null(field)
    if field.get("contentEncoding") == "base64":
        rest = {key: value for key, value in field.items() if key != "contentEncoding"}
        return {**rest, "contentMediaType": "application/octet-stream"}
    if field.get("type") in {"array", "object"} or "$ref" in field:
        told = {"description": field["description"]} if "description" in field else {}
        return {"type": "string", "contentMediaType": JSON, "contentSchema": field, **told}
    return field


def _operation(task: Task[Any, Any, Any]) -> dict[str, Any]:
    errors = [*_REQUEST_ERRORS, *(_FORM_ERRORS if task.files else ())]
    return {
        "operationId": task.name,
        "summary": f"{task.name}, counted in {task.unit}",
        **({"description": _NEGOTIATED} if task.files else {}),
        "tags": ["tasks"],
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in _PARAMETERS],
        "requestBody": {
            "required": True,
            "content": {
                JSON: _content(_ref(task.body), {each.name: _shown(each, each.request) for each in task.examples}),
                FORM: _content(
                    {"$ref": f"#/components/schemas/{_form_name(task.body)}"},
                    {each.name: _shown(each, _form_example(task.body, each)) for each in task.examples},
                ),
            },
        },
        "responses": {"200": _answered(task), **_failures(errors)},
    }


def _form_example(body: type[RequestBody], example: Example) -> dict[str, Any]:
    media = body.media_fields()
    return {
        "file" if name == body.file_field else name: _FILE if name in media else _in_form(value)
        for name, value in example.request.items()
    }


def _in_form(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value


def _answered(task: Task[Any, Any, Any]) -> dict[str, Any]:
    fewer = "" if task.stream is None else _FEWER_HEADERS
    return {
        "description": f"The answer.{fewer}",
        "headers": {**_header_refs("X-Request-Id", *_USAGE_HEADERS), **_form_headers(task)},
        "content": {
            shape.media_type.partition(";")[0]: _content(
                _shape_schema(shape),
                {each.name: _shown(each, _answer_example(each)) for each in task.examples if _answers(shape, each)},
            )
            for shape in task.answers
        },
    }


def _form_headers(task: Task[Any, Any, Any]) -> dict[str, Any]:
    """The headers of a task whose answer need not be JSON."""
    priced = _header_refs("X-AIService-Cost") if any(shape.body is None for shape in task.answers) else {}
    if not task.files:
        return priced
    facts = {
        f"X-AIService-{fact.name}": {"description": fact.description, "schema": {"type": fact.kind}}
        for fact in task.facts
    }
    return {**priced, **_header_refs("Vary"), **facts}


def _answers(shape: Shape, example: Example) -> bool:
    return shape.media_type.partition(";")[0] == example.media_type.partition(";")[0]


def _answer_example(example: Example) -> Any:
    return {"request_id": _REQUEST_ID, **example.answer} if isinstance(example.answer, Mapping) else example.answer


def _shape_schema(shape: Shape) -> Schema:
    if shape.body is not None:
        return {**_ref(shape.body), **({"description": shape.description} if shape.description else {})}
    if shape.media_type.startswith(("audio/", "image/")):
        # Bytes: OpenAPI 3.1 states no type for them.
        return {"contentMediaType": shape.media_type, "description": shape.description}
    schema: Schema = {"type": "string", "description": shape.description}
    if shape.events:
        # OpenAPI 3.1 has no word for the items of a stream (3.2 has: itemSchema).
        schema["x-event-data"] = {"oneOf": [_ref(event) for event in shape.events]}
    return schema


def _content(schema: Schema, examples: Mapping[str, Any]) -> dict[str, Any]:
    return {"schema": schema, **({"examples": examples} if examples else {})}


def _shown(example: Example, value: Any) -> dict[str, Any]:
    return {"summary": example.summary, "value": value}


def _ref(model: type[BaseModel]) -> Schema:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _form_name(body: type[RequestBody]) -> str:
    return f"{body.__name__}Form"


def _failures(errors: Sequence[tuple[type[RequestError], str]]) -> dict[str, Any]:
    """The responses of these errors by status."""
    statuses = sorted({error.status for error, _ in errors})
    return {str(status): _failure([each for each in errors if each[0].status == status]) for status in statuses}


def _failure(errors: Sequence[tuple[type[RequestError], str]]) -> dict[str, Any]:
    later = ["Retry-After"] if any(issubclass(error, (OverloadedError, NotReadyError)) for error, _ in errors) else []
    return {
        "description": " ".join(f"`{error.code}`: {when}" for error, when in errors),
        "headers": _header_refs("X-Request-Id", *later),
        "content": {
            JSON: {
                "schema": {
                    "allOf": [{"$ref": "#/components/schemas/Error"}],
                    "properties": {"code": {"enum": [error.code for error, _ in errors]}},
                },
                "examples": {
                    error.code: {"value": {"error": when, "code": error.code, "request_id": _REQUEST_ID}}
                    for error, when in errors
                },
            }
        },
    }


def _header_refs(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _process_paths() -> dict[str, Any]:
    """The paths beside the tasks: for Kubernetes, Prometheus and whoever shares the device."""
    page = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "/health": {
            "get": _simple(
                "health", "Whether the process lives, also while it loads", {"200": "Alive.", "503": "Dead."}
            )
        },
        "/ready": {
            "get": _simple(
                "ready",
                "Whether requests are accepted",
                {"200": "Serving.", "503": "Loading, warming up, falling asleep, asleep, draining or failed."},
            )
        },
        "/metrics": {
            "get": {
                **_named("metrics", "Metrics in the text format of Prometheus"),
                "responses": {"200": {"description": "The metrics.", "content": page}},
            }
        },
        "/openapi.json": {
            "get": {
                **_named("openapi", "This document"),
                "responses": {
                    "200": {"description": "The document.", "content": {JSON: {"schema": {"type": "object"}}}}
                },
            }
        },
        "/sleep": {
            "post": _simple(
                "sleep", "Answers what is in flight, then gives the device's memory back", {"200": "Asleep."}
            )
        },
        "/wake": {"post": _simple("wake", "Takes the weights back to the device", {"200": "Serving."})},
    }


def _simple(name: str, summary: str, statuses: Mapping[str, str]) -> dict[str, Any]:
    content = {JSON: {"schema": {"$ref": "#/components/schemas/Status"}}}
    failures = _failures(_STATE_ERRORS) if name in {"sleep", "wake"} else {}
    answers = {
        status: {"description": told, "headers": _header_refs("X-Request-Id"), "content": content}
        for status, told in statuses.items()
    }
    return {**_named(name, summary), "responses": {**answers, **failures}}


def _named(name: str, summary: str) -> dict[str, Any]:
    return {"operationId": name, "summary": summary, "tags": ["process"]}


_NEGOTIATED = (
    "The answer is JSON, or the file in it by itself, as the header `Accept` wants: JSON without one, with `*/*` and "
    "with `application/json`. Where the body states no `format`, `Accept` chooses that too. With the file itself, "
    "headers tell what JSON would."
)
_FEWER_HEADERS = (
    " A streamed one has no X-AIService-Device-Seconds, and X-AIService-Tokens only where they are known before it "
    "begins."
)

_USAGE_HEADERS = (
    "X-AIService-Units",
    "X-AIService-Unit",
    "X-AIService-Tokens",
    "X-AIService-Queue-Seconds",
    "X-AIService-Device-Seconds",
)

_HEADERS: Mapping[str, Any] = {
    "X-Request-Id": {
        "description": "The client's, or a new one.",
        "schema": {"type": "string"},
    },
    "X-AIService-Units": {"description": "`usage.units`; 0 on errors.", "schema": {"type": "number"}},
    "X-AIService-Unit": {"description": "`usage.unit`.", "schema": {"type": "string"}},
    "X-AIService-Tokens": {"description": "`usage.tokens`; 0 on errors.", "schema": {"type": "integer"}},
    "X-AIService-Queue-Seconds": {
        "description": "Seconds that it waited for the device; 0 on errors.",
        "schema": {"type": "number"},
    },
    "X-AIService-Device-Seconds": {
        "description": "Seconds that the device computed for it; those of a batch are shared by what was in it.",
        "schema": {"type": "number"},
    },
    "X-AIService-Cost": {
        "description": "`usage.cost` of an answer that is no JSON; only with a price.",
        "schema": {"type": "number"},
    },
    "Vary": {
        "description": "That another Accept may get another answer.",
        "schema": {"type": "string", "const": "Accept"},
    },
    "Retry-After": {"description": "Seconds after which to try again.", "schema": {"type": "integer"}},
}

_PARAMETERS: Mapping[str, Any] = {
    "request-id": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Taken over if it has this form; else one is made.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    },
    "unit-price": {
        "name": "X-AIService-Unit-Price",
        "in": "header",
        "description": "Price of one unit, a decimal number up to 1000000000 of at most 28 digits; "
        "the answer then says its cost.",
        "schema": {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"},
    },
    "traceparent": {
        "name": "traceparent",
        "in": "header",
        "description": "The trace that the request belongs to (W3C Trace Context).",
        "schema": {"type": "string"},
    },
}

_ERROR: Schema = {
    "type": "object",
    "description": "Why a request failed.",
    "properties": {
        "error": {"type": "string", "description": "A sentence."},
        "code": {"type": "string"},
        "request_id": {"type": "string"},
    },
    "required": ["error", "code", "request_id"],
}

_STATUS: Schema = {
    "type": "object",
    "properties": {"status": {"type": "string", "description": "What the process is doing, in a word or two."}},
    "required": ["status"],
}

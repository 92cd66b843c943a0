"""What the OpenAPI description says of jobs."""

from __future__ import annotations

from typing import Any, Final

from aiservice_gateway.routers.examples import with_nulls
from aiservice_gateway.routers.openai.documents import ERRORS, failed
from aiservice_gateway.services.jobs.orders import FORM, JSON, JsonOrder, Order

_ID: Final = "0199c3a6-1d9e-7cc0-8f6b-2f2d7d5a4c11"
_URL: Final = "https://app.example.com/hooks/ai"
_QUEUED: Final[dict[str, Any]] = {
    "id": _ID,
    "object": "job",
    "status": "queued",
    "task": "text-to-image",
    "service": None,
    "created_at": "2026-11-29T10:00:00.000Z",
    "started_at": None,
    "finished_at": None,
    "deadline": "2026-11-30T10:00:00.000Z",
    "expires_at": None,
    "attempts": 0,
    "position": 3,
    "request_id": None,
    "result": None,
    "usage": None,
    "error": None,
    "webhook": {"url": _URL, "status": None, "attempts": 0},
}
_DONE: Final[dict[str, Any]] = _QUEUED | {
    "status": "succeeded",
    "started_at": "2026-11-29T10:00:01.000Z",
    "finished_at": "2026-11-29T10:00:09.000Z",
    "expires_at": "2026-11-30T10:00:09.000Z",
    "attempts": 1,
    "position": None,
    "request_id": "0199c3a6-21aa-7d01-9b0c-5a1f0f3b7e20",
    "result": {"url": f"/v1/jobs/{_ID}/result", "status": 200, "content_type": JSON, "bytes": 1843201},
    "usage": {"units": 1.0, "unit": "image", "tokens": 5, "cost": 0.003},
    "webhook": {"url": _URL, "status": "delivered", "attempts": 1},
}


def _json(description: str, example: Any) -> dict[str, Any]:
    return {
        "description": description,
        "content": {JSON: {"schema": {"type": "object"}, "example": with_nulls(example)}},
    }


_FILE: Final = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
_FORM: Final[dict[str, Any]] = {
    **Order.model_json_schema(),
    "properties": {
        "task": {"type": "string"},
        "service": {"type": "string"},
        "webhook": {"type": "string", "description": "The address itself."},
        "deadline_seconds": {"type": "number"},
        "file": _FILE,
    },
    "additionalProperties": True,
}
_FORM.pop("$defs", None)


def _schema() -> dict[str, Any]:
    """The order's, with what it refers to put in its place."""
    schema = JsonOrder.model_json_schema()
    parts = schema.pop("$defs")

    def whole(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return whole(parts[value["$ref"].rpartition("/")[2]])
            return {name: whole(inner) for name, inner in value.items()}
        return [whole(inner) for inner in value] if isinstance(value, list) else value

    resolved: dict[str, Any] = whole(schema)
    return resolved


ORDER: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {
                "schema": _schema(),
                "example": {
                    "task": "text-to-image",
                    "request": {"prompt": "A beautiful sunset", "size": "1024x1024"},
                    "deadline_seconds": 3600,
                },
            },
            FORM: {
                "schema": _FORM,
                "example": {"task": "speech-to-text", "language": "en", "file": "(the recording)"},
            },
        },
    }
}
"""The part of an operation that describes its request."""

_AWAY: Final = failed(
    "The database does not answer now; with `Retry-After`",
    "The database, which has the jobs, does not answer at the moment: try again.",
    "unavailable",
    "server_error",
)
_ASKING: Final[dict[int | str, dict[str, Any]]] = {401: ERRORS[401], 403: ERRORS[403], 503: _AWAY}
_NOT_FOUND: Final = failed("No such job of the tenant", "There is no such job.", "not_found")
MADE: Final[dict[int | str, dict[str, Any]]] = {
    **{status: ERRORS[status] for status in (400, 401, 403, 404, 408, 413, 415, 429, 503)},
    202: _json("The job, and its address in `Location`", _QUEUED | {"position": None}),
}
JOBS: Final[dict[int | str, dict[str, Any]]] = {
    **_ASKING,
    400: failed("A parameter is wrong", "limit: Input should be less than or equal to 100.", "invalid_request"),
    403: failed(
        "The token names no tenant, one that may not, or asks for another's jobs and is no administrator's",
        "Another tenant's jobs are for administrators.",
        "forbidden",
        "permission_error",
    ),
    200: _json(
        "A page of jobs",
        {"object": "list", "data": [_DONE], "first_id": _ID, "last_id": _ID, "has_more": False},
    ),
}
JOB: Final[dict[int | str, dict[str, Any]]] = {**_ASKING, 404: _NOT_FOUND, 200: _json("The job", _DONE)}
RESULT: Final[dict[int | str, dict[str, Any]]] = {
    **_ASKING,
    404: _NOT_FOUND,
    409: failed("The job is not over; with `Retry-After`", "The job is running: ask again.", "in_progress"),
    410: failed("The job has no answer", "The job is over: cancelled. It has no answer.", "gone"),
    400: failed("The service refused the job: its own answer", "The field 'prompt' is missing.", "invalid_request"),
    200: {
        "description": "What the task's own route answers, its status and headers included",
        "content": {JSON: {"schema": {"type": "object"}, "example": {"request_id": _ID, "text": "Hello."}}},
    },
}
SECRET: Final[dict[int | str, dict[str, Any]]] = {
    **_ASKING,
    400: failed(
        "There are no webhooks here",
        "There are no webhooks here: GATEWAY_WEBHOOK_SECRET is not set.",
        "invalid_request",
    ),
    200: _json("The secret", {"object": "webhook_secret", "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"}),
}

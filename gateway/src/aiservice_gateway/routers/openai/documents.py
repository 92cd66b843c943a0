"""What the OpenAPI description says of the OpenAI-compatible routes. Requests are described by what parses them."""

from __future__ import annotations

from typing import Any

from aiservice_gateway.routers.documents import itself
from aiservice_gateway.routers.examples import with_nulls
from aiservice_gateway.services.openai.parameters import Parameters

_FILE = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
_TEXT = {"type": "string"}
_EVENTS = {"contentMediaType": "text/event-stream"}
"""Without a type: some programs hold each event to the schema."""
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+M8AAAQBAQCRwVoFAAAAAElFTkSuQmCC"  # 1 x 1
PICTURE_URL = f"data:image/png;base64,{_PIXEL}"
_MODEL = {
    "id": "whisper",
    "object": "model",
    "created": 1765533600,
    "owned_by": "ai",
    "tasks": ["speech-to-text"],
    "root": "openai/whisper-large-v3",
}
_IMAGES = {
    "created": 1765533600,
    "data": [{"b64_json": _PIXEL}],
    "output_format": "png",
    "size": "1024x1024",
    "background": "opaque",
    "seeds": [42],
    "filtered": 0,
    "usage": {
        "input_tokens": 5,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": 5},
        "output_tokens": 0,
        "total_tokens": 5,
    },
}
_HEARD = {"text": "Hello, this is a test.", "usage": {"type": "duration", "seconds": 1.7}}
_COMPLETION = {
    "id": "chatcmpl-0199c3a6-1d9e-7cc0-8f6b-2f2d7d5a4c11",
    "object": "chat.completion",
    "created": 1765533600,
    "model": "blip2",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "speed limit 50", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 0, "completion_tokens": 4, "total_tokens": 4},
}


def request_body(kind: type[Parameters], example: dict[str, Any]) -> dict[str, Any]:
    """The part of an operation that describes its request body: JSON, or a form where there are files."""
    schema = kind.model_json_schema()
    schema["properties"] |= dict.fromkeys(kind.files, _FILE)
    needed = list(kind.files)[:1]
    schema["required"] = [*needed, *schema.get("required", [])]
    shown = _shown(schema, {name: f"(the {name})" for name in needed} | example)
    content = {"multipart/form-data" if kind.files else "application/json": shown}
    return {"requestBody": {"required": True, "content": content}}


def _json(description: str, example: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": _shown({"type": "object"}, example)}}


def _shown(schema: dict[str, Any], example: Any) -> dict[str, Any]:
    return {"schema": schema, "example": with_nulls(example)}


_MAYBE = {"type": ["string", "null"]}
_ERROR = {"message": _TEXT, "type": _TEXT, "param": _MAYBE, "code": _MAYBE}
_ERRORS_SCHEMA = {
    "type": "object",
    "properties": {"error": {"type": "object", "properties": _ERROR, "required": list(_ERROR)}},
    "required": ["error"],
}


def failed(
    description: str,
    sentence: str,
    code: str,
    kind: str = "invalid_request_error",
    param: str | None = None,
) -> dict[str, Any]:
    """The OpenAPI response of an error.

    Args:
        description: When it is answered.
        sentence: An example of what it says.
        code: Its word for programs.
        kind: Its type, by OpenAI's words.
        param: Name of the parameter that is wrong in the example.
    """
    error = {"message": sentence, "type": kind, "param": param, "code": code}
    return {
        "description": description,
        "content": {"application/json": _shown(_ERRORS_SCHEMA, {"error": error})},
    }


_ASKING: dict[int | str, dict[str, Any]] = {
    401: failed("No valid token", "This needs a token.", "invalid_api_key"),
    403: failed(
        "The token names no tenant (`no_tenant`), or one that may not (`tenant_suspended`, `unknown_tenant`)",
        "The token names no tenant.",
        "no_tenant",
        "permission_error",
    ),
    503: failed("Not ready, or busy", "The service is busy or not ready.", "unavailable", "server_error"),
}
_NO_MODEL = failed("No such model", "No service of that name does this.", "model_not_found")
ERRORS: dict[int | str, dict[str, Any]] = {
    **_ASKING,
    400: failed(
        "A parameter is wrong, or cannot be done",
        "response_format: only b64_json is supported here: nothing is stored under an address.",
        "invalid_value",
        param="response_format",
    ),
    404: _NO_MODEL,
    408: failed("The body did not arrive", "The body did not arrive within 300 s.", "request_timeout"),
    413: failed("The body is too large", "The body is too large.", "payload_too_large"),
    415: failed("The body is of another type", "The body must be application/json.", "unsupported_media"),
    429: failed("A limit is used up", "Rate limit exceeded", "rate_limit_exceeded", "requests"),
    502: failed("The service failed", "The service whisper failed.", "upstream_failed", "server_error"),
    504: failed("The service took too long", "The service did not answer.", "upstream_timeout", "server_error"),
}
REPEATED: dict[int | str, dict[str, Any]] = {
    409: failed(
        "The first request with this `Idempotency-Key` is still being worked on; with `Retry-After`",
        "The first request with this Idempotency-Key is still being worked on: try again.",
        "in_progress",
    ),
    410: failed(
        "The first request with this `Idempotency-Key` was charged, and its answer was not kept",
        "The first request with this Idempotency-Key was answered and charged, and its answer is not kept.",
        "gone",
    ),
    422: failed(
        "This `Idempotency-Key` was sent before, with another request",
        "This Idempotency-Key was sent before with another body, query or Accept: draw a new key for a new request.",
        "idempotency_key_reused",
    ),
}
"""What else is answered where an idempotency key was sent."""

MODELS = {**_ASKING, 200: _json("The services", {"object": "list", "data": [_MODEL]})}
MODEL = {**_ASKING, 200: _json("The service", _MODEL), 404: _NO_MODEL}
IMAGES = {**ERRORS, 200: _json("The images", _IMAGES)}
COMPLETION = {
    **ERRORS,
    200: {
        "description": "The answer; with `stream` as events that end with [DONE]",
        "content": {
            "application/json": _shown({"type": "object"}, _COMPLETION),
            "text/event-stream": _shown(_EVENTS, "data: [DONE]\n\n"),
        },
    },
}
TRANSLATION = {
    **ERRORS,
    200: {
        "description": "What was said, as `response_format` says",
        "content": {
            "application/json": _shown({"type": "object"}, _HEARD),
            "text/plain": _shown(_TEXT, "Hello, this is a test.\n"),
            "application/x-subrip": _shown(_TEXT, "1\n00:00:00,000 --> 00:00:01,700\nHello, this is a test.\n"),
            "text/vtt": _shown(_TEXT, "WEBVTT\n\n00:00:00.000 --> 00:00:01.700\nHello, this is a test.\n"),
        },
    },
}
_DELTA = 'data: {"type":"transcript.text.delta","delta":"Hello, this is a test."}\n\n'
TRANSCRIPT = {
    **ERRORS,
    200: {
        "description": f"{TRANSLATION[200]['description']}; with `stream` as events",
        "content": {**TRANSLATION[200]["content"], "text/event-stream": _shown(_EVENTS, _DELTA)},
    },
}
_SOUNDS = ("audio/mpeg", "audio/wav", "audio/ogg", "audio/flac", "audio/pcm")
SOUND = {
    **ERRORS,
    200: {
        "description": "The sound; with `stream_format` sse as events that hold it in base64",
        "content": {
            **{media_type: itself(media_type) for media_type in _SOUNDS},
            "text/event-stream": _shown(_EVENTS, 'data: {"type":"speech.audio.delta","audio":"SUQzBAAAAAAA"}\n\n'),
        },
    },
}

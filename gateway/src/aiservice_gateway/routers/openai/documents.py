"""What the OpenAPI description says of the OpenAI-compatible routes. Requests are described by what parses them."""

from __future__ import annotations

from typing import Any

from aiservice_gateway.services.openai.parameters import Parameters

_FILE = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
_TEXT = {"type": "string"}
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
    schema["required"] = [*list(kind.files)[:1], *schema.get("required", [])]
    shown = {"schema": schema, "example": example}
    content = {"multipart/form-data" if kind.files else "application/json": shown}
    return {"requestBody": {"required": True, "content": content}}


def _json(description: str, example: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": _shown({"type": "object"}, example)}}


def _shown(schema: dict[str, Any], example: Any) -> dict[str, Any]:
    return {"schema": schema, "example": example}


def _error(
    description: str, sentence: str, kind: str, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    error = {"message": sentence, "type": kind, "param": param, "code": code}
    return _json(description, {"error": error})


_INVALID = "invalid_request_error"
_ASKING: dict[int | str, dict[str, Any]] = {
    401: _error("No valid token", "This needs a token.", _INVALID, "invalid_api_key"),
    403: _error("The token names no tenant", "The token names no tenant.", "permission_error", "no_tenant"),
    404: _error("No such model", "No service of that name does this.", _INVALID, "model_not_found"),
    503: _error("Not ready, or busy", "The service is busy or not ready.", "server_error", "unavailable"),
}
ERRORS: dict[int | str, dict[str, Any]] = {
    **_ASKING,
    400: _error(
        "A parameter is wrong, or cannot be done",
        "response_format: only b64_json is supported here: nothing is stored under an address.",
        _INVALID,
        "invalid_value",
        "response_format",
    ),
    408: _error("The body did not arrive", "The body did not arrive within 300 s.", _INVALID, "request_timeout"),
    413: _error("The body is too large", "The body is too large.", _INVALID, "payload_too_large"),
    415: _error("The body is of another type", "The body must be application/json.", _INVALID, "unsupported_media"),
    429: _error("The limit is used up", "Rate limit exceeded", "requests", "rate_limit_exceeded"),
    502: _error("The service failed", "The service whisper failed.", "server_error", "upstream_failed"),
    504: _error("The service took too long", "The service did not answer.", "server_error", "upstream_timeout"),
}

MODELS = {**_ASKING, 200: _json("The services", {"object": "list", "data": [_MODEL]})}
MODEL = {**_ASKING, 200: _json("The service", _MODEL)}
IMAGES = {**ERRORS, 200: _json("The images", _IMAGES)}
COMPLETION = {
    **ERRORS,
    200: {
        "description": "The answer; with `stream` as events that end with [DONE]",
        "content": {
            "application/json": _shown({"type": "object"}, _COMPLETION),
            "text/event-stream": _shown(_TEXT, "data: [DONE]\n\n"),
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
        "content": {**TRANSLATION[200]["content"], "text/event-stream": _shown(_TEXT, _DELTA)},
    },
}
_SOUNDS = ("audio/mpeg", "audio/wav", "audio/ogg", "audio/flac", "audio/pcm")
SOUND = {
    **ERRORS,
    200: {
        "description": "The sound; with `stream_format` sse as events that hold it in base64",
        "content": {
            **{media_type: {"schema": _FILE} for media_type in _SOUNDS},
            "text/event-stream": _shown(_TEXT, 'data: {"type":"speech.audio.delta","audio":"SUQzBAAAAAAA"}\n\n'),
        },
    },
}

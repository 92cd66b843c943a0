"""What the OpenAPI description says of the five tasks. The services validate; this only explains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiservice_api.tasks import Task

_BASE64 = {"type": "string", "format": "byte", "contentEncoding": "base64"}
_FILE = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}


@dataclass(frozen=True, slots=True)
class TaskDocument:
    """One task's request and answer."""

    summary: str
    description: str
    fields: dict[str, Any]
    """JSON schema of each field besides the file."""
    example: dict[str, Any]
    result: dict[str, Any]
    """An example of the answer, without `request_id`."""
    media: str | None = None
    """Name of the JSON field that holds the input file in base64; in multipart it is the part `file`."""
    required: tuple[str, ...] = field(default=())
    files: tuple[str, ...] = ()
    """Media types of the file in the answer, which `Accept` can ask for by itself, the usual one first."""
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name without `X-AIService-`: OpenAPI headers that tell of the file by itself what JSON would."""

    def request_body(self) -> dict[str, Any]:
        """The OpenAPI request body: JSON, and multipart where there is a file."""
        properties = dict(self.fields)
        required = list(self.required)
        if self.media is not None:
            properties[self.media] = _BASE64
            required.append(self.media)
        schema = {"type": "object", "properties": properties, "required": required}
        content: dict[str, Any] = {"application/json": {"schema": schema, "example": self.example}}
        if self.media is not None:
            form = {
                "type": "object",
                "properties": {"file": _FILE, **self.fields},
                "required": ["file", *self.required],
            }
            example = {name: value for name, value in self.example.items() if name != self.media}
            content["multipart/form-data"] = {"schema": form, "example": {"file": f"(the {self.media})", **example}}
        return {"required": True, "content": content}

    def answers(self) -> dict[int | str, dict[str, Any]]:
        """The OpenAPI responses by status, besides those of every task."""
        example = {"request_id": "0199c3a6-1d9e-7cc0-8f6b-2f2d7d5a4c11", **self.result}
        answer: dict[str, Any] = {
            "description": "The result; `usage` says what it cost.",
            "content": {"application/json": {"schema": {"type": "object"}, "example": example}},
        }
        if not self.files:
            return {200: answer}
        answer["description"] += _BY_ITSELF
        answer["content"] |= {name: itself(name) for name in self.files}
        answer["headers"] = {"Vary": _VARY} | {f"X-AIService-{name}": told for name, told in self.facts.items()}
        sentence = f"Accept takes nothing that this task answers: accept application/json, or one of {self.files[0]}."
        return {200: answer, 406: coded("`Accept` and the body leave no form of answer", sentence, "not_acceptable")}


_BY_ITSELF = (
    " `Accept` may ask for the file in it by itself, and chooses its format where the body states none; headers then "
    "tell what JSON would."
)
_VARY = {"description": "Another `Accept` may get another answer.", "schema": {"type": "string"}}


def itself(media_type: str) -> dict[str, Any]:
    """The OpenAPI media type of a file that is the answer."""
    return {"schema": {"contentMediaType": media_type}, "example": f"(bytes of {media_type})"}


def _usage(units: float, unit: str, tokens: int, cost: float) -> dict[str, Any]:
    return {"units": units, "unit": unit, "tokens": tokens, "cost": cost}


_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_COUNT = {"type": "integer", "minimum": 1}
_DRAWING: dict[str, Any] = {
    "prompt": _TEXT,
    "negative_prompt": {**_TEXT, "description": "What not to draw."},
    "style": {**_TEXT, "description": "A way of drawing, such as realistic, anime or watercolor."},
    "size": {**_TEXT, "examples": ["1024x1024"]},
    "steps": _COUNT,
    "guidance": {**_NUMBER, "description": "How closely to follow the prompt."},
    "seed": {"type": "integer", "description": "The same seed draws the same image."},
    "n": {**_COUNT, "description": "Number of images."},
    "format": {
        "type": "string",
        "enum": ["png", "jpeg", "webp"],
        "description": "Left out: as `Accept` wants it, else png.",
    },
}
_PICTURES = ("image/png", "image/jpeg", "image/webp")
_SOUNDS = ("audio/wav", "audio/mpeg", "audio/ogg", "audio/flac", "audio/pcm")


def _told(kind: str, description: str, example: Any) -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind}, "example": example}


_COST = _told("number", "`usage.cost`; the other parts of `usage` are in headers of JSON too.", 0.003)
_PICTURE_FACTS = {
    "Format": _told("string", "Of the picture.", "png"),
    "Size": _told("string", "Width and height in pixels.", "1024x1024"),
    "Seed": _told("integer", "The same seed draws the same image.", 42),
    "Steps": _told("integer", "That were taken.", 30),
    "Guidance": _told("number", "That was followed.", 5.0),
    "Megapixel-Steps": _told("number", "What it cost the device.", 31.457),
    "Cost": _COST,
}
_SOUND_FACTS = {
    "Format": _told("string", "Of the sound.", "mp3"),
    "Sample-Rate": _told("integer", "Samples a second.", 24000),
    "Audio-Seconds": _told("number", "How long it is; not of a streamed answer.", 1.7),
    "Language": _told("string", "That was spoken.", "en"),
    "Voice": _told("string", "Its name, where it has one; what is not ASCII is percent-encoded.", "Ana Florence"),
    "Seed": _told("integer", "The same seed speaks the same way.", 42),
    "Cost": _COST,
}
_IMAGE_RESULT = {
    "images": [{"b64": "iVBORw0KGgo=", "format": "png", "width": 1024, "height": 1024, "seed": 42, "filtered": False}],
    "steps": 30,
    "guidance": 5.0,
    "megapixel_steps": 31.457,
    "usage": _usage(1, "image", 5, 0.003),
}
_PICTURE = "/9j/4AAQSkZJRg=="

TASKS: dict[Task, TaskDocument] = {
    Task.TEXT_TO_IMAGE: TaskDocument(
        summary="An image from text",
        description="Makes an image that shows what the prompt says. With `Accept: image/png` (or another of the "
        "types below) the answer is the image itself.",
        files=_PICTURES,
        facts=_PICTURE_FACTS,
        fields=_DRAWING,
        required=("prompt",),
        example={"prompt": "A beautiful sunset", "style": "realistic", "size": "1024x1024"},
        result=_IMAGE_RESULT,
    ),
    Task.TEXT_TO_SPEECH: TaskDocument(
        summary="Speech from text",
        description="Speaks a text. With `Accept: audio/mpeg` (or another of the types below) the answer is the sound "
        "itself, and with `stream` it is sent while it is computed.",
        files=_SOUNDS,
        facts=_SOUND_FACTS,
        fields={
            "text": _TEXT,
            "language": {**_TEXT, "examples": ["en"]},
            "voice": {**_TEXT, "description": "A voice of the service by its name."},
            "voice_clip": {**_BASE64, "description": "A recording of a voice to speak with instead."},
            "speed": {**_NUMBER, "default": 1, "description": "2 is twice as fast."},
            "format": {
                "type": "string",
                "enum": ["wav", "mp3", "opus", "flac", "pcm"],
                "description": "Left out: as `Accept` wants it, else wav.",
            },
            "stream": {
                "type": "boolean",
                "default": False,
                "description": "The sound itself, while it is computed; `Accept` must take it.",
            },
            "seed": {"type": "integer", "description": "The same seed speaks the same way."},
        },
        required=("text",),
        example={"text": "Hello, this is a test", "language": "en"},
        result={
            "audio": {"b64": "UklGRg==", "format": "wav", "sample_rate": 24000, "seconds": 1.7},
            "language": "en",
            "voice": "Ana Florence",
            "seed": 42,
            "usage": _usage(21, "character", 21, 0.000105),
        },
    ),
    Task.SPEECH_TO_TEXT: TaskDocument(
        summary="Text from speech",
        description="Writes down what a recording says, with times.",
        fields={
            "language": {"type": ["string", "null"], "description": "ISO 639-1; found out when left out."},
            "translate": {"type": "boolean", "default": False, "description": "Into English."},
            "timestamps": {"type": "string", "enum": ["segment", "word"], "default": "segment"},
        },
        media="audio",
        example={"audio": "UklGRiQAAABXQVZFZm10IA==", "language": "en"},
        result={
            "text": "Hello, this is a test.",
            "language": "en",
            "duration": 1.7,
            "segments": [{"start": 0.0, "end": 1.7, "text": "Hello, this is a test."}],
            "usage": _usage(1.7, "audio-second", 8, 0.000068),
        },
    ),
    Task.IMAGE_TO_IMAGE: TaskDocument(
        summary="An image from an image and text",
        description="Changes an image towards what the prompt says. With `Accept: image/png` (or another of the "
        "types below) the answer is the image itself.",
        files=_PICTURES,
        facts=_PICTURE_FACTS,
        fields={
            **_DRAWING,
            "strength": {**_NUMBER, "exclusiveMinimum": 0, "maximum": 1, "description": "How much to change."},
            "mask": {**_BASE64, "description": "White where the image may change, black where it stays."},
        },
        required=("prompt",),
        media="image",
        example={"image": _PICTURE, "prompt": "The same street in winter", "strength": 0.6},
        result=_IMAGE_RESULT,
    ),
    Task.IMAGE_TO_TEXT: TaskDocument(
        summary="A caption and the text of an image",
        description="Says what an image shows, and reads the text in it.",
        fields={
            "prompt": {"type": ["string", "null"], "description": "A question about the image, or a caption's start."},
            "caption": {
                "type": ["boolean", "null"],
                "description": "Whether to caption; as the model can, when left out.",
            },
            "ocr": {
                "type": ["boolean", "null"],
                "description": "Whether to read text; as the model can, when left out.",
            },
            "languages": {
                "type": "array",
                "items": _TEXT,
                "description": "Of the text, as codes of ISO 639-1; a form sends the list as JSON text.",
            },
        },
        media="image",
        example={"image": _PICTURE, "ocr": True},
        result={
            "caption": "a sign beside a road",
            "text": "SPEED LIMIT\n50",
            "lines": [
                {"text": "SPEED LIMIT", "confidence": 0.98, "box": [[12, 8], [210, 8], [210, 44], [12, 44]]},
                {"text": "50", "confidence": 0.99, "box": [[80, 60], [140, 60], [140, 120], [80, 120]]},
            ],
            "width": 240,
            "height": 160,
            "usage": _usage(1, "image", 10, 0.00075),
        },
    ),
}
"""By task."""


def _error(description: str, properties: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"description": description, "content": {"application/json": {"schema": schema, "example": example}}}


def coded(description: str, sentence: str, code: str) -> dict[str, Any]:
    """The OpenAPI response of an error.

    Args:
        description: When it is answered.
        sentence: An example of what it says.
        code: Its word for programs.
    """
    example = {"error": sentence, "code": code, "request_id": "0199c3a6-1d9e-7cc0-8f6b-2f2d7d5a4c11"}
    return _error(description, dict.fromkeys(example, _TEXT), example)


ERRORS: dict[int | str, dict[str, Any]] = {
    400: coded("The service cannot use the request", "The field 'audio' is not base64.", "invalid_request"),
    401: coded(
        "No valid token or API key", "The token has expired: get a new one from your application.", "unauthenticated"
    ),
    403: coded(
        "The token names no tenant (`no_tenant`), or one that may not (`tenant_suspended`, `unknown_tenant`)",
        "The token names no tenant: it must have a 'tenantId' claim.",
        "no_tenant",
    ),
    404: coded("No service does this for the tenant", "No service here does text-to-image.", "not_found"),
    408: coded("The body did not arrive", "The request's body did not arrive, or came too slowly.", "request_timeout"),
    413: coded("The body is too large", "The request's body is larger than 104857600 bytes.", "payload_too_large"),
    415: coded(
        "The body is compressed, or of a type that the service does not take",
        "Compressed request bodies are not taken: send the body without Content-Encoding.",
        "unsupported_media",
    ),
    429: _error(
        "A limit is used up",
        {"error": _TEXT, "retry_after": {"type": "integer"}},
        {"error": "Rate limit exceeded", "retry_after": 3600},
    ),
    502: coded("The service failed", "The service whisper failed.", "upstream_failed"),
    503: coded("The service is not ready, or busy", "The service whisper is not ready yet.", "unavailable"),
    504: coded("The service took too long", "The service whisper did not answer within 300 s.", "upstream_timeout"),
}
"""The answers that are no result, by status."""

REPEATED: dict[int | str, dict[str, Any]] = {
    409: coded(
        "The first request with this `Idempotency-Key` is still being worked on; with `Retry-After`",
        "The first request with this Idempotency-Key is still being worked on: try again.",
        "in_progress",
    ),
    410: coded(
        "The first request with this `Idempotency-Key` was charged, and its answer was not kept",
        "The first request with this Idempotency-Key was answered and charged, and its answer is not kept.",
        "gone",
    ),
    422: coded(
        "This `Idempotency-Key` was sent before, with another request",
        "This Idempotency-Key was sent before with another body, query or Accept: draw a new key for a new request.",
        "idempotency_key_reused",
    ),
}
"""What else is answered where an idempotency key was sent."""

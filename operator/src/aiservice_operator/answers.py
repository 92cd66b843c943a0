"""What the API server's refusals mean, as the operator's own errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aiservice_operator.errors import (
    ConflictError,
    KubeError,
    NotFoundError,
    RefusedError,
    ThrottledError,
    UnavailableError,
)


def error_of(status: int, headers: Mapping[str, str], content: bytes, what: str) -> KubeError:
    """Returns the error that an answer means.

    Args:
        status: Its HTTP status, 400 or more.
        headers: Its headers.
        content: Its body: a Status of the API server, or what a proxy wrote.
        what: The request, for messages.
    """
    message = f"{what}: {_reason(content)}"
    match status:
        case HTTPStatus.NOT_FOUND | HTTPStatus.GONE:
            return NotFoundError(message)
        case HTTPStatus.CONFLICT:
            return ConflictError(message)
        case HTTPStatus.TOO_MANY_REQUESTS:
            return ThrottledError(message, _seconds(headers.get("Retry-After")))
        case _ if status < HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.UNAUTHORIZED:
            return RefusedError(_reason(content))
        case _:
            return UnavailableError(message)


def _reason(content: bytes) -> str:
    """The API server's own sentence, or what a proxy answered in its place."""
    try:
        answer: Any = json.loads(content)
        return str(answer["message"])
    except (ValueError, TypeError, KeyError):
        return content[:500].decode(errors="replace")


def _seconds(text: str | None) -> float:
    return float(text) if text is not None and text.isdecimal() else 1.0

"""Errors as OpenAI's API answers them, so that its clients raise their own classes for them.

https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

from aiservice_gateway.errors import GatewayError, ParameterError

_PREFIX = "/v1"

_CODES = {
    "unauthenticated": "invalid_api_key",
    "rate_limited": "rate_limit_exceeded",
    "budget_exhausted": "insufficient_quota",
}
"""OpenAI's words where they differ from the gateway's own."""

_TYPES = {403: "permission_error", 429: "requests"}
_SERVER_ERRORS = 500


def is_openai(path: str) -> bool:
    """Whether a path is one of the OpenAI-compatible API."""
    return path == _PREFIX or path.startswith(f"{_PREFIX}/")


def openai_error(error: GatewayError) -> dict[str, object]:
    """The body of an error's answer."""
    if isinstance(error, ParameterError):
        return error_body(error.status, error.message, error.reason, error.param)
    return error_body(error.status, error.message, _CODES.get(error.code, error.code))


def error_body(status: int, message: str, code: str | None, param: str | None = None) -> dict[str, object]:
    """The body of an answer with this status.

    Args:
        status: Of the answer; decides the type.
        message: A sentence.
        code: A word for programs.
        param: The parameter that is wrong.
    """
    kind = "server_error" if status >= _SERVER_ERRORS else _TYPES.get(status, "invalid_request_error")
    # A client may tell a spent budget from a passing limit by either field.
    kind = code if code == "insufficient_quota" else kind
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}

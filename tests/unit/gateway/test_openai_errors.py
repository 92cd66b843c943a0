"""The gateway's errors in OpenAI's shape."""

from __future__ import annotations

import pytest

from aiservice_gateway import errors
from aiservice_gateway.openai_errors import is_openai, openai_error


@pytest.mark.parametrize(
    ("error", "kind", "code", "param"),
    [
        (errors.UnauthenticatedError("m"), "invalid_request_error", "invalid_api_key", None),
        (errors.NoTenantError("m"), "permission_error", "no_tenant", None),
        (errors.ModelNotFoundError("m"), "invalid_request_error", "model_not_found", None),
        (errors.BadRequestError("m"), "invalid_request_error", "invalid_request", None),
        (errors.ParameterError("m", "n"), "invalid_request_error", "invalid_value", "n"),
        (errors.ParameterError("m", "x", "unknown_parameter"), "invalid_request_error", "unknown_parameter", "x"),
        (errors.RateLimitedError(9), "requests", "rate_limit_exceeded", None),
        (errors.BudgetSpentError(9), "insufficient_quota", "insufficient_quota", None),
        (errors.GatewayError("m"), "server_error", "internal", None),
        (errors.UnavailableError("m"), "server_error", "unavailable", None),
        (errors.UpstreamTimeoutError("m"), "server_error", "upstream_timeout", None),
    ],
)
def test_an_error(error: errors.GatewayError, kind: str, code: str, param: str | None) -> None:
    assert openai_error(error) == {"error": {"message": error.message, "type": kind, "param": param, "code": code}}


@pytest.mark.parametrize(
    ("path", "is_one"), [("/v1", True), ("/v1/", True), ("/v1/models", True), ("/v1x", False), ("/api/v1/x", False)]
)
def test_which_paths_are_openais(path: str, *, is_one: bool) -> None:
    assert is_openai(path) is is_one

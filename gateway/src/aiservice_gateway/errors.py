"""What can go wrong, once: every error knows its code, its HTTP status and its headers; `respond.py` renders them.

GatewayError
    UnauthenticatedError            401  no valid token
    NoTenantError                   403  a valid token that names no tenant
    TenantSuspendedError            403
    UnknownTenantError              403  tenants must be known, and this one is not
    ForbiddenError                  403  a valid token that does not allow it
    NotFoundError                   404  no such path, or no service for the task
        ModelNotFoundError               no service that the OpenAI-compatible routes could take for a model
    BadRequestError                 400
        ParameterError                   one parameter of an OpenAI-compatible route
    RequestTimeoutError             408  the client's body did not arrive
    ConflictError                   409  it is at work on it already; try again
    GoneError                       410  there was an answer, or a job, and there is none any more
    PayloadTooLargeError            413
    UnsupportedMediaError           415
    KeyReusedError                  422  an idempotency key that belongs to another request
    RateLimitedError                429
        BudgetSpentError                 until the month ends
    UpstreamFailedError             502  the service answered with something broken
    UnavailableError                503  not ready, busy or unreachable; try again
    UpstreamTimeoutError            504
SettingsError                  stops the start with a sentence
StoreUnavailableError               Redis, PostgreSQL or the disk does not answer now; the caller has another way
RecordRefusedError                  the database will never take this one record
TooFineError                        of what was asked only sums by the day or by the month are left
"""

from __future__ import annotations

from typing import ClassVar, Literal


class GatewayError(Exception):
    """An answer that is not the wanted one. `message` is a sentence for the client and holds nothing internal."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def headers(self) -> dict[str, str]:
        """Headers that belong to this error."""
        return {}

    def body(self, request_id: str) -> dict[str, object]:
        """The JSON body of the answer."""
        return {"error": self.message, "code": self.code, "request_id": request_id}


class UnauthenticatedError(GatewayError):
    """The request carries no token or API key that the gateway accepts."""

    status = 401
    code = "unauthenticated"

    @property
    def headers(self) -> dict[str, str]:
        """How to authenticate, as RFC 6750 asks."""
        return {"WWW-Authenticate": 'Bearer realm="aiservice", error="invalid_token"'}


class NoTenantError(GatewayError):
    """The token is genuine but says for no tenant whom to serve."""

    status = 403
    code = "no_tenant"

    @property
    def headers(self) -> dict[str, str]:
        """How to authenticate, as RFC 6750 asks."""
        return {"WWW-Authenticate": 'Bearer realm="aiservice", error="insufficient_scope"'}


class TenantSuspendedError(GatewayError):
    """The tenant may do nothing for now."""

    status = 403
    code = "tenant_suspended"


class UnknownTenantError(GatewayError):
    """No AITenant is about the tenant, and GATEWAY_REQUIRE_TENANT asks for one."""

    status = 403
    code = "unknown_tenant"


class ForbiddenError(GatewayError):
    """The token is genuine and does not allow this."""

    status = 403
    code = "forbidden"


class NotFoundError(GatewayError):
    """Nothing is served there."""

    status = 404
    code = "not_found"


class ModelNotFoundError(NotFoundError):
    """What a client of the OpenAI-compatible routes calls a model is no service here, or none for this task."""

    code = "model_not_found"


class MethodNotAllowedError(GatewayError):
    """The path exists; the method does not."""

    status = 405
    code = "method_not_allowed"


class BadRequestError(GatewayError):
    """The request cannot be understood."""

    status = 400
    code = "invalid_request"


class ParameterError(BadRequestError):
    """A parameter of an OpenAI-compatible route is missing, unknown, wrong, or asks for what cannot be done."""

    def __init__(self, message: str, param: str, reason: str = "invalid_value") -> None:
        """Says which.

        Args:
            message: A sentence.
            param: The parameter's name, as the client gave it.
            reason: OpenAI's word for what is wrong.
        """
        super().__init__(message)
        self.param = param
        self.reason = reason


class RequestTimeoutError(GatewayError):
    """The request's body did not arrive in time."""

    status = 408
    code = "request_timeout"

    @property
    def headers(self) -> dict[str, str]:
        """Closes the connection: the rest of the body is not waited for."""
        return {"Connection": "close"}


class ConflictError(GatewayError):
    """The gateway is still at work on what this asks for; the same request may pass later."""

    status = 409
    code = "in_progress"

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """When to try again, in seconds."""
        return {"Retry-After": str(self.retry_after)}


class GoneError(GatewayError):
    """What this asks for is over and was not kept; asking again cannot help."""

    status = 410
    code = "gone"


class KeyReusedError(GatewayError):
    """The idempotency key was sent before, with another request."""

    status = 422
    code = "idempotency_key_reused"


class PayloadTooLargeError(GatewayError):
    """The request's body is larger than the gateway takes."""

    status = 413
    code = "payload_too_large"

    @property
    def headers(self) -> dict[str, str]:
        """Closes the connection: the rest of the body is not read."""
        return {"Connection": "close"}


class UnsupportedMediaError(GatewayError):
    """The request's encoding is not one that the gateway passes on."""

    status = 415
    code = "unsupported_media"


class RateLimitedError(GatewayError):
    """The tenant has used up its requests for this service. The body is the deployment guide's, word for word."""

    status = 429
    code = "rate_limited"

    def __init__(self, retry_after: int) -> None:
        super().__init__("Rate limit exceeded")
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """When a request will pass again, in seconds."""
        return {"Retry-After": str(self.retry_after)}

    def body(self, request_id: str) -> dict[str, object]:
        """Exactly what the deployment guide promises."""
        del request_id  # the X-Request-Id header carries it
        return {"error": self.message, "retry_after": self.retry_after}


class BudgetSpentError(RateLimitedError):
    """The tenant has spent its money for this month: trying again soon cannot help."""

    code = "budget_exhausted"


class UpstreamFailedError(GatewayError):
    """The service failed. Why is in the log, never in the answer."""

    status = 502
    code = "upstream_failed"


class UnavailableError(GatewayError):
    """Cannot be done now; the same request may pass later."""

    status = 503
    code = "unavailable"

    def __init__(self, message: str, *, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """When to try again, in seconds."""
        return {"Retry-After": str(self.retry_after)}


class UpstreamTimeoutError(GatewayError):
    """The service did not answer in time."""

    status = 504
    code = "upstream_timeout"


class SettingsError(Exception):
    """The gateway cannot start as configured. The message says what to change."""


class StoreUnavailableError(Exception):
    """A store does not answer at the moment."""


class RecordRefusedError(Exception):
    """The database refuses the values of a record; trying again cannot help."""


class TooFineError(Exception):
    """Finer times were asked for than the sums that are left of them."""

    def __init__(self, left: Literal["day", "month"]) -> None:
        super().__init__(f"only sums of each {left} are left")
        self.left = left

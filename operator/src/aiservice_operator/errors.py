"""Every error the operator raises on purpose.

OperatorError
├── ConfigurationError    the configuration file cannot be used; the process exits
├── NotLeaderError        the Lease is not held (any more): nothing may be written
└── KubeError             an answer of the API server, or the lack of one
    ├── NotFoundError     404
    ├── ConflictError     409: someone else changed or holds the object; look again
    ├── RefusedError      400, 403, 413, 422: the same request will be refused again until someone changes something
    ├── ThrottledError    429: come back after `retry_after` seconds
    └── UnavailableError  5xx: try again
        └── UnreachableError  timeouts, broken connections: the API server itself does not answer
"""

from __future__ import annotations


class OperatorError(Exception):
    """Base of all errors raised on purpose."""


class ConfigurationError(OperatorError):
    """The configuration cannot be used. The message says what to change."""


class NotLeaderError(OperatorError):
    """A write was asked for while the Lease is not held."""


class KubeError(OperatorError):
    """A request to the API server did not succeed."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotFoundError(KubeError):
    """The object, or its kind, does not exist."""


class ConflictError(KubeError):
    """The object changed, exists already, or is not the one that was meant."""


class RefusedError(KubeError):
    """The API server refuses the request as it is: invalid, forbidden, over quota."""


class ThrottledError(KubeError):
    """The API server asks for patience."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnavailableError(KubeError):
    """The API server cannot be reached or cannot answer now."""


class UnreachableError(UnavailableError):
    """No answer of the API server: this says nothing about the object that was asked for."""

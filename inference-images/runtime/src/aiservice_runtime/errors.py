"""What can go wrong, as the client and the operator of the pod see it.

RequestError                 one request fails, the process goes on
  InvalidRequestError   400  the request can never succeed as it is
  NotAcceptableError    406  the client's Accept takes none of the forms that the answer can have
  UnsupportedMediaError 415  the body is neither JSON nor multipart
  ConflictError         409  not in the state that it is in
  PayloadTooLargeError  413  over a limit: bytes, seconds of audio, pixels
  OverloadedError       503  try again after a while
    OutOfMemoryError    503  the device had no room for it
  NotReadyError         503  loading or draining
  InternalError         500  a defect; the details are in the log only
ClientGoneError              nobody is there to be answered
AbandonedError               raised by an engine's check: nobody waits for what it computes
FatalError                   the process cannot serve; its sentence becomes the termination message
"""

from __future__ import annotations


class RequestError(Exception):
    """One request fails with a sentence for its sender. Carries the HTTP status and the code of the error body."""

    status = 500
    code = "internal"

    def __init__(self, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class InvalidRequestError(RequestError):
    """The request can never succeed as it is."""

    status = 400
    code = "invalid_request"


class NotAcceptableError(RequestError):
    """The client's Accept takes none of the forms that the answer can have."""

    status = 406
    code = "not_acceptable"


class UnsupportedMediaError(RequestError):
    """The body has a content type that is not understood."""

    status = 415
    code = "unsupported_media"


class ConflictError(RequestError):
    """The process is in a state in which it cannot do this."""

    status = 409
    code = "conflict"


class PayloadTooLargeError(RequestError):
    """The request is over one of the limits."""

    status = 413
    code = "payload_too_large"


class OverloadedError(RequestError):
    """There is no room or no time for the request now."""

    status = 503
    code = "overloaded"


class OutOfMemoryError(OverloadedError):
    """The device had no room for the request, even alone."""

    code = "out_of_memory"

    def __init__(self) -> None:
        super().__init__(
            "The device has no memory for this request: ask for less (a smaller picture, a shorter text), "
            "or try again later.",
            retry_after=10,
        )


class NotReadyError(RequestError):
    """The model is not loaded yet, or the process is about to stop."""

    status = 503
    code = "not_ready"


class InternalError(RequestError):
    """A defect. The message never holds more than the client may know."""

    status = 500
    code = "internal"


class ClientGoneError(Exception):
    """The client closed the connection before the answer was there."""


class AbandonedError(Exception):
    """Nobody waits any more for what the device computes."""


class FatalError(Exception):
    """The process cannot serve: wrong settings, a model that cannot be loaded. The message says what to do."""

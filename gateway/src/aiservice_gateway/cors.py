"""Which pages may call the gateway from a browser (the Fetch standard's CORS protocol)."""

from __future__ import annotations

from typing import Any, Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from aiservice_gateway.context import Route, context_of
from aiservice_gateway.errors import BadRequestError
from aiservice_gateway.respond import error_response

_EXPOSED = (
    "X-Request-Id",
    "Retry-After",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-AIService-Units",
    "X-AIService-Unit",
    "X-AIService-Tokens",
    "X-AIService-Queue-Seconds",
    "X-AIService-Cost",
    "X-AIService-Format",
    "X-AIService-Size",
    "X-AIService-Seed",
    "X-AIService-Steps",
    "X-AIService-Guidance",
    "X-AIService-Megapixel-Steps",
    "X-AIService-Sample-Rate",
    "X-AIService-Audio-Seconds",
    "X-AIService-Language",
    "X-AIService-Voice",
    "Idempotent-Replayed",
)
"""What scripts of those pages may read of an answer, besides what they always may."""

_PREFLIGHT_SECONDS = 3600
_ROUTE: Final = Route("preflight")
"""Of preflights, in logs and metrics: they ask for no path that could be told apart."""


def cors(origins: tuple[str, ...]) -> dict[str, Any]:
    """Options of the middleware, which is around all that ask for a token or count: a preflight needs and costs none.

    Args:
        origins: Those whose pages may call; `*` alone for all, without credentials (cookies), which a browser must not
            send to everybody. Tokens in the Authorization header are no credentials in this sense.
    """
    return {
        "allow_origins": list(origins),
        "allow_credentials": "*" not in origins,
        "allow_methods": ["GET", "POST", "DELETE"],
        "allow_headers": ["*"],  # the middleware answers with those that were asked for: Authorization is never in *
        "expose_headers": list(_EXPOSED),
        "max_age": _PREFLIGHT_SECONDS,
    }


class PageMiddleware(CORSMiddleware):
    """Starlette's, with refusals in the shape of all errors."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a preflight."""
        return _Preflight(super().preflight_response(request_headers))


class _Preflight(Response):
    def __init__(self, answer: Response) -> None:
        self.background = None  # what Response has for FastAPI
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers."""
        scope["route"] = _ROUTE
        answer = self._answer
        if answer.status_code == BadRequestError.status:
            answer = error_response(_refused(answer), context_of(scope))
            kept = self._answer.headers.items()
            answer.headers.update({name: value for name, value in kept if not name.startswith("content-")})
        await answer(scope, receive, send)


def _refused(answer: Response) -> BadRequestError:
    """Why Starlette refuses a preflight, in a sentence: its own answer lists what is not allowed."""
    reasons = bytes(answer.body).decode().removeprefix("Disallowed CORS ")
    return BadRequestError(f"A page may not send this request because of its {reasons}.")

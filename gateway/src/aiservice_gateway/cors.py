"""Which pages may call the gateway from a browser (the Fetch standard's CORS protocol)."""

from __future__ import annotations

from typing import Any

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
    "Location",
)
"""What scripts of those pages may read of an answer, besides what they always may."""

_PREFLIGHT_SECONDS = 3600


def cors(origins: tuple[str, ...]) -> dict[str, Any]:
    """Options for Starlette's middleware, which is outermost: a preflight needs no token and costs no request.

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

"""What services are told of a request, and what of their answers goes back to a client."""

from __future__ import annotations

import logging
import re

import orjson
from starlette.datastructures import Headers

from aiservice_gateway import __version__
from aiservice_gateway.errors import UnsupportedMediaError
from aiservice_gateway.logs import FIELDS
from aiservice_gateway.services.connection import Answer, WireError

_log = logging.getLogger(__name__)

_PASSED_TO_SERVICE = ("accept", "content-type", "content-length")
_PASSED_TO_CLIENT = frozenset(
    {
        b"content-type",
        b"content-length",
        b"x-aiservice-units",
        b"x-aiservice-unit",
        b"x-aiservice-tokens",
        b"x-aiservice-queue-seconds",
        b"vary",
        # What JSON would tell of a picture or a sound that is the answer by itself.
        b"x-aiservice-cost",
        b"x-aiservice-format",
        b"x-aiservice-size",
        b"x-aiservice-seed",
        b"x-aiservice-steps",
        b"x-aiservice-guidance",
        b"x-aiservice-megapixel-steps",
        b"x-aiservice-sample-rate",
        b"x-aiservice-audio-seconds",
        b"x-aiservice-language",
        b"x-aiservice-voice",
    }
)

_USUAL_CONNECTION = frozenset({"keep-alive", "close"})
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")

_DEFAULT_RETRY_AFTER = 5
_LONGEST_RETRY_AFTER = 3600
_LOGGED_BYTES = 4096
_LOGGED_CHARACTERS = 500


def request_headers(client: Headers, request_id: str, price: str) -> dict[str, str]:
    """What a service is told: the listed headers of the client and the gateway's own. Never who asks.

    Raises:
        UnsupportedMediaError: the body is compressed, so its size is not what it seems.
    """
    refuse_compressed(client)
    nominated = _nominated(client.get("connection"))
    passed = {name: client[name].strip() for name in _PASSED_TO_SERVICE if name in client and name not in nominated}
    if "accept" in passed:
        passed["accept"] = ", ".join(client.getlist("accept"))  # several headers are one list
    return (
        passed
        | trace_headers(client)
        | {
            "accept-encoding": "identity",
            "user-agent": f"aiservice-gateway/{__version__}",
            "x-request-id": request_id,
            "x-aiservice-unit-price": price,
        }
    )


def trace_headers(client: Headers) -> dict[str, str]:
    """The client's place in a trace, if it says one (W3C Trace Context). Its baggage may hold anything: it stays."""
    parent = client.get("traceparent")
    if parent is None or not _TRACEPARENT.fullmatch(parent):
        return {}
    state = ",".join(client.getlist("tracestate"))
    return {"traceparent": parent, "tracestate": state} if _TRACESTATE.fullmatch(state) else {"traceparent": parent}


def refuse_compressed(client: Headers) -> None:
    """Raises UnsupportedMediaError for a body whose size is not what it seems."""
    if client.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaError("Compressed request bodies are not taken: send the body without Content-Encoding.")


def response_headers(service: Headers) -> list[tuple[bytes, bytes]]:
    """What of a service's answer a client gets to see, as ASGI headers; of several of one name the first."""
    passed: dict[bytes, bytes] = {}
    for name, value in service.raw:
        if name in _PASSED_TO_CLIENT:
            passed.setdefault(name, value)
    for nominated in _nominated(service.get("connection")):
        passed.pop(nominated.encode("latin-1"), None)
    return list(passed.items())


def _nominated(connection: str | None) -> frozenset[str]:
    """Headers that are for one connection only, as its Connection header says (RFC 9110 section 7.6.1).

    The length and the type of a body are the body's, whatever that header says.
    """
    if connection is None or connection in _USUAL_CONNECTION:
        return frozenset()
    return frozenset(map(str.strip, connection.lower().split(","))) - {"content-length", "content-type"}


async def note_failure(response: Answer, service: str, request_id: str) -> None:
    """Logs a service's answer that is no use to a client, with what the service says about it."""
    fields = {
        "request_id": request_id,
        "service": service,
        "status": response.status,
        "reason": await _reason(response),
    }
    _log.warning("A service failed", extra={FIELDS: fields})


async def _reason(response: Answer) -> str:
    """The sentence in a service's error answer, as docs/inference.md has it; nothing else of it is kept."""
    try:
        document = orjson.loads(await response.beginning(_LOGGED_BYTES))
    except (orjson.JSONDecodeError, WireError):
        return ""
    return str(document.get("error", ""))[:_LOGGED_CHARACTERS] if isinstance(document, dict) else ""


def retry_after(response: Answer) -> int:
    """Seconds after which a busy service wants to be asked again, where it says a sensible number of them."""
    header = response.headers.get("Retry-After")
    if header is None or not header.isdecimal():
        return _DEFAULT_RETRY_AFTER
    return min(max(1, int(header)), _LONGEST_RETRY_AFTER)

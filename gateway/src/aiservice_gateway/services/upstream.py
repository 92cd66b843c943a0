"""Connections to the services: what is sent to them, and what of theirs goes back to a client."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Mapping

import aiohttp
import orjson
from starlette.datastructures import Headers

from aiservice_gateway import __version__
from aiservice_gateway.errors import UnsupportedMediaError
from aiservice_gateway.logs import FIELDS
from aiservice_gateway.services.upload import Body

_log = logging.getLogger(__name__)

_PASSED_TO_SERVICE = ("accept", "content-type", "content-length")
_PASSED_TO_CLIENT = (
    "content-type",
    "content-length",
    "x-aiservice-units",
    "x-aiservice-unit",
    "x-aiservice-tokens",
    "x-aiservice-queue-seconds",
    "vary",
    # What JSON would tell of a picture or a sound that is the answer by itself.
    "x-aiservice-cost",
    "x-aiservice-format",
    "x-aiservice-size",
    "x-aiservice-seed",
    "x-aiservice-steps",
    "x-aiservice-guidance",
    "x-aiservice-megapixel-steps",
    "x-aiservice-sample-rate",
    "x-aiservice-audio-seconds",
    "x-aiservice-language",
    "x-aiservice-voice",
)

_USUAL_CONNECTION = frozenset({"keep-alive", "close"})
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")

_CONNECT_SECONDS = 5.0
_KEEPALIVE_SECONDS = 4.0  # below the 5 s after which uvicorn closes, so that a connection is rarely found dead
_DNS_SECONDS = 10
_BUFFERED_BYTES = 16 * 1024
_RECEIVED_BYTES = 32 * 1024
_DEFAULT_RETRY_AFTER = 5
_LONGEST_RETRY_AFTER = 3600
_LOGGED_BYTES = 4096
_LOGGED_CHARACTERS = 500

UNREACHED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
"""No byte of the request was sent."""


class Upstream:
    """The connection pool."""

    def __init__(self) -> None:
        """Needs a running event loop."""
        connector = aiohttp.TCPConnector(
            limit=0, ttl_dns_cache=_DNS_SECONDS, keepalive_timeout=_KEEPALIVE_SECONDS, socket_factory=_socket
        )
        self._session = aiohttp.ClientSession(
            read_bufsize=_BUFFERED_BYTES,
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Content-Type"),
        )

    async def post(self, url: str, body: Body, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Sends a request once.

        Raises:
            aiohttp.ClientError: one of UNREACHED: nothing of it was sent. Another one: it may be at work.
        """
        return await self._session.post(url, data=body, headers=headers, allow_redirects=False)

    async def ready(self, url: str, timeout_seconds: float) -> bool:
        """Whether the service at a base URL says that it can serve, within a time."""
        timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        try:
            async with self._session.get(f"{url}/ready", timeout=timeout, allow_redirects=False) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def close(self) -> None:
        """Closes all connections."""
        await self._session.close()


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


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that takes in little at once, so that a slow client does not have much of its answer kept here."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVED_BYTES)
    return made


def describe(error: aiohttp.ClientError) -> str:
    """What went wrong with a connection, for the log. Never what was sent over it, which other messages may quote."""
    return str(error) if isinstance(error, aiohttp.ClientOSError) else type(error).__name__


def body_length(response: aiohttp.ClientResponse) -> int | None:
    """Bytes of an answer's body, where its headers say how many."""
    return None if "transfer-encoding" in response.headers else response.content_length


def refuse_compressed(client: Headers) -> None:
    """Raises UnsupportedMediaError for a body whose size is not what it seems."""
    if client.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaError("Compressed request bodies are not taken: send the body without Content-Encoding.")


def response_headers(service: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """What of a service's answer a client gets to see, as ASGI headers."""
    nominated = _nominated(service.get("connection"))
    if "transfer-encoding" in service:
        nominated |= {"content-length"}  # it is not the length then (RFC 9112 section 6.3)
    return [
        (name.encode("latin-1"), service[name].encode("latin-1"))
        for name in _PASSED_TO_CLIENT
        if name in service and name not in nominated
    ]


def _nominated(connection: str | None) -> frozenset[str]:
    """Headers that are for one connection only, as its Connection header says (RFC 9110 section 7.6.1).

    The length and the type of a body are the body's, whatever that header says.
    """
    if connection is None or connection in _USUAL_CONNECTION:
        return frozenset()
    return frozenset(map(str.strip, connection.lower().split(","))) - {"content-length", "content-type"}


async def note_failure(response: aiohttp.ClientResponse, service: str, request_id: str) -> None:
    """Logs a service's answer that is no use to a client, with what the service says about it."""
    fields = {
        "request_id": request_id,
        "service": service,
        "status": response.status,
        "reason": await _reason(response),
    }
    _log.warning("A service failed", extra={FIELDS: fields})


async def _reason(response: aiohttp.ClientResponse) -> str:
    """The sentence in a service's error answer, as docs/inference.md has it; nothing else of it is kept."""
    try:
        document = orjson.loads(await response.content.read(_LOGGED_BYTES))
    except (orjson.JSONDecodeError, aiohttp.ClientError):
        return ""
    return str(document.get("error", ""))[:_LOGGED_CHARACTERS] if isinstance(document, dict) else ""


def retry_after(response: aiohttp.ClientResponse) -> int:
    """Seconds after which a busy service wants to be asked again, where it says a sensible number of them."""
    header = response.headers.get("Retry-After")
    if header is None or not header.isdecimal():
        return _DEFAULT_RETRY_AFTER
    return min(max(1, int(header)), _LONGEST_RETRY_AFTER)

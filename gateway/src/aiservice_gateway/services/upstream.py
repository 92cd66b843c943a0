"""Connections to the services: what is sent to them, and what of theirs goes back to a client."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping

import aiohttp
import orjson
from starlette.datastructures import Headers

from aiservice_gateway import __version__
from aiservice_gateway.errors import GatewayError, UnavailableError, UnsupportedMediaError, UpstreamFailedError
from aiservice_gateway.logs import FIELDS
from aiservice_gateway.services.upload import Upload

_log = logging.getLogger(__name__)

Body = bytes | AsyncIterator[bytes]

_PASSED_TO_SERVICE = ("accept", "content-type", "content-length")
_PASSED_TO_CLIENT = (
    "content-type",
    "content-length",
    "x-aiservice-units",
    "x-aiservice-unit",
    "x-aiservice-tokens",
    "x-aiservice-queue-seconds",
)

_CONNECT_SECONDS = 5.0
_KEEPALIVE_SECONDS = 4.0  # below the 5 s after which uvicorn closes, so that a connection is rarely found dead
_DNS_SECONDS = 10
_DEFAULT_RETRY_AFTER = 5
_LONGEST_RETRY_AFTER = 3600
_LOGGED_BYTES = 4096
_LOGGED_CHARACTERS = 500

_UNREACHED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
"""No byte of the request was sent."""


class Upstream:
    """The connection pools."""

    def __init__(self) -> None:
        """Needs a running event loop."""
        self._pooled = _session(force_close=False)
        self._fresh = _session(force_close=True)

    async def post(self, url: str, body: Body, headers: Mapping[str, str], upload: Upload) -> aiohttp.ClientResponse:
        """Sends a request; once more, on a fresh connection, where the first try cannot have been worked on.

        Raises:
            UnavailableError: the service cannot be reached.
            UpstreamFailedError: the service broke off without an answer.
            ClientGoneError, GatewayError: what reading the body raised.
        """
        try:
            return await _post(self._pooled, url, body, headers)
        except aiohttp.ClientError as error:
            _raise_unless_repeatable(error, url, body, upload)
            _log.info("The service at %s is asked again: %s", url, error)
        try:
            return await _post(self._fresh, url, body, headers)
        except _UNREACHED as error:
            _log.warning("The service at %s cannot be reached: %s", url, error)
            raise UnavailableError("The service cannot be reached at the moment: try again.") from error
        except aiohttp.ClientError as error:
            raise _broken(url, error, upload) from error

    async def ready(self, url: str, timeout_seconds: float) -> bool:
        """Whether the service at a base URL says that it can serve, within a time."""
        timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        try:
            async with self._pooled.get(f"{url}/ready", timeout=timeout, allow_redirects=False) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def close(self) -> None:
        """Closes all connections."""
        await self._pooled.close()
        await self._fresh.close()


def request_headers(client: Headers, request_id: str, price: str) -> dict[str, str]:
    """What a service is told: the listed headers of the client and the gateway's own. Never who asks.

    Raises:
        UnsupportedMediaError: the body is compressed, so its size is not what it seems.
    """
    refuse_compressed(client)
    passed = {name: client[name] for name in _PASSED_TO_SERVICE if name in client}
    return passed | {
        "accept-encoding": "identity",
        "user-agent": f"aiservice-gateway/{__version__}",
        "x-request-id": request_id,
        "x-aiservice-unit-price": price,
    }


def refuse_compressed(client: Headers) -> None:
    """Raises UnsupportedMediaError for a body whose size is not what it seems."""
    if client.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaError("Compressed request bodies are not taken: send the body without Content-Encoding.")


def response_headers(service: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """What of a service's answer a client gets to see, as ASGI headers."""
    return [(name.encode("latin-1"), service[name].encode("latin-1")) for name in _PASSED_TO_CLIENT if name in service]


async def failure(response: aiohttp.ClientResponse, service: str, request_id: str) -> GatewayError:
    """The error for a service's answer that is no use to a client. What the service says about it is logged."""
    fields = {
        "request_id": request_id,
        "service": service,
        "status": response.status,
        "reason": await _reason(response),
    }
    _log.warning("A service failed", extra={FIELDS: fields})
    if response.status == UnavailableError.status:
        return UnavailableError(
            f"The service {service} is busy or not ready: try again later.",
            retry_after=_retry_after(response.headers.get("Retry-After")),
        )
    return UpstreamFailedError(f"The service {service} failed. The gateway's log has the request id.")


def _session(*, force_close: bool) -> aiohttp.ClientSession:
    if force_close:
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=_DNS_SECONDS, force_close=True)
    else:
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=_DNS_SECONDS, keepalive_timeout=_KEEPALIVE_SECONDS)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("Accept", "Content-Type"),
    )


async def _post(
    session: aiohttp.ClientSession, url: str, body: Body, headers: Mapping[str, str]
) -> aiohttp.ClientResponse:
    return await session.post(url, data=body, headers=headers, allow_redirects=False)


def _raise_unless_repeatable(error: aiohttp.ClientError, url: str, body: Body, upload: Upload) -> None:
    """A request may be repeated if nothing of it was sent, or if all of it can be sent again."""
    if isinstance(error, _UNREACHED):
        return
    if upload.failure is not None or not isinstance(body, bytes):
        raise _broken(url, error, upload) from error


def _broken(url: str, error: aiohttp.ClientError, upload: Upload) -> Exception:
    if upload.failure is not None:
        return upload.failure
    _log.warning("The service at %s broke off: %r", url, error)
    return UpstreamFailedError("The service broke off without an answer. The gateway's log has the request id.")


async def _reason(response: aiohttp.ClientResponse) -> str:
    """The sentence in a service's error answer, as docs/inference.md has it; nothing else of it is kept."""
    try:
        document = orjson.loads(await response.content.read(_LOGGED_BYTES))
    except (orjson.JSONDecodeError, aiohttp.ClientError):
        return ""
    return str(document.get("error", ""))[:_LOGGED_CHARACTERS] if isinstance(document, dict) else ""


def _retry_after(header: str | None) -> int:
    """Seconds, where the header holds a sensible number of them."""
    if header is None or not header.isdecimal():
        return _DEFAULT_RETRY_AFTER
    return min(max(1, int(header)), _LONGEST_RETRY_AFTER)

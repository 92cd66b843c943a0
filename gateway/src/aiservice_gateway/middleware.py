"""Pure ASGI middleware: it adds no task, no queue and no copy of a body to a request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aiservice_gateway.context import RequestContext, context_of
from aiservice_gateway.errors import (
    BadRequestError,
    PayloadTooLargeError,
    RequestTimeoutError,
    UnavailableError,
)
from aiservice_gateway.logs import FIELDS
from aiservice_gateway.metrics import Metrics
from aiservice_gateway.openai_errors import is_openai
from aiservice_gateway.protocol import stalled
from aiservice_gateway.respond import error_response, unexpected
from aiservice_gateway.telemetry import Tracing, trace_id

_access = logging.getLogger("aiservice_gateway.access")
_log = logging.getLogger(__name__)

_UNMATCHED = "unmatched"
"""Route of paths that nothing serves: the path itself may hold anything, so neither log nor metrics show it."""

_QUIET = {"/livez", "/readyz", "/metrics"}
"""Routes that are asked all the time; they are counted, not logged."""


class RequestMiddleware:
    """Gives each request its id, counts it and logs it."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = RequestContext(openai=is_openai(scope["path"]))
        context.put(scope)
        if self._tracing is not None and scope["path"] not in _QUIET:
            context.span = self._tracing.request(Headers(scope=scope), scope["method"], scope["scheme"])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                context.status = message["status"]
                added = {"x-request-id": context.request_id, **context.headers}
                message["headers"] = [*message["headers"], *_raw(added.items())]
            await send(message)

        try:
            with self._metrics.in_flight.track_inprogress():
                await self._app(scope, receive, send_with_headers)
        finally:
            self._account(scope, context)

    def _account(self, scope: Scope, context: RequestContext) -> None:
        route = getattr(scope.get("route"), "path", _UNMATCHED)
        if self._tracing is not None and context.span is not None:
            self._tracing.end(context.span, scope["method"], route, context.status, context.error)
        seconds = time.perf_counter() - context.started
        self._metrics.answered(route, scope["method"], context.status, seconds)
        if route in _QUIET:
            return
        fields = {
            "request_id": context.request_id,
            "method": scope["method"],
            "route": route,
            "status": context.status,
            "duration_ms": round(seconds * 1000, 1),
            "tenant": context.tenant,
            "service": context.service,
            "error": context.error,
            "trace_id": trace_id(context.span),
        }
        _access.info("request", extra={FIELDS: {name: value for name, value in fields.items() if value is not None}})


class FaultMiddleware:
    """Answers what nothing else caught; within the layer that lets pages of other origins read answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = context_of(scope)
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            # Only the server cancels, when it stops and this took too long; nobody waits for the cancellation itself.
            if not context.status:
                stopping = UnavailableError("The gateway was stopped before it had an answer: try again.")
                await error_response(stopping, context)(scope, receive, send)
        except Exception:  # noqa: BLE001 - the last place where a bug can become an answer
            _log.exception("A request failed unexpectedly", extra={FIELDS: {"request_id": context.request_id}})
            if not context.status:
                await error_response(unexpected(), context)(scope, receive, send)


class BodyLimitMiddleware:
    """Refuses bodies over a size: before the first byte where the length is declared, else when it is passed."""

    def __init__(self, app: ASGIApp, maximum: int) -> None:
        self._app = app
        self._maximum = maximum

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            declared = int(Headers(scope=scope).get("content-length", "0"))
        except ValueError:
            await error_response(BadRequestError("The Content-Length header is not a number."), context_of(scope))(
                scope, receive, send
            )
            return
        if declared > self._maximum:
            await error_response(self._too_large(), context_of(scope))(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._maximum:
                raise self._too_large()
            if stalled(scope):
                raise RequestTimeoutError("The request's body did not arrive, or came too slowly.")
            return message

        await self._app(scope, counted, send)

    def _too_large(self) -> PayloadTooLargeError:
        return PayloadTooLargeError(f"The request's body is larger than {self._maximum} bytes, the most that is taken.")


def _raw(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]

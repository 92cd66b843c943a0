"""The HTTP side: routes, headers, the shape of answers and errors. One app serves every port of the process."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aiservice_runtime import metrics, openapi, tracing
from aiservice_runtime.body import Incoming
from aiservice_runtime.device import Phase
from aiservice_runtime.engine import Answer, Facts, Prepared, Stream, Task
from aiservice_runtime.errors import ClientGoneError, InternalError, InvalidRequestError, RequestError
from aiservice_runtime.service import Served, Service

log = logging.getLogger("aiservice_runtime.access")

REQUEST_ID = "X-Request-Id"
UNIT_PRICE = "X-AIService-Unit-Price"

_REQUEST_ID_FORM = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CLIENT_GONE = 499  # nobody receives it; the log and the metrics tell it apart
# What a price may be, so that units times price fit into a Decimal's 28 digits with 6 of them behind the point.
_HIGHEST_PRICE, _PRICE_DIGITS = 1_000_000_000, 28
# Of a fact in a header, what stands as it is: visible ASCII and blanks, but for %. All else is percent-encoded UTF-8.
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_MILLI, _MICRO = Decimal("0.001"), Decimal("0.000001")


def build_app(service: Service) -> ASGIApp:
    """Returns the app of a service: a POST route for each task, their description, and what probes read."""

    async def health(_: Request) -> Response:
        dead = service.device.ended and service.device.phase is not Phase.STOPPED
        return JSONResponse({"status": "dead" if dead else "alive"}, status_code=503 if dead else 200)

    async def ready(_: Request) -> Response:
        return JSONResponse({"status": service.state}, status_code=200 if service.ready else 503)

    async def show_metrics(_: Request) -> Response:
        return Response(service.metrics.render(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def sleep(request: Request) -> Response:
        return await _changed(service, service.sleep, request)

    async def wake(request: Request) -> Response:
        return await _changed(service, service.wake, request)

    description = json.dumps(openapi.document(service.tasks.values()), ensure_ascii=False).encode()

    async def describe(_: Request) -> Response:
        return Response(description, media_type="application/json")

    app = Starlette(
        routes=[
            Route("/health", health),
            Route("/ready", ready),
            Route("/metrics", show_metrics),
            Route("/openapi.json", describe),
            Route("/sleep", sleep, methods=["POST"]),
            Route("/wake", wake, methods=["POST"]),
            *(
                Route(f"/api/{task.name}", TaskEndpoint(service, task), methods=["POST"])
                for task in service.tasks.values()
            ),
        ],
        exception_handlers={HTTPException: _no_such_route, Exception: _defect},
    )
    return RequestContext(app, service)


async def _changed(service: Service, change: Callable[[], Awaitable[None]], request: Request) -> Response:
    try:
        await change()
    except RequestError as error:
        return _error(error, request.state.request_id)
    return JSONResponse({"status": service.state})


class TaskEndpoint:
    """Answers the requests of one task and counts them, whatever their outcome."""

    def __init__(self, service: Service, task: Task[Any, Any, Any]) -> None:
        self._service = service
        self._task = task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        request = Request(scope)
        sink = _Sink(send, self._task)
        with self._service.tracing.request(self._task.name, request.headers) as span:
            if trace_id := tracing.trace_id(span):
                request.state.log_fields["trace_id"] = trace_id
            outcome = await self._handle(request, receive, sink)
            tracing.finish(span, sink.status, outcome)

    async def _handle(self, request: Request, receive: Receive, sink: _Sink) -> str:
        """Answers; returns the outcome for metrics and log."""
        started = time.monotonic()
        service, task = self._service, self._task
        incoming = Incoming(request.headers, receive, service.settings.max_body_mib * 1024**2)
        service.metrics.last_request.set_to_current_time()
        outcome, served = "cancelled", None
        try:
            sink.price = unit_price(request.headers)
            served = await service.infer(task, incoming, sink)
            service.metrics.units.labels(task.name, task.unit).inc(served.units)
            if served.answer is None:
                await sink.close()
            else:
                await sink.respond(_answer(request.state.request_id, sink, served.answer), served)
            service.metrics.first_byte_seconds.labels(task.name).observe((sink.started or started) - started)
            outcome = "ok"
        except ClientGoneError:
            if sink.started is None:
                await sink.respond(Response(status_code=_CLIENT_GONE))
        except RequestError as error:
            outcome = error.code
            if sink.started is None:
                await sink.respond(_error(error, request.state.request_id))
            else:
                await sink.fail(error)
        finally:
            service.metrics.last_request.set_to_current_time()
            service.metrics.request_seconds.labels(task.name, outcome).observe(time.monotonic() - started)
            request.state.log_fields.update(task=task.name, outcome=outcome, **_timings(served))
        return outcome


class _Sink:
    """The way of one answer to its client: notes when it began, and writes what is streamed."""

    def __init__(self, send: Send, task: Task[Any, Any, Any]) -> None:
        self._send = send
        self._task = task
        self._stream: Stream | None = None
        self.price: Decimal | None = None
        self.status = 0
        self.started: float | None = None
        """When the first byte went out."""

    async def respond(self, response: Response, served: Served | None = None) -> None:
        """Sends a whole answer, with the headers that tell its cost."""
        response.headers.update(_usage_headers(self._task, served) | self._vary)
        await self._begin(response.status_code, response.raw_headers)
        await self._send({"type": "http.response.body", "body": response.body})

    async def start(self, stream: Stream, prepared: Prepared[Any, Any], queue_seconds: float) -> None:
        """Sends the headers of a streamed answer. Device seconds are not known yet, and tokens not always."""
        self._stream = stream
        headers = {
            "Content-Type": stream.media_type,
            "X-AIService-Units": f"{_rounded(stream.units):f}",
            "X-AIService-Unit": self._task.unit,
            "X-AIService-Queue-Seconds": f"{queue_seconds:.6f}",
            **self.fact_headers(prepared.facts, stream.units),
            **self._vary,
        }
        if prepared.tokens is not None:
            headers["X-AIService-Tokens"] = str(prepared.tokens)
        await self._begin(200, Headers(headers).raw)

    async def send(self, data: bytes) -> None:
        """Sends some of the body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def close(self) -> None:
        """Ends the body."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def fail(self, error: RequestError) -> None:
        """Tells of a failure in the middle; a format that has no words for it is cut off, so that clients notice."""
        last = self._stream.failed(error.message) if self._stream is not None else None
        if last is None:
            raise error
        await self.send(last)
        await self.close()

    async def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status, self.started = status, time.monotonic()
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    @property
    def _vary(self) -> dict[str, str]:
        """The header that says that another Accept may get another answer, where that is so."""
        return {"Vary": "Accept"} if self._task.files else {}

    def fact_headers(self, facts: Facts, units: float) -> dict[str, str]:
        """Returns the headers that tell what JSON would: the facts, and the cost where there is a price."""
        told = {f"X-AIService-{name}": quote(str(value), safe=_PLAIN) for name, value in facts.items()}
        money = cost(units, self.price)
        return told if money is None else {**told, "X-AIService-Cost": f"{money:.6f}"}

    def usage(self, units: float, tokens: int) -> dict[str, Any]:
        """Returns what the answer says of its cost."""
        return {
            "units": float(_rounded(units)),
            "unit": self._task.unit,
            "tokens": tokens,
            "cost": cost(units, self.price),
        }


def unit_price(headers: Headers) -> Decimal | None:
    """Returns the price of one unit that the gateway set, or None. Raises InvalidRequestError if it is no price."""
    text = headers.get(UNIT_PRICE)
    if text is None:
        return None
    try:
        price = Decimal(text)
    except InvalidOperation:
        price = Decimal("NaN")
    if not price.is_finite() or not 0 <= price <= _HIGHEST_PRICE or len(price.as_tuple().digits) > _PRICE_DIGITS:
        raise InvalidRequestError(
            f"{UNIT_PRICE} must be a decimal number from 0 to {_HIGHEST_PRICE}, of at most {_PRICE_DIGITS} digits."
        )
    return price


def cost(units: float, price: Decimal | None) -> float | None:
    """Returns units (to 3 decimals) times price, to 6 decimals, half up; None without a price."""
    if price is None:
        return None
    return float((_rounded(units) * price).quantize(_MICRO, ROUND_HALF_UP))


def _rounded(units: float) -> Decimal:
    return Decimal(str(units)).quantize(_MILLI, ROUND_HALF_UP)


def _answer(request_id: str, sink: _Sink, answer: Answer) -> Response:
    if answer.raw is not None:
        headers = sink.fact_headers(answer.raw.facts, answer.units)
        return Response(answer.raw.content, media_type=answer.raw.media_type, headers=headers)
    return JSONResponse({"request_id": request_id, **answer.body, "usage": sink.usage(answer.units, answer.tokens)})


def _usage_headers(task: Task[Any, Any, Any], served: Served | None) -> dict[str, str]:
    """Returns the headers that let a proxy account for the answer without reading its body; zeros on errors."""
    return {
        "X-AIService-Units": f"{_rounded(served.units) if served else Decimal(0):f}",
        "X-AIService-Unit": task.unit,
        "X-AIService-Tokens": str(served.tokens if served else 0),
        "X-AIService-Queue-Seconds": f"{served.queue_seconds if served else 0:.6f}",
        "X-AIService-Device-Seconds": f"{served.device_seconds if served else 0:.6f}",
    }


def _timings(served: Served | None) -> dict[str, float]:
    if served is None:
        return {}
    return {"queue_seconds": round(served.queue_seconds, 3), "device_seconds": round(served.device_seconds, 3)}


def _error(error: RequestError, request_id: str) -> Response:
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    body = {"error": error.message, "code": error.code, "request_id": request_id}
    return JSONResponse(body, status_code=error.status, headers=headers)


async def _no_such_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    sentence = "This path takes POST only." if status == 405 else "There is no such path here."
    body = {"error": sentence, "code": "invalid_request", "request_id": request.state.request_id}
    return JSONResponse(body, status_code=status, headers=getattr(error, "headers", None))


async def _defect(request: Request, _: Exception) -> Response:
    """Answers what no handler caught; the server logs it."""
    return _error(
        InternalError("The service failed on this request; its log has the details."), request.state.request_id
    )


class RequestContext:
    """Gives every request an id, and writes one log line for it when it has been answered."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wraps the app."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _REQUEST_ID_FORM.fullmatch(given) else uuid.uuid4().hex
        fields: dict[str, Any] = {"request_id": request_id, "method": scope["method"]}
        scope.setdefault("state", {}).update(request_id=request_id, log_fields=fields)
        started = time.monotonic()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                if self._service.draining:
                    headers["Connection"] = "close"  # the client's next request belongs to another replica
                fields["status"] = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            fields["seconds"] = round(time.monotonic() - started, 3)
            # Probes come every few seconds and say nothing new.
            level = logging.INFO if "task" in fields else logging.DEBUG
            log.log(level, "request", extra={"fields": fields})

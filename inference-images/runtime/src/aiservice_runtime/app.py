"""The HTTP side: routes, headers, the shape of answers and errors. One app serves every port of the process."""

from __future__ import annotations

import logging
import re
import time
import uuid
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aiservice_runtime import metrics
from aiservice_runtime.body import Incoming
from aiservice_runtime.device import Done, Phase
from aiservice_runtime.engine import Task
from aiservice_runtime.errors import ClientGoneError, InternalError, InvalidRequestError, RequestError
from aiservice_runtime.service import Service

log = logging.getLogger("aiservice_runtime.access")

REQUEST_ID = "X-Request-Id"
UNIT_PRICE = "X-AIService-Unit-Price"

_REQUEST_ID_FORM = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CLIENT_GONE = 499  # nobody receives it; the log and the metrics tell it apart
_MILLI, _MICRO = Decimal("0.001"), Decimal("0.000001")


def build_app(service: Service) -> ASGIApp:
    """Returns the app of a service: one POST route a task, and what Kubernetes and Prometheus ask for."""

    async def health(_: Request) -> Response:
        dead = not service.device.alive and service.device.phase in {Phase.LOADING, Phase.WARMING_UP, Phase.SERVING}
        return JSONResponse({"status": "dead" if dead else "alive"}, status_code=503 if dead else 200)

    async def ready(_: Request) -> Response:
        return JSONResponse({"status": service.state}, status_code=200 if service.ready else 503)

    async def show_metrics(_: Request) -> Response:
        return Response(service.metrics.render(), headers={"Content-Type": metrics.CONTENT_TYPE})

    def task_route(task: Task[Any, Any]) -> Route:
        async def infer(request: Request) -> Response:
            return await _infer(service, task, request)

        return Route(f"/api/{task.name}", infer, methods=["POST"])

    app = Starlette(
        routes=[
            Route("/health", health),
            Route("/ready", ready),
            Route("/metrics", show_metrics),
            *(task_route(task) for task in service.tasks.values()),
        ],
        exception_handlers={HTTPException: _no_such_route, Exception: _defect},
    )
    return RequestContext(app, service)


async def _infer(service: Service, task: Task[Any, Any], request: Request) -> Response:
    """Answers one request and counts it, whatever its outcome."""
    started = time.monotonic()
    incoming = Incoming(request.headers, request.receive, service.settings.max_body_mib * 1024**2)
    service.metrics.last_request.set_to_current_time()
    outcome, done = "ok", None
    try:
        price = unit_price(request.headers)
        done = await service.infer(task, incoming)
        response: Response = JSONResponse(_answer_body(request.state.request_id, task, done, price))
        service.metrics.units.labels(task.name, task.unit).inc(done.answer.units)
    except ClientGoneError:
        outcome, response = "cancelled", Response(status_code=_CLIENT_GONE)
    except RequestError as error:
        outcome, response = error.code, _error(error, request.state.request_id)
    finally:
        service.metrics.last_request.set_to_current_time()
    service.metrics.request_seconds.labels(task.name, outcome).observe(time.monotonic() - started)
    response.headers.update(_usage_headers(task, done))
    request.state.log_fields.update(task=task.name, outcome=outcome, **_timings(done))
    return response


def unit_price(headers: Headers) -> Decimal | None:
    """Returns the price of one unit that the gateway set, or None. Raises InvalidRequestError if it is no price."""
    text = headers.get(UNIT_PRICE)
    if text is None:
        return None
    try:
        price = Decimal(text)
    except InvalidOperation:
        price = Decimal("NaN")
    if not price.is_finite() or price < 0:
        raise InvalidRequestError(f"{UNIT_PRICE} must be a decimal number, 0 or more.")
    return price


def cost(units: float, price: Decimal | None) -> float | None:
    """Returns units (to 3 decimals) times price, to 6 decimals, half up; None without a price."""
    if price is None:
        return None
    return float((_rounded(units) * price).quantize(_MICRO, ROUND_HALF_UP))


def _rounded(units: float) -> Decimal:
    return Decimal(str(units)).quantize(_MILLI, ROUND_HALF_UP)


def _answer_body(request_id: str, task: Task[Any, Any], done: Done, price: Decimal | None) -> dict[str, Any]:
    answer = done.answer
    usage = {
        "units": float(_rounded(answer.units)),
        "unit": task.unit,
        "tokens": answer.tokens,
        "cost": cost(answer.units, price),
    }
    return {"request_id": request_id, **answer.body, "usage": usage}


def _usage_headers(task: Task[Any, Any], done: Done | None) -> dict[str, str]:
    """Returns the headers that let a proxy account for the answer without reading its body; zeros on errors."""
    return {
        "X-AIService-Units": f"{_rounded(done.answer.units) if done else Decimal(0):f}",
        "X-AIService-Unit": task.unit,
        "X-AIService-Tokens": str(done.answer.tokens if done else 0),
        "X-AIService-Device-Seconds": f"{done.device_seconds if done else 0:.6f}",
    }


def _timings(done: Done | None) -> dict[str, float]:
    if done is None:
        return {}
    return {"queue_seconds": round(done.queue_seconds, 3), "device_seconds": round(done.device_seconds, 3)}


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

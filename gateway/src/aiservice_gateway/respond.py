"""Renders errors. Whatever goes wrong, the answer has one shape: the gateway's own, or OpenAI's on its routes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Send

from aiservice_gateway.context import RequestContext, context_of
from aiservice_gateway.errors import BadRequestError, GatewayError, MethodNotAllowedError, NotFoundError
from aiservice_gateway.openai_errors import openai_error


def error_response(error: GatewayError, context: RequestContext) -> Response:
    """The answer to a request that failed."""
    context.error = error.code
    body = openai_error(error) if context.openai else error.body(context.request_id)
    return json_response(body, error.status, error.headers)


def unexpected() -> GatewayError:
    """What to answer where there is a fault in the gateway itself."""
    return GatewayError("Something went wrong inside the gateway. Its log has the request id.")


def json_response(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer in JSON."""
    document = orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)  # tasks are keys
    return Response(document, status, headers, media_type="application/json")


async def send_kept(
    send: Send, status: int, headers: list[tuple[bytes, bytes]], first: bytes, others: AsyncIterator[bytes]
) -> None:
    """Sends an answer that was kept: piece by piece, with the headers that it had."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    piece = first
    async for following in others:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        piece = following
    await send({"type": "http.response.body", "body": piece, "more_body": False})


def install_error_handlers(app: FastAPI) -> None:
    """Makes the application answer the gateway's errors, and the framework's own, in the one shape."""

    async def render(request: Request, error: Exception) -> Response:
        context = context_of(request.scope)
        return error_response(_translate(error, request.method, context), context)

    for kind in (GatewayError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, render)


def _translate(error: Exception, method: str, context: RequestContext) -> GatewayError:
    """What the framework says, in the gateway's words."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, RequestValidationError):
        problem = error.errors()[0]
        return BadRequestError(f"{'.'.join(map(str, problem['loc'][1:]))}: {problem['msg']}.")
    if not isinstance(error, HTTPException):
        return unexpected()
    status = error.status_code
    if status == MethodNotAllowedError.status:
        allowed = getattr(error, "headers", {}).get("Allow", "another method")
        context.headers["Allow"] = allowed
        return MethodNotAllowedError(f"{method} is not possible here: use {allowed}.")
    if status == NotFoundError.status:
        return NotFoundError("There is nothing at this path. The API is described at /docs.")
    return BadRequestError("The request cannot be understood.")

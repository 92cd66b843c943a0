"""Middleware for the header Idempotency-Key. A request without it costs a look at its headers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from aiservice_gateway.context import RequestContext, Route, context_of
from aiservice_gateway.errors import GatewayError, StoreUnavailableError
from aiservice_gateway.factory import Gateway, Lifecycle
from aiservice_gateway.respond import error_response, send_kept
from aiservice_gateway.services.idempotency import Recorder, check_repeat, first_attempt, parse_key, unavailable
from aiservice_gateway.stores.keys import Known, holder
from aiservice_gateway.stores.keys import Scope as KeyScope
from aiservice_gateway.stores.pieces import read

_HEADER: Final = b"idempotency-key"
_REPLAYED: Final = (b"idempotent-replayed", b"true")


class IdempotencyMiddleware:
    """Answers repeated requests, and has the answers to others kept."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle, routes: Mapping[str, Route]) -> None:
        """Wires it up.

        Args:
            app: What answers requests.
            lifecycle: Has the gateway while it runs.
            routes: By path, those that take the header.
        """
        self._app = app
        self._lifecycle = lifecycle
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http" or scope["method"] != "POST" or not _has_key(scope):
            await self._app(scope, receive, send)
            return
        route, gateway = self._routes.get(scope["path"]), self._lifecycle.gateway
        if route is None or gateway is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        context = context_of(scope)
        try:
            await self._answer(scope, receive, send, gateway, context)
        except GatewayError as error:
            await error_response(error, context)(scope, receive, send)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, gateway: Gateway, context: RequestContext
    ) -> None:
        headers, shared = Headers(scope=scope), gateway.idempotency
        caller = await gateway.auth.identify(headers.getlist("authorization"))
        context.tenant = caller.tenant
        key = KeyScope(caller.tenant, scope["path"], parse_key(headers.getlist("idempotency-key")))
        found = await first_attempt(shared, key, context.request_id)
        if isinstance(found, Known):
            if await check_repeat(found, scope, receive):
                await _replay(gateway, found, send)
            return
        recorder = Recorder(shared, context.request_id, scope, receive, send)
        context.keeper, context.first_id = recorder, found
        async with shared.working():
            try:
                await self._app(scope, recorder.receive, recorder.send)
            finally:
                await recorder.close()


async def _replay(gateway: Gateway, known: Known, send: Send) -> None:
    """Sends an answer that was kept.

    Raises:
        UnavailableError: the database went away before it began.
    """
    pieces = read(gateway.idempotency.keys.database, holder(known.attempt))
    try:
        piece = await anext(pieces, b"")
    except StoreUnavailableError as error:
        raise unavailable(error) from error
    await send_kept(send, known.status, [*known.headers, _REPLAYED], piece, pieces)


def repeatable_routes(app: FastAPI) -> Mapping[str, Route]:
    """By path, those that take the header."""
    return {path: Route(path) for path, item in app.openapi()["paths"].items() if repeatable(path, item)}


def repeatable(path: str, methods: Collection[str]) -> bool:
    """Whether a path takes the header: with a POST that is described, and without parameters.

    Args:
        path: As it is described.
        methods: That it has, in small letters.
    """
    return "post" in methods and "{" not in path


def _has_key(scope: Scope) -> bool:
    return any(name == _HEADER for name, _ in scope["headers"])

"""What the routes that forward to a service have in common."""

from __future__ import annotations

from fastapi import Request, Response

from aiservice_gateway.context import context_of
from aiservice_gateway.errors import NotFoundError
from aiservice_gateway.factory import Gateway
from aiservice_gateway.models import Identity
from aiservice_gateway.services.openai.bodies import Body, open_body
from aiservice_gateway.services.openai.calls import (
    NoAnswer,
    TranslatedExchange,
    Translation,
    begin,
    model_not_found,
    told,
)
from aiservice_gateway.services.openai.parameters import Parameters
from aiservice_gateway.services.proxy import Call, Exchange


async def forward(request: Request, gateway: Gateway, caller: Identity, kind: type[Parameters]) -> Response:
    """Reads a request as far as its model must be known, and forwards it to that service.

    Raises:
        GatewayError: the request is refused, or there is no such service.
    """
    body = open_body(kind, request.headers, request.receive, gateway.room)
    try:
        if not await begin(body, gateway.proxy.timeout_seconds):
            await body.close()
            return NoAnswer()
        return _exchange(request, gateway, caller, body, kind)
    except BaseException:
        await body.close()
        raise


def _exchange(
    request: Request, gateway: Gateway, caller: Identity, body: Body, kind: type[Parameters]
) -> TranslatedExchange:
    try:
        service = gateway.resolve(kind.task, body.model, caller)
    except NotFoundError as error:
        raise model_not_found(error) from error
    context = context_of(request.scope)
    context.service = service.key
    call = Call(context, told(request.headers, body), caller, kind.task, service)
    return TranslatedExchange(Exchange(gateway.proxy, call), Translation(body, context.request_id, service.name))

"""What routes ask for."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from aiservice_gateway.context import context_of
from aiservice_gateway.factory import Gateway, Lifecycle, running
from aiservice_gateway.models import Identity

bearer = HTTPBearer(auto_error=False, description="A JWT that names the tenant, or an API key (`ais_...`).")
"""Documents the token in the OpenAPI description; `identify` is what checks it."""


async def lifecycle_of(request: Request) -> Lifecycle:
    """Where the process is between start and stop."""
    lifecycle: Lifecycle = request.app.state.lifecycle
    return lifecycle


async def gateway_of(request: Request) -> Gateway:
    """The running parts."""
    return running(await lifecycle_of(request))


async def identify(request: Request) -> Identity:
    """Who asks.

    Raises:
        GatewayError: as `Authenticator.identify`.
    """
    identity = await (await gateway_of(request)).auth.identify(request.headers.getlist("authorization"))
    context_of(request.scope).tenant = identity.tenant
    return identity


Running = Annotated[Gateway, Depends(gateway_of)]
"""A route's parameter: the running parts."""

Caller = Annotated[Identity, Depends(identify)]
"""A route's parameter: who asks."""

"""`GET /api/limits`: what a tenant may use, and what is left of it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from aiservice_api.tasks import Task
from aiservice_gateway.errors import BadRequestError
from aiservice_gateway.models import Measure, Standing
from aiservice_gateway.plans import amount
from aiservice_gateway.respond import json_response
from aiservice_gateway.routers.dependencies import Caller, Running, bearer
from aiservice_gateway.routers.documents import ERRORS, coded
from aiservice_gateway.routers.examples import with_nulls
from aiservice_gateway.routers.usage_parameters import Name, check_names
from aiservice_gateway.services.limit_headers import plain
from aiservice_gateway.services.usage import tenant_asked

router = APIRouter(tags=["usage"])

_EXAMPLE = {
    "tenantId": "acme",
    "limits": [
        {
            "measure": "requests",
            "task": "speech-to-text",
            "limit": 100,
            "remaining": 99,
            "reset": 3412,
            "window": 3600,
        },
        {"measure": "concurrency", "task": None, "limit": 4, "remaining": 3, "reset": 0, "window": None},
        {"measure": "spend", "task": None, "limit": 250, "remaining": 61.25, "reset": 1036800, "window": None},
    ],
}


class LimitsParameters(BaseModel):
    """Whose limits."""

    tenant: Annotated[
        Name | None, Field(description="For administrators: another tenant. The token's own when left out.")
    ] = None


class OneLimit(BaseModel):
    """A limit, and where the tenant stands with it."""

    measure: Measure
    """requests and units within any `window` seconds, concurrency (requests at the same time), or spend (US dollars in
    the calendar month, UTC)."""
    task: Task | None
    """The service that it is for; null: all of them together."""
    limit: float
    remaining: float
    """What requests in flight hold is taken off."""
    reset: int
    """Seconds until `remaining` grows by itself; 0 when nothing is counted, and for concurrency."""
    window: int | None


class LimitsAnswer(BaseModel):
    """All limits of a tenant."""

    tenantId: str  # noqa: N815 - the application's own spelling
    limits: list[OneLimit]


@router.get(
    "/api/limits",
    summary="A tenant's limits",
    response_model=LimitsAnswer,
    responses={
        401: ERRORS[401],
        200: {"content": {"application/json": {"example": with_nulls(_EXAMPLE)}}},
        400: coded(
            "A parameter is wrong, or there is none of that name",
            "There is no parameter 'service' here. There are: tenant.",
            "invalid_request",
        ),
        403: coded(
            "The token names no tenant, one that may not, or asks for another's limits and is no administrator's",
            "The token is for its own tenant only: leave 'tenant' out.",
            "forbidden",
        ),
        503: coded(
            "The issuer's keys are not known yet; with `Retry-After`",
            "The gateway does not have the token issuer's keys yet: try again.",
            "unavailable",
        ),
    },
    dependencies=[Depends(bearer)],
)
async def limits(
    gateway: Running, caller: Caller, request: Request, parameters: Annotated[LimitsParameters, Query()]
) -> Response:
    """Every limit of the token's tenant, and what is left of it; for administrators, of any tenant."""
    check_names(request, LimitsParameters)
    tenant = tenant_asked(caller, parameters.tenant)
    if tenant is None:
        raise BadRequestError("tenant: each tenant has limits of its own, so name one.")
    return json_response(_render(tenant, await gateway.limits.standings(tenant)))


def _render(tenant: str, standings: Sequence[Standing]) -> dict[str, object]:
    return {
        "tenantId": tenant,
        "limits": [
            {
                "measure": standing.limit.measure,
                "task": standing.limit.task,
                "limit": _number(standing.limit.measure, standing.limit.maximum),
                "remaining": _number(standing.limit.measure, standing.remaining),
                "reset": standing.reset_seconds,
                "window": standing.limit.window_seconds,
            }
            for standing in standings
        ],
    }


def _number(measure: Measure, value: Decimal) -> float:
    return plain(measure, amount(measure, value))

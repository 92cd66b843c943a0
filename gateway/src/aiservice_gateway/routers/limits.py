"""`GET /api/limits`: what a tenant may use, and what is left of it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel

from aiservice_api.tasks import Task
from aiservice_gateway.models import Identity, Measure, Standing
from aiservice_gateway.plans import amount
from aiservice_gateway.respond import json_response
from aiservice_gateway.routers.dependencies import Caller, Running, bearer
from aiservice_gateway.routers.documents import ERRORS, coded
from aiservice_gateway.routers.examples import with_nulls
from aiservice_gateway.services.limit_headers import plain

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
    summary="The tenant's own limits",
    response_model=LimitsAnswer,
    responses={
        **{status: ERRORS[status] for status in (401, 403)},
        200: {"content": {"application/json": {"example": with_nulls(_EXAMPLE)}}},
        503: coded(
            "The issuer's keys are not known yet; with `Retry-After`",
            "The gateway does not have the token issuer's keys yet: try again.",
            "unavailable",
        ),
    },
    dependencies=[Depends(bearer)],
)
async def limits(gateway: Running, caller: Caller) -> Response:
    """Every limit of the tenant, and what is left of it."""
    return json_response(_render(caller, await gateway.limits.standings(caller.tenant)))


def _render(caller: Identity, standings: Sequence[Standing]) -> dict[str, object]:
    return {
        "tenantId": caller.tenant,
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

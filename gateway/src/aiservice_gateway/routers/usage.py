"""`GET /api/usage`: what a tenant used, and may still use."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field

from aiservice_api.tasks import Task
from aiservice_gateway.models import Identity, timestamp
from aiservice_gateway.respond import json_response
from aiservice_gateway.routers.dependencies import Caller, Running, bearer
from aiservice_gateway.services.usage import Report

router = APIRouter(tags=["usage"])

_EXAMPLE = {
    "tenantId": "acme",
    "period": {"from": "2025-12-01T00:00:00.000Z", "to": "2025-12-12T10:00:00.000Z"},
    "services": {
        "speech-to-text": {
            "count": 3,
            "total_tokens": 57,
            "units": 21.4,
            "unit": "audio-second",
            "cost": 0.000856,
        }
    },
    "today": {"speech-to-text": {"count": 1, "total_tokens": 19, "units": 7.1, "cost": 0.000284}},
    "limits": {"speech-to-text": {"limit": 100, "remaining": 99, "reset": 3412, "window": 3600}},
}


class Period(BaseModel):
    """From (inclusive) to (exclusive), in UTC."""

    from_: Annotated[str, Field(alias="from")]
    to: str


class Used(BaseModel):
    """What was used of one service."""

    count: int
    """Requests that reached it."""
    total_tokens: int
    units: float
    cost: float
    """US dollars."""


class UsedOfUnit(Used):
    """What was used of one service, and in which unit."""

    unit: str | None


class Limit(BaseModel):
    """Where the tenant stands with one service."""

    limit: int
    """Requests within any `window` seconds."""
    remaining: int
    reset: int
    """Seconds until `remaining` grows."""
    window: int


class UsageAnswer(BaseModel):
    """A tenant's own usage."""

    tenantId: str  # noqa: N815 - the application's own spelling
    period: Period
    services: dict[Task, UsedOfUnit]
    """Within the period, from the database."""
    today: dict[Task, Used]
    """Since midnight UTC, from the real-time counters."""
    limits: dict[Task, Limit]


@router.get(
    "/api/usage",
    summary="The tenant's own usage",
    response_model=UsageAnswer,
    responses={200: {"content": {"application/json": {"example": _EXAMPLE}}}},
    dependencies=[Depends(bearer)],
)
async def usage(
    gateway: Running,
    caller: Caller,
    start: Annotated[
        datetime | None, Query(alias="from", description="ISO 8601; the first of the month when left out.")
    ] = None,
    end: Annotated[datetime | None, Query(alias="to", description="ISO 8601; now when left out.")] = None,
) -> Response:
    """By service: requests, tokens, units and cost within a period; today's counters; the limits."""
    report = await gateway.usage.report(caller.tenant, start, end, datetime.now(UTC))
    return json_response(_render(caller, report))


def _render(caller: Identity, report: Report) -> dict[str, object]:
    return {
        "tenantId": caller.tenant,
        "period": {"from": timestamp(report.start), "to": timestamp(report.end)},
        "services": {
            task: {
                "count": totals.count,
                "total_tokens": totals.tokens,
                "units": totals.units,
                "unit": totals.unit,
                "cost": totals.cost,
            }
            for task, totals in sorted(report.services.items())
        },
        "today": {
            task: {
                "count": totals.count,
                "total_tokens": totals.tokens,
                "units": totals.units,
                "cost": totals.cost,
            }
            for task, totals in sorted(report.today.items())
        },
        "limits": {
            task: {
                "limit": quota.limit,
                "remaining": quota.remaining,
                "reset": quota.reset_seconds,
                "window": quota.window_seconds,
            }
            for task, quota in sorted(report.quotas.items())
        },
    }

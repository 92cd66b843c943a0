"""The answers about usage: their shapes and examples for the OpenAPI description, and how they are rendered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field

from aiservice_api.tasks import Task
from aiservice_gateway import csv_text
from aiservice_gateway.models import Totals, timestamp
from aiservice_gateway.routers.documents import ERRORS, coded
from aiservice_gateway.routers.examples import with_nulls
from aiservice_gateway.selection import Dimension, Group, Page, Period, StoredRecord
from aiservice_gateway.services.usage import Report

Responses = dict[int | str, dict[str, Any]]
"""By status, as FastAPI takes them."""


class PeriodAnswer(BaseModel):
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
    """Usage by service."""

    tenantId: str | None  # noqa: N815 - the application's own spelling
    """Null where an administrator asks for all tenants."""
    period: PeriodAnswer
    services: dict[Task, UsedOfUnit]
    """Within the period, from the database."""
    today: dict[Task, Used]
    """Since midnight UTC, from the real-time counters."""
    limits: dict[Task, Limit]


class GroupAnswer(BaseModel):
    """What was used under one key: it has those of the first seven fields that `group_by` names."""

    tenant: str | None = None
    service: Task | None = None
    model: str | None = None
    user: str | None = None
    month: str | None = None
    day: str | None = None
    hour: str | None = None
    count: int
    total_tokens: int
    units: float | None
    """Null where units of several kinds were used."""
    unit: str | None
    cost: float


class GroupsAnswer(BaseModel):
    """Usage by what `group_by` names."""

    tenantId: str | None  # noqa: N815 - the application's own spelling
    period: PeriodAnswer
    groups: list[GroupAnswer]
    next: str | None
    """`cursor` of the next page; null on the last one."""


class RecordAnswer(BaseModel):
    """One row of `"AIUsage"`."""

    id: str
    tenantId: str  # noqa: N815 - the application's own spelling
    userId: str | None  # noqa: N815 - as above
    service: Task
    model: str | None
    tokens: int
    units: float
    unit: str | None
    cost: float
    durationMs: int  # noqa: N815 - as above
    status: str
    createdAt: str  # noqa: N815 - as above


class RecordsAnswer(BaseModel):
    """Single records, the newest first."""

    tenantId: str | None  # noqa: N815 - the application's own spelling
    period: PeriodAnswer
    records: list[RecordAnswer]
    next: str | None
    """`cursor` of the next page; null on the last one."""


_USED: dict[str, Any] = {"count": 3, "total_tokens": 57, "units": 21.4, "unit": "audio-second", "cost": 0.000856}
_HEAD = {"tenantId": "acme", "period": {"from": "2025-12-01T00:00:00.000Z", "to": "2025-12-12T10:00:00.000Z"}}
_REPORT = {
    **_HEAD,
    "services": {"speech-to-text": _USED},
    "today": {"speech-to-text": {"count": 1, "total_tokens": 19, "units": 7.1, "cost": 0.000284}},
    "limits": {"speech-to-text": {"limit": 100, "remaining": 99, "reset": 3412, "window": 3600}},
}
_GROUPS = {**_HEAD, "groups": [{"service": "speech-to-text", "day": "2025-12-11", **_USED}], "next": None}
_RECORD = {
    "id": "0199c3a6-1d9e-7cc0-8f6b-2f2d7d5a4c11",
    "tenantId": "acme",
    "userId": "ann",
    "service": "speech-to-text",
    "model": "openai/whisper-large-v3",
    "tokens": 19,
    "units": 7.1,
    "unit": "audio-second",
    "cost": 0.000284,
    "durationMs": 812,
    "status": "succeeded",
    "createdAt": "2025-12-11T09:30:00.000Z",
}
_RECORDS = {**_HEAD, "records": [_RECORD], "next": None}


_REFUSED: Responses = {
    400: coded(
        "A parameter is wrong, or there is none of that name",
        "The period ends before it starts: 'from' must not be after 'to'.",
        "invalid_request",
    ),
    401: ERRORS[401],
    403: coded(
        "The token names no tenant, one that may not, or asks for another's usage and is no administrator's",
        "The token is for its own tenant only: leave 'tenant' out.",
        "forbidden",
    ),
    503: coded(
        "The database does not answer now; with `Retry-After`",
        "Usage cannot be read at the moment; none is lost. Try again.",
        "unavailable",
    ),
}

_TOTALS = tuple(_USED)
RECORD_COLUMNS = tuple(_RECORD)
"""Of the records in CSV."""


def _responses(csv: tuple[Sequence[str], Mapping[str, Any]], *examples: Mapping[str, Any]) -> Responses:
    """What a route answers: JSON like one of the examples, or CSV with these columns and such a line."""
    columns, row = csv
    table = csv_text.line(columns) + csv_text.line(row.values())
    named = {f"example {number}": {"value": with_nulls(example)} for number, example in enumerate(examples, 1)}
    content = {
        "application/json": {"examples": named},
        "text/csv": {"schema": {"type": "string"}, "example": table},
    }
    return {**_REFUSED, 200: {"content": content}}


USAGE = _responses((("service", *_TOTALS), {"service": "speech-to-text", **_USED}), _REPORT, _GROUPS)
RECORDS = _responses((RECORD_COLUMNS, _RECORD), _RECORDS)


def group_columns(dimensions: Sequence[Dimension]) -> tuple[str, ...]:
    """Of the sums in CSV."""
    return (*dimensions, *_TOTALS)


def render_report(report: Report) -> dict[str, object]:
    """`UsageAnswer`."""
    return {
        **_head(report.which.tenant, report.period),
        "services": {task: _totals(totals) for task, totals in sorted(report.services.items())},
        "today": {task: _without_unit(totals) for task, totals in sorted(report.today.items())},
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


def render_groups(tenant: str | None, dimensions: Sequence[Dimension], page: Page[Group]) -> dict[str, object]:
    """`GroupsAnswer`."""
    groups = [render_group(dimensions, group) for group in page.items]
    return {**_head(tenant, page.period), "groups": groups, "next": page.next}


def render_group(dimensions: Sequence[Dimension], group: Group) -> dict[str, Any]:
    """`GroupAnswer`."""
    totals = group.totals
    known = totals.unit is not None or totals.units == 0
    return {
        **dict(zip(dimensions, group.key, strict=True)),
        **_totals(totals),
        "units": totals.units if known else None,
    }


def render_records(tenant: str | None, page: Page[StoredRecord]) -> dict[str, object]:
    """`RecordsAnswer`."""
    return {**_head(tenant, page.period), "records": list(map(render_record, page.items)), "next": page.next}


def render_record(record: StoredRecord) -> dict[str, Any]:
    """`RecordAnswer`."""
    return {
        "id": record.id,
        "tenantId": record.tenant,
        "userId": record.user,
        "service": record.service,
        "model": record.model,
        "tokens": record.tokens,
        "units": record.units,
        "unit": record.unit,
        "cost": record.cost,
        "durationMs": record.duration_ms,
        "status": record.status,
        "createdAt": timestamp(record.created_at),
    }


def _head(tenant: str | None, period: Period) -> dict[str, object]:
    return {"tenantId": tenant, "period": {"from": timestamp(period.start), "to": timestamp(period.end)}}


def _without_unit(totals: Totals) -> dict[str, Any]:
    """The counters keep none."""
    return {name: value for name, value in _totals(totals).items() if name != "unit"}


def _totals(totals: Totals) -> dict[str, Any]:
    return {
        "count": totals.count,
        "total_tokens": totals.tokens,
        "units": totals.units,
        "unit": totals.unit,
        "cost": totals.cost,
    }

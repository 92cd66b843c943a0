"""`GET /api/usage` and `GET /api/usage/records`: what was used, and may still be used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from aiservice_gateway import csv_text
from aiservice_gateway.respond import json_response
from aiservice_gateway.routers import usage_documents as documents
from aiservice_gateway.routers.dependencies import Caller, Running, bearer
from aiservice_gateway.routers.usage_parameters import (
    PAGE_ITEMS,
    RecordsParameters,
    UsageParameters,
    check_names,
)
from aiservice_gateway.selection import Dimension, Page
from aiservice_gateway.services.usage import whole

router = APIRouter(tags=["usage"], dependencies=[Depends(bearer)])

_VARY = {"Vary": "Accept"}

T = TypeVar("T")


@router.get(
    "/api/usage",
    summary="Usage, by service or as asked",
    response_model=documents.UsageAnswer | documents.GroupsAnswer,
    responses=documents.USAGE,
)
async def usage(
    gateway: Running, caller: Caller, request: Request, parameters: Annotated[UsageParameters, Query()]
) -> Response:
    """By service, with today's counters and the limits; with `group_by` the sums that it names, in pages; or in CSV."""
    check_names(request, UsageParameters)
    question, now = parameters.question(caller), datetime.now(UTC)
    dimensions = tuple(parameters.group_by)
    if parameters.as_csv(request):
        dimensions = dimensions or (Dimension.SERVICE,)
        return await _csv(
            documents.group_columns(dimensions),
            lambda cursor, limit: gateway.usage.groups(question, dimensions, cursor, limit, now),
            lambda group: documents.render_group(dimensions, group),
        )
    if dimensions:
        limit = parameters.limit or PAGE_ITEMS
        page = await gateway.usage.groups(question, dimensions, parameters.cursor, limit, now)
        return json_response(documents.render_groups(question.which.tenant, dimensions, page), headers=_VARY)
    parameters.without_pages("Pages are of sums: state 'group_by', or")
    return json_response(documents.render_report(await gateway.usage.report(question, now)), headers=_VARY)


@router.get(
    "/api/usage/records",
    summary="The usage records themselves",
    response_model=documents.RecordsAnswer,
    responses=documents.RECORDS,
)
async def records(
    gateway: Running, caller: Caller, request: Request, parameters: Annotated[RecordsParameters, Query()]
) -> Response:
    """One by one, the newest first, in pages or in CSV. Those older than the retention are part of sums only."""
    check_names(request, RecordsParameters)
    question, now = parameters.question(caller), datetime.now(UTC)
    if parameters.as_csv(request):
        return await _csv(
            documents.RECORD_COLUMNS,
            lambda cursor, limit: gateway.usage.records(question, cursor, limit, now),
            documents.render_record,
        )
    page = await gateway.usage.records(question, parameters.cursor, parameters.limit or PAGE_ITEMS, now)
    return json_response(documents.render_records(question.which.tenant, page), headers=_VARY)


async def _csv(
    columns: Sequence[str],
    ask: Callable[[str | None, int], Awaitable[Page[T]]],
    render: Callable[[T], dict[str, Any]],
) -> Response:
    """All of it as CSV, sent while it is read. What fails before the first line is answered as an error."""
    pages = whole(ask)
    first = await anext(pages)

    def lines(items: Sequence[T]) -> str:
        return "".join(csv_text.line(render(item).values()) for item in items)

    async def text() -> AsyncIterator[str]:
        yield csv_text.line(columns) + lines(first)
        async for items in pages:
            yield lines(items)

    headers = {**_VARY, "Content-Disposition": 'attachment; filename="usage.csv"'}
    return StreamingResponse(text(), headers=headers, media_type=csv_text.MEDIA_TYPE)

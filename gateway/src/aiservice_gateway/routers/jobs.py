"""`/v1/jobs`: work whose answer is fetched later."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.types import Receive, Scope, Send

from aiservice_gateway.context import context_of
from aiservice_gateway.ids import ID_PATTERN
from aiservice_gateway.respond import json_response, send_kept
from aiservice_gateway.routers.dependencies import Caller, Running, bearer
from aiservice_gateway.routers.job_documents import JOB, JOBS, MADE, ORDER, RESULT, SECRET
from aiservice_gateway.services.jobs.orders import PRINTABLE
from aiservice_gateway.services.jobs.render import location, render
from aiservice_gateway.services.openai.calls import NoAnswer
from aiservice_gateway.services.upload import ClientGoneError
from aiservice_gateway.stores.jobs import State
from aiservice_gateway.telemetry import note_job, place

router = APIRouter(prefix="/v1", tags=["jobs"], dependencies=[Depends(bearer)])


@router.post("/jobs", status_code=202, summary="A new job", responses=MADE, openapi_extra=ORDER)
async def make_job(request: Request, gateway: Running, caller: Caller) -> Response:
    """Takes a request for one of the services in, and answers at once. The service's answer is kept for a time."""
    context = context_of(request.scope)
    try:
        job = await gateway.jobs.submit(
            context.request_id, context.first_id, caller, request.headers, request.receive,
            trace=place(context.span), resolve=gateway.resolve,
        )  # fmt: skip
    except ClientGoneError:
        return NoAnswer()
    note_job(context.span, job.id)
    return json_response(render(job), 202, {"Location": location(job.id)})


@router.get("/jobs", summary="The tenant's jobs", responses=JOBS)
async def list_jobs(
    *,
    gateway: Running,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=100, description="Jobs a page.")] = 20,
    after: Annotated[str | None, Query(pattern=ID_PATTERN, description="`last_id` of the page before.")] = None,
    status: Annotated[State | None, Query(description="Only jobs of this status.")] = None,
    tenant: Annotated[
        str | None,
        Query(pattern=PRINTABLE, max_length=256, description="For administrators: another tenant's, or `*` for all."),
    ] = None,
) -> Response:
    """The newest first."""
    found = await gateway.jobs.list(caller, tenant, after, status, limit + 1)
    data = [render(job) for job in found[:limit]]
    body = {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(found) > limit,
    }
    return json_response(body)


@router.get("/jobs/{job_id}", summary="A job", responses=JOB)
async def get_job(job_id: str, gateway: Running, caller: Caller) -> Response:
    """Where it is, and when it is over where its result is and what it used."""
    job = await gateway.jobs.get(job_id, caller)
    return json_response(render(job, await gateway.jobs.position(job)))


@router.get("/jobs/{job_id}/result", summary="A job's result", response_class=Response, responses=RESULT)
async def get_result(job_id: str, gateway: Running, caller: Caller) -> Response:
    """The service's answer as its own route gives it: status, headers and body."""
    job, first, others = await gateway.jobs.result(job_id, caller)
    return Kept(job.status or 0, list(job.headers), first, others)


@router.post("/jobs/{job_id}/cancel", summary="Cancels a job", responses=JOB)
@router.delete("/jobs/{job_id}", summary="Cancels a job", responses=JOB)
async def cancel_job(job_id: str, gateway: Running, caller: Caller) -> Response:
    """One that is queued is over at once, one that runs within a second or so; one that is over stays as it is."""
    return json_response(render(await gateway.jobs.cancel(job_id, caller)))


@router.get("/webhook_secret", summary="What the tenant's webhooks are signed with", responses=SECRET)
async def get_secret(gateway: Running, caller: Caller) -> dict[str, Any]:
    """For libraries of the Standard Webhooks specification. Each tenant has its own."""
    return {"object": "webhook_secret", "secret": gateway.jobs.secret(caller)}


class Kept(Response):
    """An answer that was kept, with its own headers and no others."""

    def __init__(
        self, status: int, headers: list[tuple[bytes, bytes]], first: bytes, others: AsyncIterator[bytes]
    ) -> None:
        self.background = None  # what Response has for FastAPI
        self._status = status
        self._kept = headers
        self._first = first
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers."""
        del scope, receive
        await send_kept(send, self._status, self._kept, self._first, self._others)

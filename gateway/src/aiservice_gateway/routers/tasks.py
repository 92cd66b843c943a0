"""`POST /api/<task>`: the five services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from aiservice_api.tasks import Task
from aiservice_gateway.context import context_of
from aiservice_gateway.routers.dependencies import Caller, Running, bearer
from aiservice_gateway.routers.documents import ERRORS, TASKS
from aiservice_gateway.services.proxy import Call, Exchange

router = APIRouter(prefix="/api", tags=["services"])

ServiceName = Annotated[
    str | None,
    Query(alias="service", description="Name of the service to use; the task's default when left out."),
]


def _route(task: Task) -> Callable[..., Awaitable[Response]]:
    async def serve(request: Request, gateway: Running, caller: Caller, service: ServiceName = None) -> Response:
        """Streams the request to the service and its answer back."""
        chosen, url = gateway.resolve(task, service, caller)
        context = context_of(request.scope)
        context.service = chosen.key
        return Exchange(gateway.proxy, Call(context, request.headers, caller, task, chosen, url))

    return serve


for _task in Task:
    router.add_api_route(
        f"/{_task}",
        _route(_task),
        methods=["POST"],
        name=_task.value,
        operation_id=_task.value,
        summary=TASKS[_task].summary,
        description=TASKS[_task].description,
        response_class=Response,
        responses={**ERRORS, 200: TASKS[_task].answer()},
        openapi_extra={"requestBody": TASKS[_task].request_body()},
        dependencies=[Depends(bearer)],
    )

"""`POST /api/<task>`: the five services.

Most requests go through here, so the route asks for what it needs itself: FastAPI's way of finding out what a route
asks for, and in which order, takes a quarter of a request's processor time, and even for a route that asks for nothing
a twentieth.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from aiservice_api.tasks import Task
from aiservice_gateway.context import context_of
from aiservice_gateway.routers.dependencies import bearer, gateway_of, identify
from aiservice_gateway.routers.documents import ERRORS, TASKS
from aiservice_gateway.services.proxy import Call, Exchange


class _PlainRoute(APIRoute):
    """Calls its endpoint with the request, and sends what that returns."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's way to let a route do without its own handling of parameters and bodies."""
        endpoint: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return endpoint


router = APIRouter(prefix="/api", tags=["services"], route_class=_PlainRoute)

_SERVICE: Final = "service"
_PARAMETERS: Final = [
    {
        "name": _SERVICE,
        "in": "query",
        "required": False,
        "schema": {"type": "string"},
        "description": "Name of the service to use; the task's default when left out.",
    }
]


def _route(task: Task) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        """Streams the request to the service and its answer back."""
        gateway, caller = await gateway_of(request), await identify(request)
        chosen = gateway.resolve(task, request.query_params.get(_SERVICE), caller)
        context = context_of(request.scope)
        context.service = chosen.key
        return Exchange(gateway.proxy, Call(context, request.headers, caller, task, chosen))

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
        responses={**ERRORS, **TASKS[_task].answers()},
        openapi_extra={
            "requestBody": TASKS[_task].request_body(),
            "parameters": _PARAMETERS,
            "security": [{bearer.scheme_name: []}],
        },
    )

"""`POST /api/<task>`: the five services.

Most requests go through here, so they do without FastAPI: its layers and its way of finding out what a route asks for
would take a third of a request's processor time (docs/benchmarks.md). FastAPI describes the routes, and answers
whatever else is asked of their paths.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

from fastapi import APIRouter, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from aiservice_api.tasks import Task
from aiservice_gateway.context import Route, context_of
from aiservice_gateway.errors import GatewayError
from aiservice_gateway.factory import Lifecycle, running
from aiservice_gateway.respond import error_response
from aiservice_gateway.routers.dependencies import bearer
from aiservice_gateway.routers.documents import ERRORS, TASKS
from aiservice_gateway.services.proxy import Call, Exchange

router = APIRouter(prefix="/api", tags=["services"])

_SERVICE: Final = "service"
_PARAMETERS: Final = [
    {
        "name": _SERVICE,
        "in": "query",
        "required": False,
        "schema": {"type": "string"},
        "description": "Name of the service to use; the task's default when left out or empty.",
    }
]
_METHOD: Final = "POST"


class TaskRoutes:
    """Streams requests for the five services to them and their answers back; passes on all other requests."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        """Wires it up.

        Args:
            app: What answers other requests.
            lifecycle: Has the gateway while it runs.
        """
        self._app = app
        self._lifecycle = lifecycle
        self._routes = {f"{router.prefix}/{task}": (task, Route(f"{router.prefix}/{task}")) for task in Task}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        found = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == _METHOD else None
        if found is None:
            await self._app(scope, receive, send)
            return
        task, scope["route"] = found
        try:
            exchange = await self._exchange(scope, task)
            await exchange(scope, receive, send)
        except GatewayError as error:
            await error_response(error, context_of(scope))(scope, receive, send)

    async def _exchange(self, scope: Scope, task: Task) -> Exchange:
        """Finds out who asks and which service serves.

        Raises:
            GatewayError: nobody who may, or there is none.
        """
        gateway, context, headers = running(self._lifecycle), context_of(scope), Headers(scope=scope)
        caller = await gateway.auth.identify(headers.getlist("authorization"))
        context.tenant = caller.tenant
        service = gateway.resolve(task, _service(scope["query_string"]), caller)
        context.service = service.key
        return Exchange(gateway.proxy, Call(context, headers, caller, task, service))


def _service(query: bytes) -> str | None:
    """The service that a request names; of several names, the last. An empty one names none."""
    if not query:
        return None
    return dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)).get(_SERVICE) or None


async def _described() -> Response:
    raise RuntimeError("this route only describes what TaskRoutes serves")


for _task in Task:
    router.add_api_route(
        f"/{_task}",
        _described,
        methods=[_METHOD],
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

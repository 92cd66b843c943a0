"""The ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp

from aiservice_gateway import __version__, telemetry
from aiservice_gateway.cors import PageMiddleware, cors
from aiservice_gateway.factory import Lifecycle, running_gateway
from aiservice_gateway.idempotent import IdempotencyMiddleware, repeatable_routes
from aiservice_gateway.metrics import Metrics
from aiservice_gateway.middleware import BodyLimitMiddleware, FaultMiddleware, RequestMiddleware
from aiservice_gateway.respond import install_error_handlers
from aiservice_gateway.routers import health, jobs, limits, openai, probes, tasks, usage
from aiservice_gateway.routers.description import complete
from aiservice_gateway.settings import Settings

_DESCRIPTION = """
One authenticated door to five AI services.

Every request to `/api` needs a bearer token: a JWT that names a tenant, or a tenant's API key. A tenant may make a
number of requests to each service within any hour.
Errors are JSON: `{"error": "<sentence>", "code": "<word>", "request_id": "<id>"}`.

The routes under `/v1` are OpenAI's: its clients work unchanged with the token as API key, and errors have its shape.
"""


def create_app(settings: Settings, lifecycle: Lifecycle | None = None) -> ASGIApp:
    """The application for these settings; its lifespan starts and stops everything behind it.

    Args:
        settings: From the environment.
        lifecycle: Where the server tells that it drains, for whoever needs to set it.
    """
    lifecycle = lifecycle or Lifecycle()
    metrics = Metrics()
    tracing = telemetry.configure()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with running_gateway(settings, metrics, tracing) as gateway:
            lifecycle.gateway = gateway
            yield
        if tracing is not None:
            await asyncio.to_thread(tracing.close)

    # The assets of /docs are served from here: a browser in a closed network has no other place to load them from.
    app = FastAPIOffline(
        title="AIService gateway",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would name the host that the client stated, and lose a POST's body
        static_url="/docs/assets",
    )
    app.state.lifecycle = lifecycle
    install_error_handlers(app)
    for router in (health.router, tasks.router, openai.router, jobs.router, usage.router, limits.router, probes.router):
        app.include_router(router)
    app.openapi_schema = complete(app.openapi())
    # Around FastAPI, not in it: what it puts around every request is not needed for most of them (routers/tasks.py).
    served: ASGIApp = tasks.TaskRoutes(app, lifecycle)
    served = IdempotencyMiddleware(served, lifecycle, repeatable_routes(app))
    served = BodyLimitMiddleware(served, settings.max_body_bytes)
    served = FaultMiddleware(served)
    if settings.cors_origins:
        served = PageMiddleware(served, **cors(settings.cors_origins))
    return RequestMiddleware(served, metrics, tracing)

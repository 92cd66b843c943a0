"""What the platform asks: probes and metrics."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from aiservice_gateway.factory import Lifecycle
from aiservice_gateway.respond import json_response
from aiservice_gateway.routers.dependencies import Running, lifecycle_of

router = APIRouter(tags=["platform"])

_UP: Final[dict[str, Any]] = {"database": True, "discovery": True, "redis": True}
_METRIC: Final = "aiservice_gateway_requests_in_flight 3.0\n"


def _ready(description: str, *, ready: bool, draining: bool) -> dict[str, Any]:
    example = {"ready": ready, "draining": draining, "dependencies": _UP}
    return {"description": description, "content": {"application/json": {"example": example}}}


class Readiness(BaseModel):
    """Whether requests should be sent here."""

    ready: bool
    draining: bool
    """Whether the process is about to stop."""
    dependencies: dict[str, bool]
    """Whether each answers; `ready` does not depend on them."""


@router.head("/livez", include_in_schema=False)
@router.get(
    "/livez",
    summary="Whether the process answers",
    responses={200: {"content": {"application/json": {"example": {"status": "ok"}}}}},
)
async def livez() -> dict[str, str]:
    """Says ok, and asks nothing else: a restart would not help what the gateway depends on."""
    return {"status": "ok"}


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    summary="Whether requests should be sent here",
    response_model=Readiness,
    responses={
        200: _ready("They should", ready=True, draining=False),
        503: {"model": Readiness, **_ready("They should not", ready=False, draining=True)},
    },
)
async def readyz(lifecycle: Annotated[Lifecycle, Depends(lifecycle_of)], gateway: Running) -> Response:
    """200 once the services are known and until the process stops, else 503; with the state of its dependencies."""
    body = {"ready": lifecycle.ready, "draining": lifecycle.draining, "dependencies": gateway.dependencies()}
    return json_response(body, 200 if lifecycle.ready else 503)


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}, "example": _METRIC}}}},
)
async def metrics(gateway: Running) -> Response:
    """The metrics, with the gauges of this moment."""
    await gateway.note()
    return Response(gateway.metrics.render(), media_type=CONTENT_TYPE_LATEST)

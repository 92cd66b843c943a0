"""`GET /health`, in the deployment guide's shape."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel

from aiservice_api.tasks import Task
from aiservice_gateway.models import timestamp
from aiservice_gateway.respond import json_response
from aiservice_gateway.routers.dependencies import Running
from aiservice_gateway.routers.examples import with_nulls
from aiservice_gateway.services.health import Health, Status

router = APIRouter(tags=["health"])

_EXAMPLE = {
    "status": "healthy",
    "services": {
        "image-to-text": {"status": "healthy", "response_time": 0.02},
        "speech-to-text": {"status": "healthy", "response_time": 0.04},
    },
    "timestamp": "2025-12-12T10:00:00.000Z",
}

_UNHEALTHY = {
    "status": "unhealthy",
    "services": {"image-to-text": {"status": "unavailable", "response_time": None}},
    "timestamp": "2025-12-12T10:00:00.000Z",
}


class ServiceState(BaseModel):
    """One task's service: healthy, unhealthy (asked, not ready) or unavailable (known not to be ready, not asked)."""

    status: Status
    response_time: float | None
    """Seconds that the service took to say that it is ready; null when it did not."""


class HealthAnswer(BaseModel):
    """The gateway: healthy, degraded (some of it does not work) or unhealthy (no service can be used)."""

    status: Status
    services: dict[Task, ServiceState]
    timestamp: str


@router.head("/health", include_in_schema=False)
@router.get(
    "/health",
    summary="The services' health",
    response_model=HealthAnswer,
    responses={
        200: {"content": {"application/json": {"example": _EXAMPLE}}},
        503: {
            "model": HealthAnswer,
            "description": "No service can be used",
            "content": {"application/json": {"example": with_nulls(_UNHEALTHY)}},
        },
    },
)
async def health(gateway: Running) -> Response:
    """Asks the default service of every task, and measures. Needs no token."""
    state = await gateway.health.check()
    return json_response(_render(state), 503 if state.status is Status.UNHEALTHY else 200)


def _render(health: Health) -> dict[str, object]:
    return {
        "status": health.status,
        "services": {
            task: {"status": service.status, "response_time": service.response_time}
            for task, service in health.services.items()
        },
        "timestamp": timestamp(health.time),
    }

"""What the platform asks: probes and metrics."""

from __future__ import annotations

import contextlib
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from aiservice_gateway.errors import StoreUnavailableError
from aiservice_gateway.factory import Lifecycle
from aiservice_gateway.respond import json_response
from aiservice_gateway.routers.dependencies import Running, lifecycle_of

router = APIRouter(tags=["platform"])


@router.get("/livez", summary="Whether the process answers")
async def livez() -> dict[str, str]:
    """Says ok, and asks nothing else: a restart would not help what the gateway depends on."""
    return {"status": "ok"}


@router.get("/readyz", summary="Whether requests should be sent here")
async def readyz(lifecycle: Annotated[Lifecycle, Depends(lifecycle_of)], gateway: Running) -> Response:
    """200 once the services are known and until the process stops, else 503; with the state of its dependencies."""
    body = {"ready": lifecycle.ready, "draining": lifecycle.draining, "dependencies": gateway.dependencies()}
    return json_response(body, 200 if lifecycle.ready else 503)


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(gateway: Running) -> Response:
    """The metrics, with the gauges of this moment."""
    for dependency, up in gateway.dependencies().items():
        gateway.metrics.up.labels(dependency).set(up)
    for place, records in (await gateway.ledger.waiting()).items():
        gateway.metrics.usage_waiting.labels(place).set(records)
    with contextlib.suppress(StoreUnavailableError):
        for state, jobs in (await gateway.jobs.jobs.open()).items():
            gateway.metrics.jobs_open.labels(state).set(jobs)
    gateway.proxy.backends.note()
    gateway.metrics.pods_followed.set(gateway.discovery.pods_followed)
    gateway.metrics.services.clear()
    for service in gateway.registry.services():
        for task in service.tasks:
            gateway.metrics.services.labels(service.key, task).set(service.ready)
    return Response(gateway.metrics.render(), media_type=CONTENT_TYPE_LATEST)

"""Health: what each task's service answers when asked, and how the gateway itself is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from aiservice_api.tasks import Task
from aiservice_gateway.models import Service
from aiservice_gateway.services.connection import WireError
from aiservice_gateway.services.pool import Pool
from aiservice_gateway.services.registry import Registry

_READY = 200
_PROBE_SECONDS = 2.0
_FRESH_SECONDS = 2.0


class Status(StrEnum):
    """Of the gateway, and of a service."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """Of the gateway: something of it does not work; the rest does."""
    UNHEALTHY = "unhealthy"
    """Of a service: it was asked and did not say that it is ready. Of the gateway: no service can be used."""
    UNAVAILABLE = "unavailable"
    """Of a service: it is known not to be ready (starting, stopped, failed), so it was not asked."""


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """One service's state."""

    status: Status
    response_time: float | None
    """Seconds that it took to answer; None when it did not."""


@dataclass(frozen=True, slots=True)
class Health:
    """The state of everything, at one moment."""

    status: Status
    services: Mapping[Task, ServiceHealth]
    time: datetime


class HealthCheck:
    """Asks the services, at most once in a while however often it is asked itself."""

    def __init__(self, registry: Registry, pool: Pool, dependencies: Callable[[], Mapping[str, bool]]) -> None:
        """Asks nobody yet.

        Args:
            registry: The services.
            pool: Connections to them.
            dependencies: Says which of the gateway's own dependencies answer.
        """
        self._registry = registry
        self._pool = pool
        self._dependencies = dependencies
        self._asking = asyncio.Lock()
        self._last: Health | None = None
        self._expires = 0.0

    async def check(self) -> Health:
        """The state, at most two seconds old. Callers that come while the services are asked share the answer."""
        async with self._asking:
            if self._last is None or time.monotonic() >= self._expires:
                self._last = await self._ask()
                self._expires = time.monotonic() + _FRESH_SECONDS
            return self._last

    async def _ask(self) -> Health:
        defaults = self._registry.defaults()
        answers = await asyncio.gather(*(self._probe(task, service) for task, service in defaults.items()))
        services = dict(sorted(zip(defaults, answers, strict=True)))
        return Health(overall(services, self._dependencies()), services, datetime.now(UTC))

    async def _probe(self, task: Task, service: Service) -> ServiceHealth:
        url = service.endpoints.get(task)
        if not service.ready or url is None:
            return ServiceHealth(Status.UNAVAILABLE, None)
        started = time.perf_counter()
        ready = await self._says_ready(url)
        if not ready:
            return ServiceHealth(Status.UNHEALTHY, None)
        return ServiceHealth(Status.HEALTHY, round(time.perf_counter() - started, 4))

    async def _says_ready(self, url: str) -> bool:
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                answer = await self._pool.request("GET", f"{url}/ready", {})
                try:
                    await answer.read()
                finally:
                    answer.release()
        except (WireError, TimeoutError):
            return False
        return answer.status == _READY


def overall(services: Mapping[Task, ServiceHealth], dependencies: Mapping[str, bool]) -> Status:
    """The gateway's status: healthy when all is well, unhealthy when no service can be used, else degraded."""
    healthy = [service.status is Status.HEALTHY for service in services.values()]
    if not any(healthy):
        return Status.UNHEALTHY
    return Status.HEALTHY if all(healthy) and all(dependencies.values()) else Status.DEGRADED

"""Which services there are, and which of them a request goes to."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping

from aiservice_api.tasks import Task
from aiservice_gateway.errors import NotFoundError, UnavailableError
from aiservice_gateway.models import Service
from aiservice_gateway.services.canary import shared

_NOT_READY_RETRY_SECONDS = 10


class Registry:
    """The services of all sources. A source (a namespace, a file) replaces or edits only its own."""

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        """Knows none.

        Args:
            draw: Says which of the services that share a name gets a request.
        """
        self._draw = draw
        self._sources: dict[str, dict[str, Service]] = {}
        self._by_task: Mapping[Task, list[Service]] = {}

    def replace(self, source: str, services: Iterable[Service]) -> None:
        """Sets all services of a source."""
        self._sources[source] = {service.key: service for service in services}
        self._index()

    def put(self, source: str, service: Service) -> None:
        """Adds a service, or changes it."""
        self._sources[source][service.key] = service
        self._index()

    def remove(self, source: str, key: str) -> None:
        """Removes a service, if it is there."""
        if self._sources[source].pop(key, None) is not None:
            self._index()

    def has(self, key: str) -> bool:
        """Whether there is a service with a key."""
        return any(key in services for services in self._sources.values())

    def defaults(self) -> Mapping[Task, Service]:
        """For each task that is served, the service that a request without a name goes to."""
        return {task: services[0] for task, services in self._by_task.items()}

    def services(self) -> list[Service]:
        """All services, by key."""
        return sorted(
            (service for services in self._sources.values() for service in services.values()),
            key=lambda service: service.key,
        )

    def by_precedence(self) -> list[Service]:
        """All services, in the order in which they take requests."""
        return sorted(self.services(), key=_precedence)

    def resolve(self, task: Task, name: str | None, may_use: Callable[[Service], bool] = lambda _: True) -> Service:
        """The service for a request.

        Args:
            task: What is asked for.
            name: Which service, by its own name, an alias or NAMESPACE/NAME; None for the default.
            may_use: Which services there are for whoever asks; the others are as if they were not there.

        Raises:
            NotFoundError: no service does that, or none of that name.
            UnavailableError: the service is not ready.
        """
        services = list(filter(may_use, self._by_task.get(task, ())))
        if not services:
            raise NotFoundError(f"No service here does {task}. Apply an AIService with this task to offer it.")
        service = services[0] if name is None else _named(services, name)
        if service is not None and service.weight is not None:
            service = shared(service, _sharing(services, name), task, self._draw())
        if service is None:
            names = ", ".join(sorted({service.name for service in services}))
            raise NotFoundError(f"No service of that name does {task}. There are: {names}.")
        if not service.ready or task not in service.endpoints:
            raise UnavailableError(
                f"The service {service.name} is not ready yet: try again later.",
                retry_after=_NOT_READY_RETRY_SECONDS,
            )
        return service

    def _index(self) -> None:
        by_task: dict[Task, list[Service]] = {}
        for service in self.by_precedence():
            for task in service.tasks:
                by_task.setdefault(task, []).append(service)
        self._by_task = by_task


def _precedence(service: Service) -> tuple[bool, object, str]:
    """Defaults before others, older before younger, so that a new service never takes requests unasked."""
    return (not service.default, service.created, service.key)


def _sharing(services: list[Service], name: str | None) -> list[Service]:
    """All that a request may be meant for. NAMESPACE/NAME means one service and no other."""
    if name is None:
        return [service for service in services if service.default]
    return [service for service in services if name == service.name or name in service.aliases]


def _named(services: list[Service], name: str) -> Service | None:
    """A service's own name wins over another's alias."""
    for service in services:
        if name in {service.name, service.key}:
            return service
    return next((service for service in services if name in service.aliases), None)

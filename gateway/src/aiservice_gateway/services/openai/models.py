"""`/v1/models`: the services, by the names that `model` takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiservice_gateway.errors import ModelNotFoundError
from aiservice_gateway.models import Service

_OWNER = "aiservice"


def listed(services: Iterable[Service]) -> dict[str, Any]:
    """The list of all models.

    Args:
        services: In the order in which they take requests.
    """
    return {"object": "list", "data": [_model(name, service) for name, service in _by_name(services).items()]}


def found(services: Iterable[Service], name: str) -> dict[str, Any]:
    """One model.

    Raises:
        ModelNotFoundError: no service has this name.
    """
    ordered = list(services)
    known = _by_name(ordered)
    service = known.get(name) or next((service for service in ordered if service.key == name), None)
    if service is None:
        raise ModelNotFoundError(f"There is no model of this name; there are: {', '.join(known) or 'none'}.")
    return _model(name, service)


def _by_name(services: Iterable[Service]) -> dict[str, Service]:
    """Services by the names that they answer to, as `Registry.resolve` has it: an own name wins over an alias.

    A service whose name another one takes is told with its namespace.
    """
    ordered = list(services)
    names: dict[str, Service] = {}
    for service in ordered:
        names.setdefault(service.name, service)
    for service in ordered:
        for alias in service.aliases:
            names.setdefault(alias, service)
        if names[service.name] is not service:
            names.setdefault(service.key, service)
    return names


def _model(name: str, service: Service) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": int(service.created.timestamp()),
        "owned_by": service.namespace or _OWNER,
        "tasks": list(service.tasks),
        "root": service.model,
    }

"""How services share the requests for one name, by weight."""

from __future__ import annotations

from collections.abc import Iterable

from aiservice_api.tasks import Task
from aiservice_gateway.models import Service


def shared(first: Service, others: Iterable[Service], task: Task, draw: float) -> Service:
    """The service for one request.

    Only a service that states a weight shares, and only with those of its own namespace that state one too: nobody
    takes requests from a service that does not offer them, and no other team does.

    Args:
        first: The one that has the name by right.
        others: All that have the name, the first among them or not.
        task: What is asked for.
        draw: A random number of at least 0 and less than 1.
    """
    if first.weight is None:
        return first
    peers = [
        service
        for service in others
        if service.weight and service.namespace == first.namespace and service.ready and task in service.endpoints
    ]
    left = draw * sum(service.weight or 0 for service in peers)
    for service in peers:
        left -= service.weight or 0
        if left < 0:
            return service
    return first

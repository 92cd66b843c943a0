"""What this gateway knows of each service that it sends requests to: its pods and its gate.

Made when a service gets its first request, changed when the service changes, forgotten when it is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from aiservice_api.tasks import Task
from aiservice_gateway.metrics import Metrics
from aiservice_gateway.models import Service
from aiservice_gateway.services.balancer import Address, Addresses, Balancer
from aiservice_gateway.services.gate import Gate, Rules


class Backend:
    """One service."""

    def __init__(self, service: Service, metrics: Metrics) -> None:
        key = service.key
        self.service = service
        self.stated = stated(service)
        self.balancer = Balancer(lambda: metrics.ejections.labels(key).inc())
        self.gate = Gate(
            service.name,
            _rules(service),
            waited=lambda seconds: metrics.queue_seconds.labels(key).observe(seconds),
            refused=lambda why: metrics.queue_refused.labels(key, why).inc(),
        )

    def change(self, service: Service) -> None:
        """Takes over what the service says now."""
        self.service = service
        self.stated = stated(service)
        self.gate.change(_rules(service))


class Backends:
    """All of them, by the service's key."""

    def __init__(self, metrics: Metrics, exists: Callable[[str], bool]) -> None:
        """Knows none.

        Args:
            metrics: Told of waits.
            exists: Whether there is a service with a key.
        """
        self._metrics = metrics
        self._exists = exists
        self._backends: dict[str, Backend] = {}
        self._pods: dict[str, Addresses] = {}
        self._closed = False

    def put_pods(self, key: str, addresses: Addresses | None) -> None:
        """Sets the pods of a service, as they were discovered; None: not known, its own addresses are used."""
        if addresses is None:
            self._pods.pop(key, None)
        else:
            self._pods[key] = addresses

    def of(self, service: Service) -> Backend:
        """The backend of a service."""
        key = service.key
        backend = self._backends.get(key)
        if backend is None:
            backend = self._make(service)
        elif backend.service is not service:
            backend.change(service)
        addresses = self._pods.get(key, backend.stated)
        if addresses is not backend.balancer.addresses:
            backend.balancer.update(addresses, time.monotonic())
        return backend

    def close(self) -> None:
        """Nobody waits from now on: the process stops."""
        self._closed = True
        for backend in self._backends.values():
            backend.gate.close()

    def note(self) -> None:
        """Sets the gauges to what is so now."""
        self._forget()
        metrics = self._metrics
        pods: dict[tuple[str, str], int] = {}
        for key, backend in self._backends.items():
            pods[key, "ejected"] = backend.balancer.ejected()
            pods[key, "used"] = backend.balancer.known - pods[key, "ejected"]
        metrics.set_all(metrics.pods, pods)
        gates = {(key,): backend.gate for key, backend in self._backends.items()}
        metrics.set_all(metrics.queued, {labels: gate.waiting for labels, gate in gates.items()})
        metrics.set_all(metrics.running, {labels: gate.running for labels, gate in gates.items()})

    def _make(self, service: Service) -> Backend:
        self._forget()
        backend = Backend(service, self._metrics)
        if self._closed:
            backend.gate.close()
        self._backends[service.key] = backend
        return backend

    def _forget(self) -> None:
        for key in [key for key in self._backends if not self._exists(key)]:
            del self._backends[key]
            self._metrics.forget(key)


def stated(service: Service) -> Mapping[Task, list[Address]]:
    """The addresses that a service has without any knowledge of its pods: each is taken for one pod."""
    urls = {task: service.replicas.get(task) or (url,) for task, url in service.endpoints.items()}
    return {task: [Address(url, url) for url in several] for task, several in urls.items()}


def _rules(service: Service) -> Rules:
    return Rules(service.max_concurrency, service.max_queue, service.queue_seconds)

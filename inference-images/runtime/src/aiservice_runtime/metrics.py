"""What Prometheus reads at /metrics. A registry of its own, so that two apps in one process do not collide."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# From a picture of a few words on a GPU to an hour of audio on CPUs.
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)


class Metrics:
    """The runtime's metrics; docs/inference.md lists them."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.in_flight = Gauge(
            "aiservice_requests_in_flight", "Requests received and not yet answered.", ["task"], registry=registry
        )
        self.request_seconds = Histogram(
            "aiservice_request_seconds",
            "Seconds from the request's first byte to its answer; outcome is ok or the error's code, or cancelled.",
            ["task", "outcome"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.device_seconds = Counter(
            "aiservice_device_seconds", "Seconds the device thread computed.", ["task"], registry=registry
        )
        self.units = Counter(
            "aiservice_units", "Units answered, in the task's unit.", ["task", "unit"], registry=registry
        )
        self.start_seconds = Gauge(
            "aiservice_start_seconds", "Seconds that loading and warming up took.", ["phase"], registry=registry
        )
        self.last_request = Gauge(
            "aiservice_last_request_timestamp_seconds",
            "When the last request came or ended, in seconds since 1970; 0 before the first.",
            registry=registry,
        )
        self._queue_depth = Gauge("aiservice_queue_depth", "Requests waiting for the device.", registry=registry)
        self._ready = Gauge("aiservice_ready", "1 while requests are accepted, else 0.", registry=registry)

    def watch(self, *, queue_depth: Callable[[], int], ready: Callable[[], bool]) -> None:
        """Reads these values whenever the metrics are asked for."""
        self._queue_depth.set_function(queue_depth)
        self._ready.set_function(ready)

    def add_task(self, name: str, unit: str) -> None:
        """Makes a task's series exist from the start, so that rates and alerts see their first increase."""
        self.in_flight.labels(name)
        self.device_seconds.labels(name)
        self.units.labels(name, unit)
        self.request_seconds.labels(name, "ok")

    def render(self) -> bytes:
        """Returns all of it in the text format."""
        return generate_latest(self.registry)

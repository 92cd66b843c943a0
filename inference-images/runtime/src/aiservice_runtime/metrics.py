"""What Prometheus reads at /metrics. A registry of its own, so that two apps in one process do not collide."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from aiservice_runtime.engine import Memory

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# From a picture of a few words on a GPU to an hour of audio on CPUs.
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)

_PIECES = (1, 2, 4, 8, 16, 32, 64)


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
        self.first_byte_seconds = Histogram(
            "aiservice_first_byte_seconds",
            "Seconds from the request's first byte to the answer's first byte, of requests that were answered.",
            ["task"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "aiservice_batch_size",
            "Pieces of work that the device was given at once.",
            ["task"],
            buckets=_PIECES,
            registry=registry,
        )
        self.out_of_memory = Counter(
            "aiservice_out_of_memory", "Times that the device had no room for a batch.", ["task"], registry=registry
        )
        self.loads = Counter(
            "aiservice_loads",
            "Times that the weights came onto the device: the first load and every wake.",
            registry=registry,
        )
        self.device_seconds = Counter(
            "aiservice_device_seconds", "Seconds the device thread computed.", ["task"], registry=registry
        )
        self.units = Counter(
            "aiservice_units", "Units answered, in the task's unit.", ["task", "unit"], registry=registry
        )
        self.start_seconds = Gauge(
            "aiservice_start_seconds",
            "Seconds that the parts of the start took, and total: from the start of the process until it was ready.",
            ["phase"],
            registry=registry,
        )
        self.last_request = Gauge(
            "aiservice_last_request_timestamp_seconds",
            "When the last request came or ended, in seconds since 1970; 0 before the first.",
            registry=registry,
        )
        self._queue_depth = Gauge("aiservice_queue_depth", "Requests waiting for the device.", registry=registry)
        self._ready = Gauge("aiservice_ready", "1 while requests are accepted, else 0.", registry=registry)

    def watch(
        self, *, queue_depth: Callable[[], int], ready: Callable[[], bool], memory: Callable[[], Memory | None]
    ) -> None:
        """Reads these values whenever the metrics are asked for."""
        self._queue_depth.set_function(queue_depth)
        self._ready.set_function(ready)
        self.registry.register(_DeviceMemory(memory))

    def add_task(self, name: str, unit: str) -> None:
        """Makes a task's series exist from the start, so that rates and alerts see their first increase."""
        self.in_flight.labels(name)
        self.batch_size.labels(name)
        self.first_byte_seconds.labels(name)
        self.out_of_memory.labels(name)
        self.device_seconds.labels(name)
        self.units.labels(name, unit)
        self.request_seconds.labels(name, "ok")

    def render(self) -> bytes:
        """Returns all of it in the text format."""
        return generate_latest(self.registry)


class _DeviceMemory:
    """The memory of a device that has its own; no series where it has none."""

    def __init__(self, memory: Callable[[], Memory | None]) -> None:
        self._memory = memory

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Reads it once for both values."""
        memory = self._memory()
        if memory is None:
            return
        family = GaugeMetricFamily(
            "aiservice_device_memory_bytes",
            "Memory of the device: used by this process, free for all.",
            labels=["kind"],
        )
        family.add_metric(["used"], memory.used)
        family.add_metric(["free"], memory.free)
        yield family

"""Prometheus metrics. One object an application, with its own registry; no label holds a tenant or a user.

With several workers prometheus_client keeps the values in files, and what is shown is of all processes together. A
gauge then says how: the sum, or the lowest or highest, of those that live.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from aiservice_gateway.settings import METRICS_FOLDER

_LATENCY_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


Labels = TypeVar("Labels", bound=tuple[str, ...])


class Metrics:
    """Everything that the gateway counts."""

    def __init__(self) -> None:
        self.shared = METRICS_FOLDER in os.environ
        """Whether it is of several processes."""
        self._answers: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "aiservice_gateway_requests",
            "Requests answered.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.latency = Histogram(
            "aiservice_gateway_request_seconds",
            "Time from a request's first byte to its answer's last.",
            ["route"],
            buckets=_LATENCY_SECONDS,
            registry=self.registry,
        )
        self.upstream_latency = Histogram(
            "aiservice_gateway_upstream_seconds",
            "Time that services took for the requests that they answered.",
            ["task"],
            buckets=_LATENCY_SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "aiservice_gateway_requests_in_flight",
            "Requests being answered now.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.limited = Counter(
            "aiservice_gateway_rate_limited",
            "Requests refused by a limit.",
            ["task", "measure"],
            registry=self.registry,
        )
        self.usage_written = Counter(
            "aiservice_gateway_usage_records_written",
            "Usage records that the database has.",
            registry=self.registry,
        )
        self.usage_lost = Counter(
            "aiservice_gateway_usage_records_lost",
            "Usage records that no store would take; each is in the log.",
            registry=self.registry,
        )
        self.usage_rolled_up = Counter(
            "aiservice_gateway_usage_records_rolled_up",
            "Usage records that retention moved from rows into sums.",
            registry=self.registry,
        )
        self.usage_waiting = Gauge(
            "aiservice_gateway_usage_records_waiting",
            "Usage records that wait for the database, by where.",
            ["place"],
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.up = Gauge(
            "aiservice_gateway_dependency_up",
            "1 while a thing that the gateway depends on answers (redis, database, discovery), else 0.",
            ["dependency"],
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        self.services = Gauge(
            "aiservice_gateway_services_ready",
            "1 while a service is ready for a task, else 0.",
            ["service", "task"],
            registry=self.registry,
            multiprocess_mode="livemin",
        )

        self.pods = Gauge(
            "aiservice_gateway_pods",
            "Pods of a service that this gateway knows, by whether it uses them (used) or leaves them out (ejected).",
            ["service", "state"],
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.pods_followed = Gauge(
            "aiservice_gateway_pods_followed",
            "1 while the pods of services are being followed (EndpointSlices), 0 while requests go to Services.",
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        self.running = Gauge(
            "aiservice_gateway_service_requests",
            "Requests that a service has from this gateway now.",
            ["service"],
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.queued = Gauge(
            "aiservice_gateway_queue_depth",
            "Requests that wait for a service's maxConcurrency.",
            ["service"],
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.queue_seconds = Histogram(
            "aiservice_gateway_queue_seconds",
            "Time that requests waited for a service's maxConcurrency, of those that had to wait.",
            ["service"],
            buckets=_LATENCY_SECONDS,
            registry=self.registry,
        )
        self.queue_refused = Counter(
            "aiservice_gateway_queue_refused",
            "Requests that were refused because a service's queue was full, or their turn did not come in time.",
            ["service", "reason"],
            registry=self.registry,
        )
        self.retries = Counter(
            "aiservice_gateway_retries",
            "Requests that were sent again, by why: unreached (no connection) or busy (503).",
            ["service", "reason"],
            registry=self.registry,
        )
        self.ejections = Counter(
            "aiservice_gateway_pod_ejections",
            "How often a pod was left out for a time, after failures in a row.",
            ["service"],
            registry=self.registry,
        )

        self.jobs = Counter(
            "aiservice_gateway_jobs",
            "Jobs that are over, by how they ended.",
            ["task", "state"],
            registry=self.registry,
        )
        self.jobs_open = Gauge(
            "aiservice_gateway_jobs_open",
            "Jobs of all gateways that wait (queued) or are worked on (running).",
            ["state"],
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.webhooks = Counter(
            "aiservice_gateway_webhooks",
            "Webhooks, by how they ended: delivered, or dead after their last try.",
            ["state"],
            registry=self.registry,
        )

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts an answer. What it is counted in is kept at hand: finding that costs more than counting."""
        known = self._answers.get((route, method, status))
        if known is None:
            known = self.requests.labels(route, method, status), self.latency.labels(route)
            self._answers[route, method, status] = known
        counter, latency = known
        counter.inc()
        latency.observe(seconds)

    def set_all(self, gauge: Gauge, values: Mapping[Labels, float]) -> None:
        """Sets a gauge for all that there is now, by labels, and drops what is gone.

        Files of several processes forget no label: there, what is gone stays as 0.
        """
        known: set[tuple[str, ...]] = {
            tuple(sample.labels.values()) for metric in gauge.collect() for sample in metric.samples
        }
        for gone in known.difference(values):
            if self.shared:
                gauge.labels(*gone).set(0)
            else:
                gauge.remove(*gone)
        for labels, value in values.items():
            gauge.labels(*labels).set(value)

    def forget(self, service: str) -> None:
        """Drops what is kept by service for one that is gone; with several processes, nothing can be dropped."""
        if self.shared:
            return
        for by_service in (self.queue_seconds, self.ejections):
            with contextlib.suppress(KeyError):
                by_service.remove(service)
        for by_reason, reasons in ((self.retries, ("unreached", "busy")), (self.queue_refused, ("full", "late"))):
            for reason in reasons:
                with contextlib.suppress(KeyError):
                    by_reason.remove(service, reason)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        if not self.shared:
            return generate_latest(self.registry)
        everything = CollectorRegistry()
        MultiProcessCollector(everything)  # type: ignore[no-untyped-call] # the library has none
        return generate_latest(everything)

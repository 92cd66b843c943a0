"""Prometheus metrics of one operator process."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_START_SECONDS = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600)


class Metrics:
    """The operator's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconcile_seconds = Histogram(
            "aiservice_operator_reconcile_seconds",
            "Duration of reconciles, by kind.",
            ["kind"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.reconcile_errors = Counter(
            "aiservice_operator_reconcile_errors_total",
            "Reconciles that failed and will be tried again, by kind and error.",
            ["kind", "error"],
            registry=self.registry,
        )
        self.writes = Counter(
            "aiservice_operator_writes_total",
            "Requests that changed something in the API server, by kind and verb.",
            ["kind", "verb"],
            registry=self.registry,
        )
        self.download_bytes = Counter(
            "aiservice_operator_download_bytes_total",
            "Bytes of models that downloads have reported.",
            registry=self.registry,
        )
        self.watches = Counter(
            "aiservice_operator_watches_total",
            "Watches that began, by kind: at the start, after the API server ended one, and after each break.",
            ["kind"],
            registry=self.registry,
        )
        self.ready_seconds = Histogram(
            "aiservice_operator_ready_seconds",
            "Time from the creation of an AIService to its being Ready, with all its pods, for the first time.",
            registry=self.registry,
            buckets=_START_SECONDS,
        )
        self.lists = Counter(
            "aiservice_operator_lists_total",
            "Lists that the store was compared with, by kind.",
            ["kind"],
            registry=self.registry,
        )

    def gauge(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Adds a gauge that is read when it is scraped."""
        Gauge(f"aiservice_operator_{name}", help_text, registry=self.registry).set_function(value)

    def wrote(self, kind: str, verb: str) -> None:
        """Counts a write."""
        self.writes.labels(kind, verb).inc()

    def render(self) -> bytes:
        """Returns the text that Prometheus scrapes."""
        text: bytes = generate_latest(self.registry)
        return text

"""Traces of requests by OpenTelemetry, sent by OTLP over HTTP when the standard variables name a collector.

Without OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT nothing is recorded and no SDK imported.
Spans hold names, times, sizes and codes: never media, prompts or texts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import NoOpTracer, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from aiservice_runtime.settings import RuntimeSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Tracing:
    """Makes the spans of requests."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        """Without a provider, spans cost next to nothing and go nowhere."""
        self._provider = provider
        self._tracer = provider.get_tracer("aiservice_runtime") if provider is not None else NoOpTracer()

    @contextmanager
    def request(self, task: str, headers: Mapping[str, str]) -> Iterator[Span]:
        """Spans one request, as a child of what its `traceparent` header names (W3C Trace Context)."""
        parent = TraceContextTextMapPropagator().extract(headers)
        with self._tracer.start_as_current_span(
            f"POST /api/{task}",
            parent,
            SpanKind.SERVER,
            {"http.request.method": "POST", "http.route": f"/api/{task}", "aiservice.task": task},
        ) as span:
            yield span

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Spans a part of the current request."""
        with self._tracer.start_as_current_span(name):
            yield

    def past(self, name: str, began: float, ended: float, **attributes: Any) -> None:
        """Adds a part of the current request that is over; both times are those of time.monotonic()."""
        offset = time.time() - time.monotonic()
        span = self._tracer.start_span(name, start_time=_nanoseconds(began + offset), attributes=attributes)
        span.end(_nanoseconds(ended + offset))

    def close(self) -> None:
        """Sends what is left."""
        if self._provider is not None:
            self._provider.shutdown()


def finish(span: Span, status: int, outcome: str) -> None:
    """Notes how a request ended. 5xx is an error of the server's (OpenTelemetry's HTTP conventions)."""
    span.set_attribute("http.response.status_code", status)
    span.set_attribute("aiservice.outcome", outcome)
    if status >= 500:
        span.set_status(StatusCode.ERROR)


def configure(settings: RuntimeSettings) -> Tracing:
    """Returns the tracing that the environment asks for."""
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return Tracing()
    # The SDK and the exporter take a quarter of a second to import.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    known = {
        "service.name": os.environ.get("OTEL_SERVICE_NAME") or settings.name,
        "k8s.namespace.name": settings.namespace,
    }
    resource = Resource.create({name: value for name, value in known.items() if value})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def trace_id(span: Span) -> str | None:
    """Returns the trace's id in hex, for the log; None when nothing is recorded."""
    return trace.format_trace_id(span.get_span_context().trace_id) if span.is_recording() else None


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)

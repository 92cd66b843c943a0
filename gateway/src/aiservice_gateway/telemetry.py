"""Traces by OpenTelemetry, sent by OTLP over HTTP when the standard variables name a collector.

A SERVER span for each request and a CLIENT span for each try at a pod, as OpenTelemetry's conventions for HTTP have it.
Spans hold routes, addresses of pods, times and codes: never a tenant, a user, a path that nothing serves, a query, a
prompt or media. Without OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT no SDK is imported and
nothing is recorded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opentelemetry.trace import Span, SpanKind, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from aiservice_gateway import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_TRUE = "true"


class Attempt:
    """The span of one try at a pod."""

    def __init__(self, span: Span, headers: Mapping[str, str]) -> None:
        self._span = span
        self.headers = headers
        """Tell the pod its place in the trace."""

    def answered(self, status: int) -> None:
        """The pod began an answer."""
        self._span.set_attribute("http.response.status_code", status)
        if status >= 400:
            self._fail(str(status))

    def failed(self, error: BaseException) -> None:
        """There was no answer. What the error says may name anything, so only its type is told."""
        self._fail(type(error).__name__)

    def _fail(self, kind: str) -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(StatusCode.ERROR)


class Tracing:
    """Makes the spans."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("aiservice_gateway", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def request(self, headers: Mapping[str, str], method: str, scheme: str) -> Span:
        """Begins the span of a request, as a child of what its `traceparent` header names (W3C Trace Context)."""
        return self._tracer.start_span(
            method,
            self._propagator.extract(headers),
            SpanKind.SERVER,
            {"http.request.method": method, "url.scheme": scheme},
        )

    def end(self, span: Span, method: str, route: str, status: int, error: str | None) -> None:
        """Ends the span of a request.

        Args:
            span: From `request`.
            method: Of the request.
            route: The path as the API describes it.
            status: What was answered; 0 for nothing.
            error: The answered error's code.
        """
        span.update_name(f"{method} {route}")
        span.set_attribute("http.route", route)
        if status:
            span.set_attribute("http.response.status_code", status)
        if error is not None:
            span.set_attribute("error.type", error)
        if status >= 500 or not status:
            span.set_status(StatusCode.ERROR)
        span.end()

    @contextmanager
    def attempt(self, parent: Span, url: str, resent: int) -> Iterator[Attempt]:
        """Spans one try at a pod.

        Args:
            parent: The request's span.
            url: Where it goes.
            resent: How often it was tried before.
        """
        address = urlsplit(url)
        attributes: dict[str, str | int] = {
            "http.request.method": "POST",
            "server.address": address.hostname or "",
            "server.port": address.port or 80,
            "url.full": url,
        }
        if resent:
            attributes["http.request.resend_count"] = resent
        span = self._tracer.start_span("POST", set_span_in_context(parent), SpanKind.CLIENT, attributes)
        headers: dict[str, str] = {}
        self._propagator.inject(headers, set_span_in_context(span))
        attempt = Attempt(span, headers)
        try:
            yield attempt
        except BaseException as error:
            attempt.failed(error)
            raise
        finally:
            span.end()

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()


def trace_id(span: Span | None) -> str | None:
    """The trace's id in hex, for the log; None when nothing is recorded."""
    if span is None or not span.get_span_context().trace_flags.sampled:
        return None
    return format_trace_id(span.get_span_context().trace_id)


def configure(environ: Mapping[str, str] = os.environ) -> Tracing | None:
    """The tracing that the environment asks for, by OpenTelemetry's own variables."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == _TRUE or not any(map(environ.get, _ENDPOINTS)):
        return None
    # The SDK and the exporter take a quarter of a second to import.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    resource = Resource.create({"service.name": environ.get("OTEL_SERVICE_NAME") or "aiservice-gateway"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)

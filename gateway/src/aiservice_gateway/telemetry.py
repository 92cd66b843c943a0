"""Traces by OpenTelemetry, sent by OTLP over HTTP when the standard variables name a collector.

A SERVER span for each request and a CLIENT span for each try at a pod, as OpenTelemetry's conventions for HTTP have it.
A job waits in a queue, so each try at one is a trace of its own, as the conventions for messages advise: a CONSUMER
span with a link to the request that handed the job in, and the tries at pods below it. So is each try at a webhook, a
CLIENT span.

Spans hold routes, addresses of pods, times and codes: never a tenant, a user, a path that nothing serves, a query, a
prompt or media; of a webhook not even where it goes. Without OTEL_EXPORTER_OTLP_ENDPOINT or
OTEL_EXPORTER_OTLP_TRACES_ENDPOINT no SDK is imported and nothing is recorded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    StatusCode,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from aiservice_gateway import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_TRUE = "true"
_TRACEPARENT = "traceparent"
_JOB_ID = "aiservice.job.id"
_PROPAGATOR = TraceContextTextMapPropagator()


class Attempt:
    """The span of one try at a pod, or at the receiver of a webhook."""

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

    def unreached(self) -> None:
        """There was no answer, and why is nobody's concern."""
        self._fail("unreached")

    def _fail(self, kind: str) -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(StatusCode.ERROR)


class Tracing:
    """Makes the spans."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("aiservice_gateway", __version__)

    def request(self, headers: Mapping[str, str], method: str, scheme: str) -> Span:
        """Begins the span of a request, as a child of what its `traceparent` header names (W3C Trace Context)."""
        return self._tracer.start_span(
            method,
            _PROPAGATOR.extract(headers),
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
            "url.full": address._replace(netloc=address.netloc.rpartition("@")[2]).geturl(),  # without a password
        }
        if resent:
            attributes["http.request.resend_count"] = resent
        span = self._tracer.start_span("POST", set_span_in_context(parent), SpanKind.CLIENT, attributes)
        headers: dict[str, str] = {}
        _PROPAGATOR.inject(headers, set_span_in_context(span))
        with _ending(Attempt(span, headers), span) as attempt:
            yield attempt

    def job(self, name: str, task: str, tries: int, submitted: str | None) -> Span:
        """Begins the span of a try at a job.

        Args:
            name: The job's id.
            task: What it is for.
            tries: How often it was begun, with this one.
            submitted: Place of the request that handed it in, from `place`.
        """
        attributes: dict[str, str | int] = {_JOB_ID: name, "aiservice.task": task, "aiservice.job.attempts": tries}
        return self._tracer.start_span(f"job {task}", Context(), SpanKind.CONSUMER, attributes, links=_links(submitted))

    def end_job(self, span: Span, status: str | None, error: str | None, *, failed: bool) -> None:
        """Ends the span of a try at a job.

        Args:
            span: From `job`.
            status: The job's from now on; None where it is not known here.
            error: Code of what went wrong, or of what the job waits for.
            failed: Whether that is a failure.
        """
        if status is not None:
            span.set_attribute("aiservice.job.status", status)
        if error is not None:
            span.set_attribute("error.type", error)
        if failed:
            span.set_status(StatusCode.ERROR)
        span.end()

    @contextmanager
    def webhook(self, job: str, resent: int, submitted: str | None) -> Iterator[Attempt]:
        """Spans one try at the receiver of a webhook, which is told nothing of it.

        Args:
            job: The id of the job that it is about.
            resent: How often it was tried before.
            submitted: Place of the request that handed the job in, from `place`.
        """
        attributes: dict[str, str | int] = {"http.request.method": "POST", _JOB_ID: job}
        if resent:
            attributes["http.request.resend_count"] = resent
        links = _links(submitted)
        span = self._tracer.start_span("POST webhook", Context(), SpanKind.CLIENT, attributes, links=links)
        with _ending(Attempt(span, {}), span) as attempt:
            yield attempt

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()


@contextmanager
def _ending(attempt: Attempt, span: Span) -> Iterator[Attempt]:
    """Ends the span of a try, with what was raised meanwhile."""
    try:
        yield attempt
    except BaseException as error:
        attempt.failed(error)
        raise
    finally:
        span.end()


def _links(place: str | None) -> Sequence[Link]:
    """A link to a place in a trace; none where it is not known."""
    if place is None:
        return ()
    context = get_current_span(_PROPAGATOR.extract({_TRACEPARENT: place}, Context())).get_span_context()
    return (Link(context),) if context.is_valid else ()


def place(span: Span | None) -> str | None:
    """A span's place in its trace, as the header `traceparent` has it; None when nothing is recorded."""
    if span is None:
        return None
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers, set_span_in_context(span, Context()))
    return headers.get(_TRACEPARENT)


def note_job(span: Span | None, job: str) -> None:
    """Tells which job a request has handed in."""
    if span is not None:
        span.set_attribute(_JOB_ID, job)


def note_service(span: Span | None, service: str) -> None:
    """Tells which service a job goes to."""
    if span is not None:
        span.set_attribute("aiservice.service", service)


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

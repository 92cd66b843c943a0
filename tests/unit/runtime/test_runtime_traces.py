"""Traces, as a collector receives them: the real process, the real exporter, a local HTTP server."""

from __future__ import annotations

import gzip
import json
import signal
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.service_process import Process
from support.toy_service import PATH, body

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """Its address, and what it has received."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                content = gzip.decompress(content)
            assert self.path == "/v1/traces"
            received.append(ExportTraceServiceRequest.FromString(content))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_request_is_a_span_with_its_parts(
    tmp_path: Path, collector: tuple[str, list[ExportTraceServiceRequest]]
) -> None:
    address, received = collector
    variables = {
        "AISERVICE_PORTS": "speech-to-text=0,image-to-text=0",
        "AISERVICE_NAME": "toy",
        "AISERVICE_NAMESPACE": "tests",
        "OTEL_EXPORTER_OTLP_ENDPOINT": address,
    }
    process = Process("support.toy_engine", tmp_path, [], variables)
    try:
        process.wait_for("ready")
        url = f"http://127.0.0.1:{process.ports()['speech-to-text']}{PATH}"
        secret = "words nobody may read"
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        assert httpx.post(url, json=body(say=secret), headers=headers, timeout=60).status_code == 200
        assert httpx.post(url, json=body(fail=True), timeout=60).status_code == 500
        logged = process.wait_for("request")
        process.child.send_signal(signal.SIGTERM)
        assert process.end() == 0
    finally:
        process.child.kill()
        process.end()

    assert logged["trace_id"] == TRACE
    [resource] = {json.dumps(sorted((a.key, a.value.string_value) for a in part.resource.attributes))
                  for request in received for part in request.resource_spans}  # fmt: skip
    assert '["service.name", "toy"]' in resource
    assert '["k8s.namespace.name", "tests"]' in resource
    spans = [
        span
        for request in received
        for part in request.resource_spans
        for scope in part.scope_spans
        for span in scope.spans
    ]
    mine = {span.name: span for span in spans if span.trace_id.hex() == TRACE}
    assert set(mine) == {f"POST {PATH}", "receive", "prepare", "queue", "device", "finish"}
    whole = mine.pop(f"POST {PATH}")
    assert whole.parent_span_id.hex() == PARENT
    for part in mine.values():
        assert part.parent_span_id == whole.span_id
        assert whole.start_time_unix_nano - 1e6 <= part.start_time_unix_nano <= part.end_time_unix_nano
    [failed] = [span for span in spans if span.name == f"POST {PATH}" and span.trace_id.hex() != TRACE]
    assert failed.status.code == 2
    assert secret not in str(received)


def test_without_a_collector_nothing_is_traced(tmp_path: Path) -> None:
    process = Process("support.toy_engine", tmp_path, [], {"AISERVICE_PORTS": "speech-to-text=0,image-to-text=0"})
    try:
        process.wait_for("ready")
        url = f"http://127.0.0.1:{process.ports()['speech-to-text']}{PATH}"
        assert httpx.post(url, json=body(), timeout=60).status_code == 200
        assert "trace_id" not in process.wait_for("request")
    finally:
        process.child.kill()
        process.end()

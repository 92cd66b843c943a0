"""Traces, as a collector receives them: the real process, the real exporter, a local HTTP server."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.otlp import Collector, collecting
from support.service_process import Process
from support.toy_service import PATH, body

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


def test_a_request_is_a_span_with_its_parts(tmp_path: Path, collector: Collector) -> None:
    variables = {
        "AISERVICE_PORTS": "speech-to-text=0,image-to-text=0",
        "AISERVICE_NAME": "toy",
        "AISERVICE_NAMESPACE": "tests",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
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
    [resource] = collector.resources()
    assert (resource["service.name"], resource["k8s.namespace.name"]) == ("toy", "tests")
    spans = collector.spans()
    mine = {span.name: span for span in spans if span.trace_id.hex() == TRACE}
    assert set(mine) == {f"POST {PATH}", "receive", "prepare", "queue", "device", "finish"}
    whole = mine.pop(f"POST {PATH}")
    assert whole.parent_span_id.hex() == PARENT
    for part in mine.values():
        assert part.parent_span_id == whole.span_id
        assert whole.start_time_unix_nano - 1e6 <= part.start_time_unix_nano <= part.end_time_unix_nano
    [failed] = [span for span in spans if span.name == f"POST {PATH}" and span.trace_id.hex() != TRACE]
    assert failed.status.code == 2
    assert secret not in str(collector.received)


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

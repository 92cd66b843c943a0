"""Traces: the client's are passed on, and ours reach a real collector, with nothing in them that is private."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.databases import free_port
from support.gateway import (
    bearer,
    environment,
    gateway_here,
    gateway_process,
    running_engine,
    whisper,
    write_services,
)
from support.otlp import Collector, collecting

SPEECH = "/api/speech-to-text"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
SERVER, CLIENT, ERROR = 2, 3, 2


PLACES: list[tuple[dict[str, str], dict[str, str]]] = [
    ({"traceparent": TRACEPARENT}, {"traceparent": TRACEPARENT}),
    ({"traceparent": TRACEPARENT, "tracestate": "a=1,b=2"}, {"traceparent": TRACEPARENT, "tracestate": "a=1,b=2"}),
    ({"traceparent": TRACEPARENT, "tracestate": "a=" + "1" * 600}, {"traceparent": TRACEPARENT}),
    ({"tracestate": "a=1"}, {}),
    ({"traceparent": f"00-{'0' * 32}-{PARENT}-01"}, {}),
    ({"traceparent": f"00-{TRACE}-{'0' * 16}-01"}, {}),
    ({"traceparent": f"ff-{TRACE}-{PARENT}-01"}, {}),
    ({"traceparent": TRACEPARENT.upper()}, {}),
    ({"traceparent": "private words"}, {}),
    ({"traceparent": TRACEPARENT, "baggage": "user=1"}, {"traceparent": TRACEPARENT}),
]


async def test_a_place_in_a_trace_is_passed_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without a collector: the gateway takes no part in the trace, and does not break it."""
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        async with gateway_here(environment(tmp_path)) as client:
            for sent, passed in PLACES:
                async with client.post(SPEECH, json={}, headers={**bearer(), **sent}) as answer:
                    assert answer.status == 200
                told = engine.seen[-1].headers
                assert {name: told[name] for name in ("traceparent", "tracestate", "baggage") if name in told} == passed
    assert "trace_id" not in str([record.__dict__ for record in caplog.records])


async def traced(folder: Path, collector: Collector, urls: list[str], *requests: tuple[str, dict[str, Any]]) -> str:
    """Sends requests through a gateway that traces; returns its log."""
    write_services(folder / "services.yaml", {"name": "whisper", "tasks": ["speech-to-text"], "urls": urls})
    variables = environment(
        folder, OTEL_EXPORTER_OTLP_ENDPOINT=collector.address, OTEL_SERVICE_NAME="the-gateway",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=tests",
    )  # fmt: skip
    async with gateway_process(folder, variables) as gateway, aiohttp.ClientSession(gateway.url) as client:
        for path, options in requests:
            async with client.post(path, **options) as answer:
                await answer.read()
        async with client.get("/livez") as answer:
            await answer.read()
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
    return gateway.log.read_text()


def attributes(span: Any) -> dict[str, Any]:
    found = {}
    for attribute in span.attributes:
        kind = attribute.value.WhichOneof("value")
        found[attribute.key] = getattr(attribute.value, kind)
    return found


async def test_a_request_and_each_try_at_a_pod_are_spans(tmp_path: Path) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    with collecting() as collector:
        async with running_engine() as engine:
            # Whichever comes first, one of the two requests meets the pod that is not there.
            log = await traced(
                tmp_path, collector, [engine.url, dead],
                *[(SPEECH, {"json": {}, "headers": {**bearer(), "traceparent": TRACEPARENT}})] * 2,
            )  # fmt: skip
    [resource] = collector.resources()
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("the-gateway", "tests")
    spans = collector.spans()
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    servers = [span for span in spans if span.kind == SERVER]
    clients = [span for span in spans if span.kind == CLIENT]
    assert (len(servers), len(clients)) == (2, 3)  # and none for /livez
    for span in servers:
        assert span.parent_span_id.hex() == PARENT
        assert span.name == f"POST {SPEECH}"
        assert attributes(span) == {
            "http.request.method": "POST",
            "url.scheme": "http",
            "http.route": SPEECH,
            "http.response.status_code": 200,
        }
    assert {span.parent_span_id for span in clients} == {span.span_id for span in servers}
    [failed] = [span for span in clients if span.status.code == ERROR]
    assert attributes(failed)["error.type"] == "UnreachedError"
    assert attributes(failed)["server.port"] == int(dead.rpartition(":")[2])
    [again] = [span for span in clients if "http.request.resend_count" in attributes(span)]
    assert again.parent_span_id == failed.parent_span_id
    for span in clients:
        found = attributes(span)
        assert found["url.full"] == f"http://{found['server.address']}:{found['server.port']}{SPEECH}"
    # The engines' own spans become children of the try that reached them.
    reached = {span.span_id.hex() for span in clients if span is not failed}
    assert {seen.headers["traceparent"].split("-")[2] for seen in engine.seen} == reached
    assert log.count(f'"trace_id":"{TRACE}"') == 2


async def test_failures_are_marked_and_nothing_private_is_told(tmp_path: Path) -> None:
    secret = "words-nobody-may-read"
    body = {"prompt": secret, "do": {"status": 500, "error": secret}}
    headers = {**bearer(f"tenant-{secret}"), "User-Agent": secret, "X-Note": secret, "tracestate": f"a={secret}"}
    with collecting() as collector:
        async with running_engine() as engine:
            await traced(
                tmp_path, collector, [engine.url],
                (f"{SPEECH}?service=whisper&note={secret}", {"json": body, "headers": headers}),
                (f"/{secret}", {"json": {}, "headers": headers}),
                (SPEECH, {"json": {}}),
            )  # fmt: skip
    spans = collector.spans()
    assert secret not in str(collector.received)
    found = sorted((span.name, attributes(span).get("error.type"), span.status.code) for span in spans)
    assert found == [
        ("POST", "500", ERROR),
        (f"POST {SPEECH}", "unauthenticated", 0),
        (f"POST {SPEECH}", "upstream_failed", ERROR),
        ("POST unmatched", "not_found", 0),
    ]


async def test_a_collector_that_is_away_holds_nothing_up(tmp_path: Path) -> None:
    async with running_engine() as engine:
        collector = Collector(f"http://127.0.0.1:{free_port()}")
        await traced(tmp_path, collector, [engine.url], *[(SPEECH, {"json": {}, "headers": bearer()})] * 3)
        assert len(engine.seen) == 3

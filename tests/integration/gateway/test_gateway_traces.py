"""Traces: the client's are passed on, and ours reach a real collector, with nothing in them that is private."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.databases import free_port
from support.gateway import (
    Stage,
    bearer,
    environment,
    eventually,
    gateway_here,
    gateway_process,
    running_engine,
    serving,
    whisper,
    write_services,
)
from support.otlp import Collector, collecting

SPEECH = "/api/speech-to-text"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
SERVER, CLIENT, CONSUMER, ERROR = 2, 3, 5, 2
JOBS = "/v1/jobs"
OVER = {"succeeded", "failed", "cancelled", "expired"}

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


async def test_metrics_logs_and_spans_name_a_route_as_it_is_described(tmp_path: Path) -> None:
    """Of every operation; without a token, so that none does anything."""
    write_services(tmp_path / "services.yaml")
    with collecting() as collector:
        variables = environment(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.address)
        async with gateway_process(tmp_path, variables) as gateway, aiohttp.ClientSession(gateway.url) as client:
            async with client.get("/openapi.json") as answer:
                paths = (await answer.json())["paths"]
            asked = {(method.upper(), path) for path, item in paths.items() for method in item}
            asked -= {("GET", path) for path in ("/livez", "/readyz", "/metrics")}  # counted only
            asked = {(method, path.replace("{model}", "{model:path}")) for method, path in asked}
            for method, path in asked:
                async with client.request(method, path.translate({ord("{"): None, ord("}"): None})) as answer:
                    assert answer.status in {401, 503}
            async with client.get("/metrics") as answer:
                metrics = await answer.text()
            gateway.signal(signal.SIGTERM)
            assert await gateway.ended() == 0
    assert ("POST", "/v1/images/generations") in asked
    assert ("GET", "/v1/models/{model:path}") in asked
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines()]
    logged = {(line["method"], line["route"]) for line in lines if line["message"] == "request"}
    spans = {span.name for span in collector.spans()}
    assert [route for route in asked if f'{{method="{route[0]}",route="{route[1]}",' not in metrics] == []
    assert asked <= logged
    assert {" ".join(route) for route in asked} <= spans


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


async def hand_in(client: aiohttp.ClientSession, order: Mapping[str, Any], tenant: str = "acme") -> str:
    """Hands a job in as part of a trace; returns its id."""
    body = {"task": "speech-to-text", "request": {}, **order}
    async with client.post(JOBS, json=body, headers={**bearer(tenant), "traceparent": TRACEPARENT}) as answer:
        job = await answer.json()
        assert answer.status == 202, job
        return str(job["id"])


async def job_over(client: aiohttp.ClientSession, job: str, tenant: str = "acme") -> dict[str, Any]:
    """Waits until a job is over, and its webhook is sent."""
    found: dict[str, Any] = {}

    async def look() -> bool:
        async with client.get(f"{JOBS}/{job}", headers=bearer(tenant)) as answer:
            found.update(await answer.json())
        return found["status"] in OVER and (found["webhook"] or {}).get("status") != "waiting"

    await eventually(look)
    return found


async def traced_jobs(
    folder: Path, variables: Mapping[str, str], collector: Collector, *orders: Mapping[str, Any], tenant: str = "acme"
) -> tuple[list[str], str]:
    """Runs jobs one after the other by a gateway that traces; returns their ids, and its log."""
    variables = {**variables, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address}
    jobs = []
    async with gateway_process(folder, variables) as gateway, aiohttp.ClientSession(gateway.url) as client:
        for order in orders:
            jobs.append(await hand_in(client, order, tenant))
            await job_over(client, jobs[-1], tenant)
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
    return jobs, gateway.log.read_text()


def handed_in(collector: Collector) -> dict[str, Any]:
    """The spans of the requests that handed jobs in, by the job's id."""
    return {attributes(span)["aiservice.job.id"]: span for span in collector.spans() if span.name == f"POST {JOBS}"}


def tries(collector: Collector, job: str) -> list[Any]:
    """The spans of the tries at a job, in order."""
    spans = [one for one in collector.spans() if one.kind == CONSUMER and attributes(one)["aiservice.job.id"] == job]
    return sorted(spans, key=lambda span: int(span.start_time_unix_nano))


def links(span: Any) -> list[tuple[bytes, bytes]]:
    return [(link.trace_id, link.span_id) for link in span.links]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_a_job_is_a_trace_with_a_link_to_its_order(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    more = {"DATABASE_URL": request.getfixturevalue("migrated_database")} if database == "postgresql" else {}
    with collecting() as collector:
        async with running_engine() as engine:
            pods = {"name": "whisper", "tasks": ["speech-to-text"], "urls": [engine.url, dead]}
            write_services(tmp_path / "services.yaml", pods)
            # Whichever comes first, one of the two jobs meets the pod that is not there.
            jobs, log = await traced_jobs(tmp_path, environment(tmp_path, **more), collector, {}, {})
    orders, runs = handed_in(collector), [tries(collector, job) for job in jobs]
    clients = [span for span in collector.spans() if span.kind == CLIENT]
    assert sorted(orders) == sorted(jobs)
    assert {span.trace_id.hex() for span in orders.values()} == {TRACE}
    for job, [run] in zip(jobs, runs, strict=True):
        assert run.name == "job speech-to-text"
        assert (run.parent_span_id, run.status.code) == (b"", 0)
        assert links(run) == [(orders[job].trace_id, orders[job].span_id)]
        assert attributes(run) == {
            "aiservice.job.id": job,
            "aiservice.task": "speech-to-text",
            "aiservice.service": "whisper",
            "aiservice.job.attempts": 1,
            "aiservice.job.status": "succeeded",
        }
        below = [span for span in clients if span.trace_id == run.trace_id]
        assert {span.parent_span_id for span in below} == {run.span_id}
        assert f'"trace_id":"{run.trace_id.hex()}"' in log
    assert len({run.trace_id for [run] in runs} - {bytes.fromhex(TRACE)}) == 2
    assert len(clients) == 3
    [failed] = [span for span in clients if span.status.code == ERROR]
    assert attributes(failed)["error.type"] == "UnreachedError"
    # The engines' own spans become children of the try that reached them.
    reached = {(span.trace_id.hex(), span.span_id.hex()) for span in clients if span is not failed}
    assert {tuple(seen.headers["traceparent"].split("-")[1:3]) for seen in engine.seen} == reached


async def test_jobs_that_fail_wait_or_are_cancelled(tmp_path: Path) -> None:
    with collecting() as collector:
        async with running_engine() as engine:
            write_services(tmp_path / "services.yaml", whisper(engine.url))
            variables = environment(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.address)
            async with gateway_process(tmp_path, variables) as gateway, aiohttp.ClientSession(gateway.url) as client:
                broken = await hand_in(client, {"request": {"do": {"status": 500}}})
                refused = await hand_in(client, {"request": {"do": {"status": 400}}})
                late = await hand_in(client, {"request": {"do": {"sleep": 30}}, "deadline_seconds": 1})
                unwanted = await hand_in(client, {"request": {"do": {"sleep": 30}}})
                for job in (broken, refused, late):
                    await job_over(client, job)
                async with client.delete(f"{JOBS}/{unwanted}", headers=bearer()) as answer:
                    assert answer.status == 200
                await job_over(client, unwanted)
                engine.status, engine.retry_after = 503, 1
                busy = await hand_in(client, {})
                await eventually(lambda: len(engine.seen) == 5)
                await asyncio.sleep(0.3)  # while its answer arrives; it is asked again after a second
                engine.status = 0
                await job_over(client, busy)
                gateway.signal(signal.SIGTERM)
                assert await gateway.ended() == 0

    def ends(job: str) -> list[tuple[Any, ...]]:
        return [
            (attributes(one)["aiservice.job.status"], attributes(one).get("error.type"), one.status.code)
            for one in tries(collector, job)
        ]

    assert ends(broken) == [("failed", "upstream_failed", ERROR)]
    assert ends(refused) == [("failed", "refused", ERROR)]
    assert ends(late) == [("expired", "expired", ERROR)]
    assert ends(unwanted) == [("cancelled", "cancelled", 0)]
    *waits, end = ends(busy)
    assert (set(waits), end) == ({("queued", "unavailable", 0)}, ("succeeded", None, 0))
    order = handed_in(collector)[busy]
    assert all(links(run) == [(order.trace_id, order.span_id)] for run in tries(collector, busy))


@pytest.mark.parametrize("traced", [True, False])
async def test_the_link_outlives_the_gateway_that_took_the_order(stage: Stage, *, traced: bool) -> None:
    with collecting() as collector:
        seen = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.address}
        takes = stage.settings | {"GATEWAY_JOB_CONCURRENCY": "0"} | (seen if traced else {})
        async with gateway_process(stage.folder, takes) as gateway, aiohttp.ClientSession(gateway.url) as client:
            job = await hand_in(client, {})
            gateway.signal(signal.SIGTERM)
            assert await gateway.ended() == 0
        works = stage.settings | seen
        async with gateway_process(stage.folder, works) as gateway, aiohttp.ClientSession(gateway.url) as client:
            assert (await job_over(client, job))["status"] == "succeeded"
            gateway.signal(signal.SIGTERM)
            assert await gateway.ended() == 0
    [run] = tries(collector, job)
    orders = handed_in(collector)
    assert links(run) == [(one.trace_id, one.span_id) for one in orders.values()]
    assert len(orders) == (1 if traced else 0)


async def test_webhooks_are_spans_that_do_not_say_where_they_go(tmp_path: Path) -> None:
    secret, told = "words-nobody-may-read", []

    async def receiver(scope: Any, receive: Any, send: Any) -> None:
        told.append(dict(scope["headers"]))
        status = 500 if len(told) == 1 else 204
        await receive()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    hooks = {
        "GATEWAY_WEBHOOK_SECRET": f"whsec_{base64.b64encode(bytes(range(7, 39))).decode()}",
        "GATEWAY_WEBHOOK_ALLOW_HTTP": "true",
        "GATEWAY_WEBHOOK_ALLOW_PRIVATE": "true",
        "GATEWAY_WEBHOOK_RETRY_SECONDS": "0.2",
    }
    body = {"prompt": secret, "do": {"error": secret}}
    with collecting() as collector:
        async with running_engine() as engine, serving(receiver) as url:
            write_services(tmp_path / "services.yaml", whisper(engine.url))
            orders = [
                {"request": body, "webhook": {"url": f"{url}/{secret}"}},
                {"request": body, "webhook": {"url": f"http://127.0.0.1:{free_port()}/{secret}"}},
            ]
            variables = environment(tmp_path, **hooks)
            jobs, _ = await traced_jobs(tmp_path, variables, collector, *orders, tenant=f"tenant-{secret}")
    assert secret not in str(collector.received)
    assert b"traceparent" not in {name for headers in told for name in headers}
    spans = [span for span in collector.spans() if span.name == "POST webhook"]
    ends = Counter(
        (
            found["aiservice.job.id"],
            found.get("http.request.resend_count", 0),
            found.get("error.type"),
            span.status.code,
        )
        for span in spans
        for found in [attributes(span)]
    )
    assert ends == Counter([
        (jobs[0], 0, "500", ERROR), (jobs[0], 1, None, 0),
        (jobs[1], 0, "unreached", ERROR), (jobs[1], 1, "unreached", ERROR),
    ])  # fmt: skip
    orders_by_job = handed_in(collector)
    for span in spans:
        order = orders_by_job[attributes(span)["aiservice.job.id"]]
        assert (span.kind, links(span)) == (CLIENT, [(order.trace_id, order.span_id)])
        assert not {"url.full", "server.address"} & attributes(span).keys()

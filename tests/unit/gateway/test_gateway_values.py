"""Small pure things: prices, measures, records, ids, headers, health's rule, database URLs, durations."""

from __future__ import annotations

import argparse
import io
import json
import logging
import re
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from starlette.datastructures import Headers

import aiservice_gateway.migrations
from aiservice_api.tasks import Task
from aiservice_gateway.__main__ import duration
from aiservice_gateway.errors import RateLimitedError, UnsupportedMediaError
from aiservice_gateway.ids import new_request_id
from aiservice_gateway.logs import FIELDS, JsonFormatter
from aiservice_gateway.models import Measured, Outcome, UsageRecord, timestamp
from aiservice_gateway.services.health import ServiceHealth, Status, overall
from aiservice_gateway.services.pricing import cost, price_header, read_measured
from aiservice_gateway.services.upstream import request_headers, response_headers
from aiservice_gateway.stores.postgres import SCHEMA_REVISION, connection_arguments

RECORD = UsageRecord(
    id="0199c3a6-1d9e-7cc0-8f6b-2f2d7d5a4c11",
    tenant="acme",
    user=None,
    service=Task.SPEECH_TO_TEXT,
    model="openai/whisper-tiny",
    tokens=7,
    units=Decimal("2.5"),
    unit="audio-second",
    cost=Decimal("0.00010000"),
    duration_ms=12,
    status=Outcome.SUCCEEDED,
    created_at=datetime(2026, 11, 23, 7, 0, 0, 123000, tzinfo=UTC),
)


@pytest.mark.parametrize(
    ("units", "price", "dollars"),
    [
        ("2.5", "0.00004", "0.000100"),
        ("0.001", "0.00004", "0.000000"),
        ("1.5", "0.000001", "0.000002"),
        ("3", "0", "0.000000"),
    ],
)
def test_cost_is_units_times_price_rounded_as_engines_do(units: str, price: str, dollars: str) -> None:
    assert cost(Decimal(units), Decimal(price)) == Decimal(dollars)


def test_the_price_header_has_no_exponent() -> None:
    assert price_header({Task.TEXT_TO_SPEECH: Decimal("5E-6")}, Task.TEXT_TO_SPEECH) == "0.000005"


def test_measures_are_read_from_headers() -> None:
    headers = Headers({"x-aiservice-units": "2.5", "x-aiservice-unit": "audio-second", "x-aiservice-tokens": "7"})
    assert read_measured(headers) == Measured(Decimal("2.5"), "audio-second", 7)
    assert read_measured(Headers()) == Measured()


@pytest.mark.parametrize(
    "headers",
    [{"X-AIService-Units": value} for value in ("-1", "NaN", "Infinity", "1e12", "many", "")]
    + [{"X-AIService-Tokens": value} for value in ("-1", "1.5", "2147483648", "many")],
)
def test_measures_that_make_no_sense_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"not a number|out of range|invalid literal"):
        read_measured(headers)


def test_a_record_survives_the_wire() -> None:
    assert UsageRecord.from_wire(RECORD.to_wire()) == RECORD
    assert json.loads(RECORD.to_wire())["createdAt"] == "2026-11-23T07:00:00.123"


@pytest.mark.parametrize("wire", [b"", b"{", b"{}", b"[]", b"null", b'{"id": 1}', RECORD.to_wire()[:-5]])
def test_what_is_no_record_is_refused(wire: bytes) -> None:
    with pytest.raises(ValueError, match="not a usage record"):
        UsageRecord.from_wire(wire)


def test_request_ids_are_sortable_uuids() -> None:
    ids = [new_request_id() for _ in range(2000)]
    assert len(set(ids)) == 2000
    assert {uuid.UUID(one).version for one in ids} == {7}
    assert [one[:13] for one in ids] == sorted(one[:13] for one in ids)


def test_timestamps_have_milliseconds_and_z() -> None:
    assert timestamp(datetime(2025, 12, 12, 10, tzinfo=UTC)) == "2025-12-12T10:00:00.000Z"


def test_the_429_body_is_the_guides_word_for_word() -> None:
    assert RateLimitedError(3600).body("id") == {"error": "Rate limit exceeded", "retry_after": 3600}


def test_only_listed_headers_reach_a_service() -> None:
    client = Headers(
        {
            "Accept": "application/json",
            "Authorization": "Bearer secret",
            "Content-Length": "3",
            "Content-Type": "application/json",
            "Cookie": "session=1",
            "X-Forwarded-For": "10.0.0.1",
            "X-Request-Id": "theirs",
            "X-Tenant-Id": "other",
            "X-AIService-Unit-Price": "0",
            "Transfer-Encoding": "chunked",
            "Connection": "x-aiservice-unit-price",
            "Host": "elsewhere",
        }
    )
    sent = request_headers(client, "ours", "0.1")
    assert sent.pop("user-agent").startswith("aiservice-gateway/")
    assert sent == {
        "accept": "application/json",
        "content-length": "3",
        "content-type": "application/json",
        "accept-encoding": "identity",
        "x-request-id": "ours",
        "x-aiservice-unit-price": "0.1",
    }


def test_several_accept_headers_are_one_list() -> None:
    client = Headers(raw=[(b"accept", b"image/png;q=0.5"), (b"accept", b"image/webp")])
    assert request_headers(client, "id", "0")["accept"] == "image/png;q=0.5, image/webp"


def test_compressed_bodies_are_refused() -> None:
    with pytest.raises(UnsupportedMediaError):
        request_headers(Headers({"Content-Encoding": "gzip"}), "id", "0")


def test_only_listed_headers_reach_a_client() -> None:
    passed = {
        "content-type": "a/b",
        "x-aiservice-units": "1",
        "x-aiservice-queue-seconds": "0.250000",
        "vary": "Accept",
        "x-aiservice-size": "64x64",
        "x-aiservice-voice": "Ana",
    }
    service = Headers({**passed, "set-cookie": "a=b", "server": "uvicorn"})
    assert response_headers(service) == [(name.encode(), value.encode()) for name, value in passed.items()]


UP, DOWN, STARTING = (
    ServiceHealth(Status.HEALTHY, 0.01),
    ServiceHealth(Status.UNHEALTHY, None),
    ServiceHealth(Status.UNAVAILABLE, None),
)


@pytest.mark.parametrize(
    ("services", "dependencies", "expected"),
    [
        ([UP, UP], [True, True], Status.HEALTHY),
        ([UP, UP], [True, False], Status.DEGRADED),
        ([UP, DOWN], [True], Status.DEGRADED),
        ([UP, STARTING], [True], Status.DEGRADED),
        ([DOWN, STARTING], [True], Status.UNHEALTHY),
        ([], [True], Status.UNHEALTHY),
    ],
)
def test_the_gateways_health(services: list[ServiceHealth], dependencies: list[bool], expected: Status) -> None:
    by_task = dict(zip(Task, services, strict=False))
    assert overall(by_task, {str(number): up for number, up in enumerate(dependencies)}) is expected


def test_prismas_url_is_understood() -> None:
    arguments = connection_arguments(
        "postgresql://u:p%40ss@db:5433/app?schema=my%22app&connection_limit=5&pgbouncer=true&sslmode=require"
    )
    assert arguments["dsn"] == "postgresql://u:p%40ss@db:5433/app?sslmode=require"
    assert arguments["server_settings"]["search_path"] == '"my""app"'
    assert arguments["server_settings"]["timezone"] == "UTC"
    assert arguments["statement_cache_size"] == 0


def test_a_plain_url_stays_as_it_is() -> None:
    arguments = connection_arguments("postgresql://u@db/app")
    assert arguments["dsn"] == "postgresql://u@db/app"
    assert "search_path" not in arguments["server_settings"]


def test_the_newest_migration_is_the_one_that_serving_asks_for() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(aiservice_gateway.migrations.__file__).parent))
    revisions = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert revisions[0] == SCHEMA_REVISION
    assert revisions == sorted(revisions, reverse=True)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604800)])
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "0h", "-1h", "1.5h", "1y"])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="as in 1h"):
        duration(text)


def test_log_lines_are_json_with_their_fields() -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.info("done %s", "so", extra={FIELDS: {"status": 200}})
    line = json.loads(written.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {"level": "INFO", "logger": "test", "message": "done so", "status": 200}

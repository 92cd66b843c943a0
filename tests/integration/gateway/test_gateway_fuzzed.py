"""Requests that are made up from the OpenAPI description, fitting and not: whatever they are, no answer is a 5xx, and
each has a status, a type and a shape that is described."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from support.contract import running_contract, services
from support.gateway import bearer, environment, gateway_process, write_services

# A description is loaded with jsonschema's older interface, and generators are left as they are.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::hypothesis.errors.NonInteractiveExampleWarning"
)

EXAMPLES = 20
"""Of each operation, and as many that do not fit it."""

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture
async def url(tmp_path: Path, redis_url: str, migrated_database: str) -> AsyncIterator[str]:
    async with running_contract() as engine:
        write_services(tmp_path / "services.yaml", *services(engine.url))
        variables = environment(
            tmp_path,
            REDIS_URL=redis_url,
            DATABASE_URL=migrated_database,
            GATEWAY_WEBHOOK_SECRET=f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}",
            GATEWAY_RATE_LIMIT_PER_HOUR="1000000",
        )
        async with gateway_process(tmp_path, variables) as gateway:
            yield gateway.url


async def test_whatever_is_asked_the_answer_is_a_described_one(url: str) -> None:
    asked = await asyncio.to_thread(_ask_everything, url)
    assert asked.keys() >= {"GET /health", "POST /api/speech-to-text", "GET /api/usage", "POST /v1/images/edits"}
    assert all(count >= EXAMPLES for operation, count in asked.items() if operation.startswith("POST ")), asked


def _ask_everything(url: str) -> dict[str, int]:
    """Sends everything; returns how many requests each operation got."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    asked: dict[str, int] = {}
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            # An operation without parameters has one request that fits, and none that does not.
            with suppress(Unsatisfiable):
                _ask(operation, mode, asked)
    return asked


def _ask(operation: schemathesis.APIOperation[Any, Any, Any, Any], mode: GenerationMode, asked: dict[str, int]) -> None:
    @seed(7)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=False,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: schemathesis.Case[Any]) -> None:
        asked[operation.label] = asked.get(operation.label, 0) + 1
        case.call_and_validate(headers=bearer(), checks=CHECKS, timeout=30)

    send()

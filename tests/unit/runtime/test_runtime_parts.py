"""Small pure parts of the runtime."""

from __future__ import annotations

import json
import logging
import socket
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from aiservice_runtime import server
from aiservice_runtime.app import cost
from aiservice_runtime.cpus import available_cpus, cpu_quota
from aiservice_runtime.logs import JsonFormatter
from aiservice_runtime.settings import RuntimeSettings


@pytest.mark.parametrize(
    ("units", "price", "expected"),
    [
        (1, None, None),
        (1, "0.5", 0.5),
        (1.23456, "1", 1.235),  # charged for what usage.units says
        (0.0005, "1", 0.001),
        (2, "0.00000025", 0.000001),
        (10, "0", 0.0),
    ],
)
def test_cost(units: float, price: str | None, expected: float | None) -> None:
    assert cost(units, None if price is None else Decimal(price)) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({}, None),
    ],
)
def test_cpu_quota(tmp_path: Path, files: dict[str, str], expected: float | None) -> None:
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    assert cpu_quota(tmp_path) == expected


def test_available_cpus_is_at_least_one() -> None:
    assert available_cpus() >= 1


def test_settings_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISERVICE_TASKS", " speech-to-text , image-to-text,")
    monkeypatch.setenv("AISERVICE_PORTS", "speech-to-text=1234")
    settings = RuntimeSettings()
    assert settings.tasks == ("speech-to-text", "image-to-text")
    assert settings.ports == {"speech-to-text": 1234}
    assert settings.threads == available_cpus()


def test_log_records_of_errors_name_causes_and_places_but_no_values() -> None:
    secret = "prompt " * 100
    try:
        try:
            raise ValueError(secret)
        except ValueError as error:
            raise RuntimeError("outer") from error
    except RuntimeError:
        record = logging.getLogger("x").makeRecord("x", logging.ERROR, "f", 1, "failed", (), sys.exc_info())
    record.fields = {"task": "t"}
    entry = json.loads(JsonFormatter(service="s", namespace="").format(record))
    assert entry["exception"].startswith("RuntimeError: outer <- ValueError: prompt")
    assert len(entry["exception"]) < 400
    assert entry["traceback"][0].endswith("test_log_records_of_errors_name_causes_and_places_but_no_values")
    assert (entry["service"], entry["task"], "namespace" in entry) == ("s", "t", False)
    assert entry["time"].endswith("Z")


@pytest.mark.parametrize("host", ["", "127.0.0.1"])
def test_answers_do_not_wait_for_acknowledgements(host: str) -> None:
    with server._listen(host, 0) as listener:
        address = ("127.0.0.1", listener.getsockname()[1])
        with socket.create_connection(address), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

"""The health check for Argo CD, run by a real Lua."""

import subprocess
from typing import Any

import pytest
import yaml

from support.charts import CHARTS
from support.cluster import REPOSITORY, run

KEYS = [f"resource.customizations.health.aiservice.dev_{kind}" for kind in ("AIService", "ModelCache")]


@pytest.fixture(scope="session")
def lua() -> str:
    """The interpreter, from Debian."""
    subprocess.run(["bash", "-c", "source scripts/lib/debian.sh && need_packages lua5.4"], cwd=REPOSITORY, check=True)
    return "lua5.4"


def literal(value: Any) -> str:
    """A JSON value as Lua source."""
    match value:
        case None:
            return "nil"
        case bool():
            return "true" if value else "false"
        case dict():
            return "{" + ", ".join(f"[{literal(key)}] = {literal(item)}" for key, item in value.items()) + "}"
        case list():
            return "{" + ", ".join(map(literal, value)) + "}"
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case _:
            return str(value)


def condition(kind: str, status: str, reason: str = "Reason", message: str = "a message") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def seen(*conditions: dict[str, str], generation: int = 2) -> dict[str, Any]:
    return {"observedGeneration": generation, "conditions": list(conditions)}


def verdict(lua: str, key: str, obj: dict[str, Any]) -> tuple[str, str]:
    """Status and message that the check gives an object."""
    check = yaml.safe_load((CHARTS / "argocd/health-checks.yaml").read_text())["data"][key]
    # Argo CD sets the global `obj` and takes what the chunk returns.
    program = [f"obj = {literal(obj)}", "local function check()", check, "end", "local health = check()"]
    printed = run(lua, "-", stdin="\n".join([*program, "print(health.status)", "print(health.message)"]))
    status, message, _ = printed.split("\n")
    return status, message


WAITING = ("Progressing", "The operator has not acted on it yet")
ACCEPTED = condition("Accepted", "True")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, WAITING),
        ({"status": {}}, WAITING),
        ({"status": seen(condition("Ready", "True"), generation=1)}, WAITING),
        ({"status": seen(ACCEPTED)}, WAITING),
        ({"status": seen(condition("Ready", "Unknown", "Starting"))}, ("Progressing", "Starting: a message")),
        (
            {"status": seen(condition("Ready", "Unknown", "WaitingForModel"))},
            ("Progressing", "WaitingForModel: a message"),
        ),
        ({"status": seen(ACCEPTED, condition("Ready", "True", "Idle"))}, ("Healthy", "Idle: a message")),
        ({"status": seen(ACCEPTED, condition("Ready", "True", "Suspended"))}, ("Healthy", "Suspended: a message")),
        ({"status": seen(ACCEPTED, condition("Ready", "False", "Suspended"))}, ("Healthy", "Suspended: a message")),
        (
            {"status": seen(condition("Scheduled", "False"), condition("Ready", "Unknown"))},
            ("Progressing", "Reason: a message"),
        ),
        ({"status": seen(condition("Ready", "False", "OOMKilled"))}, ("Degraded", "OOMKilled: a message")),
        ({"status": seen(condition("Ready", "False", "Rejected", ""))}, ("Degraded", "Rejected: ")),
    ],
)
def test_health(lua: str, key: str, fields: dict[str, Any], expected: tuple[str, str]) -> None:
    assert verdict(lua, key, {"metadata": {"name": "x", "generation": 2}, **fields}) == expected


def test_what_is_being_deleted_is_progressing(lua: str) -> None:
    metadata = {"generation": 1, "deletionTimestamp": "2026-01-01T00:00:00Z"}
    obj = {"metadata": metadata, "status": seen(condition("Ready", "True"))}
    assert verdict(lua, KEYS[0], obj) == ("Progressing", "It is being deleted")

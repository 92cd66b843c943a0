"""A running demo, and how the end-to-end tests talk to it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib import error, request

import pytest

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = "aiservice-system"
DEMO = "aiservice-demo"


@dataclass(frozen=True)
class Reply:
    """An HTTP answer of the gateway, error answers included."""

    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class RunningDemo:
    """The running demo: where its outputs are and how to talk to it."""

    cluster: str
    output: Path
    transcript: str
    kubeconfig: str
    kubectl_path: str
    gateway: str

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Runs kubectl and returns what it printed; fails the test with kubectl's own words."""
        done = subprocess.run(
            [self.kubectl_path, "--kubeconfig", self.kubeconfig, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if check and done.returncode != 0:
            pytest.fail(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def get(self, kind: str, name: str, namespace: str = DEMO) -> dict[str, Any]:
        """Returns one object, or an empty one when it is not there."""
        found = self.kubectl("-n", namespace, "get", kind, name, "--ignore-not-found", "-o", "json")
        loaded: dict[str, Any] = json.loads(found or "{}")
        return loaded

    def condition(self, kind: str, name: str, condition: str, namespace: str = DEMO) -> dict[str, str]:
        """Returns one condition of an object, or an empty one."""
        conditions = self.get(kind, name, namespace).get("status", {}).get("conditions", [])
        return next((item for item in conditions if item["type"] == condition), {})

    def token(self, tenant: str) -> str:
        """A token for a tenant, made by the gateway's own command."""
        command = ["python", "-m", "aiservice_gateway", "token", "--tenant", tenant, "--expires", "1h"]
        return self.kubectl("-n", SYSTEM, "exec", "deploy/aiservice-gateway", "--", *command).strip()

    def call(self, path: str, token: str | None = None, body: Any = None) -> Reply:
        """Sends a request to the gateway, POST with JSON when there is a body."""
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        try:
            with request.urlopen(request.Request(self.gateway + path, data, headers), timeout=60) as answer:
                return reply(answer)
        except error.HTTPError as answer:
            return reply(answer)


def reply(answer: Any) -> Reply:
    """Reads an answer whole."""
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return Reply(answer.status, headers, json.loads(answer.read()))


def script(name: str, *arguments: str, timeout: float = 120) -> str:
    """Runs a script of the repository and returns what it printed."""
    return subprocess.run(
        [str(ROOT / "scripts" / name), *arguments], capture_output=True, text=True, timeout=timeout, check=True
    ).stdout

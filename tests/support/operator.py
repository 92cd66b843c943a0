"""Starts operators as processes of their own, against a kubeconfig, as a Deployment would."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "images": {
        "speech-recognition": "example.test/speech:1",
        "vision": "example.test/vision:1",
        "diffusion": "example.test/diffusion:1",
    },
    "profiles": {
        "cpu": {"resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}},
        "gpu": {
            "gpu": {"resource": "nvidia.com/gpu", "count": 1, "memoryGiB": 24},
            "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        },
        "zone-a": {"nodeSelector": {"zone": "a"}},
        "zone-b": {"nodeSelector": {"zone": "b"}},
    },
    "download": {"image": "example.test/downloader:1", "progressIntervalSeconds": 0.5},
    "leaderElection": {"enabled": False},
    "probes": {"port": 0},
    "log": {"level": "INFO", "format": "text"},
}
"""What operators in tests are configured with, where a test says nothing else."""


class OperatorProcess:
    """One running operator.

    Args:
        kubeconfig: Which cluster, and as whom.
        folder: Where its configuration and its log go.
        changes: What differs from CONFIG, section by section.
        name: POD_NAME.
        namespace: POD_NAMESPACE, where its Lease is.
        module: What is run.
    """

    def __init__(
        self,
        kubeconfig: Path,
        folder: Path,
        changes: Mapping[str, Any] | None = None,
        *,
        name: str = "operator",
        namespace: str = "default",
        module: str = "aiservice_operator",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self._module = module
        self.log = folder / f"{name}.log"
        self._config = folder / f"{name}.yaml"
        self._config.write_text(json.dumps({**CONFIG, **(changes or {})}))
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "POD_NAME": name,
            "POD_NAMESPACE": namespace,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._begun = 0

    def start(self, *, wait: bool = True) -> OperatorProcess:
        """Starts it; `wait` until its store is filled."""
        self._begun = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, "run", "--config", str(self._config)],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if wait:
            self._wait_until_synced()
        return self

    def _wait_until_synced(self, timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while "the store holds" not in self.output():
            if self.exit_code() is not None:
                raise AssertionError(f"{self.name} exited with {self.exit_code()}:\n{self.output()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} is not synced after {timeout:.0f} s:\n{self.output()}")
            time.sleep(0.05)

    def output(self) -> str:
        """What it has logged since its last start."""
        with self.log.open("rb") as log:
            log.seek(self._begun)
            return log.read().decode(errors="replace")

    def exit_code(self) -> int | None:
        return self._running.poll()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was not started"
        return self._process

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._running.pid

    def signal(self, number: int) -> None:
        self._running.send_signal(number)

    def kill(self) -> None:
        """SIGKILL: it has no chance to clean up."""
        self._running.kill()
        self._running.wait(timeout=30)

    def stop(self) -> int:
        """SIGTERM, as the kubelet does it; returns the exit code."""
        self._running.send_signal(signal.SIGTERM)
        self._running.send_signal(signal.SIGCONT)
        try:
            return self._running.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def ask(self, path: str) -> tuple[int, str]:
        """GET of a probe: status code and body."""
        ports = re.findall(r"probes and metrics on port (\d+)", self.output())
        assert ports, f"no port in the log:\n{self.output()}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{ports[-1]}{path}", timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels; 0 where it has not been counted yet."""
        _, text = self.ask("/metrics")
        found = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? ([0-9.e+-]+)$", text, re.MULTILINE)
        return sum(float(value) for value in found)

    def __enter__(self) -> OperatorProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()

"""A serving process as Kubernetes sees it: its log, its ports, its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]


class Process:
    """`python -m MODULE` with its log read as it comes."""

    def __init__(
        self,
        module: str,
        folder: Path,
        arguments: list[str],
        variables: dict[str, str],
        *,
        python: Path = Path(sys.executable),
    ) -> None:
        self.termination = folder / "termination-log"
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AISERVICE_")},
            "PYTHONPATH": str(TESTS),
            "AISERVICE_HOST": "127.0.0.1",
            "TERMINATION_LOG": str(self.termination),
            **variables,
        }
        self.child = subprocess.Popen(
            [python, "-m", module, *arguments],
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stdout
        self.lines.extend(self.child.stdout)
        self.child.stdout.close()

    def wait_for(self, message: str, seconds: float = 60) -> dict[str, Any]:
        """Returns the first log record with this message."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in list(self.lines):
                record: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
                if record.get("message") == message:
                    return record
            time.sleep(0.02)
        raise AssertionError(f"no log record {message!r} in {self.lines}")

    def ports(self) -> dict[str, int]:
        ports: dict[str, int] = self.wait_for("listening")["ports"]
        return ports

    def end(self, seconds: float = 60) -> int:
        """Waits for the process to end and returns its exit code."""
        code = self.child.wait(seconds)
        self._reader.join()
        return code

"""`kubectl ais` as users run it: by kubectl, which finds it on the PATH."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.cluster import ControlPlane

CONFIGURATION_LABELS = {"app.kubernetes.io/component": "configuration", "app.kubernetes.io/part-of": "aiservice"}
"""As the chart labels the operator's ConfigMap."""


@dataclass(frozen=True)
class Answer:
    """What one call printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """The answer in one line, so that tests need not know where lines are broken."""
        return " ".join(self.out.split())

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Plugin:
    """The plugin, for one kubeconfig.

    Args:
        control_plane: Whose kubectl runs it.
        kubeconfig: As whom.
        folder: Where the program goes that kubectl looks for.
    """

    def __init__(self, control_plane: ControlPlane, kubeconfig: Path, folder: Path) -> None:
        program = folder / "kubectl-ais"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m aiservice_kubectl "$@"\n')
        program.chmod(0o755)
        kubectl = control_plane.kubectl_path.parent
        self._environment = {
            **os.environ,
            "PATH": f"{folder}:{kubectl}:{os.environ['PATH']}",
            "KUBECONFIG": str(kubeconfig),
            "COLUMNS": "100",
        }

    def __call__(self, *arguments: str, stdin: str | None = None, **environment: str) -> Answer:
        done = subprocess.run(
            ["kubectl", "ais", *arguments],
            env={**self._environment, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

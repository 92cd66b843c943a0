"""The few things that bringing a cluster up asks of its API server, through the real kubectl."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from localcluster.commands import run
from localcluster.errors import ClusterError


class Kubectl:
    """kubectl with a cluster's kubeconfig."""

    def __init__(self, program: Path, kubeconfig: Path) -> None:
        self._command = (str(program), f"--kubeconfig={kubeconfig}")

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        return run([*self._command, *arguments], stdin=stdin)

    def apply(self, objects: Sequence[Mapping[str, Any]]) -> None:
        """Server-side apply of several objects at once."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        arguments = ("apply", "--server-side", "--force-conflicts", "--field-manager=scripts-cluster", "-f", "-")
        self(*arguments, stdin=json.dumps(listed))

    def get(self, *arguments: str) -> Any:
        """`kubectl get`, parsed."""
        return json.loads(self("get", "-o", "json", *arguments))

    def succeeds(self, *arguments: str) -> bool:
        try:
            self(*arguments)
        except ClusterError:
            return False
        return True

    def wait_for(self, what: str, *arguments: str, timeout: float = 30) -> None:
        """Wait until a `kubectl get` of an object succeeds: controllers make it a moment after the start."""
        deadline = time.monotonic() + timeout
        while not self.succeeds("get", *arguments):
            if time.monotonic() > deadline:
                raise ClusterError(f"{what} did not appear within {timeout:.0f} s")
            time.sleep(0.1)

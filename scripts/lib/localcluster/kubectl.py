"""The few things that bringing a cluster up asks of its API server, through the real kubectl."""

import json
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
        """Run kubectl and return what it printed; raises ClusterError when it fails."""
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
        """Whether a command succeeds."""
        try:
            self(*arguments)
        except ClusterError:
            return False
        return True

    def node_is_ready(self, name: str) -> bool:
        """Whether a node is Ready; one that is not there, or cannot be asked for, is not."""
        try:
            conditions = self.get("node", name)["status"].get("conditions", ())
        except ClusterError:
            return False
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

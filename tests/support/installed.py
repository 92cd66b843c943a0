"""Runs what the operator's pods would run, as processes with nothing but the chart's configuration and rights."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from support.cluster import ControlPlane


@contextmanager
def operator_process(
    control_plane: ControlPlane,
    namespace: str,
    pod: Mapping[str, Any],
    folder: Path,
    changes: Mapping[str, Any] | None = None,
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Runs the one container of a pod of the operator's chart; it is killed at the end.

    Args:
        control_plane: The cluster.
        namespace: Of the release.
        pod: The pod's spec: its arguments, ServiceAccount and ConfigMap are used.
        folder: Where its files go.
        changes: Sections of the configuration to replace.

    Yields:
        The process, and the file that it logs to.
    """
    [container] = pod["containers"]
    [config_map] = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
    configuration = yaml.safe_load(control_plane.get("configmap", config_map, "-n", namespace)["data"]["config.yaml"])
    # A pod has port 8080 for itself; this process shares the machine.
    configuration |= {"probes": {"port": 0}, **(changes or {})}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration))
    token = control_plane.kubectl("create", "token", pod["serviceAccountName"], "-n", namespace).strip()
    kubeconfig = _as_bearer(yaml.safe_load(control_plane.kubeconfig.read_text()), token)
    (folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    arguments = [str(folder / "config.yaml") if one.startswith("/etc/") else one for one in container["args"]]
    environment = {"KUBECONFIG": str(folder / "kubeconfig"), "POD_NAME": folder.name, "POD_NAMESPACE": namespace}
    log = folder / "log"
    with log.open("wb") as output, _started(arguments, environment, output) as process:
        try:
            yield process, log
        finally:
            process.kill()


def _started(arguments: Sequence[str], environment: Mapping[str, str], output: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "aiservice_operator", *arguments],
        stdout=output,
        stderr=output,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )


def _as_bearer(kubeconfig: dict[str, Any], token: str) -> dict[str, Any]:
    """The same cluster, seen by the owner of a token."""
    return {**kubeconfig, "users": [{"name": user["name"], "user": {"token": token}} for user in kubeconfig["users"]]}


def release_caches(control_plane: ControlPlane, namespace: str) -> None:
    """Removes what a failed test leaves for an operator that is gone, so that the namespace can go as well."""
    for cache in control_plane.kubectl("get", "modelcaches", "-n", namespace, "-o", "name").split():
        control_plane.kubectl("patch", cache, "-n", namespace, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')

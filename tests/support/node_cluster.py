"""A local cluster with a node, for tests of the cluster itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.layout import Layout
from localcluster.settings import load
from support.cluster import ControlPlane, cluster_command

SYSCTLS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")
IMAGE = "localhost/busybox:1"


@dataclass(frozen=True)
class NodeCluster(ControlPlane):
    """A cluster with a node, on which a busybox image is loaded."""

    @property
    def folder(self) -> Path:
        return self.kubeconfig.parent

    @property
    def address(self) -> str:
        return cluster_command(self.name, "address").strip()

    @property
    def machine(self) -> str:
        """The address of this machine, as pods reach it."""
        settings = load(Layout(self.name))
        assert settings is not None
        assert settings.network is not None
        return settings.network.host

    def component(self, name: str) -> int:
        for line in cluster_command(self.name, "status").splitlines():
            if line.split()[0] == name:
                return int(line.split()[1])
        raise AssertionError(f"no component {name}")

    def wait(self, what: str, condition: str, timeout: int = 90) -> None:
        self.kubectl("wait", what, f"--for={condition}", f"--timeout={timeout}s", timeout=timeout + 10)

    def shell(self, pod: str, script: str) -> str:
        return self.kubectl("exec", pod, "--", "/busybox", "sh", "-c", script)


def machine_settings() -> dict[str, str]:
    return {name: Path("/proc/sys", name).read_text() for name in SYSCTLS}


def pod(name: str, script: str, **spec: Any) -> dict[str, Any]:
    """A pod under the strictest rules that Kubernetes has, which runs a shell script in busybox."""
    security = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    container = {
        "name": "main",
        "image": IMAGE,
        "command": ["/busybox", "sh", "-c", script],
        "securityContext": security,
        **spec.pop("container", {}),
    }
    unprivileged = {"runAsNonRoot": True, "runAsUser": 65532, "fsGroup": 65532}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "securityContext": {**unprivileged, "seccompProfile": {"type": "RuntimeDefault"}},
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
            **spec,
        },
    }

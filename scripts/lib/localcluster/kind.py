"""The kind provider: for machines with Docker, one `kind` cluster."""

import subprocess
from pathlib import Path

from localcluster.commands import run, tool
from localcluster.errors import ClusterError
from localcluster.files import remove_tree
from localcluster.gpus import offer_gpus
from localcluster.kubectl import Kubectl
from localcluster.layout import Layout
from localcluster.progress import say
from localcluster.settings import save_kind
from localcluster.status import Line

_PULL_AND_START = 900.0  # seconds; the first time, kind fetches an image of about 400 MB


def docker_answers() -> bool:
    """Whether there is a Docker that this user may use."""
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


class KindCluster:
    """One cluster of kind's, up or not."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def up(self, *, with_node: bool, gpus: int | None, controller_qps: int | None) -> None:
        """Make the cluster unless kind has it."""
        if controller_qps is not None:
            raise ClusterError("kind starts its own controller manager: leave --controller-qps out")
        if not with_node:
            raise ClusterError("kind makes no cluster without a node: use --provider local for a control plane only")
        if not docker_answers():
            raise ClusterError("kind needs Docker, and `docker info` fails: start Docker, or use --provider local")
        kind = tool("kind")
        save_kind(self._layout)
        name, kubeconfig = self._layout.name, f"--kubeconfig={self._layout.kubeconfig}"
        if name in run([kind, "get", "clusters"]).split():
            run([kind, "export", "kubeconfig", "--name", name, kubeconfig])
        else:
            say("kind makes the cluster; the first time it fetches an image of about 400 MB")
            run([kind, "create", "cluster", "--name", name, kubeconfig, "--wait=120s"], timeout=_PULL_AND_START)
        if gpus is not None:
            offer_gpus(self._kubectl(), self._node, gpus)
        say(f"cluster {name} is up")

    def down(self) -> None:
        """Remove the cluster."""
        run([tool("kind"), "delete", "cluster", "--name", self._layout.name])
        remove_tree(self._layout.root, keep="logs")

    def status(self) -> list[Line]:
        """The state of the node and of the API server, as far as kind's containers tell."""
        kubectl = self._kubectl()
        api = kubectl.succeeds("get", "--raw=/readyz")
        node = kubectl.node_is_ready(self._node)
        return [
            Line("kube-apiserver", None, healthy=api, state="running" if api else "does not answer"),
            Line(f"Node {self._node}", None, healthy=node, state="Ready" if node else "not Ready"),
        ]

    def load(self, archive: Path) -> list[str]:
        """Load images; kind does not say which."""
        run([tool("kind"), "load", "image-archive", archive, "--name", self._layout.name], timeout=600)
        return []

    def address(self) -> str:
        """The address of the node's container, which this machine reaches where Docker runs on it."""
        for address in self._kubectl().get("node", self._node)["status"]["addresses"]:
            if address["type"] == "InternalIP":
                return str(address["address"])
        raise ClusterError(f"node {self._node} has no address")

    @property
    def _node(self) -> str:
        return f"{self._layout.name}-control-plane"

    def _kubectl(self) -> Kubectl:
        return Kubectl(tool("kubectl"), self._layout.kubeconfig)

"""A real Kubernetes control plane for tests: real API server, etcd, controller manager and scheduler, no kubelet.

`control_plane` starts one in a few seconds for the whole run and removes it at the end. With
AISERVICE_TEST_CLUSTER=NAME it uses the cluster of that name instead, which must be up, and leaves it running: after
`scripts/cluster --name NAME up --control-plane-only`, every run starts at once.

`namespace` is the name of a fresh namespace for one test. Nothing starts the containers of pods here; a test that needs
pods to be scheduled adds a node with `ControlPlane.add_node`, and patches their status as a kubelet would.
"""

import contextlib
import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
_PREFIX = "test-"
_Value = TypeVar("_Value")


class CommandError(Exception):
    """A program exited with another code than 0; `stderr` and `returncode` are what it left."""

    def __init__(self, argv: Sequence[str], done: "subprocess.CompletedProcess[str]") -> None:
        super().__init__(f"`{' '.join(argv)[:300]}` exited with {done.returncode}\n{done.stdout}{done.stderr}")
        self.returncode = done.returncode
        self.stderr = done.stderr


def run(*argv: str | Path, stdin: str | None = None, timeout: float = 120) -> str:
    """Run a program to its end and return what it printed.

    Raises:
        CommandError: it exited with another code than 0.
    """
    words = [str(word) for word in argv]
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise CommandError(words, done)
    return done.stdout


def cluster_command(name: str, *arguments: str, timeout: float = 300) -> str:
    """`scripts/cluster --name NAME ...`."""
    return run(REPOSITORY / "scripts/cluster", "--name", name, *arguments, timeout=timeout)


def tool(name: str) -> Path:
    """The path of a pinned tool, such as kubectl or helm. The very first use on a machine builds it, in minutes."""
    return Path(run(REPOSITORY / "scripts/tool", name, timeout=3600).strip())


def eventually(look: Callable[[], _Value], *, timeout: float = 30, every: float = 0.1) -> _Value:
    """Call `look` until it answers something true and raises no AssertionError or CommandError; return the answer."""
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() > deadline
        try:
            value = look()
            if value:
                return value
            assert not late, f"still {value!r} after {timeout:.0f} s"
        except (AssertionError, CommandError):
            if late:
                raise
        time.sleep(every)


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane and its administrator's kubeconfig."""

    name: str
    kubeconfig: Path

    @cached_property
    def kubectl_path(self) -> Path:
        """The kubectl program."""
        return tool("kubectl")

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Run the real kubectl as the cluster's administrator and return what it printed."""
        return run(self.kubectl_path, f"--kubeconfig={self.kubeconfig}", *arguments, stdin=stdin, timeout=timeout)

    def get(self, *arguments: str) -> Any:
        """`kubectl get ... -o json`, parsed."""
        return json.loads(self.kubectl("get", "-o", "json", *arguments))

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Server-side apply of objects given as dictionaries."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(listed))

    def patch_status(self, what: str, status: Mapping[str, Any], namespace: str | None = None) -> None:
        """Write the status of an object, given as "pod/name", as its kubelet or controller would."""
        scope = [f"--namespace={namespace}"] if namespace else []
        patch = json.dumps({"status": status})
        self.kubectl("patch", what, *scope, "--subresource=status", "--type=merge", "-p", patch)

    def add_node(
        self,
        name: str,
        capacity: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        kubelet_port: int | None = None,
    ) -> None:
        """Add a Ready node that runs nothing: pods are scheduled to it by its capacity and labels.

        Capacity that is not given: 64 CPUs, 256 GiB of memory, 1 TiB of disk, 250 pods. GPUs are one more entry,
        {"nvidia.com/gpu": "4"}. Without `kubelet_port` nobody answers for it when the API server asks for logs.
        """
        labels = {"kubernetes.io/hostname": name, **(labels or {})}  # as every kubelet says of its node
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
        self.apply({**node, "spec": {"providerID": f"test://{name}"}})
        usual = {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "1Ti", "pods": "250"}
        resources = {**usual, **(capacity or {})}
        ready = {"type": "Ready", "status": "True", "reason": "Test", "message": "added by a test"}
        status = {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [ready],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        }
        if kubelet_port is not None:
            status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": kubelet_port}}
        self.patch_status(f"node/{name}", status)
        eventually(lambda: not self.get("node", name)["spec"].get("taints"))

    def remove_node(self, name: str) -> None:
        """Remove a node that `add_node` made, and the pods on it."""
        self.kubectl("delete", "node", name, "--ignore-not-found")


@pytest.fixture(scope="session")
def control_plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """The control plane of this run."""
    if shared := os.environ.get("AISERVICE_TEST_CLUSTER"):
        yield _running(shared)
        return
    with _uncaptured(request):  # the first build on a machine takes minutes, and says how far it got
        subprocess.run([REPOSITORY / "scripts/tool", "hyperkube"], stdout=subprocess.DEVNULL, check=True)
    remove_abandoned()
    name = own_cluster_name()
    try:
        cluster_command(name, "up", "--control-plane-only")
        yield _running(name)
    finally:
        remove(name)


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A fresh namespace, deleted after the test with all in it."""
    name = f"t-{uuid.uuid4().hex[:10]}"
    control_plane.kubectl("create", "namespace", name)
    # Pods are refused until the controller manager has made it.
    eventually(lambda: control_plane.kubectl("get", "serviceaccount", "default", "-n", name))
    yield name
    # There is no kubelet to confirm that containers have ended, so pods on a node go only by force.
    control_plane.kubectl("delete", "pods", "--all", "-n", name, "--force", "--grace-period=0", "--wait=false")
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


def _running(name: str) -> ControlPlane:
    cluster_command(name, "status")
    return ControlPlane(name, Path(cluster_command(name, "kubeconfig").strip()))


def remove(name: str) -> None:
    """Take a cluster down and forget it, logs and all."""
    cluster_command(name, "down", "--purge")


def remove_abandoned() -> None:
    """Remove the clusters of test runs that were killed before they could do it."""
    for name in cluster_command("any", "list").split():
        if name.startswith(_PREFIX):
            pid, started = name.removeprefix(_PREFIX).split("-")[:2]
            if _identity(int(pid)) != f"{pid}-{started}":
                remove(name)


def own_cluster_name(suffix: str = "") -> str:
    """A name for a cluster of this test run. Should the run be killed, the next one removes the cluster."""
    return "-".join(filter(None, ["test", _identity(os.getpid()), suffix]))


def _identity(pid: int) -> str:
    """The process number and the moment the process started, which together never come back; of no process: "none"."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2]
    except FileNotFoundError:
        return "none"
    return f"{pid}-{after_name.split()[19]}"


@contextlib.contextmanager
def _uncaptured(request: pytest.FixtureRequest) -> Iterator[None]:
    capture = request.config.pluginmanager.getplugin("capturemanager")
    if capture is None:
        yield
    else:
        with capture.global_and_fixture_disabled():
            yield

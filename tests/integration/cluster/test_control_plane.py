import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from support.cluster import (
    REPOSITORY,
    CommandError,
    ControlPlane,
    cluster_command,
    eventually,
    own_cluster_name,
    remove,
    remove_abandoned,
)

COMPONENTS = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]


@pytest.fixture
def second() -> Iterator[str]:
    name = own_cluster_name("b")
    yield name
    remove(name)


def test_up_is_repeatable(up: Callable[[], str]) -> None:
    name = up()
    before = pids(name)
    assert list(before) == COMPONENTS
    up()
    assert pids(name) == before
    assert name in cluster_command(name, "list").split()


def test_kubeconfig_is_an_administrators(up: Callable[[], str]) -> None:
    plane = control_plane(up())
    assert plane.kubectl("auth", "can-i", "*", "*").strip() == "yes"
    assert (plane.kubeconfig.parent.stat().st_mode & 0o077, plane.kubeconfig.stat().st_mode & 0o077) == (0, 0)


def test_controllers_and_scheduler_work(up: Callable[[], str]) -> None:
    plane = control_plane(up())
    plane.add_node("worker")
    plane.kubectl("create", "deployment", "web", "--image=localhost/nothing:1", "--replicas=2")
    pods = eventually(lambda: [pod for pod in plane.get("pods", "-l=app=web")["items"] if "nodeName" in pod["spec"]])
    assert {pod["spec"]["nodeName"] for pod in pods} == {"worker"}
    plane.kubectl("delete", "deployment", "web", "--cascade=foreground", "--wait=false")

    def gone() -> bool:
        """Nobody confirms the end of pods without a kubelet; the ReplicaSet may make more until it is marked itself."""
        plane.kubectl("delete", "pods", "-l=app=web", "--force", "--grace-period=0", "--wait=false")
        return not plane.get("replicasets,deployments,pods", "-l=app=web")["items"]

    eventually(gone, timeout=90)
    plane.remove_node("worker")


def test_up_after_everything_was_killed_keeps_the_objects(up: Callable[[], str]) -> None:
    name = up()
    plane = control_plane(name)
    plane.kubectl("create", "configmap", "survivor", "--from-literal=key=value")
    killed = pids(name)
    for pid in killed.values():
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not alive(killed.values()))
    with pytest.raises(CommandError, match="stopped"):
        cluster_command(name, "status")
    up()
    assert not set(pids(name).values()) & set(killed.values())
    assert plane.get("configmap", "survivor")["data"] == {"key": "value"}
    plane.kubectl("delete", "configmap", "survivor")


def test_up_replaces_only_what_is_missing(up: Callable[[], str]) -> None:
    name = up()
    before = pids(name)
    os.kill(before["kube-scheduler"], signal.SIGKILL)
    eventually(lambda: not alive([before["kube-scheduler"]]))
    up()
    after = pids(name)
    assert {component for component in COMPONENTS if after[component] != before[component]} == {"kube-scheduler"}


def test_component_that_does_not_start_is_named_with_its_log(up: Callable[[], str]) -> None:
    name = up()
    certificate = control_plane(name).kubeconfig.parent / "pki/kube-apiserver.crt"
    genuine = certificate.read_bytes()
    certificate.write_text("no certificate")
    try:
        os.kill(pids(name)["kube-apiserver"], signal.SIGKILL)
        with pytest.raises(CommandError) as failure:
            up()
        assert "kube-apiserver ended while it was starting" in failure.value.stderr
        assert "logs/kube-apiserver.log" in failure.value.stderr
        assert "failed to find any PEM data" in failure.value.stderr
    finally:
        certificate.write_bytes(genuine)
    up()


def test_port_that_was_lost_to_another_program_is_named(up: Callable[[], str]) -> None:
    name = up()
    plane = control_plane(name)
    port = int(plane.kubectl("config", "view", "-o", "jsonpath={.clusters[0].cluster.server}").rpartition(":")[2])
    os.kill(pids(name)["kube-apiserver"], signal.SIGKILL)
    with socket.socket() as intruder:
        intruder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        eventually(lambda: binds(intruder, port))
        intruder.listen()
        with pytest.raises(
            CommandError, match=f"port {port}, which kube-apiserver had, is now used by another program"
        ):
            up()
    up()


def test_two_clusters_side_by_side(up: Callable[[], str], second: str) -> None:
    first = up()
    cluster_command(second, "up", "--control-plane-only")
    one, other = control_plane(first), control_plane(second)
    one.kubectl("create", "namespace", "only-here")
    assert "only-here" not in other.kubectl("get", "namespaces")
    one.kubectl("delete", "namespace", "only-here", "--wait=false")
    cluster_command(second, "down")
    cluster_command(first, "status")


def test_down_leaves_nothing_but_the_logs(second: str) -> None:
    cluster_command(second, "up", "--control-plane-only")
    folder = control_plane(second).kubeconfig.parent
    running = pids(second).values()
    cluster_command(second, "down")
    assert [entry.name for entry in folder.iterdir()] == ["logs"]
    assert not alive(running)
    cluster_command(second, "down")
    cluster_command(second, "down", "--purge")
    assert not folder.exists()


@pytest.mark.parametrize("seconds", [0.5, 2.5])
def test_up_after_an_up_that_was_killed(second: str, seconds: float) -> None:
    command: list[str | Path] = [REPOSITORY / "scripts/cluster", "--name", second, "up", "--control-plane-only"]
    half = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    half.kill()
    half.wait()
    cluster_command(second, "up", "--control-plane-only")
    cluster_command(second, "status")


def test_cluster_of_a_killed_test_run_is_removed() -> None:
    owner = subprocess.Popen(["true"])
    name = f"test-{owner.pid}-1"
    cluster_command(name, "up", "--control-plane-only")
    owner.wait()
    running = pids(name).values()
    remove_abandoned()
    assert name not in cluster_command(name, "list").split()
    assert not alive(running)


def pids(name: str) -> dict[str, int]:
    """The process of each component, in the order of `status`. Raises CommandError when the cluster is not healthy."""
    rows = [line.split() for line in cluster_command(name, "status").splitlines()[1:]]
    return {row[0]: int(row[1]) for row in rows}


def control_plane(name: str) -> ControlPlane:
    return ControlPlane(name, Path(cluster_command(name, "kubeconfig").strip()))


def alive(pids: Iterable[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]


def binds(probe: socket.socket, port: int) -> bool:
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True

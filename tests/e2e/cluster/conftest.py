import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localcluster.images import write_image
from support.cluster import REPOSITORY, cluster_command, own_cluster_name, remove, remove_abandoned, run
from support.node_cluster import IMAGE, SYSCTLS, NodeCluster, machine_settings


@pytest.fixture(scope="session")
def machine_before() -> dict[str, str]:
    """The machine's settings as they were before any cluster."""
    kept = Path("/run/aiservice-clusters/sysctls.json")  # another cluster may have changed them already
    saved = json.loads(kept.read_text()) if kept.exists() else {}
    return {**machine_settings(), **{name: saved[name] for name in SYSCTLS if name in saved}}


@pytest.fixture(scope="session")
def start_cluster(
    machine_before: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., NodeCluster]]:
    """Starts clusters with a node, under names that end as given, and removes them at the end."""
    if os.geteuid() != 0:
        pytest.fail("these tests need root: a cluster with a node makes namespaces and control groups")
    run("bash", "-c", f". {REPOSITORY}/scripts/lib/debian.sh; need_packages busybox-static", timeout=600)
    archive = tmp_path_factory.mktemp("images") / "busybox.tar"
    with archive.open("wb") as file:
        write_image(file, Path("/bin/busybox"), IMAGE)
    remove_abandoned()
    names = []

    def start(suffix: str, *options: str) -> NodeCluster:
        name = own_cluster_name(suffix)
        names.append(name)
        cluster_command(name, "up", "--provider=local", *options, timeout=1800)
        cluster_command(name, "load", str(archive))
        return NodeCluster(name, Path(cluster_command(name, "kubeconfig").strip()))

    yield start
    for name in names:
        remove(name)


@pytest.fixture(scope="session")
def cluster(start_cluster: Callable[..., NodeCluster]) -> NodeCluster:
    return start_cluster("n", "--gpus=2")

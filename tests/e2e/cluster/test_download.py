"""A download as it runs in a cluster: a real pod of the downloader's image, whose log a real kubelet hands out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.cluster import REPOSITORY, cluster_command, eventually, run
from support.downloads import content, http_source
from support.file_server import FileServer, serving
from support.node_cluster import IMAGE, NodeCluster
from support.operator import CONFIG, OperatorProcess
from support.plugin import Plugin

DOWNLOADER = "localhost/aiservice/model-downloader:0.1.0"
SIZE = 8_000_000
SPEED = 500_000


@pytest.fixture(scope="module")
def slow(cluster: NodeCluster) -> Iterator[FileServer]:
    """A server on this machine that sends no faster than SPEED."""
    with serving(FileServer(host=cluster.machine, bytes_per_second=SPEED)) as server:
        yield server


@pytest.fixture(scope="module")
def operator(cluster: NodeCluster, slow: FileServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The operator, as a process of this machine; the downloader's image is built if it is not up to date."""
    for command in ("build", "paths"):
        tar = run(REPOSITORY / "scripts/images", command, "--only", "model-downloader", timeout=3600).strip()
    cluster_command(cluster.name, "load", tar)
    cluster.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
    cluster.kubectl("wait", "--for=condition=Established", "-f", str(REPOSITORY / "crds"), "--timeout=30s")
    download = {"image": DOWNLOADER, "progressIntervalSeconds": 0.5, "allowedHosts": [slow.host]}
    changes = {"download": download, "images": {**CONFIG["images"], "speech-recognition": IMAGE}}
    with OperatorProcess(cluster.kubeconfig, tmp_path_factory.mktemp("operator"), changes):
        yield
        cluster.kubectl("delete", "aiservices,modelcaches", "--all", "--timeout=60s")


def status_of(cluster: NodeCluster) -> dict[str, Any]:
    status: dict[str, Any] = cluster.get("modelcache", "slow").get("status", {})
    return status


def is_ready(status: dict[str, Any]) -> bool:
    return any((item["type"], item["status"]) == ("Ready", "True") for item in status.get("conditions", ()))


def seen_until_ready(cluster: NodeCluster) -> list[dict[str, Any]]:
    """What status.download said, each time that it was something else, until the cache is ready."""
    told: list[dict[str, Any]] = []

    def look() -> bool:
        status = status_of(cluster)
        download = status.get("download", {})
        if "bytesDone" in download and download not in told:
            told.append(download)
        return is_ready(status)

    eventually(look, timeout=120, every=0.3)
    return told


def test_bytes_speed_and_time_left_while_a_download_runs(
    cluster: NodeCluster, operator: None, slow: FileServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    api = {"apiVersion": "aiservice.dev/v1alpha1", "metadata": {"name": "slow", "namespace": "default"}}
    source = http_source(slow, {"weights.bin": content(SIZE)})
    cluster.apply({**api, "kind": "ModelCache", "spec": {**source, "storage": {"size": "1Gi"}}})
    *running, last = seen_until_ready(cluster)

    done = [download["bytesDone"] for download in running]
    assert len([size for size in done if 0 < size < SIZE]) >= 2, running
    assert done == sorted(done)
    moving = [download for download in running if 0 < download["bytesDone"] < SIZE]
    assert all(download["bytesTotal"] == SIZE for download in moving)
    assert any(download.get("bytesPerSecond", 0) > 0 and download.get("etaSeconds", 0) > 0 for download in moving)
    assert (last["bytesDone"], last["progress"], last["attempts"]) == (SIZE, "100% of 8.0 MB", 1)

    spec = {"tasks": ["speech-to-text"], "profile": "cpu", "replicas": 0, "modelCacheRef": {"name": "slow"}}
    cluster.apply({**api, "kind": "AIService", "spec": spec})
    ais = Plugin(cluster, cluster.kubeconfig, tmp_path_factory.mktemp("plugin"))
    answer = ais("logs", "slow", "--download", "-n", "default")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert all(line.startswith("[pod/slow-") and "/downloader] {" in line for line in lines)
    assert '{"event": "progress", "bytesDone": 0, "bytesTotal"' in lines[0]
    assert '{"event": "done", "bytes": 8000000' in lines[-1]

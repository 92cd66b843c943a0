"""What a running download prints reaches the status by way of the real API server, which asks the node's kubelet."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from support.cluster import REPOSITORY, ControlPlane
from support.fake_kubelet import downloaded, loading
from support.kube_api import wait_for
from support.kubelet_logs import KubeletLogs, kubelet_logs
from support.operator import CONFIG
from support.operator_world import World, model

LABEL = "test.aiservice.dev/progress"
RUN = uuid.uuid4().hex[:8]
"""On the node of this run only: other tests share the cluster."""
LINE: dict[str, Any] = json.loads((REPOSITORY / "tests/data/contract/words.json").read_text())["progress"]
"""As the downloader writes it, which its own tests see to."""


@pytest.fixture(scope="module")
def printed(control_plane: ControlPlane) -> Iterator[KubeletLogs]:
    """What containers on a node have printed; the node's name begins with "progress"."""
    name = f"progress-{RUN}"
    with kubelet_logs(control_plane.kubeconfig) as logs:
        control_plane.add_node(name, labels={LABEL: RUN}, kubelet_port=logs.port)
        yield logs
        control_plane.remove_node(name)


@pytest.fixture(scope="module")
def configuration(printed: KubeletLogs) -> dict[str, Any]:
    here = {"nodeSelector": {LABEL: RUN}}
    return {"profiles": {**CONFIG["profiles"], "here": here}}


def line(done: int, speed: int, eta: int | None) -> str:
    told = {"bytesDone": done, "bytesTotal": 6_000_000, "bytesPerSecond": speed, "etaSeconds": eta}
    return json.dumps({**LINE, **told})


def until_told(world: World, cache: str, **expected: Any) -> None:
    """Waits until the status of a cache says this of its download."""

    def look() -> bool:
        told = world.api.get("ModelCache", cache).get("status", {}).get("download", {})
        assert {name: told.get(name) for name in expected} == expected, told
        return True

    wait_for(look, f"the progress of {cache}", 30)


def test_bytes_speed_and_time_left_follow_what_the_download_prints(world: World, printed: KubeletLogs) -> None:
    world.kubelet.download = loading
    printed.lines["downloader"] = [line(0, 0, None)]
    world.serve("slow", profile="here", model={**model("slow"), "storage": {"size": "1Gi"}})
    cache = world.cache_of("slow")
    until_told(world, cache, bytesDone=0, bytesTotal=6_000_000, bytesPerSecond=0, etaSeconds=None)

    printed.lines["downloader"].append(line(1_500_000, 500_000, 9))
    until_told(
        world, cache, bytesDone=1_500_000, bytesPerSecond=500_000, etaSeconds=9, progress="25% of 6.0 MB", attempts=1
    )
    assert world.until("AIService", "slow", "Ready", "Unknown", "Downloading")

    printed.lines["downloader"].append(line(4_500_000, 750_000, 2))
    until_told(world, cache, bytesDone=4_500_000, bytesPerSecond=750_000, etaSeconds=2, progress="75% of 6.0 MB")
    (path,) = {path for path, _ in printed.asked}
    assert path.startswith(f"/containerLogs/{world.namespace}/{cache}-")
    assert path.endswith("/downloader")
    assert all(query["tailLines"] == "1" for _, query in printed.asked), "not the whole log, again and again"

    world.kubelet.download = downloaded(6_000_000)
    world.until_serving("slow")
    until_told(world, cache, bytesDone=6_000_000, progress="100% of 6.0 MB", bytesPerSecond=None, etaSeconds=None)


def test_a_line_that_is_no_progress_tells_nothing(world: World, printed: KubeletLogs) -> None:
    world.kubelet.download = loading
    printed.lines["downloader"] = ["Traceback (most recent call last):"]
    world.serve("odd", profile="here", model={**model("odd"), "storage": {"size": "1Gi"}})
    cache = world.cache_of("odd")
    world.until("ModelCache", cache, "Downloaded", "Unknown", "Downloading")
    asked = len(printed.asked)
    wait_for(lambda: len(printed.asked) > asked + 1, "it is asked again")
    assert not world.api.get("ModelCache", cache)["status"]["download"].get("bytesDone")
    printed.lines["downloader"].append(line(1, 1, 1))
    until_told(world, cache, bytesDone=1)

"""Pods of downloads that are refused, do not start, or are stopped by their node: told, and over by itself."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from support.cluster import ControlPlane
from support.fake_kubelet import downloaded, ready, untouched, waiting
from support.kube_api import wait_for
from support.operator_world import World, condition, model


@contextlib.contextmanager
def no_pods(control_plane: ControlPlane, world: World) -> Iterator[None]:
    """No pod may be made."""
    metadata = {"name": "no-pods", "namespace": world.namespace}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": {"pods": "0"}}}
    control_plane.apply(quota)
    try:
        control_plane.kubectl(
            "wait", "--for=jsonpath={.status.hard.pods}=0", "resourcequota/no-pods", "-n", world.namespace
        )
        yield
    finally:
        control_plane.kubectl("delete", "resourcequota", "no-pods", "-n", world.namespace)


def make(world: World, name: str, **storage: str) -> None:
    """Creates a ModelCache; one with a size is not measured."""
    world.api.create("ModelCache", {"metadata": {"name": name}, "spec": {**model(name), "storage": storage}})


def pods(world: World, cache: str) -> list[Any]:
    return list(world.api.list("Pod", f"app.kubernetes.io/instance={cache}"))


def job(world: World, cache: str) -> Any:
    (found,) = world.api.list("Job", f"app.kubernetes.io/instance={cache}")
    return found


def test_a_quota_that_refuses_the_pods(world: World, control_plane: ControlPlane) -> None:
    with no_pods(control_plane, world):
        world.serve("unmeasured")
        make(world, "unfed", size="1Gi")
        measured = world.cache_of("unmeasured")
        for name in (measured, "unfed"):
            cache = world.until("ModelCache", name, "Downloaded", "False", "PodsRefused", 60)
            message = condition(cache, "Downloaded")["message"]
            assert message.startswith("pods cannot be created: exceeded quota: no-pods, requested: pods=1"), message
            assert "`kubectl describe resourcequota,limitrange`" in message
            assert condition(cache, "Ready")["reason"] == "PodsRefused"
            assert cache["status"]["lastFailure"]["object"] == f"Job/{job(world, name)['metadata']['name']}"
        world.until("ModelCache", measured, "StorageBound", "Unknown", "Measuring")
        world.until("AIService", "unmeasured", "ModelReady", "False", "PodsRefused")
    # Its Job is tried again by the Job controller, at most a minute later.
    world.until("ModelCache", "unfed", "Ready", "True", "Cached", 90)
    world.until_serving("unmeasured", 90)
    for name in (measured, "unfed"):
        world.until_events(name, "DownloadFailed", "ModelCached")


def test_a_quota_that_refuses_the_pod_of_a_verification(world: World, control_plane: ControlPlane) -> None:
    """The files are good enough meanwhile."""
    make(world, "unchecked", size="1Gi")
    world.until("ModelCache", "unchecked", "Ready", "True", "Cached")
    with no_pods(control_plane, world):
        world.api.patch("ModelCache", "unchecked", {"metadata": {"annotations": {"aiservice.dev/verify": "now"}}})
        cache = world.until("ModelCache", "unchecked", "Verified", "Unknown", "PodsRefused", 60)
        assert "comparing them again failed: pods cannot be created" in condition(cache, "Verified")["message"]
        assert condition(cache, "Ready")["reason"] == "Cached"
    world.until("ModelCache", "unchecked", "Verified", "True", "Verified", 90)


def test_a_volume_that_cannot_be_mounted(world: World) -> None:
    """Its pod only waits: that the kubelet fails is told in an Event."""
    world.kubelet.download = waiting("ContainerCreating", "")
    make(world, "unmounted", size="1Gi")
    (pod,) = wait_for(lambda: pods(world, "unmounted"), "a pod")
    world.warn(pod, "FailedMount", "MountVolume.SetUp failed for volume cache: no such device")
    cache = world.until("ModelCache", "unmounted", "Downloaded", "False", "FailedMount", 60)
    assert condition(cache, "Downloaded")["message"].startswith(
        "the pod cannot be started: MountVolume.SetUp failed for volume cache: no such device."
    )
    world.kubelet.reset()
    cache = world.until("ModelCache", "unmounted", "Ready", "True", "Cached")
    assert cache["status"]["lastFailure"]["reason"] == "FailedMount"


def test_a_download_that_was_evicted_goes_on_in_another_pod(world: World) -> None:
    """Which does not count as a failed try: nodes that are drained one after the other use up none."""
    world.kubelet.download = ready
    make(world, "driven-out", size="1Gi")
    world.until("ModelCache", "driven-out", "Downloaded", "Unknown", "Downloading")
    (pod,) = pods(world, "driven-out")
    old, status = pod["metadata"]["name"], pod["status"]
    disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
    killed = {"terminated": {"exitCode": 137, "reason": "Error"}}
    evicted = {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "The node was low on resource: memory.",
        "conditions": [*status["conditions"], {**disrupted, "lastTransitionTime": status["startTime"]}],
        "containerStatuses": [{**item, "state": killed} for item in status["containerStatuses"]],
    }
    world.kubelet.download = untouched  # the next pod waits, so that the operator sees the gap and tells of it
    world.api.patch("Pod", old, {"status": evicted}, "status")
    cache = world.until("ModelCache", "driven-out", "Downloaded", "False", "Evicted")
    assert condition(cache, "Downloaded")["message"] == (
        "its node stopped the pod: The node was low on resource: memory. It is being tried again."
    )
    world.kubelet.download = ready
    cache = world.until("ModelCache", "driven-out", "Downloaded", "Unknown", "Downloading", 60)
    assert cache["status"]["download"]["attempts"] == 2
    world.kubelet.reset()
    cache = world.until("ModelCache", "driven-out", "Ready", "True", "Cached")
    assert cache["status"]["lastFailure"]["reason"] == "Evicted"
    done = job(world, "driven-out")["status"]
    assert (done.get("succeeded"), done.get("failed", 0)) == (1, 0)
    world.until_events("driven-out", "DownloadFailed", "ModelCached")


def settled(metric: Callable[[], float]) -> float:
    """Returns a metric once it has stood still for a while."""
    found: list[float] = [metric()]

    def still() -> bool:
        time.sleep(0.5)
        found.append(metric())
        return found[-1] == found[-2]

    wait_for(still, "a metric stands still")
    return found[-1]


def test_the_bytes_of_a_download_are_counted(world: World) -> None:
    before = settled(lambda: world.operator.metric("aiservice_operator_download_bytes_total"))
    world.kubelet.download = downloaded(1_234_567)
    make(world, "counted", size="1Gi")
    world.until("ModelCache", "counted", "Ready", "True", "Cached")
    counted = "the bytes are counted"
    wait_for(lambda: world.operator.metric("aiservice_operator_download_bytes_total") == before + 1_234_567, counted)
    # What happens to it later moves no bytes.
    world.api.patch("ModelCache", "counted", {"metadata": {"annotations": {"aiservice.dev/verify": "now"}}})
    wait_for(lambda: len(pods(world, "counted")) == 2, "a verification")
    world.until("ModelCache", "counted", "Verified", "True", "Verified")
    assert world.operator.metric("aiservice_operator_download_bytes_total") == before + 1_234_567

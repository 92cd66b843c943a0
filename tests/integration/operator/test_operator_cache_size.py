"""How large the volume of a ModelCache is: measured, guessed or stated; and what happens when that was too little."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from support.cluster import ControlPlane
from support.fake_kubelet import download_failed, downloaded, untouched
from support.kube_api import wait_for
from support.operator_world import World, condition, model

GIB = 1 << 30


def size_of(world: World, claim: str) -> str:
    return str(world.api.get("PersistentVolumeClaim", claim)["spec"]["resources"]["requests"]["storage"])


def modes(world: World, cache: str) -> list[str]:
    """What the cache's Jobs do, oldest first."""
    jobs = world.api.list("Job", f"app.kubernetes.io/instance={cache}")
    jobs.sort(key=lambda job: job["metadata"]["creationTimestamp"])
    return [job["metadata"]["annotations"]["aiservice.dev/mode"] for job in jobs]


def make(world: World, name: str, **spec: Any) -> str:
    world.api.create("ModelCache", {"metadata": {"name": name}, "spec": {**model(name), **spec}})
    return name


def too_small(required: int) -> Any:
    return download_failed("OutOfSpace", "the volume is full", retryable=False, requiredBytes=required)


@pytest.fixture(params=[True, False], ids=["expandable", "fixed"])
def storage_class(request: pytest.FixtureRequest, world: World, control_plane: ControlPlane) -> Iterator[str]:
    """A StorageClass whose volumes the kubelet of the test provides; whether they grow is the parameter."""
    name = f"class-{uuid.uuid4().hex[:8]}"
    body = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}}
    control_plane.apply({**body, "provisioner": "example.test/disks", "allowVolumeExpansion": request.param})
    world.kubelet.classes.add(name)
    yield name
    control_plane.kubectl("delete", "storageclass", name)


def test_a_source_is_asked_for_its_size_before_the_claim_is_made(world: World) -> None:
    world.kubelet.measure = untouched
    cache = make(world, "measured")
    found = world.until("ModelCache", cache, "StorageBound", "Unknown", "Measuring")
    assert condition(found, "Ready")["reason"] == "Measuring"
    assert modes(world, cache) == ["measure"]
    assert world.api.find("PersistentVolumeClaim", cache) is None

    world.kubelet.download = untouched
    world.kubelet.measure = downloaded(10 * GIB, revision=None)
    wait_for(lambda: world.api.find("PersistentVolumeClaim", cache), "the claim")
    assert size_of(world, cache) == "12Gi"
    wait_for(lambda: modes(world, cache) == ["download"], "the Job that measured is gone, and one downloads")
    world.kubelet.reset()
    found = world.until("ModelCache", cache, "Ready", "True", "Cached")
    assert found["status"]["accessMode"] == "ReadWriteOnce"
    kept = world.api.get("PersistentVolumeClaim", cache)["metadata"]["annotations"]["aiservice.dev/measured"]
    assert json.loads(kept)["bytes"] == 10 * GIB


def test_what_was_measured_is_what_is_downloaded(world: World) -> None:
    """A branch may move between the two."""
    commit = "c" * 40
    world.kubelet.measure = downloaded(GIB, revision=commit)
    world.kubelet.download = untouched
    source = {"repo": "o/m", "endpoint": "http://models.test"}
    world.api.create("ModelCache", {"metadata": {"name": "pinned"}, "spec": {"huggingFace": source}})
    wait_for(lambda: modes(world, "pinned") == ["download"], "a download")
    (job,) = world.api.list("Job", "app.kubernetes.io/instance=pinned")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert {"name": "AISERVICE_REVISION", "value": commit} in container["env"]
    wait_for(
        lambda: world.api.get("ModelCache", "pinned")["status"]["revision"] == commit, "the revision in the status"
    )


def test_a_stated_size_is_taken_and_nothing_is_measured(world: World) -> None:
    world.kubelet.measure = untouched
    cache = make(world, "stated", storage={"size": "7Gi"})
    world.until("ModelCache", cache, "Ready", "True", "Cached")
    assert size_of(world, cache) == "7Gi"
    assert modes(world, cache) == ["download"]


def test_a_source_that_does_not_tell_its_size_gets_a_usual_volume_and_the_status_says_so(world: World) -> None:
    world.kubelet.measure = downloaded(None)
    found = world.until("ModelCache", make(world, "untold"), "Ready", "True", "Cached")
    assert size_of(world, "untold") == "20Gi"
    assert "since its source does not tell how large it is" in condition(found, "StorageBound")["message"]


def test_a_source_that_cannot_be_measured_is_told(world: World) -> None:
    world.kubelet.measure = download_failed("NotFound", "there is no such file", retryable=False)
    cache = make(world, "unmeasurable")
    found = world.until("ModelCache", cache, "Downloaded", "False", "NotFound")
    assert condition(found, "Ready")["reason"] == "NotFound"
    assert world.api.find("PersistentVolumeClaim", cache) is None
    world.kubelet.reset()
    (job,) = world.api.list("Job", f"app.kubernetes.io/instance={cache}")
    assert job["metadata"]["name"] in condition(found, "Downloaded")["message"]
    world.api.delete("Job", job["metadata"]["name"])
    world.until("ModelCache", cache, "Ready", "True", "Cached")


@pytest.mark.parametrize("storage_class", [True], indirect=True, ids=["expandable"])
def test_a_volume_that_is_too_small_grows_and_the_download_starts_again(world: World, storage_class: str) -> None:
    world.kubelet.measure = downloaded(GIB)
    world.kubelet.download = lambda pod: (
        too_small(30 * GIB)(pod) if capacity(pod) < 30 * GIB else downloaded(30 * GIB)(pod)
    )
    cache = make(world, "growing", storage={"storageClassName": storage_class})
    world.until("ModelCache", cache, "Ready", "True", "Cached")
    assert size_of(world, cache) == "34Gi"
    status = world.api.get("ModelCache", cache)["status"]
    assert status["lastFailure"]["reason"] == "OutOfSpace"


@pytest.mark.parametrize("storage_class", [True], indirect=True, ids=["expandable"])
def test_damage_that_does_not_fit_twice_is_told_until_the_volume_has_grown(world: World, storage_class: str) -> None:
    world.kubelet.measure = downloaded(GIB)
    cache = make(world, "damaged", storage={"storageClassName": storage_class})
    world.until("ModelCache", cache, "Ready", "True", "Cached")
    broken = download_failed("ChecksumMismatch", "a.bin is damaged", retryable=False, requiredBytes=30 * GIB)
    world.kubelet.verify = lambda pod: broken(pod) if capacity(pod) < 30 * GIB else untouched(pod)
    world.api.patch("ModelCache", cache, {"metadata": {"annotations": {"aiservice.dev/verify": "1"}}})
    found = world.until("ModelCache", cache, "Ready", "False", "ChecksumMismatch")
    assert "a.bin is damaged" in condition(found, "Verified")["message"]
    wait_for(lambda: size_of(world, cache) == "34Gi", "a larger claim")
    world.kubelet.verify = downloaded(GIB, repaired=["a.bin"])
    world.until("ModelCache", cache, "Verified", "True", "Repaired")
    world.until("ModelCache", cache, "Ready", "True", "Cached")


def capacity(pod: Any) -> int:
    variables = {item["name"]: item.get("value") for item in pod["spec"]["containers"][0]["env"]}
    return int(variables["AISERVICE_CAPACITY_BYTES"])


@pytest.mark.parametrize("storage_class", [False], indirect=True, ids=["fixed"])
def test_a_volume_that_cannot_grow_is_told_with_the_way_out(world: World, storage_class: str) -> None:
    world.kubelet.measure = downloaded(GIB)
    world.kubelet.download = too_small(30 * GIB)
    cache = make(world, "stuck", storage={"storageClassName": storage_class})

    def told() -> str:
        found = world.until("ModelCache", cache, "Downloaded", "False", "OutOfSpace")
        message = str(condition(found, "Downloaded")["message"])
        assert "cannot grow to 34Gi" in message
        return message

    message = wait_for(told, "the refusal")
    assert "allowVolumeExpansion: true" in message
    assert "set storage.size to 34Gi and delete the claim" in message
    # The way out.
    world.kubelet.reset()
    world.api.patch("ModelCache", cache, {"spec": {"storage": {"size": "34Gi"}}})
    world.api.delete("PersistentVolumeClaim", cache)
    wait_for(lambda: size_of(world, cache) == "34Gi", "a larger claim")
    world.until("ModelCache", cache, "Ready", "True", "Cached")


@pytest.mark.parametrize("storage_class", [True], indirect=True, ids=["expandable"])
def test_a_stated_size_that_is_too_small_is_for_its_owner_to_raise(world: World, storage_class: str) -> None:
    world.kubelet.download = too_small(30 * GIB)
    cache = make(world, "stated-small", storage={"size": "2Gi", "storageClassName": storage_class})
    found = world.until("ModelCache", cache, "Downloaded", "False", "OutOfSpace")
    assert "Set storage.size to 34Gi: the download then starts again." in condition(found, "Downloaded")["message"]
    assert size_of(world, cache) == "2Gi"
    world.kubelet.reset()
    world.api.patch("ModelCache", cache, {"spec": {"storage": {"size": "34Gi"}}})
    world.until("ModelCache", cache, "Ready", "True", "Cached")
    assert size_of(world, cache) == "34Gi"

"""Files that were downloaded are compared with their digests again, while they are being used."""

from __future__ import annotations

import json
from typing import Any

from support.fake_kubelet import download_failed, downloaded, oom_killed, ready, untouched
from support.kube_api import wait_for
from support.operator_world import World, condition, model

VERIFY = "aiservice.dev/verify"


def cached(world: World, name: str, **spec: Any) -> Any:
    world.api.create("ModelCache", {"metadata": {"name": name}, "spec": {**model(name), **spec}})
    return world.until("ModelCache", name, "Ready", "True", "Cached")


def ask(world: World, cache: str, value: str) -> None:
    world.api.patch("ModelCache", cache, {"metadata": {"annotations": {VERIFY: value}}})


def verifications(world: World, cache: str) -> list[Any]:
    jobs = world.api.list("Job", f"app.kubernetes.io/instance={cache}")
    return [job for job in jobs if job["metadata"]["annotations"]["aiservice.dev/mode"] == "verify"]


def record(world: World, cache: str) -> Any:
    """What the claim remembers of the last verification."""
    return json.loads(
        world.api.get("PersistentVolumeClaim", cache)["metadata"]["annotations"]["aiservice.dev/verified"]
    )


def test_an_annotation_has_the_files_compared_while_they_serve(world: World) -> None:
    found = cached(world, "checked")
    assert condition(found, "Verified")["reason"] == "Verified"
    before = found["status"]["verifiedAt"]
    assert before
    world.serve("steady", model=None, modelCacheRef={"name": "checked"})
    world.until_serving("steady")

    world.kubelet.verify = ready  # it takes its time
    ask(world, "checked", "monday")
    found = world.until("ModelCache", "checked", "Verified", "True", "Verifying")
    assert condition(found, "Ready")["status"] == "True"
    assert condition(world.api.get("AIService", "steady"), "Ready")["status"] == "True"
    (job,) = verifications(world, "checked")
    pod = job["spec"]["template"]
    assert pod["metadata"]["labels"]["aiservice.dev/model-cache"] == "checked"
    assert pod["spec"]["affinity"]["podAffinity"], "it goes to the node that has the volume"

    world.kubelet.reset()
    found = world.until("ModelCache", "checked", "Verified", "True", "Verified")
    assert found["status"]["verifiedAt"] > before
    # Asked and answered: the same value starts nothing.
    world.api.patch("AIService", "steady", {"spec": {"replicas": 2}})
    world.until_serving("steady")
    assert [item["metadata"]["uid"] for item in verifications(world, "checked")] == [job["metadata"]["uid"]]
    ask(world, "checked", "tuesday")
    wait_for(
        lambda: [item["metadata"]["uid"] for item in verifications(world, "checked")] != [job["metadata"]["uid"]],
        "another verification",
    )
    world.until("ModelCache", "checked", "Verified", "True", "Verified")


def test_repaired_files_are_named(world: World) -> None:
    cached(world, "mended")
    world.kubelet.verify = downloaded(repaired=["unet/model.safetensors"])
    ask(world, "mended", "1")
    found = world.until("ModelCache", "mended", "Verified", "True", "Repaired")
    assert "unet/model.safetensors" in condition(found, "Verified")["message"]
    assert condition(found, "Ready")["status"] == "True"
    world.until_events("mended", "ModelCached", "FilesRepaired")


def test_damage_that_cannot_be_repaired_stops_new_services_and_no_running_one(world: World) -> None:
    cached(world, "broken")
    world.serve("running", model=None, modelCacheRef={"name": "broken"})
    world.until_serving("running")
    deployment = world.api.get("Deployment", "running")["metadata"]["uid"]

    world.kubelet.verify = download_failed("ChecksumMismatch", "a.bin is damaged and gone upstream", retryable=False)
    ask(world, "broken", "1")
    found = world.until("ModelCache", "broken", "Ready", "False", "ChecksumMismatch")
    message = condition(found, "Verified")["message"]
    assert "a.bin is damaged and gone upstream" in message
    assert f"give annotation {VERIFY} of the ModelCache a new value" in message
    assert condition(found, "Downloaded")["status"] == "True"
    assert record(world, "broken")["damage"]
    service = world.until("AIService", "running", "ModelReady", "False", "ChecksumMismatch")
    assert condition(service, "Available")["status"] == "True"
    assert world.api.get("Deployment", "running")["metadata"]["uid"] == deployment
    world.serve("late", model=None, modelCacheRef={"name": "broken"})
    world.until("AIService", "late", "Ready", "False", "ChecksumMismatch")
    assert world.api.find("Deployment", "late") is None
    world.until_events("broken", "ModelCached", "FilesDamaged")

    # The Job and its pod may go: the damage is known. Then the source is mended.
    for job in verifications(world, "broken"):
        world.kubelet.verify = untouched
        world.api.delete("Job", job["metadata"]["name"])
    world.until("ModelCache", "broken", "Ready", "False", "ChecksumMismatch")
    world.kubelet.reset()
    ask(world, "broken", "2")
    found = world.until("ModelCache", "broken", "Ready", "True", "Cached")
    assert found["status"]["lastFailure"]["reason"] == "ChecksumMismatch"
    assert "damage" not in record(world, "broken")
    world.until_serving("late")
    world.until_serving("running")


def test_a_verification_that_cannot_be_done_says_nothing_of_the_files(world: World) -> None:
    cached(world, "unchecked")
    world.kubelet.verify = oom_killed
    ask(world, "unchecked", "1")
    found = world.until("ModelCache", "unchecked", "Verified", "Unknown", "OOMKilled")
    assert "limit of 1Gi" in condition(found, "Verified")["message"]
    assert condition(found, "Ready")["status"] == "True"


def test_always_verifies_at_once_and_remembers_that_it_has(world: World) -> None:
    cached(world, "always")
    assert verifications(world, "always") == []
    world.api.patch("ModelCache", "always", {"spec": {"verify": "Always"}})
    wait_for(lambda: verifications(world, "always"), "a verification")
    wait_for(lambda: record(world, "always").get("always"), "the claim remembers it")
    world.until("ModelCache", "always", "Verified", "True", "Verified")
    # A restart makes no other, since the claim knows when it was.
    uids = [job["metadata"]["uid"] for job in verifications(world, "always")]
    world.operator.stop()
    world.operator.start()
    world.api.patch("ModelCache", "always", {"metadata": {"labels": {"touched": "yes"}}})
    world.serve("after", model=None, modelCacheRef={"name": "always"})
    world.until_serving("after")
    assert [job["metadata"]["uid"] for job in verifications(world, "always")] == uids


def test_one_that_was_always_to_be_verified_is_not_verified_right_after_the_download(world: World) -> None:
    found = cached(world, "fresh", verify="Always")
    assert verifications(world, "fresh") == []
    assert found["status"]["verifiedAt"]

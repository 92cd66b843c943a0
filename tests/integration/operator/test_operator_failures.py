"""What goes wrong shows in the status, in words; and goes away when it is mended."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aiservice_operator.failures import UNREADY
from support.cluster import ControlPlane
from support.fake_kubelet import (
    crashing,
    download_failed,
    downloaded,
    loading,
    oom_killed,
    ready,
    unready,
    untouched,
    waiting,
)
from support.kube_api import wait_for
from support.operator_world import World, condition, model


def ready_message(world: World, name: str, reason: str) -> str:
    service = world.until("AIService", name, "Ready", "False", reason)
    assert condition(service, "Progressing")["reason"] == "Blocked"
    return str(condition(service, "Ready")["message"])


def test_download_of_what_is_not_there(world: World) -> None:
    world.kubelet.download = download_failed("NotFound", "http://models.test/lost answered 404", retryable=False)
    world.serve("lost")
    cache = world.until("ModelCache", world.cache_of("lost"), "Downloaded", "False", "NotFound")
    message = condition(cache, "Downloaded")["message"]
    assert "http://models.test/lost answered 404" in message
    assert "Another try would not help" in message
    assert cache["status"]["lastFailure"]["reason"] == "NotFound"
    assert cache["status"]["download"]["attempts"] == 1
    assert "answered 404" in ready_message(world, "lost", "NotFound")
    assert world.api.find("Deployment", "lost") is None
    world.until_events(cache["metadata"]["name"], "DownloadFailed")

    # The message says how to try again.
    world.kubelet.reset()
    world.api.delete("Job", jobs(world, cache["metadata"]["name"])[0])
    world.until_serving("lost")


def jobs(world: World, cache: str) -> list[str]:
    return [job["metadata"]["name"] for job in world.api.list("Job", f"app.kubernetes.io/instance={cache}")]


def test_files_that_are_not_what_was_asked_for(world: World) -> None:
    world.kubelet.download = download_failed("ChecksumMismatch", "model.bin: expected aa, got bb", retryable=False)
    world.serve("forged")
    cache = world.until("ModelCache", world.cache_of("forged"), "Verified", "False", "ChecksumMismatch")
    message = condition(cache, "Verified")["message"]
    assert message == "model.bin: expected aa, got bb. Correct the digest, or the files at the source"
    assert condition(cache, "Downloaded")["reason"] == "ChecksumMismatch"
    world.until("AIService", "forged", "ModelReady", "False", "ChecksumMismatch")


def test_a_failure_that_may_pass_is_tried_again(world: World) -> None:
    """The Job's own retries come after ten seconds; until then the failure shows."""
    world.kubelet.download = download_failed("Unreachable", "models.test does not answer", retryable=True)
    world.serve("flaky")
    cache = world.until("ModelCache", world.cache_of("flaky"), "Downloaded", "False", "Unreachable")
    assert "It is being tried again." in condition(cache, "Downloaded")["message"]
    world.kubelet.reset()
    world.until_serving("flaky", timeout=60)
    status = world.api.get("ModelCache", cache["metadata"]["name"])["status"]
    assert status["download"]["attempts"] == 2
    assert status["lastFailure"]["reason"] == "Unreachable"


def test_a_new_token_starts_a_refused_download_again(world: World) -> None:
    world.kubelet.download = download_failed("Unauthorized", "models.test/x/y is gated", retryable=False)
    source = {"repo": "x/y", "endpoint": "http://models.test", "tokenSecretRef": {"name": "old"}}
    world.api.create("ModelCache", {"metadata": {"name": "gated"}, "spec": {"huggingFace": source}})
    world.until("ModelCache", "gated", "Downloaded", "False", "Unauthorized")
    world.kubelet.download = downloaded(revision="c0ffee")
    world.api.patch("ModelCache", "gated", {"spec": {"huggingFace": {"tokenSecretRef": {"name": "new"}}}})
    cache = world.until("ModelCache", "gated", "Ready", "True", "Cached")
    assert cache["status"]["revision"] == "c0ffee"
    assert len(jobs(world, "gated")) == 1
    # A token is for a download only: with the files there, another one starts nothing.
    world.api.patch("ModelCache", "gated", {"spec": {"huggingFace": {"tokenSecretRef": {"name": "newest"}}}})
    cache = world.until("ModelCache", "gated", "Ready", "True", "Cached")
    assert cache["status"]["download"]["attempts"] == 1


def test_a_download_that_needs_more_memory(world: World) -> None:
    world.kubelet.download = oom_killed
    world.serve("hungry")
    cache = world.until("ModelCache", world.cache_of("hungry"), "Downloaded", "False", "OOMKilled")
    message = condition(cache, "Downloaded")["message"]
    assert "limit of 1Gi" in message
    assert "download.resources.limits.memory" in message, "no field of the ModelCache has it"


def test_a_claim_that_cannot_be_bound(world: World) -> None:
    world.serve("unbound", model={**model("unbound"), "storage": {"storageClassName": "missing"}})
    cache = world.until("ModelCache", world.cache_of("unbound"), "StorageBound", "False", "ProvisioningFailed", 60)
    message = condition(cache, "StorageBound")["message"]
    assert 'storageclass.storage.k8s.io "missing" not found' in message
    assert "choose another with storage.storageClassName" in message
    assert '"missing" not found' in ready_message(world, "unbound", "ProvisioningFailed")
    world.api.delete("AIService", "unbound")
    world.until_gone("ModelCache", cache["metadata"]["name"])
    world.until_gone("PersistentVolumeClaim", cache["metadata"]["name"])


def test_a_claim_that_is_not_there(world: World) -> None:
    world.serve("diskless", model={"pvc": {"claimName": "no-such-claim"}})
    message = ready_message(world, "diskless", "ClaimNotFound")
    assert "there is no PersistentVolumeClaim no-such-claim" in message
    world.api.create(
        "PersistentVolumeClaim",
        {
            "metadata": {"name": "no-such-claim"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        },
    )
    world.until_serving("diskless")


def test_users_that_no_node_can_serve_together(world: World) -> None:
    shared = {**model("torn"), "storage": {"size": "1Gi"}}
    world.kubelet.download = untouched
    world.serve("in-a", model=shared, profile="zone-a")
    cache = world.cache_of("in-a")
    world.until("ModelCache", cache, "StorageBound", "True", "Bound")
    world.serve("in-b", model=shared, profile="zone-b")
    found = world.until("ModelCache", cache, "StorageBound", "False", "PlacementConflict")
    assert "AIService in-a runs on nodes with zone=a and AIService in-b" in condition(found, "StorageBound")["message"]
    world.api.patch("AIService", "in-b", {"spec": {"suspend": True}})
    world.until("ModelCache", cache, "StorageBound", "True", "Bound")
    world.api.patch("AIService", "in-b", {"spec": {"suspend": False}})
    world.until("ModelCache", cache, "StorageBound", "False", "PlacementConflict")

    # With the files on a node, only the one who cannot be there is none the better for them.
    world.kubelet.reset()
    world.until_serving("in-a")
    world.until("AIService", "in-b", "Ready", "False", "Unschedulable")
    world.until("ModelCache", cache, "Ready", "True", "Cached")
    world.api.patch("ModelCache", cache, {"metadata": {"annotations": {"aiservice.dev/verify": "1"}}})
    wait_for(lambda: succeeded(world, cache) == ["download", "verify"], "the files were compared again", 60)
    world.until("ModelCache", cache, "Verified", "True", "Verified")
    world.until_serving("in-a")


def succeeded(world: World, cache: str) -> list[str]:
    """What the Jobs of a cache were for that did it."""
    found = [
        job for job in world.api.list("Job", f"app.kubernetes.io/instance={cache}") if "succeeded" in job["status"]
    ]
    return sorted(job["metadata"]["annotations"]["aiservice.dev/mode"] for job in found)


def test_an_engine_that_crashes(world: World) -> None:
    world.kubelet.serve = crashing("the weights in /models are no Whisper model")
    world.serve("crashing")
    message = ready_message(world, "crashing", "CrashLoopBackOff")
    assert message.startswith("container engine exited with code 1: the weights in /models are no Whisper model. Mend ")
    failure = world.api.get("AIService", "crashing")["status"]["lastFailure"]
    assert (failure["reason"], failure["object"].split("-")[0]) == ("CrashLoopBackOff", "Pod/crashing")
    world.until_events("crashing", "Failed")
    world.kubelet.serve = ready
    service = world.until_serving("crashing")
    assert service["status"]["lastFailure"]["reason"] == "CrashLoopBackOff"


def test_an_engine_that_needs_more_memory(world: World) -> None:
    world.kubelet.serve = crashing("", reason="OOMKilled", code=137)
    world.serve("greedy", resources={"limits": {"memory": "3Gi"}})
    message = ready_message(world, "greedy", "OOMKilled")
    assert "limit of 3Gi. Raise spec.resources.limits.memory" in message


def test_an_image_that_cannot_be_pulled(world: World) -> None:
    pull = 'Back-off pulling image "example.test/nothing:1": ErrImagePull: not found'
    world.kubelet.serve = waiting("ImagePullBackOff", pull)
    world.serve("imageless", engine={"image": "example.test/nothing:1"})
    message = ready_message(world, "imageless", "ImagePullBackOff")
    assert message.startswith("image example.test/nothing:1 cannot be pulled: not found. Correct the image")


def test_a_sidecar_that_crashes(world: World) -> None:
    sidecar = {"name": "proxy", "image": "example.test/proxy:1"}

    def behave(pod: Mapping[str, Any]) -> dict[str, Any]:
        status, failed = ready(pod), crashing("no route to the gateway")(pod)
        if failed is None or len(pod["spec"]["containers"]) == 1:
            return status  # of another service
        engine, proxy = status["containerStatuses"][0], failed["containerStatuses"][1]
        return {**status, "containerStatuses": [engine, proxy], "conditions": failed["conditions"]}

    world.kubelet.serve = behave
    world.serve("escorted", pod={"sidecars": [sidecar]})
    message = ready_message(world, "escorted", "CrashLoopBackOff")
    assert message.startswith("container proxy exited with code 1: no route to the gateway. Mend ")


def test_a_volume_that_cannot_be_mounted(world: World) -> None:
    """Its pod only waits: that the kubelet fails is told in an Event."""
    world.kubelet.serve = waiting("ContainerCreating", "")
    world.serve("unmounted")
    (pod,) = wait_for(lambda: world.api.list("Pod", "app.kubernetes.io/instance=unmounted"), "a pod")
    world.warn(pod, "FailedMount", "MountVolume.SetUp failed for volume model: no such device")
    service = world.until("AIService", "unmounted", "Ready", "False", "FailedMount", 60)
    message = condition(service, "Ready")["message"]
    said = "the pod cannot be started: MountVolume.SetUp failed for volume model: no such device. "
    assert message.startswith(said)
    world.kubelet.reset()
    world.until_serving("unmounted")


def test_a_pod_that_was_evicted_is_remembered_and_fails_no_later_rollout(world: World) -> None:
    world.serve("crowded")
    world.until_serving("crowded")
    (pod,) = world.api.list("Pod", "app.kubernetes.io/instance=crowded")
    old = pod["metadata"]["name"]
    # The next pod takes its time, so that the operator sees the gap and tells of it.
    world.kubelet.serve = lambda seen: None if seen["metadata"]["name"] == old else loading(seen)
    evicted = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    world.api.patch("Pod", old, {"status": evicted}, "status")

    def replaced() -> bool:
        pods = world.api.list("Pod", "app.kubernetes.io/instance=crowded")
        assert len(pods) == 2, "the one that was evicted is still there"
        service = world.api.get("AIService", "crowded")
        assert condition(service, "Ready")["status"] != "True", "the gap is told"
        return bool(service["status"]["lastFailure"]["reason"] == "Evicted")

    wait_for(replaced, "the eviction is remembered")
    world.kubelet.serve = lambda seen: None if seen["metadata"]["name"] == old else ready(seen)
    world.until_serving("crowded")
    wait_for(lambda: [reason for _, reason, _ in world.events("crowded")].count("Ready") == 2, "told as ready again")
    recorded = world.events("crowded")
    world.api.patch("AIService", "crowded", {"spec": {"engine": {"args": ["--new"]}}})
    wait_for(lambda: "--new" in str(world.api.get("Deployment", "crowded")["spec"]["template"]), "the new argument")
    world.until_serving("crowded")
    later = world.events("crowded")[len(recorded) :]
    assert {reason for _, reason, _ in later} <= {"Ready"}, later


def test_a_new_engine_that_crashes_leaves_the_old_one_serving(world: World) -> None:
    world.serve("careful")
    world.until_serving("careful")
    world.kubelet.serve = lambda pod: (
        crashing("unknown flag --wrong")(pod) if pod["spec"]["containers"][0].get("args") else ready(pod)
    )
    world.api.patch("AIService", "careful", {"spec": {"engine": {"args": ["--wrong"]}}})
    message = ready_message(world, "careful", "CrashLoopBackOff")
    assert "unknown flag --wrong. Mend " in message
    assert message.endswith(". Meanwhile 1 pod as before.")
    assert condition(world.api.get("AIService", "careful"), "Available")["status"] == "True"
    world.until_events("careful", "Ready", "Degraded")


def test_an_engine_that_hangs(world: World) -> None:
    world.serve("hanging")
    world.until_serving("hanging")
    world.kubelet.serve = unready(since=datetime.now(UTC) - UNREADY + timedelta(seconds=25))
    world.until("AIService", "hanging", "Available", "Unknown", "Starting")
    message = condition(world.until("AIService", "hanging", "Ready", "False", "NotReady", 90), "Ready")["message"]
    (pod,) = world.api.list("Pod", "app.kubernetes.io/instance=hanging")
    where = f"pod {pod['metadata']['name']} on node {pod['spec']['nodeName']}"
    assert message.startswith(
        f"container engine of {where} was ready, and does not answer its readiness probe any more. "
    )
    assert "delete the pod" in message
    world.kubelet.serve = ready
    service = world.until_serving("hanging")
    assert service["status"]["lastFailure"]["reason"] == "NotReady"
    world.until_events("hanging", "Ready", "Failed", "Ready")


def test_a_node_that_is_lost(world: World) -> None:
    """The kubelet is silent, and the test says what the node controller says of the pods when it hears nothing."""
    world.serve("stranded")
    world.until_serving("stranded")
    (pod,) = world.api.list("Pod", "app.kubernetes.io/instance=stranded")
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    unheard = {"type": "Ready", "status": "False", "lastTransitionTime": now}
    others = [item for item in pod["status"]["conditions"] if item["type"] != "Ready"]
    world.api.patch("Pod", pod["metadata"]["name"], {"status": {"conditions": [*others, unheard]}}, "status")
    message = ready_message(world, "stranded", "NodeNotReady")
    assert f"on node {pod['spec']['nodeName']} cannot be reached" in message
    world.kubelet.serve = functools.partial(ready)  # as before, and said again
    service = world.until_serving("stranded")
    assert service["status"]["lastFailure"]["reason"] == "NodeNotReady"


TOKEN = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
EXTRA = {"name": "extra", "persistentVolumeClaim": {"claimName": "no-such"}}
MISSING: dict[str, tuple[dict[str, Any], str, str]] = {
    "priority-class": ({"pod": {"priorityClassName": "nobody"}}, "PodsRefused", "no PriorityClass with name nobody"),
    "runtime-class": ({"pod": {"runtimeClassName": "nowhere"}}, "PodsRefused", 'RuntimeClass "nowhere" not found'),
    "claim": ({"pod": {"volumes": [EXTRA]}}, "Unschedulable", 'persistentvolumeclaim "no-such" not found'),
    "key": ({"engine": {"env": [TOKEN]}}, "CreateContainerConfigError", "couldn't find key token in Secret team/hub"),
}
"""By what is missing: the spec, the reason, and what the cluster says, which alone can know."""


@pytest.mark.parametrize("missing", MISSING)
def test_what_only_the_cluster_can_miss(world: World, missing: str) -> None:
    fields, reason, words = MISSING[missing]
    if reason == "CreateContainerConfigError":  # the only one that a kubelet finds
        world.kubelet.serve = waiting(reason, words)
    name = f"without-{missing}"
    world.serve(name, **fields)
    message = ready_message(world, name, reason)
    assert words in message
    assert re.search(r"\. (Provide|Make room or provide|Create) what is missing", message), message
    assert condition(world.api.get("AIService", name), "Available")["status"] == "False"


def test_a_gpu_that_is_not_there(world: World) -> None:
    world.serve("gpuless", profile="gpu")
    message = ready_message(world, "gpuless", "Unschedulable")
    assert "Insufficient nvidia.com/gpu" in message
    service = world.api.get("AIService", "gpuless")
    assert condition(service, "Scheduled")["status"] == "False"
    assert condition(service, "Accepted")["status"] == "True"
    container = world.api.get("Deployment", "gpuless")["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"name": "AISERVICE_DEVICE", "value": "cuda"} in container["env"]


def test_specs_that_the_operator_cannot_serve(world: World) -> None:
    world.serve("odd", profile="tpu")
    message = ready_message(world, "odd", "UnknownProfile")
    assert "set spec.profile to one of: cpu, gpu (1 x nvidia.com/gpu, 24 GiB), zone-a, zone-b" in message
    assert world.api.find("ModelCache", world.cache_of("odd")) is None, "nothing is downloaded for it"
    world.until_events("odd", "Rejected")

    world.serve("speaker", tasks=["text-to-speech"])
    assert "set spec.engine.image" in ready_message(world, "speaker", "NoEngine")
    world.api.patch("AIService", "speaker", {"spec": {"engine": {"image": "example.test/tts:1"}}})
    world.until_serving("speaker")

    # What served goes on serving when its spec turns bad.
    world.api.patch("AIService", "speaker", {"spec": {"profile": "tpu"}})
    service = world.until("AIService", "speaker", "Accepted", "False", "UnknownProfile")
    assert condition(service, "Available")["status"] == "True"
    world.api.patch("AIService", "speaker", {"spec": {"profile": "cpu"}})
    world.until_serving("speaker")


def test_a_cache_that_is_not_there(world: World) -> None:
    world.serve("cacheless", model=None, modelCacheRef={"name": "later"})
    assert "there is no ModelCache later" in ready_message(world, "cacheless", "CacheNotFound")
    world.api.create("ModelCache", {"metadata": {"name": "later"}, "spec": model("later")})
    world.until_serving("cacheless")


@pytest.mark.parametrize("kind", ["Service", "ServiceAccount", "Deployment"])
def test_what_others_made_is_never_taken_over(world: World, kind: str) -> None:
    name = f"taken-{kind.lower()}"
    pod = {"containers": [{"name": "main", "image": "example.test/other:1"}]}
    bodies: dict[str, dict[str, Any]] = {
        "Service": {"spec": {"ports": [{"port": 80}]}},
        "ServiceAccount": {},
        "Deployment": {
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod},
            }
        },
    }
    world.api.create(kind, {"metadata": {"name": name}, **bodies[kind]})
    before = world.api.get(kind, name)["metadata"]
    world.serve(name)
    message = ready_message(world, name, "ChildRefused")
    assert f"there is a {kind} {name} that the operator did not make" in message
    after = world.api.get(kind, name)["metadata"]
    assert "ownerReferences" not in after
    assert after.get("labels") == before.get("labels")
    world.api.delete(kind, name)
    world.until_serving(name, timeout=60)


def test_pods_that_a_policy_refuses(world: World, control_plane: ControlPlane) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "tight", "namespace": world.namespace}}
    control_plane.apply({**quota, "spec": {"hard": {"requests.cpu": "1m"}}})
    try:
        world.api.create("ModelCache", {"metadata": {"name": "full"}, "spec": {"pvc": {"claimName": "full"}}})
        world.api.create(
            "PersistentVolumeClaim",
            {
                "metadata": {"name": "full"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
            },
        )
        world.serve("quota", model=None, modelCacheRef={"name": "full"})
        message = ready_message(world, "quota", "PodsRefused")
        assert "exceeded quota: tight" in message
        assert "have the policy changed" in message
    finally:
        control_plane.kubectl("delete", "resourcequota", "tight", "-n", world.namespace)


def test_progress_is_said_while_the_download_runs(world: World) -> None:
    world.kubelet.download = ready
    world.serve("loading")
    cache = world.until("ModelCache", world.cache_of("loading"), "Downloaded", "Unknown", "Downloading")
    assert cache["status"]["download"]["attempts"] == 1
    world.until("AIService", "loading", "ModelReady", "Unknown", "Downloading")
    world.kubelet.reset()
    world.until_serving("loading")


def test_a_claim_deleted_by_hand_is_filled_again(world: World) -> None:
    world.serve("wiped", replicas=0)
    cache = world.until("AIService", "wiped", "Ready", "True", "Idle")["status"]["modelCache"]
    before = world.api.get("PersistentVolumeClaim", cache)["metadata"]["uid"]
    for pod in world.api.list("Pod", f"app.kubernetes.io/instance={cache}"):
        world.api.delete("Pod", pod["metadata"]["name"], gracePeriodSeconds=0)
    world.kubelet.download = untouched
    world.api.delete("PersistentVolumeClaim", cache)
    wait_for(lambda: world.api.get("PersistentVolumeClaim", cache)["metadata"]["uid"] != before, "a new claim")
    world.until("ModelCache", cache, "Ready", "Unknown", "Starting")
    world.kubelet.reset()
    world.until("AIService", "wiped", "Ready", "True", "Idle")

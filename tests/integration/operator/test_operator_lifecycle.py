"""Create, update, scale, share, switch and delete: what a user does, and what is there afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from support.fake_kubelet import Status, loading, ready, untouched
from support.kube_api import wait_for
from support.operator_world import World, condition, model

CHILDREN = ("Deployment", "Service", "ServiceAccount")


def test_a_service_becomes_ready(world: World) -> None:
    world.serve("hello", replicas=2)
    service = world.until_serving("hello")

    status = service["status"]
    assert {item["type"]: item["status"] for item in status["conditions"]} == {
        "Accepted": "True",
        "ModelReady": "True",
        "Scheduled": "True",
        "Available": "True",
        "Ready": "True",
        "Progressing": "False",
    }
    assert (status["replicas"], status["readyReplicas"]) == (2, 2)
    assert status["url"] == f"http://hello.{world.namespace}.svc:7862"
    assert status["endpoints"] == {"speech-to-text": status["url"]}
    assert status["model"] == "http hello"
    assert status["selector"] == "app.kubernetes.io/name=aiservice,app.kubernetes.io/instance=hello"
    assert set(status["timings"]) == {"readySeconds", "cacheSeconds", "scheduleSeconds", "loadSeconds"}

    cache = world.api.get("ModelCache", status["modelCache"])
    assert {item["type"]: item["status"] for item in cache["status"]["conditions"]} == {
        "StorageBound": "True",
        "Downloaded": "True",
        "Verified": "True",
        "Ready": "True",
    }
    assert cache["status"]["usedBy"] == ["hello"]
    assert cache["status"]["download"]["progress"] == "100% of 6.9 GB"
    assert [item["spec"]["automountServiceAccountToken"] for item in pods(world, "hello")] == [False, False]

    world.until_events("hello", "Ready")
    world.until_events(cache["metadata"]["name"], "ModelCached")


def pods(world: World, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.api.list("Pod", f"app.kubernetes.io/instance={name}")
    return found


def test_the_workload_comes_only_when_the_model_is_cached(world: World) -> None:
    world.kubelet.download = untouched
    world.serve("patient")
    world.until("ModelCache", world.cache_of("patient"), "Ready", "Unknown", "Starting")
    service = world.until("AIService", "patient", "Ready", "Unknown", "Starting")
    assert condition(service, "Available")["reason"] == "WaitingForModel"
    assert [kind for kind in CHILDREN if world.api.find(kind, "patient")] == []
    world.kubelet.reset()
    world.until_serving("patient")
    assert [kind for kind in CHILDREN if world.api.find(kind, "patient")] == list(CHILDREN)


def test_changes_reach_the_pods(world: World) -> None:
    world.serve("changing")
    world.until_serving("changing")
    changes = {
        "replicas": 3,
        "engine": {
            "image": "example.test/own:2",
            "args": ["--fast"],
            "env": [
                {"name": "MODE", "value": "quick"},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            ],
        },
    }
    world.api.patch("AIService", "changing", {"spec": changes})
    world.until_serving("changing")
    deployment = world.api.get("Deployment", "changing")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert deployment["spec"]["replicas"] == 3
    assert (container["image"], container["args"]) == ("example.test/own:2", ["--fast"])
    assert {"MODE", "KEY"} < {variable["name"] for variable in container["env"]}

    world.api.patch(
        "AIService", "changing", {"spec": {"engine": {"args": None, "env": [{"name": "MODE", "value": "slow"}]}}}
    )

    def dropped() -> bool:
        container = world.api.get("Deployment", "changing")["spec"]["template"]["spec"]["containers"][0]
        values = {variable["name"]: variable.get("value") for variable in container["env"]}
        return values["MODE"] == "slow" and "KEY" not in values and "args" not in container

    wait_for(dropped, "what the spec no longer says is gone from the Deployment")
    world.until_serving("changing")


def test_zero_replicas_keep_the_model_and_run_nothing(world: World) -> None:
    world.serve("idle", replicas=0)
    service = world.until("AIService", "idle", "Ready", "True", "Idle")
    assert condition(service, "Available") == {**condition(service, "Available"), "status": "False", "reason": "Idle"}
    assert pods(world, "idle") == []
    assert world.api.get("PersistentVolumeClaim", service["status"]["modelCache"])

    scale = world.api.path("AIService", "idle", "scale")
    world.api.request("PATCH", scale, {"spec": {"replicas": 1}}, "application/merge-patch+json")
    world.until_serving("idle")
    world.api.patch("AIService", "idle", {"spec": {"replicas": 0}})
    world.until("AIService", "idle", "Ready", "True", "Idle")
    wait_for(lambda: pods(world, "idle") == [], "no pod is left")


def test_deleting_a_service_leaves_nothing(world: World) -> None:
    world.serve("leaving")
    cache = world.until_serving("leaving")["status"]["modelCache"]
    world.api.delete("AIService", "leaving")
    for kind in CHILDREN:
        world.until_gone(kind, "leaving")
    for kind in ("ModelCache", "PersistentVolumeClaim"):
        world.until_gone(kind, cache)
    kinds = ("Job", "Pod", "ReplicaSet")
    wait_for(lambda: not [left for kind in kinds for left in left_of(world, kind, "leaving", cache)], "nothing is left")


def left_of(world: World, kind: str, *owners: str) -> list[str]:
    return [
        item["metadata"]["name"]
        for item in world.api.list(kind)
        if item["metadata"].get("labels", {}).get("app.kubernetes.io/instance") in owners
    ]


def test_two_services_share_one_download(world: World) -> None:
    shared = model("shared")
    world.serve("first", model=shared)
    world.serve("second", model=shared)
    cache = world.until_serving("first")["status"]["modelCache"]
    assert world.until_serving("second")["status"]["modelCache"] == cache
    assert len(left_of(world, "Job", cache)) == 1
    owners = world.api.get("ModelCache", cache)["metadata"]["ownerReferences"]
    assert [owner["name"] for owner in owners] == ["first", "second"]
    assert wait_for(lambda: world.api.get("ModelCache", cache)["status"]["usedBy"], "users") == ["first", "second"]

    world.api.delete("AIService", "first")
    wait_for(lambda: world.api.get("ModelCache", cache)["status"]["usedBy"] == ["second"], "one user is left")
    assert "deletionTimestamp" not in world.api.get("ModelCache", cache)["metadata"]
    assert condition(world.api.get("AIService", "second"), "Ready")["status"] == "True"

    world.api.delete("AIService", "second")
    world.until_gone("ModelCache", cache)
    world.until_gone("PersistentVolumeClaim", cache)


def test_a_new_model_is_cached_while_the_old_one_serves(world: World) -> None:
    world.serve("switching")
    old = world.until_serving("switching")["status"]["modelCache"]
    world.kubelet.download = untouched
    world.api.patch("AIService", "switching", {"spec": {"model": model("switching-2")}})
    service = world.until("AIService", "switching", "Ready", "Unknown", "Starting")
    new = service["status"]["modelCache"]
    assert new != old
    assert condition(service, "Available")["status"] == "True"
    assert "Meanwhile 1 pod as before." in condition(service, "Ready")["message"]
    assert mounted(world, "switching") == old
    assert world.api.get("ModelCache", old)["status"]["usedBy"] == ["switching"]

    # The number of pods does not wait for the model; what makes other pods does.
    pod_uids = {pod["metadata"]["uid"] for pod in pods(world, "switching")}
    world.api.patch("AIService", "switching", {"spec": {"replicas": 2, "engine": {"args": ["--new"]}}})
    wait_for(lambda: world.api.get("Deployment", "switching")["spec"]["replicas"] == 2, "two pods of the old model")
    until_pods(world, "switching", 2)
    assert pod_uids < {pod["metadata"]["uid"] for pod in pods(world, "switching")}, "the first stays"
    assert mounted(world, "switching") == old
    assert arguments(world, "switching") is None
    world.until("AIService", "switching", "Ready", "Unknown", "Starting")
    for count in (0, 1):
        world.api.patch("AIService", "switching", {"spec": {"replicas": count}})
        until_pods(world, "switching", count)
    assert arguments(world, "switching") is None

    world.kubelet.reset()
    world.until_serving("switching")
    assert mounted(world, "switching") == new
    assert arguments(world, "switching") == ["--new"]
    # The last user has left by an edit: nobody but the operator removes the old cache.
    world.until_gone("ModelCache", old)
    world.until_gone("PersistentVolumeClaim", old)


def until_pods(world: World, name: str, count: int) -> None:
    wait_for(lambda: len(pods(world, name)) == count, f"{count} pods of {name}")


def arguments(world: World, name: str) -> list[str] | None:
    template = world.api.get("Deployment", name)["spec"]["template"]
    found: list[str] | None = template["spec"]["containers"][0].get("args")
    return found


def mounted(world: World, name: str) -> str:
    template = world.api.get("Deployment", name)["spec"]["template"]
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in template["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert claims == [template["metadata"]["annotations"]["aiservice.dev/model-cache"]]
    return str(claims[0])


def test_a_cache_that_a_user_made_is_the_users(world: World) -> None:
    world.api.create("ModelCache", {"metadata": {"name": "mine"}, "spec": model("mine")})
    world.until("ModelCache", "mine", "Ready", "True", "Cached")
    assert "finalizers" not in world.api.get("ModelCache", "mine")["metadata"]
    world.serve("guest", model=None, modelCacheRef={"name": "mine"})
    world.until_serving("guest")
    metadata = world.api.get("ModelCache", "mine")["metadata"]
    assert metadata["finalizers"] == ["aiservice.dev/in-use"]
    assert "ownerReferences" not in metadata

    # One in use waits, and says for whom.
    world.api.delete("ModelCache", "mine")
    cache = world.until("ModelCache", "mine", "Ready", "True", "InUse")
    assert "used by AIService guest" in condition(cache, "Ready")["message"]
    world.until_events("mine", "ModelCached", "DeletionWaits")
    assert condition(world.api.get("AIService", "guest"), "Ready")["status"] == "True"

    world.api.delete("AIService", "guest")
    world.until_gone("ModelCache", "mine")
    world.until_gone("PersistentVolumeClaim", "mine")


def test_an_unused_cache_of_a_user_stays(world: World) -> None:
    world.api.create("ModelCache", {"metadata": {"name": "spare"}, "spec": model("spare")})
    world.until("ModelCache", "spare", "Ready", "True", "Cached")
    world.serve("visitor", model=None, modelCacheRef={"name": "spare"})
    world.until_serving("visitor")
    world.api.delete("AIService", "visitor")
    wait_for(lambda: "finalizers" not in world.api.get("ModelCache", "spare")["metadata"], "the cache is let go")
    wait_for(lambda: world.api.get("ModelCache", "spare")["status"]["usedBy"] == [], "nobody uses it")
    assert condition(world.api.get("ModelCache", "spare"), "Ready")["status"] == "True"
    # Held by nothing: it goes at once.
    world.api.delete("ModelCache", "spare")
    world.until_gone("PersistentVolumeClaim", "spare")


def test_a_verified_download_outlives_its_job(world: World) -> None:
    world.serve("kept")
    cache = world.until_serving("kept")["status"]["modelCache"]
    job = left_of(world, "Job", cache)[0]
    world.api.delete("Job", job)
    world.until_gone("Job", job)
    wait_for(lambda: not left_of(world, "Pod", cache), "its pod is gone")
    world.api.patch("AIService", "kept", {"spec": {"replicas": 2}})
    world.until_serving("kept")
    assert left_of(world, "Job", cache) == []
    assert condition(world.api.get("ModelCache", cache), "Downloaded")["status"] == "True"


def test_a_pvc_source_downloads_nothing(world: World) -> None:
    world.api.create(
        "PersistentVolumeClaim",
        {
            "metadata": {"name": "disk"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        },
    )
    world.serve("from-disk", model={"pvc": {"claimName": "disk", "path": "whisper/large"}})
    service = world.until_serving("from-disk")
    cache = world.api.get("ModelCache", service["status"]["modelCache"])
    assert condition(cache, "Downloaded")["reason"] == "NotNeeded"
    assert condition(cache, "Verified")["status"] == "Unknown"
    assert left_of(world, "Job", cache["metadata"]["name"]) == []
    pod = world.api.get("Deployment", "from-disk")["spec"]["template"]["spec"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "disk"
    assert pod["containers"][0]["volumeMounts"][0]["subPath"] == "whisper/large"
    world.api.delete("AIService", "from-disk")
    world.until_gone("ModelCache", cache["metadata"]["name"])
    assert world.api.get("PersistentVolumeClaim", "disk")


def test_two_tasks_share_one_copy_of_the_weights(world: World) -> None:
    """The engine of both images is one: one Deployment, one claim, a port and an address for each task."""
    ports = {"text-to-image": 7860, "image-to-image": 7863}
    world.serve("painter", tasks=list(ports))
    service = world.until_serving("painter")
    cache = service["status"]["modelCache"]
    built = world.api.get("Service", "painter")["spec"]
    assert {port["name"]: port["port"] for port in built["ports"]} == ports
    address = f"http://painter.{world.namespace}.svc"
    assert service["status"]["endpoints"] == {task: f"{address}:{port}" for task, port in ports.items()}
    assert service["status"]["url"] == f"{address}:7860"

    assert left_of(world, "Deployment", "painter") == ["painter"]
    assert left_of(world, "PersistentVolumeClaim", "painter", cache) == [cache]
    assert len(left_of(world, "Job", cache)) == 1
    [pod] = pods(world, "painter")
    [engine] = pod["spec"]["containers"]
    assert engine["image"] == "example.test/diffusion:1"
    assert {port["name"]: port["containerPort"] for port in engine["ports"]} == ports
    assert {port["targetPort"] for port in built["ports"]} == set(ports)
    assert mounted(world, "painter") == cache

    # Another task is another port, of the same pods' successors, on the same weights.
    world.api.patch("AIService", "painter", {"spec": {"tasks": ["image-to-image"]}})
    world.until_serving("painter")
    assert [port["port"] for port in world.api.get("Service", "painter")["spec"]["ports"]] == [7863]
    assert world.api.get("AIService", "painter")["status"]["modelCache"] == cache


def test_progress_of_the_rollout_is_said(world: World) -> None:
    world.kubelet.serve = loading
    world.serve("slow")
    service = world.until("AIService", "slow", "Ready", "Unknown", "Starting")
    wait_for(lambda: condition(world.api.get("AIService", "slow"), "Scheduled")["status"] == "True", "scheduled")
    service = world.until("AIService", "slow", "Available", "Unknown", "Starting")
    assert condition(service, "Progressing")["status"] == "True"
    world.kubelet.reset()
    service = world.until_serving("slow")
    assert service["status"]["timings"]["loadSeconds"] >= 0


def test_the_time_to_being_ready_is_measured_once(world: World) -> None:
    """When the last pod is ready, not the first; and not again after a rollout."""
    chosen: list[str] = []

    def one_is_ready(pod: Mapping[str, Any]) -> Status:
        if pod["metadata"]["labels"]["app.kubernetes.io/instance"] != "measured":
            return ready(pod)
        chosen.append(pod["metadata"]["uid"])
        return ready(pod) if pod["metadata"]["uid"] == chosen[0] else loading(pod)

    def measured() -> float:
        return world.operator.metric("aiservice_operator_ready_seconds_count")

    world.kubelet.serve = one_is_ready
    world.serve("measured", replicas=2)
    service = world.until("AIService", "measured", "Available", "True", "Serving")
    assert condition(service, "Ready")["status"] == "Unknown"
    assert "readySeconds" not in service["status"]["timings"]
    before = measured()
    world.kubelet.reset()
    taken = world.until_serving("measured")["status"]["timings"]["readySeconds"]
    wait_for(lambda: measured() == before + 1, "it is measured")
    for version in ("2", "3"):
        world.api.patch("AIService", "measured", {"spec": {"engine": {"args": [version]}}})
        service = world.until_serving("measured")
    assert measured() == before + 1
    assert service["status"]["timings"]["readySeconds"] == taken


def test_of_two_defaults_the_older_wins(world: World) -> None:
    world.serve("older", gateway={"default": True})
    wait_for(lambda: condition(world.api.get("AIService", "older"), "GatewayDefault"), "a verdict")
    world.serve("younger", gateway={"default": True})
    younger = world.until("AIService", "younger", "GatewayDefault", "False", "OlderDefault")
    assert f"{world.namespace}/older" in condition(younger, "GatewayDefault")["message"]
    world.until("AIService", "older", "GatewayDefault", "True", "Default")
    world.api.delete("AIService", "older")
    world.until("AIService", "younger", "GatewayDefault", "True", "Default")
    world.api.patch("AIService", "younger", {"spec": {"gateway": {"default": False}}})
    wait_for(lambda: not condition(world.api.get("AIService", "younger"), "GatewayDefault"), "no verdict is needed")

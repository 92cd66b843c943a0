"""Children that are deleted or edited by hand come back; what belongs to others stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support.fake_kubelet import untouched
from support.kube_api import wait_for
from support.operator_world import World, condition

SOON = 60
"""Seconds within which a child is back. On a quiet machine it takes a tenth of one."""

Edit = tuple[str, dict[str, Any], Callable[[Any], bool]]

EDITS: dict[str, Edit] = {
    "replicas": ("Deployment", {"spec": {"replicas": 4}}, lambda body: body["spec"]["replicas"] == 1),
    "strategy": (
        "Deployment",
        {"spec": {"strategy": {"type": "Recreate", "rollingUpdate": None}}},
        lambda body: (
            body["spec"]["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        ),
    ),
    "image": (
        "Deployment",
        {"spec": {"template": {"spec": {"containers": [{"name": "engine", "image": "example.test/evil:1"}]}}}},
        lambda body: body["spec"]["template"]["spec"]["containers"][0]["image"] == "example.test/speech:1",
    ),
    "variable": (
        "Deployment",
        {
            "spec": {
                "template": {
                    "spec": {
                        "containers": [{"name": "engine", "env": [{"name": "HF_HUB_OFFLINE", "value": "0"}]}],
                    }
                }
            }
        },
        lambda body: (
            {"name": "HF_HUB_OFFLINE", "value": "1"} in body["spec"]["template"]["spec"]["containers"][0]["env"]
        ),
    ),
    "owner": (
        "Deployment",
        {"metadata": {"ownerReferences": None}},
        lambda body: len(body["metadata"].get("ownerReferences", [])) == 1,
    ),
    "ports": (
        "Service",
        {"spec": {"ports": [{"port": 7862, "targetPort": 1}]}},
        lambda body: body["spec"]["ports"][0]["targetPort"] == "speech-to-text",
    ),
    "port number": (
        "Service",
        {"spec": {"ports": [{"port": 7862, "$patch": "delete"}, {"port": 9999, "name": "speech-to-text"}]}},
        lambda body: [port["port"] for port in body["spec"]["ports"]] == [7862],
    ),
    "container port": (
        "Deployment",
        {
            "spec": {
                "template": {
                    "spec": {
                        "containers": [
                            {
                                "name": "engine",
                                "ports": [
                                    {"containerPort": 7862, "$patch": "delete"},
                                    {"containerPort": 9999, "name": "speech-to-text"},
                                ],
                            }
                        ]
                    }
                }
            }
        },
        lambda body: (
            [port["containerPort"] for port in body["spec"]["template"]["spec"]["containers"][0]["ports"]] == [7862]
        ),
    ),
    "selector": (
        "Service",
        {"spec": {"selector": {"extra": "label"}}},
        lambda body: "extra" not in body["spec"]["selector"],
    ),
    "token": (
        "ServiceAccount",
        {"automountServiceAccountToken": True},
        lambda body: body["automountServiceAccountToken"] is False,
    ),
    "label": (
        "ServiceAccount",
        {"metadata": {"labels": {"app.kubernetes.io/managed-by": "a-human"}}},
        lambda body: body["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "aiservice-operator",
    ),
}


@pytest.fixture(scope="module")
def steady(shared_world: World) -> str:
    """A service that every test here finds serving and leaves serving."""
    shared_world.serve("steady")
    service = shared_world.until_serving("steady")
    return str(service["status"]["modelCache"])


@pytest.mark.parametrize("kind", ["Deployment", "Service", "ServiceAccount"])
def test_a_deleted_child_is_back(world: World, steady: str, kind: str) -> None:
    before = world.api.get(kind, "steady")["metadata"]["uid"]
    world.api.delete(kind, "steady")
    wait_for(lambda: world.api.get(kind, "steady")["metadata"]["uid"] != before, f"a new {kind}", SOON)
    world.until_serving("steady")


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_an_edited_child_is_as_it_was(world: World, steady: str, edit: Edit) -> None:
    kind, patch, mended = edit
    edited = world.api.patch_list(kind, "steady", patch)
    assert not mended(edited), "the edit changes something"
    wait_for(lambda: mended(world.api.get(kind, "steady")), "the edit is undone", SOON)
    world.until_serving("steady")


def test_what_others_own_survives(world: World, steady: str) -> None:
    """Labels, annotations, an injected sidecar: kept while our own fields are changed and mended."""
    sidecar = {"name": "sidecar", "image": "example.test/sidecar:1", "args": ["--port=1"]}
    theirs = {
        "metadata": {"labels": {"team": "red"}, "annotations": {"note": "hello"}},
        "spec": {"template": {"metadata": {"annotations": {"injected": "yes"}}, "spec": {"containers": [sidecar]}}},
    }
    world.api.patch_list("Deployment", "steady", theirs)
    world.api.patch("Service", "steady", {"metadata": {"annotations": {"mesh": "on"}}})
    world.api.patch("Deployment", "steady", {"spec": {"replicas": 5}})
    wait_for(lambda: world.api.get("Deployment", "steady")["spec"]["replicas"] == 1, "our field is back", SOON)
    world.api.patch("AIService", "steady", {"spec": {"engine": {"args": ["--changed"]}}})
    world.until_serving("steady")
    deployment = world.api.get("Deployment", "steady")
    containers = {item["name"]: item for item in deployment["spec"]["template"]["spec"]["containers"]}
    assert containers["engine"]["args"] == ["--changed"]
    assert containers["sidecar"]["args"] == ["--port=1"]
    assert deployment["metadata"]["labels"]["team"] == "red"
    assert deployment["metadata"]["annotations"]["note"] == "hello"
    assert deployment["spec"]["template"]["metadata"]["annotations"]["injected"] == "yes"
    assert world.api.get("Service", "steady")["metadata"]["annotations"]["mesh"] == "on"


def test_a_cache_that_was_edited_is_as_it_was(world: World, steady: str) -> None:
    def mended() -> bool:
        metadata = world.api.get("ModelCache", steady)["metadata"]
        return metadata.get("finalizers") == ["aiservice.dev/in-use"] and len(metadata.get("ownerReferences", [])) == 1

    assert mended()
    world.api.patch("ModelCache", steady, {"metadata": {"finalizers": None, "ownerReferences": None}})
    wait_for(mended, "owner and finalizer are back", SOON)


def test_a_claim_that_was_edited_is_as_it_was(world: World, steady: str) -> None:
    def proof() -> str | None:
        annotations: dict[str, str] = world.api.get("PersistentVolumeClaim", steady)["metadata"]["annotations"]
        return annotations.get("aiservice.dev/download")

    before = proof()
    assert before is not None
    world.api.patch("PersistentVolumeClaim", steady, {"metadata": {"annotations": {"aiservice.dev/download": None}}})
    wait_for(lambda: proof() == before, "the proof, which the Job still gives, is back", SOON)
    world.until_serving("steady")


def started_download(world: World, name: str) -> tuple[str, Any]:
    """A service whose download does not end; returns its cache and the Job."""
    world.kubelet.download = untouched
    world.serve(name)
    cache = world.cache_of(name)
    found = wait_for(lambda: [job for job in jobs(world, cache) if mode(job) == "download"], "a download Job")
    return cache, found[0]


def jobs(world: World, cache: str) -> list[Any]:
    found: list[Any] = world.api.list("Job", f"app.kubernetes.io/instance={cache}")
    return found


def mode(job: Any) -> str:
    return str(job["metadata"]["annotations"]["aiservice.dev/mode"])


def test_a_job_that_is_deleted_is_made_again(world: World) -> None:
    cache, job = started_download(world, "job-deleted")
    world.api.delete("Job", job["metadata"]["name"])
    wait_for(lambda: jobs(world, cache)[0]["metadata"]["uid"] != job["metadata"]["uid"], "a new Job", SOON)
    world.kubelet.reset()
    world.until_serving("job-deleted")


def test_a_job_that_a_queue_holds_waits_for_the_queue(world: World) -> None:
    """Kueue suspends Jobs, and would not let go of one that begins again by other hands."""
    cache, job = started_download(world, "job-held")
    name = job["metadata"]["name"]
    world.api.patch("Job", name, {"spec": {"suspend": True}})
    held = world.until("ModelCache", cache, "Downloaded", "Unknown", "Queued")
    assert name in condition(held, "Downloaded")["message"]
    assert world.api.get("Job", name)["spec"]["suspend"] is True
    world.until("AIService", "job-held", "Ready", "Unknown", "Queued")
    world.kubelet.reset()
    world.api.patch("Job", name, {"spec": {"suspend": False}})
    world.until_serving("job-held")


def test_what_the_spec_drops_goes_after_a_repair_by_force_too(world: World) -> None:
    """An edited key cannot be undone by an apply; what replaces it must leave no other owner of our fields."""
    world.serve("repaired", engine={"env": [{"name": "KEPT", "value": "1"}, {"name": "DROPPED", "value": "1"}]})
    world.until_serving("repaired")

    def engine() -> Any:
        return world.api.get("Deployment", "repaired")["spec"]["template"]["spec"]["containers"][0]

    moved = [{"containerPort": 7862, "$patch": "delete"}, {"containerPort": 9999, "name": "speech-to-text"}]
    edit = {"spec": {"template": {"spec": {"containers": [{"name": "engine", "ports": moved}]}}}}
    world.api.patch_list("Deployment", "repaired", edit)
    wait_for(lambda: [port["containerPort"] for port in engine()["ports"]] == [7862], "the port is back", SOON)
    world.api.patch("AIService", "repaired", {"spec": {"engine": {"env": [{"name": "KEPT", "value": "1"}]}}})
    wait_for(lambda: "DROPPED" not in {item["name"] for item in engine()["env"]}, "the variable is gone", SOON)
    assert "KEPT" in {item["name"] for item in engine()["env"]}
    world.until_serving("repaired")

"""Volumes that cannot be had or shared, Secrets that change, and the end of caches whatever happens."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.cluster import ControlPlane
from support.fake_kubelet import FakeKubelet, downloaded, untouched
from support.kube_api import wait_for
from support.operator import OperatorProcess
from support.operator_world import World, condition, make_namespace, model


def stated(name: str, **storage: Any) -> dict[str, Any]:
    return {**model(name), "storage": {"size": "1Gi", **storage}}


# A StorageClass that gives nothing wedges nothing.


def test_a_cache_without_a_volume_is_deleted(world: World) -> None:
    world.api.create("ModelCache", {"metadata": {"name": "dry"}, "spec": stated("dry", storageClassName="missing")})
    world.until("ModelCache", "dry", "StorageBound", "False", "ProvisioningFailed", 60)
    wait_for(lambda: world.api.list("Pod", "app.kubernetes.io/instance=dry"), "its pod waits")
    world.api.delete("ModelCache", "dry")
    world.until_gone("ModelCache", "dry")
    world.until_gone("PersistentVolumeClaim", "dry")
    kinds = ("Job", "Pod")
    wait_for(
        lambda: not any(world.api.list(kind, "app.kubernetes.io/instance=dry") for kind in kinds), "nothing is left"
    )


def test_a_service_without_a_volume_is_deleted_with_its_cache(world: World) -> None:
    world.serve("thirsty", model=stated("thirsty", storageClassName="missing"))
    cache = world.cache_of("thirsty")
    world.until("AIService", "thirsty", "Ready", "False", "ProvisioningFailed", 60)
    world.api.delete("AIService", "thirsty")
    world.until_gone("AIService", "thirsty")
    for kind in ("ModelCache", "PersistentVolumeClaim"):
        world.until_gone(kind, cache)


def test_a_namespace_with_caches_in_use_goes(
    control_plane: ControlPlane, crds: None, node: str, tmp_path: Path
) -> None:
    """One is served, one has no volume, one is being measured: all have a user, so all are held."""
    with contextlib.closing(make_namespace(control_plane)) as api:
        operator = OperatorProcess(control_plane.kubeconfig, tmp_path, {"watch": {"namespaces": [api.namespace]}})
        with FakeKubelet(control_plane.kubeconfig, api.namespace) as kubelet, operator:
            world = World(api, kubelet, operator)
            world.serve("served")
            world.until_serving("served")
            world.kubelet.measure = untouched
            world.serve("asking")
            world.serve("dry", model=stated("dry", storageClassName="missing"))
            for name in ("asking", "dry"):
                cache = world.cache_of(name)
                wait_for(
                    lambda cache=cache: api.get("ModelCache", cache)["metadata"].get("finalizers"),  # type: ignore[misc]
                    "it is held",
                )
            api.delete("Namespace", api.namespace)

            def gone() -> bool:
                left = api.find("Namespace", api.namespace)
                assert left is None, left["status"]
                return True

            wait_for(gone, "the namespace is gone", 60, 0.1)


# Nodes that share a volume, or do not.


@pytest.fixture
def silent_class(control_plane: ControlPlane) -> Iterator[str]:
    """A StorageClass of a provisioner that the test speaks for."""
    name = f"class-{uuid.uuid4().hex[:8]}"
    body = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}}
    control_plane.apply({**body, "provisioner": "example.test/disks"})
    yield name
    control_plane.kubectl("delete", "storageclass", name)


def test_a_provisioner_that_cannot_share_is_told_with_the_way_out(world: World, silent_class: str) -> None:
    spec = stated("shared", storageClassName=silent_class, accessMode="ReadWriteMany")
    world.api.create("ModelCache", {"metadata": {"name": "shared"}, "spec": spec})
    claim = wait_for(lambda: world.api.get("PersistentVolumeClaim", "shared"), "the claim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    event = {
        "metadata": {"name": "shared.refused"},
        "type": "Warning",
        "reason": "ProvisioningFailed",
        "message": "volume access mode MULTI_NODE_MULTI_WRITER is not supported",
        "involvedObject": {"kind": "PersistentVolumeClaim", "name": "shared", "uid": claim["metadata"]["uid"]},
        "lastTimestamp": "2100-01-01T00:00:00Z",
    }
    event["involvedObject"]["namespace"] = world.namespace  # type: ignore[index]
    world.api.request("POST", f"/api/v1/namespaces/{world.namespace}/events", event)
    found = world.until("ModelCache", "shared", "StorageBound", "False", "ProvisioningFailed")
    message = condition(found, "StorageBound")["message"]
    assert "MULTI_NODE_MULTI_WRITER is not supported" in message
    assert "a ModelCache with storage.accessMode ReadWriteOnce keeps all its pods on one node" in message
    assert found["status"]["accessMode"] == "ReadWriteMany"


def test_the_mode_of_a_users_claim_is_told(world: World) -> None:
    modes = ["ReadWriteOnce", "ReadWriteMany"]
    claim = {"accessModes": modes, "resources": {"requests": {"storage": "1Gi"}}}
    world.api.create("PersistentVolumeClaim", {"metadata": {"name": "disk"}, "spec": claim})
    world.api.create("ModelCache", {"metadata": {"name": "given"}, "spec": {"pvc": {"claimName": "disk"}}})
    found = world.until("ModelCache", "given", "Ready", "True", "Cached")
    assert found["status"]["accessMode"] == "ReadWriteMany"


def test_affinities_that_exclude_each_other_are_told(world: World) -> None:
    shared = stated("affine")

    def near(zone: str) -> dict[str, Any]:
        expression = {"key": "zone", "operator": "In", "values": [zone]}
        terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
        return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}

    world.kubelet.download = untouched
    world.serve("near-a", model=shared, pod=near("a"))
    cache = world.cache_of("near-a")
    world.until("ModelCache", cache, "StorageBound", "True", "Bound")
    (job,) = world.api.list("Job", f"app.kubernetes.io/instance={cache}")
    affinity = job["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [{"key": "zone", "operator": "In", "values": ["a"]}]
    world.serve("near-b", model=shared, pod=near("b"))
    found = world.until("ModelCache", cache, "StorageBound", "False", "PlacementConflict")
    assert "AIService near-a, near-b together" in condition(found, "StorageBound")["message"]


# Files that nobody may change.


def test_nothing_is_downloaded_for_a_service_that_could_change_a_cache(world: World) -> None:
    world.api.create("ModelCache", {"metadata": {"name": "written"}, "spec": stated("written")})
    world.until("ModelCache", "written", "Ready", "True", "Cached")

    def mounting(*, read_only: bool) -> dict[str, Any]:
        volume = {"name": "v", "persistentVolumeClaim": {"claimName": "written", "readOnly": read_only}}
        return {"volumes": [volume], "volumeMounts": [{"name": "v", "mountPath": "/data"}]}

    world.serve("writing", pod=mounting(read_only=False))
    found = world.until("AIService", "writing", "Accepted", "False", "MountConflict")
    assert condition(found, "ModelReady")["reason"] == "NotAccepted"
    assert not [cache for cache in world.api.list("ModelCache") if owned(cache, "writing")]
    world.api.patch("AIService", "writing", {"spec": {"pod": mounting(read_only=True)}})
    world.until_serving("writing")
    assert [cache for cache in world.api.list("ModelCache") if owned(cache, "writing")]


def owned(cache: Mapping[str, Any], service: str) -> bool:
    return service in {owner["name"] for owner in cache["metadata"].get("ownerReferences", ())}


# Secrets.


def test_other_sources_get_their_credentials(world: World) -> None:
    sources = {
        "bucket": {"s3": {"bucket": "models", "credentialsSecretRef": {"name": "keys"}}},
        "artifact": {"oci": {"image": "registry.test/m:1", "pullSecretRef": {"name": "login"}}},
    }
    digest = f"sha256:{'d' * 64}"
    world.kubelet.measure = world.kubelet.download = downloaded(revision=digest)
    for name, source in sources.items():
        world.api.create("ModelCache", {"metadata": {"name": name}, "spec": source})
        world.until("ModelCache", name, "Ready", "True", "Cached")
    assert world.api.get("ModelCache", "artifact")["status"]["revision"] == digest
    assert world.api.get("ModelCache", "bucket")["status"]["source"] == "s3 models"
    variables = {}
    for name in sources:
        (job,) = world.api.list("Job", f"app.kubernetes.io/instance={name}")
        variables[name] = {item["name"]: item for item in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    optional = variables["bucket"]["AWS_SESSION_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert optional == {"name": "keys", "key": "AWS_SESSION_TOKEN", "optional": True}
    assert variables["artifact"]["DOCKER_AUTH_CONFIG"]["valueFrom"]["secretKeyRef"]["key"] == ".dockerconfigjson"
    assert json.loads(variables["bucket"]["AISERVICE_SOURCE"]["value"])["s3"]["bucket"] == "models"


# What the API server does not let be.


def test_a_quota_that_refuses_the_cache_is_told_by_its_service(world: World, control_plane: ControlPlane) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few", "namespace": world.namespace}}
    there = len(world.api.list("ModelCache"))
    control_plane.apply({**quota, "spec": {"hard": {"count/modelcaches.aiservice.dev": str(there)}}})
    try:
        wait_for(
            lambda: control_plane.get("resourcequota", "few", "-n", world.namespace)["status"].get("used"),
            "the quota counts",
            60,
        )
        world.serve("one-too-many")
        found = world.until("AIService", "one-too-many", "Ready", "False", "CacheRefused", 60)
        message = condition(found, "ModelReady")["message"]
        assert "cannot be created" in message
        assert "exceeded quota: few" in message
    finally:
        control_plane.kubectl("delete", "resourcequota", "few", "-n", world.namespace)
    world.until_serving("one-too-many", timeout=90)


# A download holds no GPU, and its users do.


@pytest.fixture
def mixed_pool(control_plane: ControlPlane) -> Iterator[str]:
    """A label of three nodes, of which the last has a GPU."""
    name = f"mixed-{uuid.uuid4().hex[:8]}"
    nodes = {f"{name}-{number}": {"nvidia.com/gpu": "1"} if number == 3 else {} for number in (1, 2, 3)}
    for node, devices in nodes.items():
        control_plane.add_node(node, devices, labels={"pool": name})
    yield name
    for node in nodes:
        control_plane.remove_node(node)


def test_a_volume_for_one_node_is_made_where_the_gpu_is(world: World, nodes_seen: None, mixed_pool: str) -> None:
    world.kubelet.provision = False  # it gets its place with the download, as local disks do
    world.kubelet.download = untouched
    world.serve("carded", model=stated("carded"), profile=None, gpu={}, pod={"nodeSelector": {"pool": mixed_pool}})
    job = wait_for(lambda: world.api.list("Job", f"app.kubernetes.io/instance={world.cache_of('carded')}")[0], "a Job")
    (term,) = job["spec"]["template"]["spec"]["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]["nodeSelectorTerms"]
    (expression,) = term["matchExpressions"]
    assert expression["values"] == [f"{mixed_pool}-3"]
    world.kubelet.reset()
    world.until_serving("carded", 60)
    pods = world.api.list("Pod", f"aiservice.dev/model-cache={world.cache_of('carded')}")
    assert {pod["spec"]["nodeName"] for pod in pods} == {f"{mixed_pool}-3"}
    again = world.api.get("Job", job["metadata"]["name"])
    assert again["metadata"]["uid"] == job["metadata"]["uid"], "it was left as it was made"
    world.api.delete("AIService", "carded")
    world.until_gone("Deployment", "carded")

"""Rollouts on scarce GPUs: they surge only where a GPU is free, and never wait for each other."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pytest

from support.cluster import ControlPlane
from support.fake_kubelet import Status, crashing, ready, untouched
from support.kube_api import wait_for
from support.operator_world import World, condition, model

GPU = "nvidia.com/gpu"
Pool = Callable[..., str]


@pytest.fixture
def pool(control_plane: ControlPlane) -> Iterator[Pool]:
    """Makes nodes with so many GPUs each; returns the label that only they have."""
    name, nodes = f"gpus-{uuid.uuid4().hex[:8]}", list[str]()

    def make(*gpus: int) -> str:
        for count in gpus:
            node = f"{name}-{len(nodes)}"
            control_plane.add_node(node, {GPU: str(count)}, {"pool": name})
            nodes.append(node)
        return name

    yield make
    for node in nodes:
        control_plane.remove_node(node)


def serve(world: World, name: str, pool: str, **fields: Any) -> Any:
    """Creates a service that runs on those nodes, from a volume that all nodes can mount."""
    overrides = {"nodeSelector": {"pool": pool}, **fields.pop("pod", {})}
    shared = {**model(name), "storage": {"accessMode": "ReadWriteMany"}}
    world.serve(name, **{"profile": "gpu", "model": shared, "pod": overrides, **fields})
    return world.until_serving(name)


def change(world: World, name: str) -> None:
    """Begins a rollout."""
    world.api.patch("AIService", name, {"spec": {"engine": {"args": [f"--{uuid.uuid4().hex[:6]}"]}}})


def rolled(world: World, name: str, *, surge: bool, reason: str, timeout: float = 60) -> Any:
    """Waits until the rollout that was begun is complete, by this decision."""

    def decided() -> Any:
        status = world.api.get("AIService", name)["status"]
        assert status["rollout"]["surge"] is surge, status["rollout"]
        assert reason in status["rollout"]["reason"], status["rollout"]
        return True

    wait_for(decided, f"the decision about the rollout of {name}", timeout)
    service = world.until_serving(name, timeout)
    wanted = service["spec"]["engine"]["args"]

    def only_new() -> bool:
        pods = world.api.list("Pod", f"app.kubernetes.io/instance={name}")
        return [pod["spec"]["containers"][0]["args"] for pod in pods] == [wanted]

    wait_for(only_new, f"only the new pod of {name}")
    return service


def strategy(world: World, name: str) -> Any:
    return world.api.get("Deployment", name)["spec"]["strategy"]["rollingUpdate"]


def test_with_one_gpu_the_old_pod_goes_first(world: World, nodes_seen: None, pool: Pool) -> None:
    service = serve(world, "single", pool(1))
    assert service["status"]["rollout"] == {"surge": False, "reason": "there was no pod to replace"}
    change(world, "single")
    rolled(world, "single", surge=False, reason="no node has a free nvidia.com/gpu")
    assert strategy(world, "single") == {"maxSurge": 0, "maxUnavailable": 1}


def test_with_a_free_gpu_the_new_pod_comes_first(world: World, nodes_seen: None, pool: Pool) -> None:
    serve(world, "double", pool(2))
    change(world, "double")
    rolled(world, "double", surge=True, reason="has a free nvidia.com/gpu")
    assert strategy(world, "double") == {"maxSurge": 1, "maxUnavailable": 0}


def test_two_services_that_roll_over_at_once_do_not_wait_for_each_other(
    world: World, nodes_seen: None, pool: Pool
) -> None:
    name = pool(3)
    serve(world, "left", name)
    serve(world, "right", name)
    change(world, "left")
    change(world, "right")
    for service in ("left", "right"):

        def complete(service: str = service) -> bool:
            found = world.api.get("AIService", service)
            pods = world.api.list("Pod", f"app.kubernetes.io/instance={service}")
            args = [pod["spec"]["containers"][0].get("args") for pod in pods]
            return condition(found, "Ready")["status"] == "True" and args == [found["spec"]["engine"]["args"]]

        wait_for(complete, f"the rollout of {service}", 90)


def test_a_gpu_that_the_new_pod_does_not_get_after_all(world: World, nodes_seen: None, pool: Pool) -> None:
    """The second node is out of reach, in a way that only the scheduler knows: as if somebody had been faster."""
    name = pool(1)
    rival = {"labelSelector": {"matchLabels": {"keeps": name}}, "topologyKey": "kubernetes.io/hostname"}
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [rival]}}
    serve(world, "late", name, pod={"nodeSelector": {"pool": name}, "affinity": apart})
    taken = pool(1)
    container = {"name": "c", "image": "example.test/other:1"}
    keeper = {"nodeName": f"{taken}-1", "containers": [container]}
    world.api.create("Pod", {"metadata": {"name": "keeper", "labels": {"keeps": name}}, "spec": keeper})

    change(world, "late")
    service = world.until("AIService", "late", "Ready", "False", "Unschedulable")
    message = condition(service, "Ready")["message"]
    assert "Meanwhile 1 pod as before" in message
    assert service["status"]["rollout"]["surge"] is True
    rolled(world, "late", surge=False, reason="there is room where an old one is")
    assert strategy(world, "late") == {"maxSurge": 0, "maxUnavailable": 1}


def goes_on(world: World, name: str, *reasons: str) -> None:
    """Waits until it is said that the old pod goes on beside one that finds no node."""

    def said() -> Any:
        service = world.api.get("AIService", name)
        assert service["status"]["rollout"]["surge"] is True, service["status"]["rollout"]
        assert all(reason in service["status"]["rollout"]["reason"] for reason in reasons), service["status"]["rollout"]
        found = condition(service, "Ready")
        assert found["reason"] == "Unschedulable", found
        assert "the old pod goes on" in found["message"]
        assert "Meanwhile 1 pod as before" in found["message"]
        return True

    wait_for(said, f"the old pod of {name} goes on", 60)
    assert strategy(world, name) == {"maxSurge": 1, "maxUnavailable": 0}


def move(world: World, name: str, pool: str) -> None:
    """Begins a rollout to other nodes."""
    spec = {"engine": {"args": [f"--{uuid.uuid4().hex[:6]}"]}, "pod": {"nodeSelector": {"pool": pool}}}
    world.api.patch("AIService", name, {"spec": spec})


def test_the_old_pod_goes_on_beside_one_that_could_run_nowhere(world: World, nodes_seen: None, pool: Pool) -> None:
    name = pool(1)
    serve(world, "misspelt", name)
    move(world, "misspelt", "misspelt")
    goes_on(world, "misspelt", "correct what the new one asks for")
    move(world, "misspelt", name)
    rolled(world, "misspelt", surge=False, reason="no node has a free nvidia.com/gpu")


def test_the_old_pod_goes_on_where_its_place_is_none_for_the_new_one(
    world: World, nodes_seen: None, control_plane: ControlPlane, pool: Pool
) -> None:
    """The other nodes have a free GPU, and something that only the scheduler knows of."""
    name = pool(1)
    other = f"other-{name}"
    rival = {"labelSelector": {"matchLabels": {"keeps": name}}, "topologyKey": "kubernetes.io/hostname"}
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [rival]}}
    serve(world, "moving", name, pod={"nodeSelector": {"pool": name}, "affinity": apart})
    control_plane.add_node(other, {GPU: "1"}, {"pool": other})
    try:
        keeper = {"nodeName": other, "containers": [{"name": "c", "image": "example.test/other:1"}]}
        world.api.create("Pod", {"metadata": {"name": other, "labels": {"keeps": name}}, "spec": keeper})
        move(world, "moving", other)
        goes_on(world, "moving", "the new pod would have no place if an old one stopped")
        move(world, "moving", name)
        rolled(world, "moving", surge=False, reason="no node has a free nvidia.com/gpu")
    finally:
        control_plane.remove_node(other)


def test_without_the_right_to_see_nodes_the_scheduler_decides(world: World, pool: Pool) -> None:
    serve(world, "unseeing", pool(1))
    change(world, "unseeing")

    def decided() -> Any:
        found = world.api.get("AIService", "unseeing")["status"]["rollout"]
        assert found["surge"] is True, found
        assert "rbac.readNodes" in found["reason"]
        assert 'cannot list resource "nodes"' in found["reason"]
        return True

    wait_for(decided, "the first decision")
    rolled(world, "unseeing", surge=False, reason="the scheduler misses what an old one holds")


def test_without_the_right_to_see_nodes_what_serves_goes_on(world: World, pool: Pool) -> None:
    serve(world, "blind", pool(1))
    move(world, "blind", "misspelt")
    goes_on(world, "blind", "the old pod goes on", "rbac.readNodes")
    # As long as it waits the operator looks at nodes again and again, and what it saw serves others for a moment.
    world.api.delete("AIService", "blind")
    world.until_gone("Deployment", "blind")


@pytest.fixture
def quota(control_plane: ControlPlane, world: World) -> Iterator[str]:
    """A priority class whose pods may have one GPU together."""
    name = f"one-gpu-{uuid.uuid4().hex[:8]}"
    priority = {"value": 0, "preemptionPolicy": "Never", "metadata": {"name": name}}
    chosen = {"scopeName": "PriorityClass", "operator": "In", "values": [name]}
    spec = {"hard": {f"requests.{GPU}": "1"}, "scopeSelector": {"matchExpressions": [chosen]}}
    metadata = {"name": name, "namespace": world.namespace}
    control_plane.apply(
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", **priority},
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": spec},
    )
    yield name
    control_plane.kubectl("delete", "resourcequota", name, "-n", world.namespace)
    control_plane.kubectl("delete", "priorityclass", name)


def test_a_quota_that_the_old_pod_uses_up(world: World, nodes_seen: None, pool: Pool, quota: str) -> None:
    """A free GPU was seen, and the new pod may not have it: none is made that could wait for it."""
    name = pool(2)
    serve(world, "bounded", name, pod={"nodeSelector": {"pool": name}, "priorityClassName": quota})
    change(world, "bounded")
    refused = world.until("AIService", "bounded", "Ready", "False", "PodsRefused")
    assert "exceeded quota" in condition(refused, "Ready")["message"]
    assert refused["status"]["rollout"]["surge"] is True
    rolled(world, "bounded", surge=False, reason="a quota refuses the new pod", timeout=120)


def test_gates_that_hold_the_new_pod_until_the_old_one_has_gone(world: World, nodes_seen: None, pool: Pool) -> None:
    """As a queue for quotas does it, which sets gates on new pods."""
    serve(world, "gated", pool(2))
    change(world, "gated")
    rolled(world, "gated", surge=True, reason="has a free nvidia.com/gpu")
    (before,) = world.api.list("Pod", "app.kubernetes.io/instance=gated")
    gates = {"schedulingGates": [{"name": "example.test/quota"}]}
    world.api.patch("Deployment", "gated", {"spec": {"template": {"spec": gates}}})

    def alone() -> Any:
        found = world.api.get("AIService", "gated")["status"]["rollout"]
        assert found["surge"] is False, found
        assert "scheduling gates" in found["reason"]
        names = [pod["metadata"]["name"] for pod in world.api.list("Pod", "app.kubernetes.io/instance=gated")]
        assert len(names) == 1, names
        assert names != [before["metadata"]["name"]]
        return names[0]

    new = wait_for(alone, "the old pod has gone", 60)
    world.api.patch("Pod", new, {"spec": {"schedulingGates": []}})
    world.until_serving("gated")


def test_a_volume_of_one_node_surges_on_that_node_only(world: World, nodes_seen: None, pool: Pool) -> None:
    name = pool(1, 1)
    bound = {**model("bound"), "storage": {"accessMode": "ReadWriteOnce"}}
    serve(world, "bound", name, model=bound)
    change(world, "bound")
    rolled(world, "bound", surge=False, reason="beside the pods that use the ReadWriteOnce cache")


def test_the_users_word_counts(world: World, pool: Pool) -> None:
    name = pool(1)
    serve(world, "insisting", name, rollout={"surge": "Always"})
    change(world, "insisting")
    service = world.until("AIService", "insisting", "Ready", "False", "Unschedulable")
    assert "set spec.rollout.surge to Never or Auto" in condition(service, "Ready")["message"]
    world.api.patch("AIService", "insisting", {"spec": {"rollout": {"surge": "Never"}}})
    rolled(world, "insisting", surge=False, reason="spec.rollout.surge is Never")


def test_a_new_revision_is_downloaded_while_the_old_one_serves(world: World) -> None:
    world.serve("updating")
    before = world.until_serving("updating")["status"]["modelCache"]
    world.kubelet.download = lambda pod: None
    world.api.patch("AIService", "updating", {"spec": {"model": model("updated")}})

    def downloading() -> Any:
        service = world.api.get("AIService", "updating")
        assert service["status"]["modelCache"] != before
        assert condition(service, "ModelReady")["status"] == "Unknown"
        assert condition(service, "Available")["status"] == "True"
        assert "Meanwhile 1 pod as before" in condition(service, "Ready")["message"]
        return service["status"]["modelCache"]

    after = wait_for(downloading, "the new model being cached")

    def mounted() -> str:
        annotations = world.api.get("Deployment", "updating")["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["aiservice.dev/model-cache"])

    assert mounted() == before
    world.kubelet.reset()
    world.until_serving("updating")
    assert mounted() == after
    world.until_gone("ModelCache", before)


# From one model to another, and back.


def claim_uid(world: World, cache: str) -> str:
    return str(world.api.get("PersistentVolumeClaim", cache)["metadata"]["uid"])


@pytest.mark.parametrize("referred", [False, True])
def test_the_way_back_from_a_model_that_crashes_needs_no_download(world: World, referred: bool) -> None:
    """The old pod serves on, and nothing else uses its cache, not even one that goes with its last user."""
    service = "returning-by-name" if referred else "returning"
    good, bad = (stated(world, f"{service}-{which}", referred=referred) for which in ("good", "bad"))
    world.serve(service, **good)
    before = world.until_serving(service)["status"]["modelCache"]
    uids = world.api.get("ModelCache", before)["metadata"]["uid"], claim_uid(world, before)

    def behave(pod: Mapping[str, Any]) -> Status | None:
        fits = pod["metadata"]["labels"].get("aiservice.dev/model-cache", before) == before  # others' pods, too
        return ready(pod) if fits else crashing("these are no weights")(pod)

    world.kubelet.serve = behave
    world.api.patch("AIService", service, {"spec": bad})
    found = world.until("AIService", service, "Ready", "False", "CrashLoopBackOff")
    assert "Meanwhile 1 pod as before" in condition(found, "Ready")["message"]
    after = found["status"]["modelCache"]
    for cache in (before, after):
        wait_for(partial(held, world, cache, service), f"{cache} is held")

    world.kubelet.download = untouched
    world.api.patch("AIService", service, {"spec": good})
    world.until_serving(service)
    assert (world.api.get("ModelCache", before)["metadata"]["uid"], claim_uid(world, before)) == uids
    world.until_gone("ModelCache", after)
    world.until_gone("PersistentVolumeClaim", after)
    assert held(world, before, service)


def stated(world: World, name: str, *, referred: bool) -> dict[str, Any]:
    """What a spec says of a model: stated inline, or on a cache that somebody made and that goes with its last user."""
    if not referred:
        return {"model": model(name)}
    retained = {**model(name), "retention": {"policy": "DeleteWhenUnused"}}
    world.api.create("ModelCache", {"metadata": {"name": name}, "spec": retained})
    return {"model": None, "modelCacheRef": {"name": name}}


def held(world: World, cache: str, service: str) -> bool:
    """Whether a cache stays for a service."""
    found = world.api.get("ModelCache", cache)
    assert "deletionTimestamp" not in found["metadata"]
    assert found["metadata"]["finalizers"] == ["aiservice.dev/in-use"]
    assert found["status"]["usedBy"] == [service]
    return True


def test_a_pod_that_was_evicted_holds_no_cache(world: World) -> None:
    world.serve("leaving")
    before = world.until_serving("leaving")["status"]["modelCache"]
    (evicted,) = world.api.list("Pod", "app.kubernetes.io/instance=leaving")
    name = evicted["metadata"]["name"]
    world.api.patch("Pod", name, {"status": {"phase": "Failed", "reason": "Evicted"}}, "status")
    wait_for(lambda: len(world.api.list("Pod", "app.kubernetes.io/instance=leaving")) == 2, "another pod")
    world.until_serving("leaving")
    world.api.patch("AIService", "leaving", {"spec": {"model": model("leavings")}})
    world.until_gone("ModelCache", before)
    assert world.api.find("Pod", name) is not None
    world.until_serving("leaving")

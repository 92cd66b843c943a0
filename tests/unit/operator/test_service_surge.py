"""Whether a rollout surges: what a node has left, and what is decided from it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from aiservice_operator import names
from aiservice_operator.capacity import Capacity, Node, read_nodes, requested, room_for
from aiservice_operator.kinds import Json, Kind
from aiservice_operator.observed import Child
from aiservice_operator.plan import Apply, ServicePlan, ServiceView, plan_service
from aiservice_operator.plan.surge import CPU_PATIENCE, PATIENCE, Decision, recorded
from support.operator_objects import MODEL, NAMESPACE, NOW, SETTINGS, cache, condition, live, pod, service, timestamp
from support.operator_views import serving as serving_pods

GPU = "nvidia.com/gpu"
TOLERATED: Json = {"key": GPU, "value": "present", "effect": "NoSchedule"}
PODS: Json = {"cpu": "8", "memory": "64Gi", "pods": "110", GPU: "1"}


def node(name: str = "n1", *, ready: str = "True", labels: Json | None = None, **spec: Any) -> Json:
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": spec,
        "status": {"allocatable": PODS, "conditions": [condition("Ready", ready)]},
    }


def asks(*, node_name: str = "n1", phase: str = "Running", labels: Json | None = None, **limits: str) -> Json:
    """A pod of somebody on a node."""
    resources = {"limits": {GPU if name == "gpu" else name: amount for name, amount in limits.items()}}
    return {
        "metadata": {"namespace": NAMESPACE, "labels": labels or {}},
        "spec": {"nodeName": node_name, "containers": [{"name": "c", "resources": resources}]},
        "status": {"phase": phase},
    }


def wants(**fields: Any) -> Json:
    return {"containers": [{"name": "engine", "resources": {"limits": {GPU: "1"}}}], **fields}


def test_what_a_pod_asks_for_is_what_the_scheduler_counts() -> None:
    def container(cpu: str, **fields: Any) -> Json:
        return {"name": "c", "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": "9"}}, **fields}

    assert requested({"containers": [container("1"), container("500m")]})["cpu"] == Decimal("1.5")
    assert requested({"containers": [{"name": "c"}]}) == {"pods": 1}
    # One that runs before the others needs its share only until then.
    assert requested({"containers": [container("1")], "initContainers": [container("3")]})["cpu"] == 3
    lasting = container("2", restartPolicy="Always")
    assert requested({"containers": [container("1")], "initContainers": [lasting]})["cpu"] == 3
    assert requested({"containers": [container("1")], "initContainers": [lasting, container("3")]})["cpu"] == 5
    assert requested({"containers": [container("1")], "overhead": {"cpu": "250m"}})["cpu"] == Decimal("1.25")
    assert requested(wants())[GPU] == 1, "a limit alone is a request"


@pytest.mark.parametrize(
    ("nodes", "pods", "found"),
    [
        ([node()], [], True),
        ([node()], [asks(gpu="1")], False),
        ([node()], [asks(gpu="1", phase="Succeeded")], True),
        ([node()], [asks(gpu="1", node_name="n2")], True),
        ([node()], [asks(cpu="8")], True),
        ([node(), node("n2")], [asks(gpu="1")], True),
        ([node(ready="False")], [], False),
        ([node(ready="Unknown")], [], False),
        ([node(unschedulable=True)], [], False),
        ([node(taints=[TOLERATED])], [], False),
        ([node(taints=[{"key": "soft", "effect": "PreferNoSchedule"}])], [], True),
        ([], [], False),
    ],
)
def test_a_free_gpu_is_one_that_the_pod_would_get(nodes: list[Json], pods: list[Json], found: bool) -> None:
    assert (room_for(wants(), read_nodes(nodes, pods)) is not None) == found


def test_everything_that_a_pod_asks_for_has_to_be_free() -> None:
    hungry = wants(containers=[{"name": "engine", "resources": {"limits": {GPU: "1"}, "requests": {"cpu": "6"}}}])
    assert room_for(hungry, read_nodes([node()], [asks(cpu="2")])) is not None
    assert room_for(hungry, read_nodes([node()], [asks(cpu="3")])) is None
    assert room_for(wants(), read_nodes([node()], [asks()] * 109)) is not None
    assert room_for(wants(), read_nodes([node()], [asks()] * 110)) is None, "a node takes so many pods"


@pytest.mark.parametrize(
    ("toleration", "found"),
    [
        ({"operator": "Exists"}, True),
        ({"key": GPU, "operator": "Exists"}, True),
        ({"key": GPU, "operator": "Exists", "effect": "NoSchedule"}, True),
        ({"key": GPU, "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": GPU, "value": "present"}, True),
        ({"key": GPU, "operator": "Equal", "value": "other"}, False),
        ({"key": "another", "operator": "Exists"}, False),
    ],
)
def test_taints_and_tolerations(toleration: Json, found: bool) -> None:
    nodes = read_nodes([node(taints=[TOLERATED])], [])
    assert (room_for(wants(tolerations=[toleration]), nodes) is not None) == found


def by_label(operator: str, *values: str, key: str = "gen") -> Json:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("terms", "found"),
    [
        ([by_label("In", "3", "4")], True),
        ([by_label("In", "4")], False),
        ([by_label("In", "4"), by_label("Exists")], True),
        ([by_label("NotIn", "3")], False),
        ([by_label("NotIn", "3", key="absent")], True),
        ([by_label("Exists", key="absent")], False),
        ([by_label("DoesNotExist", key="absent")], True),
        ([by_label("Gt", "2")], True),
        ([by_label("Gt", "3")], False),
        ([by_label("Lt", "4")], True),
        ([by_label("Lt", "4", key="absent")], False),
        ([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}], True),
        ([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}], False),
        ([{}], False),
    ],
)
def test_node_affinity(terms: list[Json], found: bool) -> None:
    nodes = read_nodes([node(labels={"gen": "3"})], [])
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    assert (room_for(wants(affinity=affinity), nodes) is not None) == found


def test_node_selector() -> None:
    nodes = read_nodes([node(labels={"product": "L4"})], [])
    assert room_for(wants(nodeSelector={"product": "L4"}), nodes) is not None
    assert room_for(wants(nodeSelector={"product": "T4"}), nodes) is None


def test_beside_a_volume_of_one_node_only_that_node_counts() -> None:
    mounted = asks(labels={names.CACHE_LABEL: "mine"}, gpu="1")
    nodes = read_nodes([node("n1"), node("n2")], [mounted])
    assert room_for(wants(), nodes, (NAMESPACE, "mine")) is None
    assert room_for(wants(), nodes, ("elsewhere", "mine")) is not None, "nobody uses that one yet"
    assert room_for(wants(), nodes) is not None


# What is decided.

L4: Json = {"profile": "nvidia-l4"}
READY = cache("mc-443918c0b15e3fd1", {**MODEL, "storage": {"accessMode": "ReadWriteMany"}}, ready=True)
PLENTY = dict.fromkeys(("cpu", "memory", "pods", GPU), Decimal(10**12))
FREE = Capacity((Node("n1", {"nvidia.com/gpu.product": "NVIDIA-L4"}, (), True, PLENTY, frozenset()),))
CHANGED: Json = {**L4, "engine": {"args": ["--new"]}}


def serving(spec: Json, count: int = 1) -> ServiceView:
    return serving_pods(service(spec=spec), count, cache=READY)


def planned(known: ServiceView, spec: Json, **fields: Any) -> ServicePlan:
    return plan_service(replace(known, service=service(spec=spec), **fields), SETTINGS, NOW)


def decided(plan: ServicePlan) -> tuple[bool, str]:
    assert plan.rollout is not None
    (action,) = plan.actions
    assert isinstance(action, Apply)
    strategy = action.body["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": int(plan.rollout.surge), "maxUnavailable": int(not plan.rollout.surge)}
    noted = Decision.model_validate_json(action.body["metadata"]["annotations"][names.ROLLOUT_ANNOTATION])
    assert noted == plan.rollout
    return plan.rollout.surge, plan.rollout.reason


def test_nodes_are_looked_at_only_when_a_rollout_begins_on_a_gpu() -> None:
    known = serving(L4)
    assert not planned(known, L4).needs_capacity
    assert not planned(known, {**L4, "replicas": 2}).needs_capacity, "no pod is replaced"
    asked = planned(known, CHANGED)
    assert asked.needs_capacity
    assert asked.actions == ()
    assert not planned(serving({}), {"engine": {"args": ["--new"]}}).needs_capacity


def test_the_answer_decides() -> None:
    known = serving(L4)
    assert decided(planned(known, CHANGED, capacity=FREE)) == (
        True,
        "node n1 has a free nvidia.com/gpu, so the new pod comes first",
    )
    surge, reason = decided(planned(known, CHANGED, capacity=Capacity()))
    assert (surge, reason) == (False, "no node has a free nvidia.com/gpu for one more pod, so the old pod stops first")
    surge, reason = decided(planned(known, CHANGED, capacity=Capacity(refused="nodes is forbidden")))
    assert not surge
    assert "rbac.readNodes" in reason
    assert reason.endswith("nodes is forbidden")


def test_what_is_decided_holds_for_the_rollout() -> None:
    known = serving(L4)
    plan = planned(known, CHANGED, capacity=Capacity())
    (action,) = plan.actions
    assert isinstance(action, Apply)
    rolling = replace(known, deployment=live(Kind.DEPLOYMENT, action.body, {"replicas": 1}))
    again = planned(rolling, CHANGED, capacity=FREE)
    assert again.actions == ()
    assert again.rollout == plan.rollout
    # Another change is another rollout.
    assert planned(rolling, {**L4, "engine": {"args": ["--newer"]}}).needs_capacity


@pytest.mark.parametrize(
    ("spec", "surge", "reason"),
    [
        ({"rollout": {"surge": "Always"}}, True, "spec.rollout.surge is Always"),
        ({"rollout": {"surge": "Never"}}, False, "spec.rollout.surge is Never"),
        ({"profile": "cpu"}, True, "on a CPU the new pod comes first"),
        ({"profile": "cpu", "rollout": {"surge": "Never"}}, False, "spec.rollout.surge is Never"),
    ],
)
def test_what_needs_no_look_at_nodes(spec: Json, surge: bool, reason: str) -> None:
    assert decided(planned(serving(L4), {**CHANGED, **spec})) == (surge, reason)


def test_first_pods_and_none_replace_nothing() -> None:
    known = serving(L4)
    assert decided(planned(replace(known, deployment=None), L4)) == (False, "there was no pod to replace")
    nobody = serving(L4, 0)
    assert decided(planned(nobody, CHANGED)) == (False, "there was no pod to replace")


def test_claimed_devices_are_not_counted() -> None:
    claims = [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]
    spec: Json = {"profile": None, "resourceClaims": claims}
    served = serving(L4)
    plan = planned(replace(served, apis=replace(served.apis, dynamic_resources=True)), spec)
    surge, reason = decided(plan)
    assert not surge
    assert "set spec.rollout.surge to Always" in reason


def waiting(seconds: float) -> Child:
    scheduled = condition("PodScheduled", "False", "Unschedulable", "0/1 nodes are available")
    moment = timestamp(NOW - timedelta(seconds=seconds))
    return pod("new", {"phase": "Pending", "conditions": [{**scheduled, "lastTransitionTime": moment}]})


def surging(spec: Json = CHANGED) -> ServiceView:
    """A rollout that surges, and whose new pod is there."""
    known = serving(L4)
    (action,) = planned(known, spec, capacity=FREE).actions
    assert isinstance(action, Apply)
    counts = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 1, "readyReplicas": 1}
    return replace(known, deployment=live(Kind.DEPLOYMENT, action.body, counts))


def test_a_gpu_that_was_taken_revises_the_decision() -> None:
    rolling = surging()
    early = planned(rolling, CHANGED, pods=(waiting(1),))
    assert early.actions == ()
    assert early.again_at == NOW + PATIENCE - timedelta(seconds=1)
    surge, reason = decided(planned(rolling, CHANGED, pods=(waiting(PATIENCE.total_seconds()),)))
    assert not surge
    assert "was taken before the new pod had it" in reason


def test_on_a_cpu_too_the_old_pod_makes_room_in_the_end() -> None:
    """Later, since a cluster autoscaler may add a node."""
    spec: Json = {**CHANGED, "profile": "cpu"}
    rolling = surging(spec)
    seconds = CPU_PATIENCE.total_seconds()
    assert planned(rolling, spec).again_at is None, "the new pod has a node"
    early = planned(rolling, spec, pods=(waiting(seconds - 1),))
    assert early.actions == ()
    assert early.again_at == NOW + timedelta(seconds=1)
    surge, reason = decided(planned(rolling, spec, pods=(waiting(seconds),)))
    assert not surge
    assert reason == "no node had room for the new pod beside the old one for 120 s, so the old pod stops first"


def test_the_users_word_is_not_revised() -> None:
    spec: Json = {**CHANGED, "rollout": {"surge": "Always"}}
    known = serving(L4)
    (action,) = planned(known, spec).actions
    assert isinstance(action, Apply)
    counts = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 1, "readyReplicas": 1}
    rolling = replace(known, deployment=live(Kind.DEPLOYMENT, action.body, counts))
    plan = planned(rolling, spec, pods=(waiting(3600),))
    assert plan.actions == ()
    assert plan.again_at is None


def test_a_note_that_cannot_be_read_is_decided_again() -> None:
    known = serving(L4)
    assert known.deployment is not None
    annotations = {**known.deployment.meta.annotations, names.ROLLOUT_ANNOTATION: "edited"}
    edited = replace(known.deployment, meta=replace(known.deployment.meta, annotations=annotations))
    assert recorded(edited) is None
    assert planned(replace(known, deployment=edited), L4).needs_capacity

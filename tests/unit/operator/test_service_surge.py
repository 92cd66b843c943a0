"""Whether a rollout surges: what a node has left, and what is decided from it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from aiservice_operator import names
from aiservice_operator.capacity import Capacity, Node, limited, read_nodes, requested, room_for, room_without
from aiservice_operator.kinds import Json, Kind
from aiservice_operator.observed import Child
from aiservice_operator.plan import Apply, ServicePlan, ServiceView, plan_service
from aiservice_operator.plan.surge import CPU_PATIENCE, LOOK_AGAIN, PATIENCE, Decision, recorded
from support.operator_objects import (
    MODEL,
    NAMESPACE,
    NOW,
    SETTINGS,
    cache,
    child,
    condition,
    live,
    metadata,
    pod,
    service,
    timestamp,
)
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


def test_room_that_a_pod_of_the_node_makes_when_it_stops() -> None:
    both = [asks(gpu="1", labels={names.CACHE_LABEL: "mine"}), asks(node_name="n2", gpu="1")]
    nodes = read_nodes([node("n1"), node("n2", labels={"product": "T4"})], both)

    def found(pod: Json, *stopping: Json, beside: tuple[str, str] | None = None) -> str | None:
        place = room_without(pod, nodes, [item["spec"] for item in stopping], beside)
        return place.name if place is not None else None

    assert room_for(wants(), nodes) is None
    assert found(wants(), both[0]) == "n1"
    assert found(wants()) is None
    assert found(wants(nodeSelector={"product": "T4"}), both[0]) is None
    assert found(wants(nodeSelector={"product": "T4"}), *both) == "n2"
    assert found(wants(), both[1], beside=(NAMESPACE, "mine")) is None
    assert found(wants(), asks(node_name="gone", gpu="1")) is None
    two = wants(containers=[{"name": "engine", "resources": {"limits": {GPU: "2"}}}])
    assert found(two, *both) is None
    devices = [replace(item, free={name: left for name, left in item.free.items() if name != GPU}) for item in nodes]
    assert room_without(wants(), devices, [both[0]["spec"]]), "a device that the node does not state as its resource"
    cordoned = read_nodes([node(unschedulable=True)], both)
    assert room_without(wants(), cordoned, [both[0]["spec"]]) is None


def test_all_that_a_watched_pod_holds_is_kept() -> None:
    lasting = {"name": "proxy", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}}
    engine = {"name": "engine", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "4"}}}
    spec = {"containers": [engine], "initContainers": [lasting], "overhead": {"cpu": "500m"}}
    kept = child(Kind.POD, {"metadata": metadata("a"), "spec": spec}).body["spec"]
    assert requested(kept)["cpu"] == requested(spec)["cpu"] == Decimal("3.5")
    assert limited(kept)["cpu"] == Decimal("4.5")


# What is decided.

L4: Json = {"profile": "nvidia-l4"}
READY = cache("mc-443918c0b15e3fd1", {**MODEL, "storage": {"accessMode": "ReadWriteMany"}}, ready=True)
PLENTY = dict.fromkeys(("cpu", "memory", "pods", GPU), Decimal(10**12))
L4_LABELS = {"nvidia.com/gpu.product": "NVIDIA-L4"}
UNSEEN = Capacity(refused="nodes is forbidden")


def free_on(name: str = "n1", labels: Json | None = None, **free: int) -> Node:
    """A node with plenty of everything but what is said; `gpu` is the number of free GPUs."""
    amounts = {GPU if key == "gpu" else key: Decimal(amount) for key, amount in free.items()}
    return Node(name, L4_LABELS if labels is None else labels, (), True, {**PLENTY, **amounts}, frozenset())


FREE = Capacity((free_on(),))
FULL = Capacity((free_on(gpu=0),))
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
    surge, reason = decided(planned(known, CHANGED, capacity=FULL, pods=(old(gpu="1"),)))
    assert (surge, reason) == (False, "no node has a free nvidia.com/gpu for one more pod, so the old pod stops first")


def test_unseen_nodes_let_the_scheduler_decide() -> None:
    surge, reason = decided(planned(serving(L4), CHANGED, capacity=UNSEEN, pods=(old(gpu="1"),)))
    assert surge
    assert "rbac.readNodes" in reason
    assert reason.endswith("nodes is forbidden")
    surge, reason = decided(planned(serving(L4), CHANGED, capacity=UNSEEN))
    assert (surge, reason) == (False, "no pod to replace has a node, so the old pod stops first")


@pytest.mark.parametrize(
    "change",
    [
        {"pod": {"nodeSelector": {"pool": "misspelt"}}},
        {"gpu": {"count": 9}},
        {"resources": {"requests": {"cpu": str(10**13)}}},
    ],
)
def test_what_serves_is_not_stopped_for_a_pod_that_could_run_nowhere(change: Json) -> None:
    """Nor for one whose place another's pods hold: only its own go."""
    known, spec = replace(serving(L4), pods=(old(gpu="1"),)), {**CHANGED, **change}
    surge, reason = decided(planned(known, spec, capacity=FULL))
    assert surge
    assert "correct what the new one asks for" in reason
    elsewhere = Capacity((free_on("n1", {}, gpu=0), free_on("n2", gpu=0)))
    assert decided(planned(known, CHANGED, capacity=elsewhere))[0], "its node is not one for the new pod"


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
    served = replace(serving(L4), pods=(old(),))
    served = replace(served, apis=replace(served.apis, dynamic_resources=True))
    surge, reason = decided(planned(served, spec, capacity=FREE))
    assert not surge
    assert "set spec.rollout.surge to Always" in reason
    surge, reason = decided(planned(served, {**spec, "pod": {"nodeSelector": {"pool": "misspelt"}}}, capacity=FREE))
    assert surge
    assert "correct what the new one asks for" in reason
    surge, _ = decided(planned(served, spec, capacity=UNSEEN))
    assert surge
    words = "0/1 nodes are available: 1 cannot allocate all claims. no new claims to deallocate"
    rolling = begun(served, spec, UNSEEN)
    assert not decided(planned(rolling, spec, capacity=UNSEEN, pods=(old(), waiting(10, words))))[0]


# What is decided again.

LACKING = f"0/2 nodes are available: 1 Insufficient {GPU}, 1 node(s) didn't match Pod's node affinity/selector."
MISPLACED = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. no new claims to deallocate"
OTHER_ZONE = "0/2 nodes are available: 1 node(s) had volume node affinity conflict, 1 node(s) had untolerated taint(s)."
QUOTA = (
    'pods "whisper-1-x" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu={},pods=1, '
    "used: requests.nvidia.com/gpu={},pods=1, limited: requests.nvidia.com/gpu={},pods=9"
)


def old(node_name: str = "n1", **limits: str) -> Child:
    """A pod of before, on a node."""
    found = pod("old", {"phase": "Running"})
    spec = asks(node_name=node_name, phase="Running", labels=None, **limits)["spec"]
    return replace(found, body={**found.body, "spec": spec})


def waiting(seconds: float, words: str = LACKING, reason: str = "Unschedulable") -> Child:
    """A new pod that waits for a node."""
    moment = timestamp(NOW - timedelta(seconds=seconds))
    since = None if reason == "SchedulingGated" else moment  # as the API server leaves it
    scheduled = {**condition("PodScheduled", "False", reason, words), "lastTransitionTime": since}
    found = pod("new", {"phase": "Pending", "conditions": [scheduled]}, creationTimestamp=moment)
    found.body["spec"]["nodeName"] = ""
    return found


def begun(known: ServiceView, spec: Json, capacity: Capacity = FREE, **status: Any) -> ServiceView:
    """A rollout that surges, as it was decided with this capacity two hours ago."""
    began = NOW - timedelta(hours=2)
    (action,) = plan_service(replace(known, service=service(spec=spec), capacity=capacity), SETTINGS, began).actions
    assert isinstance(action, Apply)
    counts = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 1, "readyReplicas": 1}
    return replace(known, deployment=live(Kind.DEPLOYMENT, action.body, {**counts, **status}))


def surging(spec: Json = CHANGED, **status: Any) -> ServiceView:
    """A rollout that surges, and whose new pod is there."""
    return begun(serving(L4), spec, **status)


def refused(message: str, seconds: float) -> Json:
    """The status of a Deployment whose new pod is refused."""
    moment = timestamp(NOW - timedelta(seconds=seconds))
    failure = {**condition("ReplicaFailure", "True", "FailedCreate", message), "lastTransitionTime": moment}
    return {"replicas": 1, "updatedReplicas": 0, "conditions": [failure]}


def test_a_gpu_that_was_taken_revises_the_decision() -> None:
    rolling, seconds = surging(), PATIENCE.total_seconds()
    early = planned(rolling, CHANGED, pods=(old(gpu="1"), waiting(1)))
    assert early.actions == ()
    assert early.again_at == NOW + PATIENCE - timedelta(seconds=1)
    late = replace(rolling, pods=(old(gpu="1"), waiting(seconds)))
    assert planned(late, CHANGED).needs_capacity
    assert decided(planned(late, CHANGED, capacity=FULL)) == (
        False,
        "the new pod has waited 10 s for a node, and there is room where an old one is, so the old pod stops first",
    )
    # That a volume is elsewhere keeps it from some nodes, and not from the one where the GPU is missing.
    partly = f"0/2 nodes are available: 1 Insufficient {GPU}, 1 node(s) had volume node affinity conflict."
    assert not decided(planned(late, CHANGED, pods=(old(gpu="1"), waiting(seconds, partly)), capacity=FULL))[0]


def test_a_pod_of_an_earlier_rollout_revises_nothing_before_it_goes() -> None:
    """It waits for long when what it asked for is corrected, and the Deployment controller takes it away."""
    known = surging()
    (action,) = planned(known, {**CHANGED, "engine": {"args": ["--newer"]}}, capacity=FREE).actions
    assert isinstance(action, Apply)
    assert known.deployment is not None
    corrected = live(Kind.DEPLOYMENT, action.body, known.deployment.body["status"])
    rolling = replace(known, deployment=corrected, pods=(old(gpu="1"), waiting(3600, MISPLACED)))
    plan = planned(rolling, {**CHANGED, "engine": {"args": ["--newer"]}})
    assert (plan.actions, plan.needs_capacity, plan.again_at) == ((), False, NOW + PATIENCE)


def test_on_a_cpu_too_the_old_pod_makes_room_in_the_end() -> None:
    """Later, since a cluster autoscaler may add a node."""
    spec: Json = {**CHANGED, "profile": "cpu"}
    rolling, seconds = surging(spec), CPU_PATIENCE.total_seconds()
    assert planned(rolling, spec).again_at is None, "the new pod has a node"
    early = planned(rolling, spec, pods=(old(cpu="2", memory="8Gi"), waiting(seconds - 1)))
    assert early.actions == ()
    assert early.again_at == NOW + timedelta(seconds=1)
    late = replace(rolling, pods=(old(cpu="2", memory="8Gi"), waiting(seconds, "0/1 nodes: 1 Insufficient cpu.")))
    assert planned(late, spec).needs_capacity
    surge, reason = decided(planned(late, spec, capacity=Capacity((free_on(cpu=0),))))
    assert not surge
    assert reason.startswith("the new pod has waited 120 s for a node")
    assert not decided(planned(late, spec, capacity=UNSEEN))[0]


@pytest.mark.parametrize(
    ("capacity", "held", "words"),
    [
        pytest.param(Capacity((free_on(labels={}, gpu=0),)), "1", MISPLACED, id="nowhere"),
        pytest.param(Capacity((free_on(gpu=0), free_on("n2", gpu=0))), "0", LACKING, id="held by others"),
        pytest.param(FREE, "1", OTHER_ZONE, id="a volume elsewhere"),
        pytest.param(UNSEEN, "1", MISPLACED, id="unseen, nowhere"),
        pytest.param(UNSEEN, "0", LACKING, id="unseen, held by others"),
    ],
)
def test_what_serves_goes_on_where_stopping_it_would_help_nobody(capacity: Capacity, held: str, words: str) -> None:
    rolling = replace(surging(), pods=(old(gpu=held), waiting(3600, words)))
    plan = planned(rolling, CHANGED, capacity=capacity)
    surge, reason = decided(plan)
    assert surge
    assert reason.startswith("the new pod would have no place if an old one stopped, so the old pod goes on")
    assert ("rbac.readNodes" in reason) == bool(capacity.refused)
    assert plan.again_at == NOW + LOOK_AGAIN
    # It is said once, and room that is made later is seen.
    (action,) = plan.actions
    assert isinstance(action, Apply)
    assert rolling.deployment is not None
    noted = live(Kind.DEPLOYMENT, action.body, rolling.deployment.body["status"])
    said = replace(rolling, deployment=noted)
    assert planned(said, CHANGED, capacity=capacity).actions == ()
    later = (old(gpu="1"), waiting(3600))
    assert not decided(planned(said, CHANGED, pods=later, capacity=FULL))[0]


@pytest.mark.parametrize("capacity", [FREE, UNSEEN], ids=["seen", "unseen"])
def test_a_quota_that_an_old_pod_uses_up_revises_the_decision(capacity: Capacity) -> None:
    """No pod is made, so none waits."""
    early = surging(**refused(QUOTA.format(1, 1, 1), 4))
    early = replace(early, pods=(old(gpu="1"),))
    assert planned(early, CHANGED).again_at == NOW + timedelta(seconds=6)
    late = replace(surging(**refused(QUOTA.format(1, 1, 1), 10)), pods=(old(gpu="1"),))
    assert decided(planned(late, CHANGED, capacity=capacity)) == (
        False,
        "a quota refuses the new pod beside the old one, so the old pod stops first",
    )


@pytest.mark.parametrize(
    ("message", "freed"),
    [
        (QUOTA.format(1, 4, 4), True),
        (QUOTA.format(2, 3, 4), True),
        (QUOTA.format(2, 4, 4), False),
        (QUOTA.format(5, 1, 4), False),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false', False),
        ("exceeded quota: q, requested: limits.cpu=1500m, used: limits.cpu=2, limited: limits.cpu=2", True),
        ("exceeded quota: q, requested: limits.cpu=3, used: limits.cpu=2, limited: limits.cpu=2", False),
        ("exceeded quota: q, requested: count/pods=1, used: count/pods=1, limited: count/pods=1", True),
        ("exceeded quota: q, requested: memory=4Gi, used: memory=8Gi, limited: memory=10Gi", True),
        ("exceeded quota: q, requested: count/x=1, used: count/x=1, limited: count/x=1", False),
    ],
)
def test_only_what_an_old_pod_frees_counts(message: str, freed: bool) -> None:
    known = replace(surging(**refused(message, 60)), pods=(old(gpu="1", cpu="2", memory="8Gi"),))
    plan = planned(known, CHANGED, capacity=FREE)
    assert plan.rollout is not None
    assert plan.rollout.surge is not freed


def test_a_quota_stops_no_pod_for_one_that_could_run_nowhere() -> None:
    known = replace(surging(**refused(QUOTA.format(1, 1, 1), 60)), pods=(old(gpu="1"),))
    assert decided(planned(known, CHANGED, capacity=Capacity((free_on(labels={}),))))[0]


@pytest.mark.parametrize(
    ("capacity", "held", "surge"),
    [(FREE, "1", False), (FULL, "1", False), (FULL, "0", True), (UNSEEN, "1", False), (UNSEEN, "0", True)],
)
def test_gates_hold_a_new_pod_until_an_old_one_makes_room(capacity: Capacity, held: str, surge: bool) -> None:
    spec: Json = {**CHANGED, "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}
    before = old(gpu=held, cpu="4", memory="16Gi")
    rolling = surging(spec)
    early = planned(rolling, spec, pods=(before, waiting(4, reason="SchedulingGated")))
    assert early.again_at == NOW + timedelta(seconds=6)
    found, reason = decided(
        planned(rolling, spec, pods=(before, waiting(10, reason="SchedulingGated")), capacity=capacity)
    )
    assert found is surge
    assert ("scheduling gates" in reason) is not surge


def test_the_users_word_is_not_revised() -> None:
    spec: Json = {**CHANGED, "rollout": {"surge": "Always"}}
    known = serving(L4)
    (action,) = planned(known, spec).actions
    assert isinstance(action, Apply)
    counts = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 1, "readyReplicas": 1}
    rolling = replace(known, deployment=live(Kind.DEPLOYMENT, action.body, counts))
    plan = planned(rolling, spec, pods=(old(), waiting(3600)))
    assert plan.actions == ()
    assert plan.again_at is None


def test_a_note_that_cannot_be_read_is_decided_again() -> None:
    known = serving(L4)
    assert known.deployment is not None
    annotations = {**known.deployment.meta.annotations, names.ROLLOUT_ANNOTATION: "edited"}
    edited = replace(known.deployment, meta=replace(known.deployment.meta, annotations=annotations))
    assert recorded(edited) is None
    assert planned(replace(known, deployment=edited), L4).needs_capacity

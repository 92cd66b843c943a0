"""The children beside the pods: autoscaler, disruption budget, network policy and monitor."""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.cluster import ControlPlane
from support.gate import Gate
from support.kube_api import wait_for
from support.operator_world import World, condition, model

SOON = 60
KINDS = ("HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy")

CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 1}}}
Edit = tuple[str, dict[str, Any], Callable[[Any], bool]]

EDITS: dict[str, Edit] = {
    "limits": (
        "HorizontalPodAutoscaler",
        {"spec": {"maxReplicas": 9}},
        lambda body: body["spec"]["maxReplicas"] == 3,
    ),
    "metric": (
        "HorizontalPodAutoscaler",
        {"spec": {"metrics": [CPU]}},
        lambda body: [item["type"] for item in body["spec"]["metrics"]] == ["Pods"],
    ),
    "scale-down": (
        "HorizontalPodAutoscaler",
        {"spec": {"behavior": {"scaleDown": {"selectPolicy": "Min"}}}},
        lambda body: body["spec"]["behavior"]["scaleDown"]["selectPolicy"] == "Max",
    ),
    "budget": (
        "PodDisruptionBudget",
        {"spec": {"maxUnavailable": 0}},
        lambda body: body["spec"]["maxUnavailable"] == "100%",
    ),
    "ingress": (
        "NetworkPolicy",
        {"spec": {"ingress": [{}]}},
        lambda body: body["spec"].get("ingress") != [{}],
    ),
    "pods": (
        "NetworkPolicy",
        {"spec": {"podSelector": {"matchLabels": {"no": "pods"}}}},
        lambda body: "no" not in body["spec"]["podSelector"]["matchLabels"],
    ),
}


@pytest.fixture(scope="module")
def complete(shared_world: World) -> str:
    """A service with every child, which every test here finds serving and leaves serving."""
    shared_world.serve("complete", autoscaling={"min": 1, "max": 3})
    shared_world.until_serving("complete")
    return "complete"


def test_each_is_made_and_owned(world: World, complete: str) -> None:
    uid = world.api.get("AIService", complete)["metadata"]["uid"]
    for kind in KINDS:
        (owner,) = world.api.get(kind, complete)["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("AIService", uid, True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_deleted_one_is_back(world: World, complete: str, kind: str) -> None:
    before = world.api.get(kind, complete)["metadata"]["uid"]
    world.api.delete(kind, complete)
    wait_for(lambda: world.api.get(kind, complete)["metadata"]["uid"] != before, f"a new {kind}", SOON)


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_an_edited_one_is_as_it_was(world: World, complete: str, edit: Edit) -> None:
    kind, patch, mended = edit
    edited = world.api.patch(kind, complete, patch)
    assert not mended(edited), "the edit changes something"
    wait_for(lambda: mended(world.api.get(kind, complete)), "the edit is undone", SOON)


@pytest.mark.parametrize("kind", KINDS)
def test_what_others_add_survives(world: World, complete: str, kind: str) -> None:
    world.api.patch(kind, complete, {"metadata": {"labels": {"team": "red"}, "annotations": {"note": "hello"}}})
    ours = {"metadata": {"labels": {"app.kubernetes.io/component": "other"}}}
    world.api.patch(kind, complete, ours)

    def mended() -> bool:
        labels = world.api.get(kind, complete)["metadata"]["labels"]
        return bool(labels["app.kubernetes.io/component"] == "workload")

    wait_for(mended, "our label is back", SOON)
    metadata = world.api.get(kind, complete)["metadata"]
    assert metadata["labels"]["team"] == "red"
    assert metadata["annotations"]["note"] == "hello"


def test_what_is_no_longer_asked_for_goes(world: World) -> None:
    world.serve("leaner", autoscaling={"min": 1, "max": 3})
    world.until_serving("leaner")
    changes = {"autoscaling": None, "replicas": 0, "network": {"restrict": False}}
    world.api.patch("AIService", "leaner", {"spec": changes})
    for kind in KINDS:
        world.until_gone(kind, "leaner")
    world.until("AIService", "leaner", "Ready", "True", "Idle")


def refused(world: World, kind: str, spec: dict[str, Any]) -> str:
    """A service whose child of a kind has the name of one that somebody else made."""
    name = f"theirs-{kind.lower()}"
    world.api.create(kind, {"metadata": {"name": name}, "spec": spec})
    world.serve(name)
    service = world.until("AIService", name, "Ready", "False", "ChildRefused")
    assert f"there is a {kind} {name} that the operator did not make" in condition(service, "Ready")["message"]
    return name


def test_a_budget_that_others_made_is_never_taken_over_nor_in_the_way(world: World) -> None:
    name = refused(world, "PodDisruptionBudget", {"selector": {"matchLabels": {"their": "pods"}}, "minAvailable": 1})
    world.until("AIService", name, "Available", "True", "Serving")
    assert "ownerReferences" not in world.api.get("PodDisruptionBudget", name)["metadata"]
    world.api.delete("PodDisruptionBudget", name)
    world.until_serving(name, timeout=60)


def test_a_policy_that_others_made_is_never_taken_over_and_no_pod_begins_without_ours(world: World) -> None:
    name = refused(world, "NetworkPolicy", {"podSelector": {"matchLabels": {"their": "pods"}}})
    assert world.api.find("Service", name) is not None
    assert world.api.find("Deployment", name) is None
    world.until("AIService", name, "Available", "False", "ChildRefused")
    assert "ownerReferences" not in world.api.get("NetworkPolicy", name)["metadata"]
    world.api.delete("NetworkPolicy", name)
    world.until_serving(name, timeout=60)


def test_a_budget_that_blocks_every_drain_says_so(world: World) -> None:
    # On a volume for many nodes: on one node, all pods have to be let go.
    shared = {**model("rigid"), "storage": {"accessMode": "ReadWriteMany"}}
    world.serve("rigid", model=shared, disruption={"minAvailable": 1})
    world.until_serving("rigid")
    service = world.until("AIService", "rigid", "Disruptable", "False", "BlocksDrains")
    assert "lower spec.disruption.minAvailable" in condition(service, "Disruptable")["message"]
    world.api.patch("AIService", "rigid", {"spec": {"replicas": 2}})
    world.until_serving("rigid")
    wait_for(lambda: not condition(world.api.get("AIService", "rigid"), "Disruptable"), "the condition is gone")


@pytest.fixture
def own_node(control_plane: ControlPlane) -> Iterator[str]:
    """A node with a label of its own, by which pods are kept on it."""
    name = f"drained-{uuid.uuid4().hex[:8]}"
    control_plane.add_node(name, labels={"pool": name})
    yield name
    control_plane.remove_node(name)


def test_a_node_with_all_pods_of_a_service_can_be_drained(
    world: World, control_plane: ControlPlane, own_node: str
) -> None:
    """Their volume keeps them on it: one that was stopped has no place before the last is gone."""
    world.serve("drained", replicas=2, pod={"nodeSelector": {"pool": own_node}})
    world.until_serving("drained")
    pods = world.api.list("Pod", "app.kubernetes.io/name=aiservice,app.kubernetes.io/instance=drained")
    assert [pod["spec"]["nodeName"] for pod in pods] == [own_node, own_node]
    control_plane.kubectl("cordon", own_node)
    for pod in pods:
        name = pod["metadata"]["name"]
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}

        def evicted(path: str = world.api.path("Pod", name, "eviction"), body: Any = eviction) -> bool:
            return bool(world.api.request("POST", path, body)["status"] == "Success")

        wait_for(evicted, f"{name} may be stopped", 15, 0.5)
        world.until_gone("Pod", name)
    world.api.delete("AIService", "drained")
    world.until_gone("Deployment", "drained")


def test_each_child_is_written_once_on_the_way_to_ready(world: World) -> None:
    def written() -> Counter[str]:
        _, text = world.operator.ask("/metrics")
        found = re.findall(
            r'^aiservice_operator_writes_total\{kind="(\w+)",verb="apply"\} ([0-9.]+)$', text, re.MULTILINE
        )
        return Counter({kind: int(float(count)) for kind, count in found})

    before = written()
    stated = {**model("frugal"), "storage": {"size": "1Gi"}}  # or one more Job would ask for the size
    world.serve("frugal", model=stated, autoscaling={"min": 1, "max": 3})
    world.until_serving("frugal")
    after = written()
    kinds = ("Deployment", "Service", "ServiceAccount", "PersistentVolumeClaim", "Job", *KINDS)
    assert {kind: after[kind] - before[kind] for kind in kinds} == {
        # A claim is made, and gets the proof of what was downloaded onto it.
        kind: 2 if kind == "PersistentVolumeClaim" else 1
        for kind in kinds
    }


POD_MONITORS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "podmonitors.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com",
        "scope": "Namespaced",
        "names": {"kind": "PodMonitor", "plural": "podmonitors", "singular": "podmonitor"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            }
        ],
    },
}


@pytest.fixture
def prometheus_operator(control_plane: ControlPlane) -> Iterator[None]:
    """The API of the Prometheus Operator is served."""
    control_plane.kubectl("apply", "-f", "-", stdin=json.dumps(POD_MONITORS))
    control_plane.kubectl("wait", "--for=condition=Established", "crd/podmonitors.monitoring.coreos.com")
    yield
    control_plane.kubectl("delete", "crd", "podmonitors.monitoring.coreos.com", "--ignore-not-found")


def test_a_monitor_where_its_api_is_served(
    world: World, complete: str, prometheus_operator: None, control_plane: ControlPlane
) -> None:
    """The operator looks for the API now and then; and when it goes, everything else goes on."""

    def monitor() -> Any:
        return world.api.get("PodMonitor", complete)

    wait_for(monitor, "a PodMonitor", 60)
    assert monitor()["spec"]["podMetricsEndpoints"][0]["port"] == "speech-to-text"
    world.api.delete("PodMonitor", complete)
    wait_for(monitor, "the PodMonitor is back", 60)

    control_plane.kubectl("delete", "crd", "podmonitors.monitoring.coreos.com")
    world.serve("monitorless")
    world.until_serving("monitorless")
    assert condition(world.api.get("AIService", complete), "Ready")["status"] == "True"


def test_without_the_right_to_monitors_everything_else_goes_on(
    prometheus_operator: None, control_plane: ControlPlane, restricted_world: tuple[World, Gate]
) -> None:
    world, _ = restricted_world
    here = ("-n", world.namespace)
    rules = control_plane.get("role", "operator", *here)["rules"]
    without = [
        {**rule, "resources": [resource for resource in rule["resources"] if resource != "podmonitors"]}
        for rule in rules
        if rule["resources"] != ["podmonitors"]
    ]

    def allow(granted: Any) -> None:
        patch = json.dumps([{"op": "replace", "path": "/rules", "value": granted}])
        control_plane.kubectl("patch", "role", "operator", *here, "--type=json", "-p", patch)

    def said() -> int:
        return world.operator.output().count("PodMonitors are served and left alone")

    allow(without)
    wait_for(lambda: said() == 1, "it says which right is missing", 60)
    assert "on podmonitors.monitoring.coreos.com: podmonitors.monitoring.coreos.com is forbidden" in (
        world.operator.output()
    )
    world.serve("unmonitored")
    world.until_serving("unmonitored")
    assert world.api.list("PodMonitor") == []
    allow(rules)
    wait_for(lambda: world.api.find("PodMonitor", "unmonitored"), "a PodMonitor", 60)
    assert said() == 1

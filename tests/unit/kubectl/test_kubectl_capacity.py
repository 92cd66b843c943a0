"""Which nodes pods may run on, what is free there, and what a month costs."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from aiservice_kubectl.planning.capacity import Need, Node, allows, nodes, place, requested
from aiservice_kubectl.planning.cost import monthly, total
from aiservice_operator.kinds import Json
from aiservice_operator.settings import Price

GPU = "nvidia.com/gpu"
TAINT = {"key": GPU, "value": "present", "effect": "NoSchedule"}


def node(name: str = "a", gpus: int = 2, **fields: Any) -> Json:
    """A Node; `fields`: labels, taints, unschedulable, ready."""
    is_ready = "True" if fields.get("ready", True) else "False"
    return {
        "metadata": {"name": name, "labels": fields.get("labels", {})},
        "spec": {"taints": fields.get("taints", []), "unschedulable": fields.get("unschedulable", False)},
        "status": {
            "allocatable": {"cpu": "8", "memory": "32Gi", "pods": "110", GPU: str(gpus)},
            "conditions": [{"type": "Ready", "status": is_ready}],
        },
    }


def pod(node_name: str, gpus: int = 1, phase: str = "Running") -> Json:
    return {"spec": {"nodeName": node_name, **pod_spec(gpus)}, "status": {"phase": phase}}


def pod_spec(gpus: int = 1, **fields: Any) -> Json:
    return {"containers": [{"resources": {"limits": {GPU: str(gpus)}, "requests": {"cpu": "1"}}}], **fields}


def need(pods: int, most: int | None = None, *, one_node: bool = False, **fields: Any) -> Need:
    spec = pod_spec(**fields)
    return Need(pods, pods if most is None else most, requested(spec), spec, one_node)


def test_a_limit_is_a_request_and_sidecars_count() -> None:
    spec = {
        "containers": [
            {"resources": {"requests": {"cpu": "500m"}, "limits": {"cpu": "2", "memory": "1Gi", GPU: 1}}},
            {"resources": {"requests": {"cpu": "250m"}}},
            {},
        ],
        "initContainers": [
            {"resources": {"requests": {"cpu": "3"}}},
            {"restartPolicy": "Always", "resources": {"requests": {"memory": "1Gi"}}},
        ],
        "overhead": {"memory": "64Mi"},
    }
    assert requested(spec) == {
        "pods": 1,
        "cpu": 3,
        "memory": Decimal(2 * 1024**3 + 64 * 1024**2),
        GPU: 1,
    }


def test_pods_that_have_ended_hold_nothing() -> None:
    found = nodes([node(gpus=4)], [pod("a"), pod("a", 2), pod("a", 1, "Succeeded"), pod("a", 1, "Failed"), pod("gone")])
    assert found[0].free[GPU] == 1
    assert found[0].free["cpu"] == 6
    assert found[0].free["pods"] == 108


def test_pods_take_from_each_other() -> None:
    available = nodes([node("a", 2), node("b", 2)], [pod("a")])
    first = place(need(2), available)
    assert (first.placed, first.matching, first.free[GPU], first.short) == (2, 2, 3, ())
    second = place(need(2), available)
    assert (second.placed, second.free[GPU], second.short) == (1, 1, (GPU,))


def test_what_an_autoscaler_may_ask_for_is_counted_and_not_taken() -> None:
    available = nodes([node("a", 2), node("b", 2)], [])
    found = place(need(1, 9), available)
    assert (found.placed, found.possible) == (1, 4)
    assert place(need(3), available).placed == 3


def test_pods_that_share_a_volume_need_one_node() -> None:
    bodies = [node("a", 1), node("b", 2)]
    assert place(need(3, one_node=True), nodes(bodies, [])).placed == 2
    assert place(need(2, 5, one_node=True), nodes(bodies, [])).possible == 2
    assert place(need(3), nodes(bodies, [])).placed == 3


@pytest.mark.parametrize(
    "bad", [{"ready": False}, {"unschedulable": True}, {"taints": [TAINT]}], ids=["not ready", "cordoned", "tainted"]
)
def test_nodes_that_take_no_pods(bad: Json) -> None:
    found = place(need(1), nodes([node(**bad)], []))
    assert (found.placed, found.matching, found.free[GPU]) == (0, 0, 0)


def test_more_pods_than_there_are_never_make_room() -> None:
    overfull = nodes([node(gpus=1)], [pod("a"), pod("a")])
    assert place(need(1), overfull).placed == 0
    assert place(need(1), overfull).free[GPU] == 0


@pytest.mark.parametrize(
    ("toleration", "passes"),
    [
        ({"operator": "Exists"}, True),
        ({"key": GPU, "operator": "Exists"}, True),
        ({"key": GPU, "operator": "Exists", "effect": "NoSchedule"}, True),
        ({"key": GPU, "value": "present"}, True),
        ({"key": GPU, "operator": "Equal", "value": "other"}, False),
        ({"key": GPU, "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_tolerations(toleration: Json, passes: bool) -> None:
    assert allows(Node("a", {}, [TAINT], usable=True), {"tolerations": [toleration]}) is passes


def test_a_taint_that_only_prefers_stops_nothing() -> None:
    assert allows(Node("a", {}, [{**TAINT, "effect": "PreferNoSchedule"}], usable=True), {})


@pytest.mark.parametrize(
    ("requirement", "passes"),
    [
        ({"key": "gpu", "operator": "In", "values": ["l4", "t4"]}, True),
        ({"key": "gpu", "operator": "NotIn", "values": ["l4"]}, False),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"key": "gpu", "operator": "DoesNotExist"}, False),
        ({"key": "spot", "operator": "DoesNotExist"}, True),
        ({"key": "spot", "operator": "NotIn", "values": ["yes"]}, True),
        ({"key": "gib", "operator": "Gt", "values": ["20"]}, True),
        ({"key": "gib", "operator": "Lt", "values": ["20"]}, False),
        ({"key": "gpu", "operator": "Gt", "values": ["20"]}, False),
    ],
)
def test_required_affinity(requirement: Json, passes: bool) -> None:
    term = {"matchExpressions": [requirement]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    found = Node("a", {"gpu": "l4", "gib": "24"}, [], usable=True)
    assert allows(found, {"affinity": {"nodeAffinity": required}}) is passes


def test_terms_are_alternatives_and_fields_count() -> None:
    def term(name: str) -> Json:
        return {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}

    def allowed(*terms: Json) -> bool:
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
        return allows(Node("a", {}, [], usable=True), {"affinity": {"nodeAffinity": required}})

    assert allowed(term("b"), term("a"))
    assert not allowed(term("b"))
    assert not allowed({})


def test_node_selectors() -> None:
    found = Node("a", {"zone": "x"}, [], usable=True)
    assert allows(found, {"nodeSelector": {"zone": "x"}})
    assert not allows(found, {"nodeSelector": {"zone": "y"}})


def test_costs_are_summed_by_currency() -> None:
    dollars = Price(hourly=Decimal("0.70"))
    euros = Price(hourly=Decimal("1.005"), currency="EUR")
    costs = [monthly(dollars, 1, 4), monthly(dollars, 2, 2), monthly(euros, 1, 1)]
    assert [str(cost) for cost in costs] == ["511 to 2,044 USD", "1,022 USD", "733.65 EUR"]
    assert [str(cost) for cost in total(costs)] == ["733.65 EUR", "1,533 to 3,066 USD"]
    assert total([]) == []

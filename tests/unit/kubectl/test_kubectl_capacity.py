"""Which nodes pods may run on, what is free there, and what a month costs."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from aiservice_kubectl.planning.capacity import Need, Room, place, rooms
from aiservice_kubectl.planning.cost import monthly, total
from aiservice_operator import names
from aiservice_operator.capacity import read_nodes
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
    metadata: Json = {"name": "p", "namespace": "team"}
    return {"metadata": metadata, "spec": {"nodeName": node_name, **pod_spec(gpus)}, "status": {"phase": phase}}


def nodes(bodies: list[Json], pods: list[Json]) -> tuple[Room, ...]:
    return rooms(read_nodes(bodies, pods))


def pod_spec(gpus: int = 1, **fields: Any) -> Json:
    return {"containers": [{"resources": {"limits": {GPU: str(gpus)}, "requests": {"cpu": "1"}}}], **fields}


def need(pods: int, most: int | None = None, beside: tuple[str, str] | None = None) -> Need:
    return Need(pods, pods if most is None else most, pod_spec(), beside)


def test_pods_that_have_ended_hold_nothing() -> None:
    found = nodes([node(gpus=4)], [pod("a"), pod("a", 2), pod("a", 1, "Succeeded"), pod("a", 1, "Failed"), pod("gone")])
    assert found[0].free[GPU] == 1
    assert found[0].free["cpu"] == 6
    assert found[0].free["pods"] == 108


def test_pods_take_from_each_other() -> None:
    available = nodes([node("a", 2), node("b", 2)], [pod("a")])
    first = place(need(2), available)
    assert (first.placed, first.matching, first.short) == (2, 2, ())
    assert first.free[GPU] == 3
    second = place(need(2), available)
    assert (second.placed, second.short) == (1, (GPU,))
    assert second.free[GPU] == 1


def test_what_an_autoscaler_may_ask_for_is_counted_and_not_taken() -> None:
    available = nodes([node("a", 2), node("b", 2)], [])
    found = place(need(1, 9), available)
    assert (found.placed, found.possible) == (1, 4)
    assert place(need(3), available).placed == 3


def test_pods_that_share_a_volume_need_one_node() -> None:
    bodies = [node("a", 1), node("b", 2)]
    assert place(need(3, beside=("team", "mc-1")), nodes(bodies, [])).placed == 2
    assert place(need(2, 5, beside=("team", "mc-1")), nodes(bodies, [])).possible == 2
    assert place(need(3), nodes(bodies, [])).placed == 3


@pytest.mark.parametrize(
    "bad", [{"ready": False}, {"unschedulable": True}, {"taints": [TAINT]}], ids=["not ready", "cordoned", "tainted"]
)
def test_nodes_that_take_no_pods(bad: Json) -> None:
    found = place(need(1), nodes([node(**bad)], []))
    assert (found.placed, found.matching) == (0, 0)
    assert found.free[GPU] == 0


def test_more_pods_than_there_are_never_make_room() -> None:
    overfull = nodes([node(gpus=1)], [pod("a"), pod("a")])
    assert place(need(1), overfull).placed == 0
    assert place(need(1), overfull).free[GPU] == 0


def test_a_volume_that_is_mounted_already_decides_the_node() -> None:
    user = pod("b", 1)
    user["metadata"]["labels"] = {names.CACHE_LABEL: "mc-1"}
    available = nodes([node("a", 4), node("b", 2)], [user])
    assert place(need(2, beside=("team", "mc-1")), available).placed == 1
    assert place(need(2, beside=("other", "mc-1")), available).placed == 2


def test_the_first_user_of_a_volume_decides_the_node_of_the_others() -> None:
    available = nodes([node("a", 1), node("b", 1), node("c", 1)], [])
    first, other = ("team", "mc-1"), ("team", "mc-2")
    assert place(need(0, 1, beside=first), available).bound == (), "nothing was placed"
    assert (place(need(1, beside=first), available).placed, place(need(1, beside=other), available).placed) == (1, 1)
    again = place(need(1, beside=first), available)
    assert (again.placed, again.bound, again.short) == (0, ("a",), (GPU,))
    assert place(need(1), available).placed == 1


def test_a_volume_on_a_node_that_the_pods_cannot_run_on() -> None:
    available = nodes([node("a", 1, taints=[TAINT]), node("b", 2)], [user_of("mc-1", "a")])
    found = place(need(1, beside=("team", "mc-1")), available)
    assert (found.placed, found.matching, found.bound) == (0, 1, ("a",))


def user_of(cache: str, node_name: str) -> Json:
    user = pod(node_name, 0)
    user["metadata"]["labels"] = {names.CACHE_LABEL: cache}
    return user


def test_costs_are_summed_by_currency() -> None:
    dollars = Price(hourly=Decimal("0.70"))
    euros = Price(hourly=Decimal("1.005"), currency="EUR")
    costs = [monthly(dollars, 1, 4), monthly(dollars, 2, 2), monthly(euros, 1, 1)]
    assert [str(cost) for cost in costs] == ["511 to 2,044 USD", "1,022 USD", "733.65 EUR"]
    assert [str(cost) for cost in total(costs)] == ["733.65 EUR", "1,533 to 3,066 USD"]
    assert total([]) == []

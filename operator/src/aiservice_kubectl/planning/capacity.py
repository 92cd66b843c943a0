"""Whether pods fit the cluster's nodes now: what is free where, and which nodes a pod may run on. Pure.

It looks at what decides about GPUs: resources, node selectors, required node affinity, taints and cordons. What the
scheduler looks at besides (other pods' affinity, spread, volumes already bound) is left to it, and said so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from aiservice_operator.kinds import Json
from aiservice_operator.quantities import parse

Amounts = dict[str, Decimal]
_PODS = "pods"


@dataclass(slots=True)
class Node:
    """A node and what is free on it."""

    name: str
    labels: Mapping[str, str]
    taints: Sequence[Json]
    usable: bool
    """Whether it is Ready and not cordoned."""
    free: Amounts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Need:
    """What each of some pods asks for, and where it may run."""

    least: int
    """As many must find a place."""
    most: int
    """As many an autoscaler may ask for."""
    amounts: Mapping[str, Decimal]
    spec: Json
    """The pod's: selector, affinity and tolerations are read from it."""
    one_node: bool
    """Whether all of them must run on one node, where their volume is."""


@dataclass(frozen=True, slots=True)
class Placed:
    """How many pods found a place, and why not more."""

    placed: int
    """Of the least."""
    possible: int
    """Of the most."""
    matching: int
    """Nodes on which the pods may run."""
    free: Mapping[str, Decimal]
    """What was free on them in all, of what a pod asks for."""
    short: tuple[str, ...]
    """Resources of which there is too little on those nodes, the scarcest first."""


def nodes(bodies: Iterable[Json], pods: Iterable[Json]) -> list[Node]:
    """Returns the nodes with what running pods leave free.

    Args:
        bodies: Nodes.
        pods: All pods that count; those that have ended hold nothing.
    """
    found = {body["metadata"]["name"]: _node(body) for body in bodies}
    for pod in pods:
        node = found.get(pod["spec"].get("nodeName", ""))
        if node is None or pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}:
            continue
        _take(node, requested(pod["spec"]))
    return list(found.values())


def _node(body: Json) -> Node:
    status, spec = body.get("status", {}), body.get("spec", {})
    is_ready = any(item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions", []))
    return Node(
        name=body["metadata"]["name"],
        labels=body["metadata"].get("labels") or {},
        taints=spec.get("taints") or [],
        usable=is_ready and not spec.get("unschedulable", False),
        free={name: parse(str(amount)) for name, amount in status.get("allocatable", {}).items()},
    )


def requested(pod: Json) -> Amounts:
    """Returns what the scheduler reserves for a pod's spec; a limit without a request is a request."""
    total: Amounts = {_PODS: Decimal(1)}
    starting: Amounts = {}
    for container in pod.get("containers", []):
        _add(total, _of(container))
    for container in pod.get("initContainers", []):
        if container.get("restartPolicy") == "Always":
            _add(total, _of(container))
        else:
            for name, amount in _of(container).items():
                starting[name] = max(starting.get(name, Decimal(0)), amount)
    for name, amount in starting.items():
        total[name] = max(total.get(name, Decimal(0)), amount)
    _add(total, {name: parse(str(amount)) for name, amount in (pod.get("overhead") or {}).items()})
    return total


def _of(container: Json) -> Amounts:
    resources = container.get("resources") or {}
    stated = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: parse(str(amount)) for name, amount in stated.items()}


def _add(total: Amounts, more: Mapping[str, Decimal]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, Decimal(0)) + amount


def _take(node: Node, amounts: Mapping[str, Decimal]) -> None:
    _add(node.free, {name: -amount for name, amount in amounts.items()})


def place(need: Need, available: Sequence[Node]) -> Placed:
    """Places pods; what the least of them hold is taken from the nodes, so that what is placed next finds less."""
    matching = [node for node in available if node.usable and allows(node, need.spec)]
    free = {
        name: sum((max(node.free.get(name, Decimal(0)), Decimal(0)) for node in matching), Decimal(0))
        for name in need.amounts
    }
    rooms = {node.name: _room(node, need.amounts) for node in matching}
    # Where the most fit first, so that pods which must be together are.
    order = sorted(matching, key=lambda node: -rooms[node.name])
    if need.one_node:
        order = order[:1]
    left, possible = need.least, 0
    for node in order:
        here = min(left, rooms[node.name])
        _take(node, {name: amount * here for name, amount in need.amounts.items()})
        left -= here
        possible += rooms[node.name]
    short = _short(need, matching, order) if left else ()
    return Placed(need.least - left, min(possible, need.most), len(matching), free, short)


def _room(node: Node, amounts: Mapping[str, Decimal]) -> int:
    """How many pods a node takes."""
    return max(0, min(int(node.free.get(name, Decimal(0)) // amount) for name, amount in amounts.items() if amount > 0))


def _short(need: Need, matching: Sequence[Node], used: Sequence[Node]) -> tuple[str, ...]:
    """What stops one more pod on most of the nodes, after the others were placed."""
    looked_at = used if need.one_node else matching
    lacking = {
        name: sum(1 for node in looked_at if node.free.get(name, Decimal(0)) < amount)
        for name, amount in need.amounts.items()
    }
    return tuple(name for name, times in sorted(lacking.items(), key=lambda item: (-item[1], item[0])) if times)


def allows(node: Node, pod: Json) -> bool:
    """Whether a node's labels and taints let a pod onto it."""
    selector: Mapping[str, str] = pod.get("nodeSelector") or {}
    return (
        all(node.labels.get(name) == value for name, value in selector.items())
        and _affine(node, pod)
        and all(_tolerated(taint, pod.get("tolerations") or []) for taint in node.taints)
    )


def _affine(node: Node, pod: Json) -> bool:
    required = ((pod.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if not required:
        return True
    fields = {"metadata.name": node.name}
    return any(
        all(_holds(item, node.labels) for item in term.get("matchExpressions") or [])
        and all(_holds(item, fields) for item in term.get("matchFields") or [])
        for term in required["nodeSelectorTerms"]
        if term.get("matchExpressions") or term.get("matchFields")
    )


def _holds(requirement: Json, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(requirement["key"]), requirement.get("values") or []
    match requirement["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case operator:  # Gt and Lt compare whole numbers
            if value is None or not value.lstrip("-").isdecimal():
                return False
            return int(value) > int(values[0]) if operator == "Gt" else int(value) < int(values[0])


def _tolerated(taint: Json, tolerations: Sequence[Json]) -> bool:
    if taint["effect"] == "PreferNoSchedule":
        return True
    return any(
        (not item.get("effect") or item["effect"] == taint["effect"])
        and (not item.get("key") or item["key"] == taint["key"])
        and (item.get("operator") == "Exists" or item.get("value", "") == taint.get("value", ""))
        for item in tolerations
    )

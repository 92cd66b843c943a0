"""Whether a node has room for one more pod, as the scheduler would see it.

An estimate, made once when a rollout begins. It knows what nodes offer and what the pods on them ask for, labels,
taints and node affinity; not affinity between pods, spread over places, or where volumes can be mounted. Where it is
wrong the new pod waits for a node, which the rollout then takes into account.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from aiservice_operator import names
from aiservice_operator.kinds import Json
from aiservice_operator.quantities import parse
from aiservice_operator.states import conditions

Amounts = Mapping[str, Decimal]
"""Amounts by the name of a resource; `pods` is one."""
_HARD_TAINTS = frozenset({"NoSchedule", "NoExecute"})
_ENDED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True)
class Node:
    """A node, and what is left on it."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Json, ...]
    usable: bool
    """Whether it is ready and takes new pods."""
    free: Amounts
    caches: frozenset[tuple[str, str]]
    """Namespace and name of the ModelCaches that pods on it mount."""
    offers: Amounts = field(default_factory=dict)
    """What it has for pods in all, whoever holds it."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What was seen of the cluster's nodes."""

    nodes: tuple[Node, ...] = ()
    refused: str = ""
    """Why nothing was seen, in the API server's words; empty where it was."""


class Load:
    """What pods take of nodes. Sums by node: the pods themselves, which may be very many, are not kept."""

    def __init__(self) -> None:
        self._used: defaultdict[str, defaultdict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
        self._caches: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)

    def add(self, pods: Iterable[Json]) -> None:
        """Counts some pods; those without a node, and those that have ended, take nothing."""
        for pod in pods:
            name, metadata = pod["spec"].get("nodeName"), pod["metadata"]
            if not name or pod.get("status", {}).get("phase") in _ENDED:
                continue
            for resource, amount in requested(pod["spec"]).items():
                self._used[name][resource] += amount
            if (cache := metadata.get("labels", {}).get(names.CACHE_LABEL)) is not None:
                self._caches[name].add((metadata["namespace"], cache))

    def left(self, node: Node) -> Node:
        """Returns an empty node with what the pods that were counted leave of it."""
        used = self._used[node.name]
        free = {resource: amount - used.get(resource, Decimal()) for resource, amount in node.free.items()}
        return replace(node, free=free, caches=frozenset(self._caches[node.name]))


def read_nodes(nodes: Iterable[Json], pods: Iterable[Json]) -> tuple[Node, ...]:
    """Returns the nodes, with what the pods on them leave."""
    load = Load()
    load.add(pods)
    return tuple(load.left(empty_node(body)) for body in nodes)


def empty_node(body: Json) -> Node:
    """Returns a node as if no pod were on it."""
    spec, status = body.get("spec", {}), body.get("status", {})
    ready = conditions(body).get("Ready", {}).get("status") == "True"
    allocatable = {resource: parse(str(amount)) for resource, amount in status.get("allocatable", {}).items()}
    return Node(
        name=body["metadata"]["name"],
        labels=body["metadata"].get("labels", {}),
        taints=tuple(taint for taint in spec.get("taints") or () if taint.get("effect") in _HARD_TAINTS),
        usable=ready and not spec.get("unschedulable", False),
        free=allocatable,
        caches=frozenset(),
        offers=allocatable,
    )


def requested(spec: Json) -> Amounts:
    """Returns what a pod asks for: its containers together, or one that runs before them, if that is more."""
    total: defaultdict[str, Decimal] = defaultdict(Decimal, {"pods": Decimal(1)})
    for container in spec["containers"]:
        for resource, amount in _requests(container).items():
            total[resource] += amount
    lasting: defaultdict[str, Decimal] = defaultdict(Decimal)
    first: dict[str, Decimal] = {}
    for container in spec.get("initContainers") or ():
        lasts = container.get("restartPolicy") == "Always"
        for resource, amount in _requests(container).items():
            if lasts:
                lasting[resource] += amount
            first[resource] = max(first.get(resource, Decimal()), lasting[resource] + (0 if lasts else amount))
    for resource, amount in lasting.items():
        total[resource] += amount
    for resource, amount in first.items():
        total[resource] = max(total[resource], amount)
    for resource, text in (spec.get("overhead") or {}).items():
        total[resource] += parse(str(text))
    return total


def _requests(container: Json) -> dict[str, Decimal]:
    """A resource with a limit only is requested to that amount."""
    resources = container.get("resources") or {}
    amounts = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {resource: parse(str(amount)) for resource, amount in amounts.items()}


def limited(spec: Json) -> Amounts:
    """Returns the limits of a pod, added up as what it asks for is."""

    def limits(containers: Iterable[Json]) -> list[Json]:
        return [
            {**container, "resources": {"limits": (container.get("resources") or {}).get("limits")}}
            for container in containers
        ]

    return requested(
        {
            **spec,
            "containers": limits(spec["containers"]),
            "initContainers": limits(spec.get("initContainers") or ()),
        }
    )


def room_for(pod: Json, nodes: Sequence[Node], beside: tuple[str, str] | None = None) -> Node | None:
    """Returns a node that can take one more such pod; None where none can.

    Args:
        pod: The pod's spec, as on the wire.
        nodes: What there is.
        beside: Namespace and name of a ModelCache whose volume is mounted on one node: where pods use it, only there.
    """
    return next((node for node in _within_reach(nodes, beside) if _takes(node, pod)), None)


def room_without(
    pod: Json, nodes: Sequence[Node], stopping: Iterable[Json], beside: tuple[str, str] | None = None
) -> Node | None:
    """Returns a node that could take such a pod if one of those on it stopped; None where that would help nowhere.

    Args:
        pod: The pod's spec, as on the wire.
        nodes: What there is, with all pods.
        stopping: Specs of the pods of which one might stop.
        beside: As in `room_for`.
    """
    known = {node.name: node for node in _within_reach(nodes, beside)}
    freed = (_without(known[spec["nodeName"]], spec) for spec in stopping if spec["nodeName"] in known)
    return next((node for node in freed if _takes(node, pod)), None)


def _within_reach(nodes: Sequence[Node], beside: tuple[str, str] | None) -> Sequence[Node]:
    return [node for node in nodes if beside in node.caches] or nodes


def _takes(node: Node, pod: Json) -> bool:
    """Whether a node has room for a pod, and lets it on."""
    wanted = requested(pod)
    enough = all(node.free.get(resource, Decimal()) >= amount for resource, amount in wanted.items() if amount > 0)
    return node.usable and enough and allows(pod, node)


def _without(node: Node, spec: Json) -> Node:
    """Returns a node as if a pod of it had gone: what that held is free, also where the node does not state it."""
    held, none = requested(spec), Decimal()
    free = {resource: node.free.get(resource, none) + held.get(resource, none) for resource in {*node.free, *held}}
    return replace(node, free=free)


def allows(pod: Json, node: Node) -> bool:
    """Whether the labels and taints of a node let a pod onto it, be there room or not."""
    return _chosen(pod, node) and all(_tolerated(taint, pod.get("tolerations") or ()) for taint in node.taints)


def _chosen(pod: Json, node: Node) -> bool:
    """Whether the pod's node selector and required node affinity allow the node."""
    selector = pod.get("nodeSelector") or {}
    if any(node.labels.get(label) != value for label, value in selector.items()):
        return False
    required = ((pod.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    return required is None or any(_meets(term, node) for term in required["nodeSelectorTerms"])


def _meets(term: Json, node: Node) -> bool:
    labels, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not labels and not fields:
        return False  # a term without conditions is met by no node
    return all(_matches(item, node.labels) for item in labels) and all(
        _matches(item, {"metadata.name": node.name}) for item in fields
    )


def _matches(requirement: Json, values: Mapping[str, str]) -> bool:
    value, stated = values.get(requirement["key"]), requirement.get("values") or ()
    match requirement["operator"]:
        case "In":
            return value in stated
        case "NotIn":
            return value not in stated
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return _compare(value, stated) > 0
        case _:
            return _compare(value, stated) < 0


def _compare(value: str | None, stated: Sequence[str]) -> int:
    """Compares whole numbers; 0, which is neither above nor below, where one is no number."""
    try:
        one, other = int(value or ""), int(stated[0])
    except (ValueError, IndexError):
        return 0
    return (one > other) - (one < other)


def _tolerated(taint: Json, tolerations: Sequence[Json]) -> bool:
    return any(_tolerates(toleration, taint) for toleration in tolerations)


def _tolerates(toleration: Json, taint: Json) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("key") not in (None, "", taint["key"]):
        return False
    exists = toleration.get("operator") == "Exists"
    return exists or toleration.get("value", "") == taint.get("value", "")

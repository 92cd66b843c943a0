"""Whether pods fit the cluster's nodes now: several at once, and one service after the other. Pure.

What is free where, and which nodes a pod may run on, the operator knows too: it decides by it whether a rollout may
surge. Here pods are placed, and what one service takes the next does not find.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from aiservice_operator.capacity import Amounts, Node, allows, requested
from aiservice_operator.kinds import Json


@dataclass(slots=True)
class Room:
    """A node, and what is left on it of what was free."""

    node: Node
    free: dict[str, Decimal]
    caches: set[tuple[str, str]]
    """Namespace and name of the ModelCaches that pods on it mount, those that were placed included."""


@dataclass(frozen=True, slots=True)
class Need:
    """Pods that are to be placed."""

    least: int
    """As many must find a place."""
    most: int
    """As many an autoscaler may ask for."""
    spec: Json
    """Of each pod."""
    beside: tuple[str, str] | None
    """Namespace and name of a ModelCache whose volume is mounted on one node only; None: on any."""


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
    bound: tuple[str, ...]
    """Nodes that mount the volume of the pods already, beside which they have to run."""


def rooms(nodes: Iterable[Node]) -> tuple[Room, ...]:
    """Returns the nodes as they are, nothing placed yet."""
    return tuple(Room(node, dict(node.free), set(node.caches)) for node in nodes)


def place(need: Need, available: Sequence[Room]) -> Placed:
    """Places pods; what the least of them hold is taken from the rooms, so that what is placed next finds less.

    A volume for one node stays where the first of its users was placed.
    """
    amounts = {name: amount for name, amount in requested(need.spec).items() if amount > 0}
    matching = [room for room in available if room.node.usable and allows(need.spec, room.node)]
    free = {name: sum((max(_left(room, name), Decimal()) for room in matching), Decimal()) for name in amounts}
    bound = [room for room in available if need.beside is not None and need.beside in room.caches]
    order = _order(need, matching, amounts, bound)
    left, possible = need.least, 0
    for room in order:
        fitting = _count(room, amounts)
        here = min(left, fitting)
        for name, amount in amounts.items():
            room.free[name] = _left(room, name) - amount * here
        if here and need.beside is not None:
            room.caches.add(need.beside)
        left -= here
        possible += fitting
    looked_at = order if need.beside is not None else matching
    short = _short(looked_at, amounts) if left else ()
    names = tuple(room.node.name for room in bound)
    return Placed(need.least - left, min(possible, need.most), len(matching), free, short, names)


def _order(need: Need, matching: Sequence[Room], amounts: Amounts, bound: Sequence[Room]) -> list[Room]:
    """The rooms, those that take the most pods first; of a volume for one node that room alone."""
    order = sorted(matching, key=lambda room: -_count(room, amounts))
    if need.beside is None:
        return order
    return [room for room in order if not bound or room in bound][:1]


def _left(room: Room, name: str) -> Decimal:
    return room.free.get(name, Decimal())


def _count(room: Room, amounts: Amounts) -> int:
    """How many pods find a place there."""
    return max(0, min(int(_left(room, name) // amount) for name, amount in amounts.items()))


def _short(looked_at: Sequence[Room], amounts: Amounts) -> tuple[str, ...]:
    """What stops one more pod, on most of the nodes first."""
    lacking = {name: sum(_left(room, name) < amount for room in looked_at) for name, amount in amounts.items()}
    return tuple(name for name, times in sorted(lacking.items(), key=lambda item: (-item[1], item[0])) if times)

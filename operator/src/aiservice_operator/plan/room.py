"""Why a new pod of a rollout is on no node, and whether it gets there when an old pod stops.

What serves keeps serving: an old pod stops for a new one that then has its place, not for one that could run nowhere,
because of a misspelt label, more CPUs than a node has, or a volume elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum, auto

from aiservice_operator.capacity import Amounts, Capacity, limited, requested, room_for, room_without
from aiservice_operator.kinds import Json
from aiservice_operator.observed import Child
from aiservice_operator.quantities import parse
from aiservice_operator.states import conditions, gated_since, pod_ended, rollout, unschedulable_since

_QUOTA = re.compile(r"exceeded quota: [^,]+, requested: (\S+), used: (\S+), limited: (\S+)")
_COUNTED = re.compile(r"([\w./-]+)=(\d[\w.]*)")
_INSUFFICIENT = re.compile(r"Insufficient ([\w./-]*\w)")
_CLAIMS = re.compile(r"cannot allocate all claims|resourceclaim")
_VOLUMES = re.compile(r"volume node affinity|persistent volumes to bind|PersistentVolumeClaims|persistentvolumeclaim ")


class Cause(Enum):
    """What a new pod waits for."""

    NODE = auto()
    GATE = auto()
    QUOTA = auto()


@dataclass(frozen=True, slots=True)
class Wait:
    """A new pod that is on no node, or that may not even be made."""

    cause: Cause
    since: datetime
    words: str = ""
    """Of the scheduler or the API server."""


@dataclass(frozen=True, slots=True)
class Room:
    """What decides whether a new pod gets a place."""

    pod: Json
    """Its spec, as on the wire."""
    old: Sequence[Json]
    """Specs of the pods of which one might stop for it."""
    capacity: Capacity
    beside: tuple[str, str] | None
    """Namespace and name of the ModelCache whose volume is mounted on one node only."""

    @property
    def anywhere(self) -> bool:
        """Whether a node has room for it, now or when an old pod has stopped."""
        return room_for(self.pod, self.capacity.nodes, self.beside) is not None or self.made

    @property
    def made(self) -> bool:
        """Whether a node would have room for it if an old pod of that node stopped."""
        return room_without(self.pod, self.capacity.nodes, self.old, self.beside) is not None


def waits(deployment: Child, pods: Iterable[Child]) -> Iterator[Wait]:
    """Finds what keeps pods from a node that an old pod may hold.

    A refusal for another reason than a quota, such as Pod Security, is mended by no pod that stops.
    """
    state = rollout(deployment)
    if state.refused_at is not None and _QUOTA.search(state.refused):
        yield Wait(Cause.QUOTA, state.refused_at, state.refused)
    for pod in pods:
        if (since := unschedulable_since(pod)) is not None:
            yield Wait(Cause.NODE, since, str(conditions(pod.body)["PodScheduled"].get("message", "")))
        elif (since := gated_since(pod)) is not None:
            yield Wait(Cause.GATE, since)


def placed(pods: Iterable[Child]) -> list[Json]:
    """Returns the specs of the pods that have a node, and hold what they asked for there."""
    return [pod.body["spec"] for pod in pods if pod.body["spec"]["nodeName"] and not pod_ended(pod)]


def is_freed(wait: Wait, room: Room) -> bool:
    """Whether an old pod that stops frees what a new one waits for, as far as can be told.

    Where nodes are seen they decide, save for volumes, of which only the scheduler knows. Where they are not, it is the
    scheduler's words: what it misses has to be what an old pod holds.
    """
    if wait.cause is Cause.QUOTA and not _quota_freed(wait.words, room.old):
        return False
    if room.capacity.refused:
        return wait.cause is Cause.QUOTA or _held(wait, room)
    if wait.cause is Cause.NODE:
        return room.made and not _elsewhere(wait.words)
    return room.anywhere


def _elsewhere(words: str) -> bool:
    """Whether volumes keep a pod from nodes, and nothing that pods hold does."""
    return _VOLUMES.search(words) is not None and not _missing(words)


def _missing(words: str) -> set[str]:
    """The resources that a scheduler misses on nodes which are right otherwise."""
    return {*_INSUFFICIENT.findall(words), *(["pods"] if "Too many pods" in words else [])}


def _held(wait: Wait, room: Room) -> bool:
    """Whether an old pod holds as much as the new one asks for of what is missing; of a gate that is not said."""
    if wait.cause is Cause.NODE and _CLAIMS.search(wait.words):
        return True
    wanted = requested(room.pod)
    names = _missing(wait.words) if wait.cause is Cause.NODE else set(wanted)
    missing = {name: wanted.get(name, Decimal()) for name in names}
    return bool(missing) and any(_covers(requested(spec), missing) for spec in room.old)


def _covers(held: Amounts, missing: Amounts) -> bool:
    return all(held.get(name, Decimal()) >= amount for name, amount in missing.items())


def _quota_freed(words: str, old: Sequence[Json]) -> bool:
    """Whether a quota has enough left for a new pod when an old one has gone."""
    found = _QUOTA.search(words)
    if found is None:
        return False
    asked, used, most = (_listed(text) for text in found.groups())
    excess = {name: used.get(name, Decimal()) + amount - most.get(name, Decimal()) for name, amount in asked.items()}
    return any(_covers({name: _counted(spec, name) for name in excess}, excess) for spec in old)


def _listed(text: str) -> dict[str, Decimal]:
    """Reads `requests.cpu=2,pods=1`."""
    return {name: parse(amount) for name, amount in _COUNTED.findall(text)}


def _counted(spec: Json, name: str) -> Decimal:
    """What a quota counts for a pod under a name such as `requests.cpu`, `limits.memory`, `cpu` or `count/pods`."""
    if name.startswith("limits."):
        return limited(spec).get(name.removeprefix("limits."), Decimal())
    return requested(spec).get(name.removeprefix("requests.").removeprefix("count/"), Decimal())

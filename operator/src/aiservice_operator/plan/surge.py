"""Whether a rollout starts a new pod before it stops an old one: decided once a rollout, and written down.

A new pod that waits for the GPU of the pod that it is to replace would wait for ever. So on GPUs a rollout does not
surge where none was free when it began; and should somebody else get the free one first, or a quota refuse the new pod,
the decision is revised. On CPUs it surges without a look, and is revised when no node, nor one that an autoscaler adds,
takes the new pod. But what serves is stopped only for a new pod that then has its place: one that could run nowhere
waits beside it. What was decided stands in an annotation of the Deployment, with the hash of the pods it is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from aiservice_api.v1alpha1 import AIServiceSpec, Surge
from aiservice_operator import names
from aiservice_operator.capacity import Capacity, room_for
from aiservice_operator.hardware import Gpu, Hardware
from aiservice_operator.kinds import Json
from aiservice_operator.observed import Child
from aiservice_operator.plan.room import Cause, Room, Wait, is_freed, placed, waits
from aiservice_operator.states import rollout

PATIENCE = timedelta(seconds=10)
"""How long a new pod may wait for a GPU, or for a quota, before an old one makes room."""
CPU_PATIENCE = timedelta(seconds=120)
"""How long it may wait for a node on CPUs, where none was looked at: time for a cluster autoscaler to add one."""
LOOK_AGAIN = timedelta(seconds=30)
"""How often is looked whether an old pod could make room by now, where it could not."""
_USELESS = (
    "the new pod would have no place if an old one stopped, so the old pod goes on: correct what the new one asks for "
    "(resources, node labels, tolerations, volumes), or make room for it on a node or in the quota that refuses it"
)
_RIGHT = "give it the right to list Nodes and Pods (chart value rbac.readNodes), or set spec.rollout.surge"


class Decision(BaseModel):
    """How one rollout replaces pods."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    template: str
    """Hash of the pods that it is about."""
    mode: Surge
    """What the spec asked for."""
    surge: bool
    reason: Annotated[str, Field(max_length=1024)]
    """Bounded as in the status: anybody can edit the annotation that it is read from."""
    since: AwareDatetime
    """When the rollout began: a pod that waited before is one of an earlier rollout, about to go."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a decision depends on."""

    spec: AIServiceSpec
    hardware: Hardware
    template: str
    """Hash of the wanted pods."""
    pod: Json
    """Their spec, as on the wire."""
    live: Child | None
    """The Deployment as it is."""
    pods: Sequence[Child]
    capacity: Capacity | None
    """What nodes have left; None: not looked at."""
    beside: tuple[str, str] | None
    """Namespace and name of the ModelCache whose volume is mounted on one node only."""


def recorded(live: Child | None) -> Decision | None:
    """Returns what was decided for the present pods of a Deployment; None where nothing legible says so."""
    text = live.meta.annotations.get(names.ROLLOUT_ANNOTATION) if live is not None else None
    if text is None:
        return None
    try:
        return Decision.model_validate_json(text)
    except ValidationError:  # annotations can be edited by anyone
        return None


def decide(question: Question, now: datetime) -> Decision | None:
    """Decides how pods are replaced; None where nodes have to be looked at first."""
    mode, known = question.spec.rollout.surge, recorded(question.live)
    if known is not None and known.template == question.template and known.mode is mode:
        since, overdue = known.since, [wait for due, wait in _dues(known, question) if now >= due]
        answer = _revised(question, overdue) if overdue else (known.surge, known.reason)
    else:
        since, answer = now.replace(microsecond=0), _answer(question, mode)
    if answer is None:
        return None
    surge, reason = answer
    return Decision(template=question.template, mode=mode, surge=surge, reason=reason[:1024], since=since)


def looks_again_at(known: Decision, question: Question, now: datetime) -> datetime | None:
    """Returns when is to be decided again even if nothing changes until then; None where it is not."""
    dues = [due for due, _ in _dues(known, question)]
    return min((due if now < due else now + LOOK_AGAIN for due in dues), default=None)


def _answer(question: Question, mode: Surge) -> tuple[bool, str] | None:
    if mode is not Surge.AUTO:
        return mode is Surge.ALWAYS, f"spec.rollout.surge is {mode}"
    if not question.hardware.on_gpu:
        return True, "on a CPU the new pod comes first"
    if question.live is None or rollout(question.live).existing == 0:
        return False, "there was no pod to replace"
    if question.capacity is None:
        return None
    room = _room(question, question.capacity)
    return _unseen(room) if room.capacity.refused else _seen(room, question.hardware.gpu)


def _room(question: Question, capacity: Capacity) -> Room:
    return Room(question.pod, placed(question.pods), capacity, question.beside)


def _unseen(room: Room) -> tuple[bool, str]:
    if not room.old:
        return False, "no pod to replace has a node, so the old pod stops first"
    return True, (
        "the operator may not look for a free GPU, so the new pod comes first, and an old one stops when the scheduler "
        f"misses what that one holds: {_RIGHT}: {room.capacity.refused}"
    )


def _seen(room: Room, gpu: Gpu | None) -> tuple[bool, str]:
    """The answer from a look at the nodes; claimed devices are not counted there."""
    node = room_for(room.pod, room.capacity.nodes, room.beside) if gpu is not None else None
    if gpu is not None and node is not None:
        return True, f"node {node.name} has a free {gpu.resource}, so the new pod comes first"
    if room.old and not room.made:
        return True, _USELESS
    if gpu is None:
        return False, (
            "claimed devices are not counted, so the old pod stops first: set spec.rollout.surge to Always where there "
            "is a spare one"
        )
    where = " beside the pods that use the ReadWriteOnce cache" if room.beside is not None else ""
    return False, f"no node has a free {gpu.resource} for one more pod{where}, so the old pod stops first"


def _dues(known: Decision, question: Question) -> list[tuple[datetime, Wait]]:
    """What new pods wait for, and until when they may before a decision for them is revised."""
    if not known.surge or known.mode is not Surge.AUTO or question.live is None:
        return []
    state = rollout(question.live)
    if known.template != question.template or state.existing <= state.updated:
        return []  # no pod of before is left to make room
    found = waits(question.live, question.pods)
    return [(max(wait.since, known.since) + _patience(wait, question), wait) for wait in found]


def _patience(wait: Wait, question: Question) -> timedelta:
    """No autoscaler of the cluster adds to a quota."""
    return PATIENCE if question.hardware.on_gpu or wait.cause is Cause.QUOTA else CPU_PATIENCE


def _revised(question: Question, overdue: Sequence[Wait]) -> tuple[bool, str] | None:
    """The answer when new pods have found no place beside the old ones."""
    if question.capacity is None:
        return None
    room = _room(question, question.capacity)
    wait = next((wait for wait in overdue if is_freed(wait, room)), None)
    if wait is not None:
        return False, f"{_why(wait, question, room)}, so the old pod stops first"
    return True, f"{_USELESS}; the operator may not look at nodes: {_RIGHT}" if room.capacity.refused else _USELESS


def _why(wait: Wait, question: Question, room: Room) -> str:
    match wait.cause:
        case Cause.QUOTA:
            return "a quota refuses the new pod beside the old one"
        case Cause.GATE:
            return "scheduling gates hold the new pod back, and may do so until an old one has gone"
        case Cause.NODE:
            seconds = int(_patience(wait, question).total_seconds())
            waited = f"the new pod has waited {seconds} s for a node"
            if room.capacity.refused:
                return f"{waited}, and the scheduler misses what an old one holds"
            return f"{waited}, and there is room where an old one is"

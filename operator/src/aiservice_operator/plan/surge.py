"""Whether a rollout starts a new pod before it stops an old one: decided once a rollout, and written down.

A new pod that waits for the GPU of the pod that it is to replace would wait for ever. So on GPUs a rollout surges only
where a free one was seen when it began; and should somebody else get it first, the decision is revised. On CPUs it
surges without a look, and is revised when no node, nor one that an autoscaler adds, takes the new pod. What was
decided stands in an annotation of the Deployment, with the hash of the pods that it is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aiservice_api.v1alpha1 import AIServiceSpec, Surge
from aiservice_operator import names
from aiservice_operator.capacity import Capacity, room_for
from aiservice_operator.hardware import Hardware
from aiservice_operator.kinds import Json
from aiservice_operator.observed import Child
from aiservice_operator.states import rollout, unschedulable_since

PATIENCE = timedelta(seconds=10)
"""How long a new pod may wait for a node before the GPU that was seen free counts as taken."""
CPU_PATIENCE = timedelta(seconds=120)
"""The same on CPUs, where no node was looked at: time for a cluster autoscaler to add one."""


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
        return _revised(known, question, now)
    answer = _answer(question, mode)
    if answer is None:
        return None
    surge, reason = answer
    return Decision(template=question.template, mode=mode, surge=surge, reason=reason[:1024])


def _answer(question: Question, mode: Surge) -> tuple[bool, str] | None:
    hardware = question.hardware
    if mode is not Surge.AUTO:
        return mode is Surge.ALWAYS, f"spec.rollout.surge is {mode}"
    if not hardware.on_gpu:
        return True, "on a CPU the new pod comes first"
    if question.live is None or rollout(question.live).existing == 0:
        return False, "there was no pod to replace"
    if hardware.gpu is None:
        return False, (
            "claimed devices are not counted, so the old pod stops first: set spec.rollout.surge to Always where there "
            "is a spare one"
        )
    if question.capacity is None:
        return None
    return _seen(question, question.capacity, hardware.gpu.resource)


def _seen(question: Question, capacity: Capacity, resource: str) -> tuple[bool, str]:
    if capacity.refused:
        return False, (
            "the operator may not look for a free GPU, so the old pod stops first: give it the right to list Nodes and "
            f"Pods (chart value rbac.readNodes), or set spec.rollout.surge: {capacity.refused}"
        )
    node = room_for(question.pod, capacity.nodes, question.beside)
    if node is None:
        where = " beside the pods that use the ReadWriteOnce cache" if question.beside is not None else ""
        return False, f"no node has a free {resource} for one more pod{where}, so the old pod stops first"
    return True, f"node {node.name} has a free {resource}, so the new pod comes first"


def _revised(known: Decision, question: Question, now: datetime) -> Decision:
    """The decision, unless the new pod has found no place beside the old one."""
    due = revised_at(known, question)
    if due is None or now < due:
        return known
    if question.hardware.on_gpu:
        reason = "the free GPU that was seen was taken before the new pod had it, so the old pod stops first"
    else:
        waited = int(CPU_PATIENCE.total_seconds())
        reason = f"no node had room for the new pod beside the old one for {waited} s, so the old pod stops first"
    return known.model_copy(update={"surge": False, "reason": reason})


def revised_at(known: Decision | None, question: Question) -> datetime | None:
    """Returns when a decision is revised if nothing changes until then; None where it is not to be."""
    if known is None or not known.surge or known.mode is not Surge.AUTO:
        return None
    if question.live is None or known.template != question.template:
        return None
    state = rollout(question.live)
    if state.existing <= state.updated:
        return None  # no pod of before is left to make room
    waiting = [since for pod in question.pods if (since := unschedulable_since(pod)) is not None]
    patience = PATIENCE if question.hardware.on_gpu else CPU_PATIENCE
    return min(waiting) + patience if waiting else None

"""The steps that plans are made of."""

from __future__ import annotations

from dataclasses import dataclass

from aiservice_operator import names
from aiservice_operator.compare import differs
from aiservice_operator.kinds import Json, Kind, ObjectId
from aiservice_operator.observed import Child, Meta


@dataclass(frozen=True, slots=True)
class HandOver:
    """Make another field manager own the number of pods of this very Deployment."""

    uid: str
    replicas: int


@dataclass(frozen=True, slots=True)
class Apply:
    """Make an object have these fields, and create it where it is missing."""

    identity: ObjectId
    body: Json
    reason: str
    owner: Meta | None = None
    """Of a child that is not known to exist: whose it must be, should there be one by that name after all."""
    hand_over: HandOver | None = None
    """Of a Deployment whose number of pods is no longer stated: what is to be done first, or they would become one."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete this very object."""

    identity: ObjectId
    uid: str
    reason: str
    version: int | None = None
    """Where given: only if it has not changed since."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Give this very Deployment a number of pods, and leave everything else of it as it is."""

    identity: ObjectId
    uid: str
    replicas: int
    reason: str


Action = Apply | Delete | Scale


@dataclass(frozen=True, slots=True)
class Refusal:
    """An action that the API server would not carry out, and why."""

    identity: ObjectId
    message: str


def belongs(child: Meta, owner: Meta) -> bool:
    """Whether an object is the owner's: managed by it, or made for it and managed by nobody.

    The second holds for what was restored from a backup, and after someone removed the reference.
    """
    controller = child.controller
    if controller is not None:
        return controller.uid == owner.uid
    return child.ours and child.labels.get(names.INSTANCE_LABEL) == owner.name


def ensure(
    kind: Kind, body: Json, live: Child | None, owner: Meta, hand_over: HandOver | None = None
) -> tuple[Action, ...]:
    """Returns the step, if any, that makes a child as its body says."""
    identity = ObjectId(kind, body["metadata"]["namespace"], body["metadata"]["name"])
    if live is None or not belongs(live.meta, owner):
        return (Apply(identity, body, "missing", owner),)
    if live.meta.deleting:
        return ()  # it comes back when it is gone
    where = differs(body, live.body) or ("spec.replicas" if hand_over is not None else None)
    if where is not None:
        return (Apply(identity, body, f"{where} is not as wanted", hand_over=hand_over),)
    return ()


def remove(live: Child | None, owner: Meta) -> tuple[Action, ...]:
    """Returns the step, if any, that takes away a child which is no longer wanted; what is not the owner's stays."""
    if live is None or live.meta.deleting or not live.meta.ours or not belongs(live.meta, owner):
        return ()
    return (Delete(live.id, live.meta.uid, "no longer wanted"),)

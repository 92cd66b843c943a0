"""Who says how many pods there are: the spec, or an autoscaler, and how one hands over to the other.

A field that our apply no longer states, and that nobody else owns, goes back to its default, 1 pod. So before an
autoscaler takes over, the number that runs is given to another field manager. An annotation on the Deployment, written
by the apply itself, tells which of both was applied last: cut off in between, the hand-over is only done again.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from aiservice_api.v1alpha1 import AIServiceSpec, Autoscaling
from aiservice_operator import names
from aiservice_operator.failures import of_pod
from aiservice_operator.observed import Child, Meta
from aiservice_operator.plan.actions import HandOver, Scale, belongs
from aiservice_operator.states import engine_started, placed_at, progress_deadline, rollout


class Scaling(StrEnum):
    """Who owns the number of pods."""

    FIXED = "fixed"
    AUTOSCALED = "autoscaled"


def stated_replicas(spec: AIServiceSpec) -> int | None:
    """Returns the number of pods that the spec asks for; None where an autoscaler decides."""
    if spec.suspend:
        return 0
    if spec.autoscaling is not None:
        return None
    return 1 if spec.replicas is None else spec.replicas


def scaling(spec: AIServiceSpec) -> Scaling:
    """Returns who owns the number of pods by this spec."""
    return Scaling.AUTOSCALED if stated_replicas(spec) is None else Scaling.FIXED


def hand_over(spec: AIServiceSpec, live: Child | None) -> HandOver | None:
    """Returns what is to be done before an autoscaler can work; None where it can, or there is nothing yet.

    The pods that run stay, as far as the autoscaler would let them. It never wakes a Deployment of none by itself, be
    it that the service was suspended or that somebody scaled it by hand.
    """
    if spec.autoscaling is None or scaling(spec) is not Scaling.AUTOSCALED or live is None:
        return None
    count = rollout(live).wanted
    if count > 0 and live.meta.annotations.get(names.SCALING_ANNOTATION) == Scaling.AUTOSCALED:
        return None
    return HandOver(live.meta.uid, _within(spec.autoscaling, count))


def resized(spec: AIServiceSpec, live: Child | None, owner: Meta) -> tuple[Scale, ...]:
    """Returns the step, if any, that gives a Deployment its number of pods while those stay as they are.

    Which of both says so is not noted: the hand-over follows with the next apply, from whatever is there then.
    """
    if live is None or live.meta.deleting or not belongs(live.meta, owner):
        return ()
    count, stated = rollout(live).wanted, stated_replicas(spec)
    if stated is None:
        # An autoscaler never wakes a Deployment of none by itself.
        stated = count or (spec.autoscaling.min if spec.autoscaling is not None else 1)
    if count == stated:
        return ()
    return (Scale(live.id, live.meta.uid, stated, f"{stated} instead of {count} pods are wanted"),)


def _within(limits: Autoscaling, count: int) -> int:
    return min(max(count, limits.min), limits.max)


def held_until(spec: AIServiceSpec, live: Child | None, pods: Iterable[Child], now: datetime) -> datetime | None:
    """Returns until when an autoscaler may take no pods away, unless they have loaded before; None where it may.

    A ReplicaSet takes the pod first that is not ready, and minutes of loading with it. So not while one loads; one that
    has failed or waits for a node does not count, for it may well go. Nor does one that has loaded and is not ready
    later: readiness may flap for ever. Nor one that should have loaded long ago: it may never.
    """
    if spec.autoscaling is None or live is None or rollout(live).wanted <= spec.autoscaling.min:
        return None
    ends = (placed_at(pod) + progress_deadline(live) for pod in pods if _loads(pod))
    return max((end for end in ends if end > now), default=None)


def _loads(pod: Child) -> bool:
    if pod.meta.deleting or not pod.body["spec"]["nodeName"]:
        return False
    return not engine_started(pod) and of_pod(pod) is None

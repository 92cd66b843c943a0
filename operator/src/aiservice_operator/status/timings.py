"""How long a start took: from the timestamps of Kubernetes, never from a clock of the operator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from aiservice_api.v1alpha1 import Condition, Timings
from aiservice_operator.kinds import Json
from aiservice_operator.observed import Child, Meta, parse_time
from aiservice_operator.states import conditions, pod_container
from aiservice_operator.status.conditions import TRUE, find


def timings(
    service: Meta, pods: Iterable[Child], said: Sequence[Condition], previous: Timings | None
) -> Timings | None:
    """Computes the timings of the newest pod that became ready; those known before where no pod is.

    Args:
        service: The AIService.
        pods: Its pods.
        said: Its conditions as they are reported now.
        previous: What was reported before.
    """
    known = previous or Timings()
    # A later change of the model, or a later rollout, is no longer "from creation".
    if known.cache_seconds is None:
        known = known.model_copy(update={"cache_seconds": _reached(service, find(said, "ModelReady"))})
    if known.ready_seconds is None:
        known = known.model_copy(update={"ready_seconds": _reached(service, find(said, "Ready"))})
    ready = [pod for pod in pods if conditions(pod.body).get("Ready", {}).get("status") == "True"]
    if ready:
        newest = max(ready, key=lambda pod: pod.meta.created)
        known = known.model_copy(update=_of_pod(newest))
    return known if known != Timings() else None


def _reached(service: Meta, condition: Condition | None) -> float | None:
    """From creation to a condition being true; None where it is not."""
    if condition is None or condition.status is not TRUE:
        return None
    return _seconds(service.created, condition.last_transition_time)


def _of_pod(pod: Child) -> dict[str, float | None]:
    state = conditions(pod.body)
    scheduled, ready = _when(state.get("PodScheduled")), _when(state.get("Ready"))
    started = pod_container(pod).get("state", {}).get("running", {}).get("startedAt")
    return {
        "schedule_seconds": _seconds(pod.meta.created, scheduled) if scheduled else None,
        "load_seconds": _seconds(parse_time(started), ready) if started and ready else None,
    }


def _when(condition: Json | None) -> datetime | None:
    return parse_time(condition["lastTransitionTime"]) if condition and condition.get("lastTransitionTime") else None


def _seconds(start: datetime, end: datetime) -> float:
    return max((end - start).total_seconds(), 0.0)

"""Asks for what Events say of pods that do not start or are not made, because of volumes, nodes or quotas."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime

from aiservice_operator.facts import events_about, newest_event, seen_at
from aiservice_operator.failures import Words, late_after, starts_late
from aiservice_operator.kinds import Json
from aiservice_operator.kube import Kube
from aiservice_operator.observed import Child, parse_time
from aiservice_operator.plan.tries import pod_due, pods_of
from aiservice_operator.states import CacheJob

_LOOK_AGAIN_SECONDS = 15.0
_ASKED = 3
"""Of how many pods of a service: what keeps one from starting mostly keeps all."""
_NOT_MADE = "FailedCreate"
_PREFIX = re.compile(r'^(\(combined from similar events\): )?Error creating: (pods "[^"]*" is forbidden: )?')
"""Names the pod, which is another one at each try: a status that quoted it would change as often."""


async def gather_words(kube: Kube, pods: Iterable[Child], now: datetime) -> dict[str, Words]:
    """Returns, by uid of the pod, what went wrong by the newest Event about it."""
    late = sorted((pod for pod in pods if starts_late(pod, now)), key=lambda pod: pod.meta.created)[-_ASKED:]
    found: dict[str, Words] = {}
    for pod in late:
        event = newest_event(await events_about(kube, pod))
        # A newer event that is no warning says that it goes on: an image that is pulled, for example.
        if event is not None and event.problem:
            found[pod.meta.uid] = Words(event.reason, event.message, pod.meta.created)
    return found


async def gather_refusals(
    kube: Kube, jobs: Iterable[CacheJob], pods: Sequence[Child], now: datetime
) -> dict[str, Words]:
    """Returns, by uid of the Job, why its pod cannot be made: quotas and policies tell nobody but its controller."""
    found: dict[str, Words] = {}
    for job in jobs:
        due = pod_due(job, pods)
        if due is None or now < due:
            continue
        event = newest_event(_since_last(await events_about(kube, job.child), pods_of(job, pods)))
        if event is not None and event.reason == _NOT_MADE:
            meta = job.child.meta
            found[meta.uid] = Words("PodsRefused", _PREFIX.sub("", event.message), meta.created)
    return found


def _since_last(events: Iterable[Json], pods: Sequence[Child]) -> list[Json]:
    """Those after the newest pod was made; that it was made may be left out, where there were many before."""
    if not pods:
        return list(events)
    return [event for event in events if parse_time(seen_at(event)) > pods[-1].meta.created]


def look_after(pods: Sequence[Child], now: datetime, jobs: Iterable[CacheJob] = ()) -> float | None:
    """Returns the seconds until Events are to be asked for; None: nothing waits."""
    dues = [due for job in jobs if (due := pod_due(job, pods)) is not None]
    waits = [(due - now).total_seconds() if due > now else _LOOK_AGAIN_SECONDS for due in dues]
    if any(starts_late(pod, now) for pod in pods):
        waits.append(_LOOK_AGAIN_SECONDS)
    late = late_after(pods, now)
    return min(waits if late is None else [*waits, late], default=None)

"""Asks for what Events say of pods that do not start: volumes, networks and nodes tell it nowhere else."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from aiservice_operator.facts import newest_event_about
from aiservice_operator.failures import Words, starts_late
from aiservice_operator.kube import Kube
from aiservice_operator.observed import Child

LOOK_AGAIN_SECONDS = 15.0
_ASKED = 3
"""Of how many pods of a service: what keeps one from starting mostly keeps all."""


async def gather_words(kube: Kube, pods: Iterable[Child], now: datetime) -> dict[str, Words]:
    """Returns, by uid of the pod, what went wrong by the newest Event about it."""
    late = sorted((pod for pod in pods if starts_late(pod, now)), key=lambda pod: pod.meta.created)[-_ASKED:]
    found: dict[str, Words] = {}
    for pod in late:
        event = await newest_event_about(kube, pod)
        # A newer event that is no warning says that it goes on: an image that is pulled, for example.
        if event is not None and event.problem:
            found[pod.meta.uid] = Words(event.reason, event.message, pod.meta.created)
    return found

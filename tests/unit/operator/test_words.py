"""What Events say of pods that do not start, and of Jobs whose pods are not made."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest

from aiservice_operator.failures import Words
from aiservice_operator.kinds import Json
from aiservice_operator.kube import Kube
from aiservice_operator.observed import Child
from aiservice_operator.plan.tries import FIRST_RETRY
from aiservice_operator.states import CacheJob, cache_job
from aiservice_operator.words import gather_refusals, gather_words, look_after
from support.cache_objects import complete, ended, failed, live_job, mine
from support.operator_objects import NOW, condition, container_status, metadata, pod, timestamp

OWNER = mine()
QUOTA = 'Error creating: pods "job-x7k2p" is forbidden: exceeded quota: tight, requested: pods=1'


class Events:
    """An API server that has Events about one object."""

    def __init__(self, *events: Json) -> None:
        self.events = list(events)
        self.asked: list[str] = []

    async def events_about(self, _: str, uid: str) -> list[Json]:
        self.asked.append(uid)
        return self.events


def event(reason: str, message: str, seen: timedelta = timedelta(), kind: str = "Warning") -> Json:
    at = timestamp(NOW - seen)
    return {"reason": reason, "type": kind, "message": message, "lastTimestamp": at, "metadata": metadata("e")}


def job(status: Json | None = None, age: timedelta = timedelta(minutes=1)) -> CacheJob:
    return cache_job(live_job(OWNER, status, uid="uid-job", creationTimestamp=timestamp(NOW - age)))


def held() -> CacheJob:
    """A Job that a queue keeps from running."""
    made = live_job(OWNER, uid="uid-job", creationTimestamp=timestamp(NOW - timedelta(hours=1)))
    return cache_job(replace(made, body={**made.body, "spec": {**made.body["spec"], "suspend": True}}))


async def refusals(kube: Events, made: CacheJob, *pods: Child) -> dict[str, Words]:
    return await gather_refusals(cast(Kube, kube), [made], pods, NOW)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (QUOTA, "exceeded quota: tight, requested: pods=1"),
        (f"(combined from similar events): {QUOTA}", "exceeded quota: tight, requested: pods=1"),
        (
            'Error creating: admission webhook "policy" denied the request: no such label',
            'admission webhook "policy" denied the request: no such label',
        ),
    ],
)
async def test_who_refuses_a_pod_is_told_without_the_pods_name(message: str, words: str) -> None:
    """Which is another at each try."""
    made = job()
    found = await refusals(Events(event("FailedCreate", message)), made)
    assert found == {"uid-job": Words("PodsRefused", words, made.child.meta.created)}


@pytest.mark.parametrize(
    ("made", "pods"),
    [
        (job(age=timedelta(seconds=9)), ()),
        (job(complete()), ()),
        (job(failed(FIRST_RETRY)), ()),
        (held(), ()),
        (job(), (pod("p", {"phase": "Pending"}, owner="uid-job"),)),
        (job(), (ended("uid-job", "", creationTimestamp=timestamp(NOW)), pod("p", owner="uid-job"))),
    ],
)
async def test_nobody_is_asked_about_a_job_that_needs_no_pod_or_has_one(
    made: CacheJob, pods: tuple[Child, ...]
) -> None:
    kube = Events(event("FailedCreate", QUOTA))
    assert await refusals(kube, made, *pods) == {}
    assert kube.asked == []


async def test_a_refusal_is_over_when_a_pod_came_after_it() -> None:
    made = event("SuccessfulCreate", "Created pod: p", timedelta(seconds=20), "Normal")
    refused = event("FailedCreate", QUOTA, timedelta(seconds=40))
    assert await refusals(Events(refused, made), job()) == {}
    # Where there were many Events about a Job, that of its pod is left out.
    late = ended("uid-job", "", creationTimestamp=timestamp(NOW - timedelta(seconds=20)))
    assert await refusals(Events(refused), job(), late) == {}
    again = event("FailedCreate", QUOTA, timedelta(seconds=10))
    assert await refusals(Events(refused, made, again), job(), late) != {}


def placed(age: timedelta, **fields: Any) -> Child:
    scheduled = {**condition("PodScheduled", "True"), "lastTransitionTime": timestamp(NOW - age)}
    creating = container_status("downloader", waiting={"reason": "ContainerCreating"})
    return pod("slow", {**creating, "conditions": [scheduled]}, owner="uid-job", container="downloader", **fields)


@pytest.mark.parametrize(("kind", "told"), [("Warning", True), ("Normal", False)])
async def test_what_is_told_of_a_pod_that_does_not_start(kind: str, told: bool) -> None:
    kube, slow = Events(event("FailedMount", "no such device", kind=kind)), placed(timedelta(minutes=1))
    found = await gather_words(cast(Kube, kube), [slow], NOW)
    assert found == ({"uid-slow": Words("FailedMount", "no such device", slow.meta.created)} if told else {})


@pytest.mark.parametrize(
    ("pods", "jobs", "seconds"),
    [
        ((), (), None),
        ((), (job(complete()),), None),
        ((), (job(age=timedelta(seconds=4)),), 6),
        ((), (job(),), 15),
        ((placed(timedelta(seconds=10)),), (job(),), 20),
        ((placed(timedelta(minutes=1)),), (job(),), 15),
    ],
)
def test_when_events_are_looked_at(pods: tuple[Child, ...], jobs: tuple[CacheJob, ...], seconds: float | None) -> None:
    assert look_after(pods, NOW, jobs) == seconds

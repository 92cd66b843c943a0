"""What is wrong is never told without what to do about it."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from aiservice_api.v1alpha1 import Condition, ConditionStatus
from aiservice_operator.failures import UNREADY, Failure, Words, of_pods
from aiservice_operator.kinds import Json, Kind, ObjectId
from aiservice_operator.observed import Child
from aiservice_operator.plan import CachePlan, Refusal, ServiceView, plan_service
from aiservice_operator.plan.tries import FailedTry
from aiservice_operator.status import service_status
from aiservice_operator.status.remedies import DOWNLOADING, REFUSED, SERVING
from support.cache_statuses import CASES, GONE, message
from support.cache_statuses import status_of as cache_status_of
from support.operator_objects import (
    MODEL,
    NAMESPACE,
    NOW,
    SETTINGS,
    cache,
    condition,
    container_status,
    pod,
    service,
    timestamp,
)
from support.operator_views import serving, view, with_status

READY = cache("mc-443918c0b15e3fd1", {**MODEL, "storage": {"accessMode": "ReadWriteMany"}}, ready=True)
TO_DO = re.compile(
    r"\b(bring|choose|correct|create|delete|describe|make room|mend|provide|raise|set|suspend|tried again|upgrade)\b",
    re.IGNORECASE,
)
"""What a message that says what to do has at least one of."""


def waits(reason: str) -> Json:
    return container_status(waiting={"reason": reason, "message": "no"})


def runs(*, ready: bool) -> Json:
    """A pod whose container began long ago, in a pod that has not been ready for some time."""
    lost = {**condition("Ready", "False"), "lastTransitionTime": timestamp(NOW - UNREADY)}
    running = {"startedAt": timestamp(NOW - timedelta(hours=1))}
    return {**container_status(running=running, ready=ready, started=True), "conditions": [lost]}


UNPLACED: Json = {"phase": "Pending", "conditions": [condition("PodScheduled", "False", "Unschedulable", "0/1 nodes")]}
PLACED: Json = {"phase": "Pending", "conditions": [condition("PodScheduled", "True")]}
PODS: dict[str, Json] = {
    "ImagePullBackOff": waits("ErrImagePull"),
    "InvalidImageName": waits("InvalidImageName"),
    "ErrImageNeverPull": waits("ErrImageNeverPull"),
    "CreateContainerConfigError": waits("CreateContainerConfigError"),
    "CreateContainerError": waits("CreateContainerError"),
    "RunContainerError": waits("RunContainerError"),
    "CrashLoopBackOff": container_status(terminated={"exitCode": 1, "message": "no weights"}),
    "OOMKilled": container_status(terminated={"exitCode": 137, "reason": "OOMKilled"}),
    "Evicted": {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
    "Unschedulable": UNPLACED,
    "FailedMount": PLACED,
    "FailedAttachVolume": PLACED,
    "NotReady": runs(ready=False),
    "NodeNotReady": runs(ready=True),
    "UnexpectedAdmissionError": {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no device"},
    "FailedCreatePodSandBox": PLACED,
}
"""Pods that do not serve, by the reason that is told."""


def stalled(*pods: Child, **status: Any) -> ServiceView:
    """A service none of whose pods is ready."""
    counts = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 0, **status}
    return replace(with_status(serving(service(), cache=READY), counts), pods=pods)


def conditions_of(
    known: ServiceView, words: dict[str, Words] | None = None, refusals: tuple[Refusal, ...] = ()
) -> list[Condition]:
    plan = plan_service(known, SETTINGS, NOW)
    return service_status(known, plan, refusals, SETTINGS, now=NOW, words=words or {}).conditions


def ready_of(known: ServiceView, words: dict[str, Words] | None = None) -> Condition:
    return next(item for item in conditions_of(known, words) if item.type == "Ready")


@pytest.mark.parametrize("reason", PODS)
def test_a_pod_that_does_not_serve_is_told_with_what_to_do(reason: str) -> None:
    broken, words = pod("p", PODS[reason]), {"uid-p": Words(reason, "no such device", NOW)}
    cause = of_pods([broken], NOW, words)
    assert cause is not None
    ready = ready_of(stalled(broken), words)
    assert (ready.status, ready.reason) == (ConditionStatus.FALSE, reason)
    remedy = SERVING.get(reason, "Its Events tell more: `kubectl describe pod p`")
    assert ready.message == f"{cause.message.rstrip('.')}. {remedy}"


def test_every_remedy_is_one_for_something() -> None:
    assert set(SERVING) - set(PODS) == {"PodsRefused"}


def test_pods_that_are_refused_are_told_with_what_to_do() -> None:
    failed = condition("ReplicaFailure", "True", "FailedCreate", 'pods "p" is forbidden: exceeded quota: tight')
    ready = ready_of(stalled(conditions=[failed], replicas=0, updatedReplicas=0))
    assert ready.reason == "PodsRefused"
    assert ready.message.startswith('pods cannot be created: pods "p" is forbidden: exceeded quota: tight. ')
    assert ready.message.endswith(SERVING["PodsRefused"])


@pytest.mark.parametrize("reason", sorted(set(DOWNLOADING) - {"JobRefused"}))
def test_a_download_that_does_not_go_on_is_told_with_what_to_do(reason: str) -> None:
    failed = FailedTry(Failure(reason, "no.", "Pod/try", NOW), retryable=False)
    said = message(cache_status_of(plan=CachePlan(job=GONE, failed=failed)), "Downloaded")
    assert said == f"no. {DOWNLOADING[reason]}"


# Where users exclude each other the plan brings its own words, which the case leaves out.
@pytest.mark.parametrize("case", sorted(set(CASES) - {"no place for all"}))
def test_what_is_wrong_with_a_cache_is_told_with_what_to_do(case: str) -> None:
    status = cache_status_of(**CASES[case][0])
    silent = [item.message for item in status.conditions if item.status is ConditionStatus.FALSE]
    assert all(TO_DO.search(said) for said in silent), silent


def refused(kind: Kind) -> tuple[Refusal, ...]:
    return (Refusal(ObjectId(kind, NAMESPACE, "whisper"), "forbidden"),)


SERVICES: dict[str, tuple[ServiceView, tuple[Refusal, ...]]] = {
    "refused": (serving(service(), cache=READY), refused(Kind.SERVICE)),
    "monitor refused": (serving(service(), cache=READY), refused(Kind.POD_MONITOR)),
    "autoscaler refused": (
        replace(serving(service(spec={"autoscaling": {"min": 1, "max": 4}}), cache=READY), autoscaler=None),
        refused(Kind.AUTOSCALER),
    ),
    "cache refused": (view(service(), cache_refused="exceeded quota"), ()),
    "no cache": (view(service(spec={"model": None, "modelCacheRef": {"name": "later"}})), ()),
    "no profile": (view(service(spec={"profile": "tpu"})), ()),
    "unreadable": (view(service(spec={"tasks": ["telepathy"]})), ()),
    "suspended": (serving(service(spec={"suspend": True}), 0, cache=READY), ()),
    "idle": (serving(service(spec={"replicas": 0}), 0, cache=READY), ()),
}


@pytest.mark.parametrize("case", SERVICES)
def test_what_is_wrong_with_a_service_is_told_with_what_to_do(case: str) -> None:
    known, refusals = SERVICES[case]
    found = {item.type: item for item in conditions_of(known, refusals=refusals)}
    wrong = {name: item.message for name, item in found.items() if item.status is ConditionStatus.FALSE}
    if found["Progressing"].reason == "Complete":
        del wrong["Progressing"]  # nothing is under way, and nothing is wrong
    assert wrong
    assert all(TO_DO.search(said) for said in wrong.values()), wrong


def test_what_is_refused_is_tried_again_and_says_so() -> None:
    found = conditions_of(serving(service(), cache=READY), refusals=refused(Kind.SERVICE))
    ready = next(item for item in found if item.type == "Ready")
    assert ready.message == f"Service whisper: forbidden. {REFUSED}. Meanwhile 1 pod as before."

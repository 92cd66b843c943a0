"""The status of an AIService, case by case."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from aiservice_api.v1alpha1 import AIServiceStatus, Timings
from aiservice_operator import names
from aiservice_operator.kinds import Json, Kind, ObjectId
from aiservice_operator.observed import Child, Service
from aiservice_operator.plan import Refusal, Rejection, ServicePlan, ServiceView
from aiservice_operator.status import service_status
from support.operator_objects import (
    MODEL,
    NAMESPACE,
    NOW,
    SETTINGS,
    cache,
    child,
    condition,
    container_status,
    live,
    metadata,
    pod,
    service,
    timestamp,
)

NAME = names.cache_name(service().spec.model)  # type: ignore[union-attr, arg-type] # it is stated
READY = cache(NAME, ready=True)
CRASH = container_status(terminated={"exitCode": 1, "message": "no weights", "finishedAt": timestamp(NOW)})


def deployment(wanted: int = 1, *, mounts: str = NAME, generation: int = 1, **status: Any) -> Child:
    return child(
        Kind.DEPLOYMENT,
        {
            "metadata": metadata("whisper", generation=generation),
            "spec": {
                "replicas": wanted,
                "template": {"metadata": {"annotations": {names.CACHE_ANNOTATION: mounts}}, "spec": {}},
            },
            "status": {"observedGeneration": 1, **status},
        },
    )


def numbers(count: int, *, updated: int | None = None, ready: int | None = None) -> Json:
    return {
        "replicas": count,
        "updatedReplicas": count if updated is None else updated,
        "readyReplicas": count if ready is None else ready,
    }


def endpoint(*ports: str) -> Child:
    return live(Kind.SERVICE, {"metadata": {"name": "whisper"}, "spec": {"ports": [{"name": port} for port in ports]}})


def status_of(
    known: Service, plan: ServicePlan | None = None, refusals: tuple[Refusal, ...] = (), **fields: Any
) -> AIServiceStatus:
    empty: dict[str, Any] = {
        **dict.fromkeys(("mounted", "deployment", "endpoint", "account")),
        "cache": READY,
        "pods": (),
        "rivals": (),
    }
    settings, words = fields.pop("settings", SETTINGS), fields.pop("words", {})
    view = ServiceView(service=known, **{**empty, **fields})
    return service_status(view, plan or ServicePlan(()), refusals, settings, now=NOW, words=words)


def told(status: AIServiceStatus, name: str) -> tuple[str, str]:
    found = next(item for item in status.conditions if item.type == name)
    return found.status.value, found.reason


REJECTED = ServicePlan((), Rejection("UnknownProfile", "no such profile"))
REFUSED = (Refusal(ObjectId(Kind.SERVICE, NAMESPACE, "whisper"), "quota exceeded"),)
IDLE = {"replicas": 0}

CASES: dict[str, tuple[dict[str, Any], dict[str, tuple[str, str]]]] = {
    "rejected": (
        {"plan": REJECTED},
        {
            "Accepted": ("False", "UnknownProfile"),
            "Ready": ("False", "UnknownProfile"),
            "Progressing": ("False", "Blocked"),
        },
    ),
    "rejected before there is a cache": (
        {"plan": REJECTED, "cache": None},
        {"Accepted": ("False", "UnknownProfile"), "ModelReady": ("Unknown", "NotAccepted")},
    ),
    "no cache yet": (
        {"cache": None},
        {
            "ModelReady": ("Unknown", "Creating"),
            "Ready": ("Unknown", "Creating"),
            "Available": ("Unknown", "WaitingForModel"),
        },
    ),
    "no such cache": (
        {"service": service(spec={"model": None, "modelCacheRef": {"name": "lost"}}), "cache": None},
        {"ModelReady": ("False", "CacheNotFound"), "Ready": ("False", "CacheNotFound")},
    ),
    "cache without a status": ({"cache": cache(NAME)}, {"ModelReady": ("Unknown", "Creating")}),
    "cache that failed": (
        {"cache": cache(NAME, ready=False)},
        {"ModelReady": ("False", "Cached"), "Ready": ("False", "Cached")},
    ),
    "model cached": ({}, {"ModelReady": ("True", "Cached"), "Ready": ("Unknown", "Starting")}),
    "a child is refused": ({"refusals": REFUSED}, {"Ready": ("False", "ChildRefused")}),
    "loading": (
        {"deployment": deployment(**numbers(1, ready=0)), "pods": (pod("a", container_status(running={})),)},
        {
            "Scheduled": ("True", "Scheduled"),
            "Available": ("Unknown", "Starting"),
            "Ready": ("Unknown", "Starting"),
            "Progressing": ("True", "Starting"),
        },
    ),
    "serving": (
        {"deployment": deployment(**numbers(1)), "pods": (pod("a", container_status(running={}, ready=True)),)},
        {"Available": ("True", "Serving"), "Ready": ("True", "Serving"), "Progressing": ("False", "Complete")},
    ),
    "a spec that the Deployment controller has not seen": (
        {"deployment": deployment(generation=2, **numbers(1))},
        {"Available": ("True", "Serving"), "Ready": ("Unknown", "RollingOut")},
    ),
    "rolling out": (
        {"service": service(spec={"replicas": 2}), "deployment": deployment(2, **numbers(3, updated=1, ready=2))},
        {"Available": ("True", "Serving"), "Ready": ("Unknown", "RollingOut")},
    ),
    "an old pod is still there": (
        {"deployment": deployment(1, **numbers(2, updated=1, ready=1))},
        {"Ready": ("Unknown", "Starting")},
    ),
    "crashing": (
        {"deployment": deployment(**numbers(1, ready=0)), "pods": (pod("a", CRASH),)},
        {
            "Available": ("False", "CrashLoopBackOff"),
            "Ready": ("False", "CrashLoopBackOff"),
            "Progressing": ("False", "Blocked"),
        },
    ),
    "crashing while the old pod serves": (
        {"deployment": deployment(**numbers(2, updated=1, ready=1)), "pods": (pod("a", CRASH),)},
        {"Available": ("True", "Serving"), "Ready": ("False", "CrashLoopBackOff")},
    ),
    "idle": (
        {"service": service(spec=IDLE), "deployment": deployment(0, **numbers(0))},
        {
            "Scheduled": ("True", "Idle"),
            "Available": ("False", "Idle"),
            "Ready": ("True", "Idle"),
            "Progressing": ("False", "Complete"),
        },
    ),
    "scaling to zero": (
        {"service": service(spec=IDLE), "deployment": deployment(0, **numbers(1, ready=0))},
        {"Ready": ("Unknown", "ScalingDown")},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_conditions(case: str) -> None:
    fields, expected = CASES[case]
    fields = dict(fields)
    status = status_of(fields.pop("service", service()), fields.pop("plan", None), fields.pop("refusals", ()), **fields)
    assert {name: told(status, name) for name in expected} == expected


def test_why_no_pod_can_be_created_is_told() -> None:
    failure = condition("ReplicaFailure", "True", "FailedCreate", 'pods "w-x" is forbidden: exceeded quota: tight')
    status = status_of(service(), deployment=deployment(conditions=[failure]))
    assert told(status, "Ready") == ("False", "PodsRefused")
    assert status.last_failure is not None
    assert status.last_failure.object == "Deployment/whisper"
    assert "exceeded quota: tight" in status.last_failure.message


def test_where_the_old_model_serves_meanwhile_it_is_said() -> None:
    status = status_of(service(), cache=cache(NAME), deployment=deployment(mounts="old", **numbers(1)))
    ready = next(item for item in status.conditions if item.type == "Ready")
    assert ready.message.endswith("Meanwhile 1 pod as before.")


def test_a_transition_is_a_change_of_status_and_nothing_less() -> None:
    known = service(status={"conditions": [condition("Accepted", "True"), condition("ModelReady", "False")]})
    moments = {item.type: item.last_transition_time for item in status_of(known).conditions}
    assert moments["Accepted"] == NOW - timedelta(minutes=5)
    assert moments["ModelReady"] == NOW


def test_a_status_that_was_written_is_computed_again_as_it_is() -> None:
    fields: dict[str, Any] = {
        "deployment": deployment(**numbers(1)),
        "endpoint": deployment(),
        "pods": (pod("a", container_status(running={"startedAt": timestamp(NOW)}, ready=True)),),
    }
    first = status_of(service(), **fields)
    again = status_of(service(status=first.to_wire()), **fields)
    assert again.to_wire() == first.to_wire()


def test_the_last_failure_outlives_its_cause() -> None:
    failed = status_of(service(), deployment=deployment(**numbers(1, ready=0)), pods=(pod("a", CRASH),))
    mended = status_of(service(status=failed.to_wire()), deployment=deployment(**numbers(1)))
    assert told(mended, "Ready") == ("True", "Serving")
    assert mended.last_failure == failed.last_failure
    assert mended.last_failure is not None


def test_timings_come_from_the_objects() -> None:
    created = NOW - timedelta(seconds=100)
    conditions = [
        {**condition("PodScheduled", "True"), "lastTransitionTime": timestamp(created + timedelta(seconds=3))},
        {**condition("Ready", "True"), "lastTransitionTime": timestamp(created + timedelta(seconds=60))},
    ]
    started = container_status(running={"startedAt": timestamp(created + timedelta(seconds=10))}, ready=True)
    serving = pod("a", {**started, "conditions": conditions}, creationTimestamp=timestamp(created))
    status = status_of(service(), deployment=deployment(**numbers(1)), pods=(serving,))
    assert status.timings is not None
    assert (status.timings.schedule_seconds, status.timings.load_seconds) == (3, 50)
    assert status.timings.cache_seconds == 600
    later = status_of(service(status={**status.to_wire(), "conditions": []}), deployment=deployment(**numbers(1)))
    assert later.timings == status.timings


def test_only_the_first_time_of_being_ready_is_kept() -> None:
    """One of two pods is not it, though its own timings are known; nor is what comes after a rollout."""
    at = timestamp(NOW)
    started = container_status(running={"startedAt": at}, ready=True)
    one = pod("a", {**started, "conditions": [{**condition("Ready", "True"), "lastTransitionTime": at}]})
    created = NOW - timedelta(seconds=100)

    def after(status: AIServiceStatus, count: int, at: datetime = created) -> Timings:
        known = service(spec={"replicas": 2}, status=status.to_wire(), creationTimestamp=timestamp(at))
        found = status_of(known, deployment=deployment(2, **numbers(2, ready=count)), pods=(one,)).timings
        assert found is not None
        return found

    first = after(AIServiceStatus(), 1)
    assert (first.load_seconds, first.ready_seconds) == (0, None)
    ready = after(AIServiceStatus(timings=first), 2)
    assert ready.ready_seconds == 100
    assert after(AIServiceStatus(timings=ready), 2, created - timedelta(days=1)) == ready


def test_addresses_and_selector() -> None:
    status = status_of(service(), endpoint=endpoint("speech-to-text"), deployment=deployment(**numbers(1)))
    assert status.url == "http://whisper.team.svc:7862"
    assert status.selector == "app.kubernetes.io/name=aiservice,app.kubernetes.io/instance=whisper"
    assert (status.model, status.model_cache) == ("http a", NAME)
    assert status_of(service()).url is None


def test_addresses_are_those_that_the_service_has() -> None:
    """While a model for other tasks is being cached, the ports are still those of before."""
    status = status_of(service(spec={"tasks": ["image-to-text"]}), endpoint=endpoint("speech-to-text", "metrics"))
    assert status.endpoints == {"speech-to-text": "http://whisper.team.svc:7862"}


def test_of_two_defaults_the_older_wins() -> None:
    default: Json = {"gateway": {"default": True}}
    old = service("old", default, creationTimestamp=timestamp(NOW - timedelta(hours=1)))
    young = service("young", default)
    other = service("other", {**default, "tasks": ["image-to-text"], "model": MODEL})
    rivals = (old, young, other)
    assert told(status_of(old, rivals=rivals), "GatewayDefault") == ("True", "Default")
    assert told(status_of(young, rivals=rivals), "GatewayDefault") == ("False", "OlderDefault")
    assert told(status_of(other, rivals=rivals), "GatewayDefault") == ("True", "Default")
    assert all(item.type != "GatewayDefault" for item in status_of(service(), rivals=rivals).conditions)


def test_two_defaults_of_one_namespace_that_state_weights_share() -> None:
    stable = service(
        "stable", {"gateway": {"default": True, "weight": 90}}, creationTimestamp=timestamp(NOW - timedelta(hours=1))
    )
    canary = service("canary", {"gateway": {"default": True, "weight": 10}})
    silent = service("silent", {"gateway": {"default": True}})
    rivals = (stable, canary, silent)
    assert told(status_of(stable, rivals=rivals), "GatewayDefault") == ("True", "Shared")
    assert told(status_of(canary, rivals=rivals), "GatewayDefault") == ("True", "Shared")
    assert told(status_of(silent, rivals=rivals), "GatewayDefault") == ("False", "OlderDefault")
    assert told(status_of(stable, rivals=(stable, silent)), "GatewayDefault") == ("True", "Default")

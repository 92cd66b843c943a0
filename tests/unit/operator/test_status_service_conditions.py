"""Conditions of an AIService that are there only where they have something to say, and what goes on below it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from aiservice_api.v1alpha1 import AIServiceStatus, Precision, Surge
from aiservice_operator.failures import Words
from aiservice_operator.kinds import Json, Kind, ObjectId
from aiservice_operator.observed import Child
from aiservice_operator.plan import Refusal, ServicePlan, ServiceView, plan_service
from aiservice_operator.plan.surge import Decision
from aiservice_operator.settings import Network, Settings
from aiservice_operator.status import service_status
from aiservice_operator.status.remedies import REFUSED, SERVING
from support.operator_objects import (
    MODEL,
    NAMESPACE,
    NOW,
    SETTINGS,
    cache,
    condition,
    container_status,
    live,
    pod,
    service,
    timestamp,
)
from support.operator_views import serving, settled, view, with_status

NAME = "mc-443918c0b15e3fd1"
READY = cache(NAME, {**MODEL, "storage": {"accessMode": "ReadWriteMany"}}, ready=True)
AUTO: Json = {"autoscaling": {"min": 1, "max": 4}}


def status_of(
    known: ServiceView,
    plan: ServicePlan | None = None,
    refusals: tuple[Refusal, ...] = (),
    settings: Settings = SETTINGS,
    words: dict[str, Words] | None = None,
) -> AIServiceStatus:
    decided = plan or plan_service(known, settings, NOW)
    return service_status(known, decided, refusals, settings, now=NOW, words=words or {})


def told(status: AIServiceStatus, name: str) -> tuple[str, str, str] | None:
    found = next((item for item in status.conditions if item.type == name), None)
    return (found.status.value, found.reason, found.message) if found is not None else None


def test_a_plain_service_has_six_conditions() -> None:
    status = status_of(serving(service(), cache=READY))
    assert [item.type for item in status.conditions] == [
        "Accepted",
        "ModelReady",
        "Scheduled",
        "Available",
        "Ready",
        "Progressing",
    ]


# Scaling.


def scaled(spec: Json, count: int = 2, **state: Json) -> ServiceView:
    """A service that serves with so many pods; `state` are conditions of its autoscaler, by type."""
    known = serving(service(spec=spec), count, cache=READY)
    assert known.autoscaler is not None
    assert known.deployment is not None
    body = known.deployment.body
    autoscaler = live(Kind.AUTOSCALER, known.autoscaler.body, {"conditions": list(state.values())})
    deployment = replace(known.deployment, body={**body, "spec": {**body["spec"], "replicas": count}})
    return replace(known, autoscaler=autoscaler, deployment=deployment)


WORKS = condition("ScalingActive", "True", "ValidMetricFound")
BLIND = condition("ScalingActive", "False", "FailedGetPodsMetric", "no custom metrics API registered")
FULL = condition("ScalingLimited", "True", "TooManyReplicas")


def test_what_the_autoscaler_has_set_is_what_is_wanted() -> None:
    status = status_of(scaled(AUTO, 3, active=WORKS))
    assert told(status, "Ready") == ("True", "Serving", "3 pods ready")
    assert (status.replicas, status.ready_replicas) == (3, 3)
    more = scaled(AUTO, 3, active=WORKS)
    counts = {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 2}
    ready = told(status_of(with_status(more, counts)), "Ready")
    assert ready is not None
    assert ready[:2] == ("Unknown", "Starting")


@pytest.mark.parametrize(
    ("state", "expected", "words"),
    [
        ({}, ("Unknown", "Starting"), ""),
        ({"active": WORKS}, ("True", "Active"), "between 1 and 4 pods, by requests in flight"),
        ({"active": WORKS, "limited": FULL}, ("True", "AtMaximum"), "raise spec.autoscaling.max"),
        ({"active": BLIND}, ("False", "MetricMissing"), "prometheus-adapter"),
        ({"active": BLIND}, ("False", "MetricMissing"), "no custom metrics API registered"),
        (
            {"able": condition("AbleToScale", "False", "FailedGetScale", "no such Deployment")},
            ("False", "FailedGetScale"),
            "no such Deployment. Its Events tell more: `kubectl describe hpa whisper`",
        ),
        (
            {"active": condition("ScalingActive", "False", "ScalingDisabled", "scaling is disabled")},
            ("False", "ScalingDisabled"),
            "scaling is disabled. Its Events tell more: `kubectl describe hpa whisper`",
        ),
    ],
)
def test_the_autoscalers_own_words_show(state: dict[str, Json], expected: tuple[str, str], words: str) -> None:
    found = told(status_of(scaled(AUTO, 2, **state)), "Autoscaling")
    assert found is not None
    assert found[:2] == expected
    assert words in found[2]


def test_cpu_needs_another_metrics_api() -> None:
    spec: Json = {"autoscaling": {"min": 1, "max": 4, "metric": "CPU"}}
    blind = condition("ScalingActive", "False", "FailedGetContainerResourceMetric", "no metrics")
    found = told(status_of(scaled(spec, active=blind)), "Autoscaling")
    assert found is not None
    assert "metrics-server" in found[2]


def test_without_a_ready_pod_there_is_no_metric_yet() -> None:
    known = with_status(scaled(AUTO, active=BLIND), {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1})
    found = told(status_of(known), "Autoscaling")
    assert found is not None
    assert found[:2] == ("Unknown", "Starting")


def test_more_pods_of_the_same_are_no_rollout() -> None:
    known = serving(service(spec={"replicas": 3}), 1, cache=READY)
    ready = told(status_of(known), "Ready")
    assert ready is not None
    assert ready[:2] == ("Unknown", "Starting")
    assert ready[2].startswith("1 of 3 pods ready")


def test_suspended() -> None:
    spec: Json = {**AUTO, "suspend": True}
    status = status_of(serving(service(spec=spec), 0, cache=READY))
    ready = told(status, "Ready")
    assert ready is not None
    assert ready[:2] == ("True", "Suspended")
    assert told(status, "Autoscaling") is None
    available, scheduled = told(status, "Available"), told(status, "Scheduled")
    assert available is not None
    assert scheduled is not None
    assert (available[:2], scheduled[:2]) == (("False", "Suspended"), ("True", "Suspended"))
    stopping = told(status_of(serving(service(spec=spec), 1, cache=READY)), "Ready")
    assert stopping is not None
    assert stopping[:2] == ("Unknown", "ScalingDown")


# Disruptions, networks, monitors.


@pytest.mark.parametrize(
    ("disruption", "replicas", "words"),
    [
        ({"minAvailable": 1}, 1, "with 1 pod and minAvailable 1"),
        ({"minAvailable": 1}, 2, None),
        ({"minAvailable": "100%"}, 3, "with 3 pods and minAvailable 100%"),
        ({"minAvailable": "50%"}, 1, "with 1 pod and minAvailable 50%"),
        ({"minAvailable": "50%"}, 2, None),
        ({"maxUnavailable": 0}, 2, "raise spec.disruption.maxUnavailable"),
        ({"maxUnavailable": "1%"}, 2, None),
        ({"minAvailable": 1}, 0, None),
        (None, 1, None),
    ],
)
def test_a_budget_that_blocks_every_drain_says_so(disruption: Json | None, replicas: int, words: str | None) -> None:
    known = serving(service(spec={"disruption": disruption, "replicas": replicas}), replicas, cache=READY)
    found = told(status_of(known), "Disruptable")
    if words is None:
        assert found is None
    else:
        assert found is not None
        assert found[:2] == ("False", "BlocksDrains")
        assert words in found[2]


@pytest.mark.parametrize(
    ("disruption", "replicas", "blocks"),
    [
        ({"maxUnavailable": 1}, 1, False),
        ({"maxUnavailable": 1}, 2, True),
        ({"maxUnavailable": "50%"}, 3, True),
        ({"minAvailable": 1}, 3, True),
        ({"maxUnavailable": 2}, 2, False),
        ({"minAvailable": 0}, 3, False),
        (None, 3, False),
    ],
)
def test_a_budget_of_pods_on_one_node_has_to_let_all_be_stopped(
    disruption: Json | None, replicas: int, blocks: bool
) -> None:
    """One that was stopped has no place before the others are gone."""
    spec: Json = {"disruption": disruption, "replicas": replicas}
    one_node = cache(NAME, {**MODEL, "storage": {"accessMode": "ReadWriteOnce"}}, ready=True)
    found = told(status_of(serving(service(spec=spec), replicas, cache=one_node)), "Disruptable")
    assert (found is not None) == blocks
    if found is not None:
        assert found[:2] == ("False", "BlocksDrains")
        assert "ReadWriteMany, or leave spec.disruption out" in found[2]


def test_a_network_policy_that_the_operator_does_not_make_says_so() -> None:
    known, settings = serving(service(), cache=READY), SETTINGS.model_copy(update={"network": Network(enabled=False)})
    found = told(status_of(known, settings=settings), "Network")
    assert found is not None
    assert found[:2] == ("False", "Disabled")
    openly = serving(service(spec={"network": {"restrict": False}}), cache=READY)
    assert told(status_of(openly, settings=settings), "Network") is None


def refused(kind: Kind) -> tuple[Refusal, ...]:
    return (Refusal(ObjectId(kind, NAMESPACE, "whisper"), "forbidden"),)


def test_a_monitor_that_is_refused_keeps_nothing_from_serving() -> None:
    status = status_of(serving(service(), cache=READY), refusals=refused(Kind.POD_MONITOR))
    ready = told(status, "Ready")
    assert ready is not None
    assert ready[:2] == ("True", "Serving")
    assert told(status, "Monitored") == ("False", "ChildRefused", f"PodMonitor whisper: forbidden. {REFUSED}")
    other = told(status_of(serving(service(), cache=READY), refusals=refused(Kind.AUTOSCALER)), "Ready")
    said = f"HorizontalPodAutoscaler whisper: forbidden. {REFUSED}. Meanwhile 1 pod as before."
    assert other == ("False", "ChildRefused", said)


def test_an_autoscaler_that_is_refused_is_not_waited_for() -> None:
    known = serving(service(spec=AUTO), cache=READY)
    found = told(status_of(replace(known, autoscaler=None), refusals=refused(Kind.AUTOSCALER)), "Autoscaling")
    assert found == ("False", "ChildRefused", f"forbidden. {REFUSED}")


def test_no_more_conditions_than_fit() -> None:
    spec: Json = {**AUTO, "disruption": {"minAvailable": 2}, "gateway": {"default": True}}
    known = scaled(spec, active=BLIND)
    settings = SETTINGS.model_copy(update={"network": Network(enabled=False)})
    status = status_of(replace(known, rivals=(known.service,)), None, refused(Kind.POD_MONITOR), settings)
    assert len(status.conditions) == 11


# Rollouts and what pods are told.


def test_the_number_format_and_the_rollout_are_told() -> None:
    status = status_of(serving(service(spec={"profile": "nvidia-l4"}), cache=READY))
    assert status.precision is Precision.FP16
    assert status.rollout is not None
    assert (status.rollout.surge, status.rollout.reason) == (False, "there was no pod to replace")
    unspoken = service(spec={"profile": "unknown"}, status=status.to_wire())
    assert status_of(settled(service(), cache=READY)).precision is Precision.FP32
    rejected = status_of(replace(serving(service(), cache=READY), service=unspoken))
    assert rejected.precision is Precision.FP16, "pods go on as they were told"


def unplaced() -> Child:
    scheduled = condition("PodScheduled", "False", "Unschedulable", "0/1 nodes are available: too few GPUs.")
    return pod("new", {"phase": "Pending", "conditions": [scheduled]})


def test_what_keeps_a_pod_from_a_node_besides_the_scheduler() -> None:
    known = replace(serving(service(), cache=READY), pods=(unplaced(),))
    rolling = with_status(known, {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 1, "readyReplicas": 1})

    def ready(plan: ServicePlan, spec: Json) -> str:
        found = told(status_of(replace(rolling, service=service(spec=spec)), plan), "Ready")
        assert found is not None
        assert found[:2] == ("False", "Unschedulable")
        return found[2]

    plain = ready(ServicePlan(()), {})
    assert plain == (
        "no node can take the pod: 0/1 nodes are available: too few GPUs. "
        f"{SERVING['Unschedulable']}. Meanwhile 1 pod as before."
    )
    assert "all pods that use it run on one node" in ready(ServicePlan((), one_node=True), {})
    decision = Decision.model_validate({"template": "t", "mode": "Always", "surge": True, "reason": "r", "since": NOW})
    always = ready(ServicePlan((), rollout=decision), {"rollout": {"surge": "Always"}})
    assert "make room, or set spec.rollout.surge to Never or Auto" in always
    auto = ready(ServicePlan((), rollout=decision.model_copy(update={"mode": Surge.AUTO, "reason": "why"})), {})
    assert "About the rollout: why. Make room " in auto


@pytest.mark.parametrize(
    ("spec", "needs"),
    [
        (
            {"profile": "nvidia-l4"},
            "It needs a node with nvidia.com/gpu.product=NVIDIA-L4 (profile nvidia-l4). Make room",
        ),
        ({"pod": {"nodeSelector": {"disk": "ssd"}}}, "It needs a node with disk=ssd. Make room"),
        (
            {"profile": "nvidia-l4", "pod": {"nodeSelector": {"disk": "ssd"}}},
            "It needs a node with nvidia.com/gpu.product=NVIDIA-L4, disk=ssd (profile nvidia-l4). Make room",
        ),
        ({}, None),
    ],
)
def test_the_nodes_that_no_node_is_one_of_are_named(spec: Json, needs: str | None) -> None:
    known = replace(serving(service(spec=spec), 0, cache=READY), pods=(unplaced(),))
    found = told(status_of(known), "Scheduled")
    assert found is not None
    assert (needs in found[2]) if needs is not None else ("It needs" not in found[2])


@pytest.mark.parametrize(
    ("spec", "words", "hinted"),
    [
        ({"profile": None, "gpu": {}}, "1 node(s) had volume node affinity conflict", True),
        ({"profile": None, "gpu": {}}, "1 Insufficient nvidia.com/gpu", False),
        ({"profile": "nvidia-l4"}, "1 node(s) had volume node affinity conflict", False),
        ({"profile": None, "gpu": {}, "pod": {"nodeSelector": {"a": "b"}}}, "had volume node affinity conflict", False),
        ({}, "1 node(s) had volume node affinity conflict", False),
    ],
)
def test_a_volume_on_a_node_without_the_gpu_is_told(spec: Json, words: str, hinted: bool) -> None:
    scheduled = condition("PodScheduled", "False", "Unschedulable", words)
    known = replace(serving(service(), 0, cache=READY), pods=(pod("new", {"conditions": [scheduled]}),))
    status = status_of(replace(known, service=service(spec=spec)), ServicePlan((), one_node=True))
    found = told(status, "Scheduled")
    assert found is not None
    assert ("set spec.pod.nodeSelector to nodes that have it, then delete" in found[2]) == hinted


@pytest.mark.parametrize(
    ("model", "pod_fields", "hinted"),
    [
        (MODEL, {}, True),
        (MODEL, {"nodeSelector": {"gpu": "yes"}}, False),
        ({**MODEL, "storage": {"accessMode": "ReadWriteMany"}}, {}, False),
        ({"pvc": {"claimName": "theirs"}}, {}, False),
    ],
)
def test_claimed_devices_need_a_node_selector_beside_a_volume_of_one_node(
    model: Json, pod_fields: Json, hinted: bool
) -> None:
    claims = [{"name": "gpu", "resourceClaimTemplateName": "one"}]
    known = service(spec={"model": model, "resourceClaims": claims, "pod": pod_fields})
    found = told(status_of(view(known), ServicePlan(())), "Accepted")
    assert found is not None
    assert found[0] == "True"
    assert ("name them in spec.pod.nodeSelector" in found[2]) == hinted


def stalled(**status: Any) -> ServiceView:
    late = condition("Progressing", "False", "ProgressDeadlineExceeded")
    counts = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 0, "conditions": [late]}
    return with_status(serving(service(), cache=READY), {**counts, **status})


def test_no_pod_in_time_is_a_failure_even_if_nothing_says_why() -> None:
    status = status_of(stalled())
    ready = told(status, "Ready")
    assert ready is not None
    assert ready[:2] == ("False", "ProgressDeadlineExceeded")
    assert "no pod became ready for 2400 s" in ready[2]
    assert "kubectl describe pods -l app.kubernetes.io/instance=whisper" in ready[2]
    assert status.last_failure is not None
    assert status.last_failure.object == "Deployment/whisper"
    mended = told(status_of(stalled(readyReplicas=1)), "Ready")
    assert mended is not None
    assert mended[:2] == ("True", "Serving")


def test_events_tell_what_a_pod_waits_for() -> None:
    scheduled = {**condition("PodScheduled", "True"), "lastTransitionTime": timestamp(NOW - timedelta(minutes=1))}
    creating = container_status(waiting={"reason": "ContainerCreating"})
    waits = pod("a", {**creating, "phase": "Pending", "conditions": [scheduled]})
    words = {"uid-a": Words("FailedAttachVolume", "the volume is attached elsewhere", NOW)}
    ready = told(status_of(replace(stalled(), pods=(waits,)), words=words), "Ready")
    assert ready == (
        "False",
        "FailedAttachVolume",
        f"the pod cannot be started: the volume is attached elsewhere. {SERVING['FailedAttachVolume']}",
    )


def test_a_failure_that_was_mended_at_once_is_remembered() -> None:
    evicted = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    old = pod("old", evicted, creationTimestamp=timestamp(NOW - timedelta(hours=2)))
    ready = {**container_status(running={}, ready=True), "conditions": [condition("Ready", "True")]}
    young = pod("young", ready, creationTimestamp=timestamp(NOW - timedelta(hours=1)))
    known = replace(serving(service(), cache=READY), pods=(old, young))
    status = status_of(known)
    assert told(status, "Ready") == ("True", "Serving", "1 pod ready")
    assert status.last_failure is not None
    assert (status.last_failure.reason, status.last_failure.object) == ("Evicted", "Pod/old")
    newer = {**status.to_wire()["lastFailure"], "time": timestamp(NOW), "reason": "Newer"}
    later = {**status.to_wire(), "lastFailure": newer}
    kept = status_of(replace(known, service=service(status=later))).last_failure
    assert kept is not None
    assert kept.reason == "Newer"

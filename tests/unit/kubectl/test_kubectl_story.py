"""What is said of an AIService, from the evidence."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from aiservice_kubectl.explain.evidence import Evidence
from aiservice_kubectl.explain.pods import pod_state
from aiservice_kubectl.explain.story import Story, tell
from aiservice_operator.kinds import Json, Kind
from aiservice_operator.observed import Service
from support.operator_objects import (
    MODEL,
    NOW,
    cache,
    child,
    condition,
    container_status,
    metadata,
    pod,
    service,
    timestamp,
)

READY = condition("Ready", "True", "Serving", "1 pod ready")
CACHED = condition("ModelReady", "True", "Cached")
ACCEPTED = condition("Accepted", "True", "Accepted")
ENDED: Json = {"exitCode": 1, "reason": "Error", "message": "CUDA error: out of memory", "finishedAt": timestamp(NOW)}
LOOPING: Json = {"reason": "CrashLoopBackOff", "message": "back-off 10s"}


def seen(*conditions: Json, **status: Any) -> Service:
    """An AIService of which the operator has said this."""
    return service(status={"observedGeneration": 1, "conditions": list(conditions), **status})


def not_ready(reason: str, message: str, *others: Json, **status: Any) -> Service:
    return seen(ACCEPTED, *others, condition("Ready", "False", reason, message), **status)


def told(found: Service, **evidence: Any) -> Story:
    return tell(Evidence(found, **evidence), NOW)


def warning(kind: str, name: str, reason: str, message: str) -> Json:
    about = {"kind": kind, "name": name}
    return {"type": "Warning", "reason": reason, "message": message, "involvedObject": about}


def test_what_a_ready_service_runs_on() -> None:
    found = seen(
        READY,
        CACHED,
        model="huggingFace openai/whisper-large-v3@main",
        modelCache="mc-1",
        precision="fp16",
        url="http://whisper.team.svc:7862",
        readyReplicas=1,
        timings={"cacheSeconds": 90.0, "scheduleSeconds": 0.2, "loadSeconds": 41.0},
    )
    story = told(found, pods=(pod("whisper-1", container_status(running={}, ready=True)),))
    assert story.account == (
        "whisper is ready, and has been for 5 minutes: 1 pod serves speech-to-text on node (profile cpu). The model is "
        "huggingFace openai/whisper-large-v3@main in fp16, from the cache mc-1. Requests go to "
        "http://whisper.team.svc:7862. Its last start took 90 s until the model was cached, 41 s to load the model."
    )
    assert (story.ready, story.reason, story.todo, story.events) == ("True", "Serving", (), ())


def test_a_ready_service_without_pods() -> None:
    story = told(seen(condition("Ready", "True", "Idle", "scaled to zero"), CACHED))
    assert story.account == "whisper is ready, and no pod of it runs (Idle), for 5 minutes: Scaled to zero."
    assert "kubectl scale ais whisper -n team --replicas=1" in story.todo[0]


@pytest.mark.parametrize(
    ("old", "words", "todo"),
    [
        (timedelta(seconds=9), "was made 9 seconds ago", "Wait a few"),
        (timedelta(hours=3), "for 3 hours", "operator runs"),
    ],
)
def test_a_service_that_the_operator_has_not_seen(old: timedelta, words: str, todo: str) -> None:
    story = told(service(creationTimestamp=timestamp(NOW - old)))
    assert words in story.account
    assert todo in story.todo[0]
    assert story.reason == "NotSeenYet"


def test_a_spec_that_changed_since() -> None:
    story = told(service(generation=2, status={"observedGeneration": 1, "conditions": [READY, CACHED]}))
    assert "The spec has changed since, and the operator has not looked at the change yet." in story.account
    assert "app.kubernetes.io/name=aiservice-operator" in story.todo[0]


def test_a_refused_spec_is_told_once() -> None:
    message = "the operator has no resource profile 'x'"
    refused = condition("Accepted", "False", "UnknownProfile", message)
    found = seen(refused, condition("Ready", "False", "UnknownProfile", message))
    story = told(found, pods=(pod("old", container_status(waiting=LOOPING, last=ENDED)),))
    assert story.account == f"whisper is not ready for 5 minutes (UnknownProfile): The{message[3:]}."
    assert story.todo[0] == "Change the spec: kubectl edit ais whisper -n team"


def test_the_cause_is_told_where_the_condition_does_not_say_it() -> None:
    """The operator has not looked since the pod broke; the pod is read here."""
    starting = seen(ACCEPTED, CACHED, condition("Ready", "Unknown", "Starting", "0 of 1 pods ready"))
    story = told(starting, pods=(pod("whisper-1", container_status(waiting=LOOPING, last=ENDED)),))
    assert story.account == (
        "whisper is not ready yet, and is being worked on for 5 minutes (Starting): 0 of 1 pods ready. The cause is at "
        "Pod/whisper-1 (CrashLoopBackOff): Container engine exited with code 1: CUDA error: out of memory."
    )
    assert story.todo == ("Read what the engine printed: kubectl ais logs whisper -n team --previous",)


def test_the_cause_is_not_told_twice() -> None:
    message = "Pod whisper-1: container engine exited with code 1: CUDA error: out of memory"
    story = told(
        not_ready("CrashLoopBackOff", message, CACHED),
        pods=(pod("whisper-1", container_status(waiting=LOOPING, last=ENDED)),),
    )
    assert story.account.count("CUDA error") == 1
    assert "The cause is at" not in story.account


def test_pods_of_before_still_serve() -> None:
    available = condition("Available", "True", "Serving")
    assert (
        "Meanwhile pods of before serve requests." in told(not_ready("Unschedulable", "x", CACHED, available)).account
    )


def test_a_download_that_is_going_on() -> None:
    model = condition("ModelReady", "Unknown", "Downloading", "mc-1: downloading")
    found = seen(ACCEPTED, model, condition("Ready", "Unknown", "Downloading", "mc-1: downloading"))
    download = {"progress": "43% of 6.9 GB", "bytesDone": 3, "etaSeconds": 130}
    of_it = cache(found.cache_name or "", MODEL, status={"download": download})
    story = told(found, cache=of_it)
    assert story.account.endswith("The download is at 43% of 6.9 GB, about 3 minutes left.")
    assert story.todo == ("Wait; watch it with: kubectl ais logs whisper -n team --download -f",)


def test_a_download_that_starts_is_not_an_engine_that_starts() -> None:
    model = condition("ModelReady", "Unknown", "Starting", "mc-1: the download is being started")
    story = told(seen(ACCEPTED, model, condition("Ready", "Unknown", "Starting", "mc-1: starting")))
    assert "--download -f" in story.todo[0]


def test_a_download_that_failed_in_its_own_words() -> None:
    model = condition("ModelReady", "False", "Unauthorized", "mc-1: see there")
    found = not_ready("Unauthorized", "mc-1: see there", model)
    failure = {"reason": "Unauthorized", "message": "401 for gated/model", "object": "Pod/d", "time": timestamp(NOW)}
    of_it = cache(
        found.cache_name or "",
        MODEL,
        status={"lastFailure": failure, "conditions": [condition("Downloaded", "False", "Unauthorized", "401")]},
    )
    story = told(found, cache=of_it)
    assert "The cause is at Pod/d (Unauthorized): 401 for gated/model." in story.account
    assert any("kubectl delete job" in line for line in story.todo)


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (
            container_status("downloader", terminated={**ENDED, "reason": "OOMKilled"}),
            "OOMKilled",
            "chart value download.resources.limits.memory",
        ),
        (
            container_status("downloader", waiting={"reason": "ImagePullBackOff", "message": "no"}),
            "ImagePullBackOff",
            "chart value download.image",
        ),
        (
            {
                "phase": "Pending",
                "conditions": [condition("PodScheduled", "False", "Unschedulable", "0/3 nodes: Insufficient memory")],
            },
            "Unschedulable",
            "kubectl describe pods -n team -l app.kubernetes.io/instance=",
        ),
    ],
)
def test_what_to_do_about_the_pod_of_a_download(status: Json, reason: str, words: str) -> None:
    model = condition("ModelReady", "Unknown", "Downloading", "mc-1: downloading")
    found = seen(ACCEPTED, model, condition("Ready", "Unknown", "Downloading", "mc-1: downloading"))
    story = told(found, cache=cache(found.cache_name or "", MODEL), download_pods=(pod("d", status),))
    assert story.reason == reason
    assert words in story.todo[0]
    engine = told(not_ready(reason, "x", CACHED), pods=(pod("whisper-1", status),))
    assert engine.reason == reason
    assert not set(engine.todo) & set(story.todo)


@pytest.mark.parametrize("cached", [False, True])
def test_whose_pods_to_look_at_for_a_volume_that_cannot_be_mounted(cached: bool) -> None:
    model = CACHED if cached else condition("ModelReady", "False", "FailedMount", "mc-1: see there")
    found = not_ready("FailedMount", "see there", model)
    label = f"app.kubernetes.io/instance={found.meta.name if cached else found.cache_name}"
    assert told(found).todo[0].endswith(f"kubectl describe pods -n team -l {label}")


def test_a_quota_that_refuses_the_pod_of_a_download() -> None:
    model = condition("ModelReady", "False", "PodsRefused", "mc-1: see there")
    found = not_ready("PodsRefused", "mc-1: see there", model)
    words = "pods cannot be created: exceeded quota: tight"
    failure = {"reason": "PodsRefused", "message": words, "object": "Job/d", "time": timestamp(NOW)}
    of_it = cache(
        found.cache_name or "",
        MODEL,
        status={"lastFailure": failure, "conditions": [condition("Downloaded", "False", "PodsRefused", words)]},
    )
    story = told(found, cache=of_it)
    assert f"The cause is at Job/d (PodsRefused): {words.capitalize()}." in story.account
    assert story.todo == ("See the quotas: kubectl describe resourcequota,limitrange -n team",)


def test_a_quota_that_refuses_the_pods() -> None:
    words = 'pods "whisper-" is forbidden: exceeded quota: gpus'
    failed = {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": words}]}
    deployment = child(Kind.DEPLOYMENT, {"metadata": metadata("whisper"), "spec": {}, "status": failed})
    starting = seen(ACCEPTED, CACHED, condition("Ready", "Unknown", "Starting", "0 of 1 pods ready"))
    story = told(starting, deployments=(deployment,))
    assert "exceeded quota: gpus" in story.account
    assert story.reason == "PodsRefused"
    assert "resourcequota" in story.todo[0]


def test_an_autoscaler_that_has_no_metric() -> None:
    inactive = {"type": "ScalingActive", "status": "False", "reason": "FailedGetPodsMetric", "message": "no metrics"}
    autoscaler = child(
        Kind.AUTOSCALER, {"metadata": metadata("whisper"), "spec": {}, "status": {"conditions": [inactive]}}
    )
    story = told(seen(READY, CACHED), autoscalers=(autoscaler,))
    assert "so the number of pods stays as it is (FailedGetPodsMetric): No metrics." in story.account
    assert story.ready == "True"


def test_warnings_are_the_latest_that_say_something_new() -> None:
    events = (
        warning("Pod", "p", "FailedScheduling", "oldest"),
        warning("Pod", "p", "FailedMount", "no such claim"),
        warning("Pod", "p", "BackOff", "said already"),
        warning("AIService", "whisper", "Failed", "what the condition says"),
        {**warning("Pod", "p", "Pulled", "fine"), "type": "Normal"},
        warning("Pod", "p", "FailedMount", "no such claim"),
        warning("Pod", "p", "Third", "three"),
        warning("Pod", "p", "Fourth", "four\x1b[31m"),
    )
    story = told(not_ready("CrashLoopBackOff", "said already", CACHED), events=events)
    assert story.events == ("Pod/p Fourth: four", "Pod/p Third: three", "Pod/p FailedMount: no such claim")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (container_status(running={}, ready=True), "serves on node"),
        (container_status(running={}), "runs, not ready yet on node"),
        (container_status(waiting={"reason": "ContainerCreating"}), "ContainerCreating on node"),
        (container_status(waiting=LOOPING, last=ENDED), "CrashLoopBackOff on node"),
        ({"phase": "Pending"}, "Pending on node"),
    ],
)
def test_pods_in_a_few_words(status: Json, words: str) -> None:
    assert pod_state(pod("p", status)) == words

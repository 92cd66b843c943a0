"""The status of a ModelCache, case by case."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from aiservice_api.v1alpha1 import ModelCacheStatus
from aiservice_operator.downloads import Progress, Proof
from aiservice_operator.facts import newest_event
from aiservice_operator.failures import Failure
from aiservice_operator.kinds import Json, Key, Kind, ObjectId
from aiservice_operator.observed import Cache, Child
from aiservice_operator.plan import CachePlan, CacheView, Refusal
from aiservice_operator.plan.download import FailedDownload
from aiservice_operator.states import DownloadJob, download_job
from aiservice_operator.status import CacheFacts, ClaimEvent, cache_status
from aiservice_operator.status.cache import describe
from support.operator_objects import (
    MODEL,
    NAMESPACE,
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

DISK: Json = {"pvc": {"claimName": "disk", "path": "m"}}
PROOF = Proof(source="s", bytes=6_900_000_000, files=3, revision="c0ffee")


def claim(phase: str = "Bound", name: str = "mine", **fields: Any) -> Child:
    return child(Kind.CLAIM, {"metadata": metadata(name, **fields), "spec": {}, "status": {"phase": phase}})


def job(status: Json | None = None) -> DownloadJob:
    return download_job(child(Kind.JOB, {"metadata": metadata("job"), "spec": {}, "status": status or {"active": 1}}))


def try_pod(status: Json) -> Child:
    return pod("try", status, owner="uid-job", container="downloader")


def status_of(
    known: Cache | None = None,
    plan: CachePlan | None = None,
    facts: CacheFacts | None = None,
    refusals: tuple[Refusal, ...] = (),
    **fields: Any,
) -> ModelCacheStatus:
    known = known or cache()
    empty: dict[str, Any] = {"users": (), "claim": claim(), "jobs": (), "pods": ()}
    view = CacheView(key=Key(Kind.MODEL_CACHE, NAMESPACE, known.meta.name), cache=known, **{**empty, **fields})
    return cache_status(view, known, plan or CachePlan(), facts=facts or CacheFacts(), refusals=refusals, now=NOW)


def told(status: ModelCacheStatus) -> dict[str, tuple[str, str]]:
    return {item.type: (item.status.value, item.reason) for item in status.conditions}


def message(status: ModelCacheStatus, name: str) -> str:
    return next(item.message for item in status.conditions if item.type == name)


NO_CLASS = ClaimEvent("FailedBinding", "no persistent volumes available and no storage class is set", problem=False)
NO_SUCH_CLASS = ClaimEvent("ProvisioningFailed", 'storageclass "x" not found', problem=True)
CONSUMER = ClaimEvent("WaitForFirstConsumer", "waiting for first consumer", problem=False)
EXTERNAL = ClaimEvent("ExternalProvisioning", "Waiting for a volume to be created", problem=False)
WAITING_POD = try_pod(
    {"phase": "Pending", "conditions": [condition("PodScheduled", "False", "Unschedulable", "0/1 nodes are available")]}
)
RUNNING = try_pod(container_status("downloader", running={}))
FAILED_TRY = try_pod(
    container_status(
        "downloader",
        terminated={
            "exitCode": 1,
            "message": '{"status":"failed","reason":"Unreachable","message":"no answer.","retryable":true}',
        },
    )
)
LOST = FailedDownload(Failure("NotFound", "404", "Pod/try", NOW), retryable=False)
REFUSED = (Refusal(ObjectId(Kind.CLAIM, NAMESPACE, "mine"), "exceeded quota"),)
NO_JOB = (Refusal(ObjectId(Kind.JOB, NAMESPACE, "job"), "violates PodSecurity"),)

CASES: dict[str, tuple[dict[str, Any], dict[str, tuple[str, str]]]] = {
    "being created": ({"claim": None}, {"StorageBound": ("Unknown", "Creating"), "Ready": ("Unknown", "Creating")}),
    "claim refused": ({"claim": None, "refusals": REFUSED}, {"StorageBound": ("False", "ClaimRefused")}),
    "claim lost": ({"claim": claim("Lost")}, {"StorageBound": ("False", "ClaimLost")}),
    "claim going": (
        {"claim": claim(deletionTimestamp=timestamp(NOW)), "plan": CachePlan(proof=PROOF)},
        {"StorageBound": ("False", "ClaimTerminating"), "Ready": ("False", "ClaimTerminating")},
    ),
    "no volume": (
        {"claim": claim("Pending"), "facts": CacheFacts(claim_event=NO_CLASS)},
        {"StorageBound": ("False", "ProvisioningFailed"), "Ready": ("False", "ProvisioningFailed")},
    ),
    "no volume so far": (
        {"claim": claim("Pending", creationTimestamp=timestamp(NOW)), "facts": CacheFacts(claim_event=NO_CLASS)},
        {"StorageBound": ("Unknown", "Provisioning")},
    ),
    "no such class": (
        {"claim": claim("Pending", creationTimestamp=timestamp(NOW)), "facts": CacheFacts(claim_event=NO_SUCH_CLASS)},
        {"StorageBound": ("False", "ProvisioningFailed")},
    ),
    "its pod waits for it": (
        {
            "claim": claim("Pending"),
            "plan": CachePlan(job=job()),
            "facts": CacheFacts(claim_event=EXTERNAL),
            "pods": (WAITING_POD,),
        },
        {"StorageBound": ("Unknown", "Provisioning"), "Downloaded": ("Unknown", "Starting")},
    ),
    "waits for its pod": (
        {"claim": claim("Pending"), "facts": CacheFacts(claim_event=CONSUMER)},
        {"StorageBound": ("Unknown", "WaitsForPod")},
    ),
    "its pod waits": (
        {"claim": claim("Pending"), "facts": CacheFacts(claim_event=CONSUMER), "pods": (WAITING_POD,)},
        {"StorageBound": ("False", "Unschedulable")},
    ),
    "provisioner at work": (
        {"claim": claim("Pending"), "facts": CacheFacts(claim_event=EXTERNAL)},
        {"StorageBound": ("Unknown", "Provisioning")},
    ),
    "no place for all": ({"plan": CachePlan(conflict="a and b")}, {"StorageBound": ("False", "PlacementConflict")}),
    "before the job": ({}, {"StorageBound": ("True", "Bound"), "Downloaded": ("Unknown", "WaitingForClaim")}),
    "job refused": ({"refusals": NO_JOB}, {"Downloaded": ("False", "JobRefused")}),
    "starting": ({"plan": CachePlan(job=job())}, {"Downloaded": ("Unknown", "Starting")}),
    "running": (
        {"plan": CachePlan(job=job()), "pods": (RUNNING,)},
        {"Downloaded": ("Unknown", "Downloading"), "Ready": ("Unknown", "Downloading")},
    ),
    "running again after a failure": (
        {"plan": CachePlan(job=job()), "pods": (FAILED_TRY, RUNNING)},
        {"Downloaded": ("Unknown", "Downloading")},
    ),
    "between two tries": (
        {"plan": CachePlan(job=job()), "pods": (FAILED_TRY,)},
        {"Downloaded": ("False", "Unreachable"), "Ready": ("False", "Unreachable")},
    ),
    "failed": (
        {"plan": CachePlan(job=job(), failed=LOST)},
        {"Downloaded": ("False", "NotFound"), "Verified": ("Unknown", "NotDownloaded"), "Ready": ("False", "NotFound")},
    ),
    "cached": (
        {"plan": CachePlan(job=job(), proof=PROOF)},
        {"Downloaded": ("True", "Downloaded"), "Verified": ("True", "Verified"), "Ready": ("True", "Cached")},
    ),
    "deleted while in use": (
        {
            "known": cache(deletionTimestamp=timestamp(NOW)),
            "users": (service("a"), service("b")),
            "plan": CachePlan(proof=PROOF),
        },
        {"Ready": ("True", "InUse")},
    ),
    "claim not there": (
        {"known": cache(spec=DISK)},
        {"StorageBound": ("False", "ClaimNotFound"), "Ready": ("False", "ClaimNotFound")},
    ),
    "claim of the user": (
        {"known": cache(spec=DISK), "facts": CacheFacts(source_claim=claim(name="disk"))},
        {"StorageBound": ("True", "Bound"), "Downloaded": ("True", "NotNeeded"), "Ready": ("True", "Cached")},
    ),
    "claim of the user that waits for a pod": (
        {"known": cache(spec=DISK), "facts": CacheFacts(source_claim=claim("Pending", "disk"), claim_event=CONSUMER)},
        {"StorageBound": ("True", "WaitsForPod"), "Ready": ("True", "Cached")},
    ),
    "claim of the user that cannot be bound": (
        {"known": cache(spec=DISK), "facts": CacheFacts(source_claim=claim("Pending", "disk"), claim_event=NO_CLASS)},
        {"StorageBound": ("False", "ProvisioningFailed")},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_conditions(case: str) -> None:
    fields, expected = CASES[case]
    found = told(status_of(**fields))
    assert {name: found[name] for name in expected} == expected


def test_what_is_used_and_how_much_there_is() -> None:
    status = status_of(plan=CachePlan(job=job(), proof=PROOF), users=(service("a"), service("b")))
    assert status.used_by == ["a", "b"]
    assert (status.revision, status.claim_name, status.source) == ("c0ffee", "mine", "http a")
    assert status.download is not None
    assert (status.download.bytes_done, status.download.progress) == (6_900_000_000, "100% of 6.9 GB")


def test_progress_is_reported_and_forgets_its_speed_between_two_tries() -> None:
    progress = Progress(event="progress", bytes_done=50, bytes_total=100, bytes_per_second=5, eta_seconds=10)
    running = status_of(plan=CachePlan(job=job()), facts=CacheFacts(progress=progress), pods=(RUNNING,))
    assert running.download is not None
    assert (running.download.progress, running.download.eta_seconds) == ("50% of 100 B", 10)
    between = status_of(cache(status=running.to_wire()), CachePlan(job=job({"failed": 1})), pods=(FAILED_TRY,))
    assert between.download is not None
    assert (between.download.progress, between.download.eta_seconds) == ("50% of 100 B", None)


def test_the_message_says_when_it_is_tried_again_or_how() -> None:
    again = NOW + timedelta(minutes=2)
    retryable = FailedDownload(Failure("Unreachable", "no answer", "Pod/try", NOW), retryable=True)
    planned = status_of(plan=CachePlan(job=job(), failed=retryable, retry_at=again))
    assert message(planned, "Downloaded") == (
        "no answer. The next try is at 12:02:00 UTC; delete Job job to try at once."
    )
    given_up = status_of(plan=CachePlan(job=job(), failed=LOST))
    assert message(given_up, "Downloaded") == (
        "404. Another try would not help: mend it, then delete Job job to try again."
    )
    between = status_of(plan=CachePlan(job=job()), pods=(FAILED_TRY,))
    assert message(between, "Downloaded") == "no answer. It is being tried again."


def test_a_wrong_checksum_shows_where_it_belongs() -> None:
    wrong = FailedDownload(Failure("ChecksumMismatch", "a: wrong digest", "Pod/try", NOW), retryable=False)
    status = status_of(plan=CachePlan(job=job(), failed=wrong))
    assert told(status)["Verified"] == ("False", "ChecksumMismatch")
    assert status.last_failure is not None
    assert status.last_failure.object == "Pod/try"


def test_those_for_whom_a_deletion_waits_are_named() -> None:
    fields, _ = CASES["deleted while in use"]
    assert "used by AIService a, b: delete them or give them another model" in message(status_of(**fields), "Ready")


def test_what_this_version_cannot_read_is_said() -> None:
    status = status_of(cache(spec={"carrierPigeon": {}, "http": {"files": 3}}))
    assert told(status) == {"Ready": ("False", "InvalidSpec")}


def test_a_status_that_was_written_is_computed_again_as_it_is() -> None:
    for fields, _ in CASES.values():
        known = fields.get("known", cache())
        first = status_of(**fields)
        again = status_of(**{**fields, "known": cache(spec=known.body["spec"], status=first.to_wire(), **extra(known))})
        assert again.to_wire() == first.to_wire()


def extra(known: Cache) -> dict[str, Any]:
    return {"deletionTimestamp": timestamp(NOW)} if known.meta.deleting else {}


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (MODEL, "http a"),
        ({"http": {"files": MODEL["http"]["files"] * 3}}, "http a and 2 more"),
        ({"huggingFace": {"repo": "o/m", "revision": "v1"}}, "huggingFace o/m@v1"),
        (DISK, "pvc disk/m"),
        ({"pvc": {"claimName": "disk"}}, "pvc disk"),
    ],
)
def test_sources_for_people(spec: Json, text: str) -> None:
    known = cache(spec=spec)
    assert known.spec is not None
    assert describe(known.spec) == text


def test_of_several_events_the_newest_is_told() -> None:
    def event(reason: str, kind: str, **fields: Any) -> Json:
        return {"reason": reason, "type": kind, "message": f"{reason}. ", "metadata": metadata("e"), **fields}

    old = event("WaitForFirstConsumer", "Normal", lastTimestamp="2026-11-23T11:00:00Z")
    new = event("ProvisioningFailed", "Warning", eventTime="2026-11-23T11:30:00.5Z")
    assert newest_event([new, old]) == ClaimEvent("ProvisioningFailed", "ProvisioningFailed", problem=True)
    series = event("WaitForFirstConsumer", "Normal", series={"lastObservedTime": "2026-11-23T11:40:00Z"})
    assert newest_event([new, series, old]) == ClaimEvent("WaitForFirstConsumer", "WaitForFirstConsumer", problem=False)
    assert newest_event([]) is None

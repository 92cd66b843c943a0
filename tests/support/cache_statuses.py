"""Statuses of ModelCaches for unit tests: what is given, and which conditions are expected."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from aiservice_api.v1alpha1 import ModelCacheStatus
from aiservice_operator import names
from aiservice_operator.desired.pvc import Memory
from aiservice_operator.downloads import Proof, Verification
from aiservice_operator.failures import Failure, Words
from aiservice_operator.kinds import Json, Key, Kind, ObjectId
from aiservice_operator.observed import Cache, Child
from aiservice_operator.plan import CachePlan, CacheView, Refusal
from aiservice_operator.plan.tries import FailedTry
from aiservice_operator.states import CacheJob, cache_job
from aiservice_operator.states import claim as claim_state
from aiservice_operator.status import CacheFacts, ClaimEvent, cache_status
from support.operator_objects import (
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
AT = NOW - timedelta(hours=1)
CACHED = Memory(None, PROOF, Verification(at=AT))


def claim(phase: str = "Bound", name: str = "mine", **fields: Any) -> Child:
    modes, size, capacity = (
        fields.pop(field, default)
        for field, default in (("modes", ["ReadWriteOnce"]), ("size", "20Gi"), ("capacity", "20Gi"))
    )
    spec = {"accessModes": modes, "resources": {"requests": {"storage": size}}}
    status = {"phase": phase, "capacity": {"storage": capacity}, "conditions": fields.pop("conditions", [])}
    return child(Kind.CLAIM, {"metadata": metadata(name, **fields), "spec": spec, "status": status})


def job(status: Json | None = None, mode: str = "download") -> CacheJob:
    body = {"metadata": metadata("job", annotations={names.MODE_ANNOTATION: mode}), "spec": {}}
    return cache_job(child(Kind.JOB, {**body, "status": status or {"active": 1}}))


def try_pod(status: Json) -> Child:
    return pod("try", status, owner="uid-job", container="downloader")


def status_of(
    known: Cache | None = None,
    plan: CachePlan | None = None,
    facts: CacheFacts | None = None,
    refusals: tuple[Refusal, ...] = (),
    **fields: Any,
) -> ModelCacheStatus:
    """The status; the claim of the view is the cache's own."""
    known = known or cache()
    given: dict[str, Any] = {"users": (), "claim": claim(), "jobs": (), "pods": (), **fields}
    view = CacheView(key=Key(Kind.MODEL_CACHE, NAMESPACE, known.meta.name), cache=known, **given)
    own = claim_state(view.claim) if view.claim is not None else None
    decided = replace(plan or CachePlan(), claim=own)
    return cache_status(view, known, decided, facts=facts or CacheFacts(), refusals=refusals, now=NOW)


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
BEFORE_THE_VOLUME = try_pod(
    {
        "phase": "Pending",
        "conditions": [
            condition(
                "PodScheduled",
                "False",
                "Unschedulable",
                "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found",
            )
        ],
    }
)
JUST_REFUSED = try_pod(
    {
        "phase": "Pending",
        "conditions": [
            condition(
                "PodScheduled", "False", "Unschedulable", "0/1 nodes are available", lastTransitionTime=timestamp(NOW)
            )
        ],
    }
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
NEXT_TRY = pod("next", {"phase": "Pending"}, owner="uid-job", container="downloader")
LOST = FailedTry(Failure("NotFound", "404", "Pod/try", NOW), retryable=False)
REFUSED = (Refusal(ObjectId(Kind.CLAIM, NAMESPACE, "mine"), "exceeded quota"),)
NO_JOB = (Refusal(ObjectId(Kind.JOB, NAMESPACE, "job"), "violates PodSecurity"),)

LARGE = FailedTry(Failure("OutOfSpace", "too large", "Pod/try", NOW), retryable=False, required_bytes=30 << 30)
DAMAGE = Memory(None, PROOF, Verification(at=AT, damage="a is damaged"))
BROKEN = FailedTry(Failure("ChecksumMismatch", "a is damaged", "Pod/try", NOW), retryable=False)
CREATING = try_pod(
    {
        **container_status("downloader", waiting={"reason": "ContainerCreating"}),
        "conditions": [condition("PodScheduled", "True")],
    }
)
MOUNT = CacheFacts(words={"uid-try": Words("FailedMount", "no such device", NOW)})
QUOTA = CacheFacts(words={"uid-job": Words("PodsRefused", "exceeded quota: tight", NOW)})
GONE = job({"failed": 1, "conditions": [condition("Failed", "True")]})
CHECK = job(mode="verify")

CASES: dict[str, tuple[dict[str, Any], dict[str, tuple[str, str]]]] = {
    "being created": ({"claim": None}, {"StorageBound": ("Unknown", "Creating"), "Ready": ("Unknown", "Creating")}),
    "claim refused": ({"claim": None, "refusals": REFUSED}, {"StorageBound": ("False", "ClaimRefused")}),
    "claim lost": ({"claim": claim("Lost")}, {"StorageBound": ("False", "ClaimLost")}),
    "claim going": (
        {"claim": claim(deletionTimestamp=timestamp(NOW)), "plan": CachePlan(memory=CACHED)},
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
    "bound, which the scheduler has not seen yet": (
        {"plan": CachePlan(job=job()), "pods": (BEFORE_THE_VOLUME,)},
        {"StorageBound": ("True", "Bound"), "Downloaded": ("Unknown", "Starting")},
    ),
    "a node that the scheduler has not found so far": (
        {"plan": CachePlan(job=job()), "pods": (JUST_REFUSED,)},
        {"Downloaded": ("Unknown", "Starting"), "Ready": ("Unknown", "Starting")},
    ),
    "no node": (
        {"plan": CachePlan(job=job()), "pods": (WAITING_POD,)},
        {"StorageBound": ("True", "Bound"), "Downloaded": ("False", "Unschedulable")},
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
        {
            "plan": CachePlan(job=job()),
            "claim": claim("Pending"),
            "facts": CacheFacts(claim_event=CONSUMER),
            "pods": (WAITING_POD,),
        },
        {"StorageBound": ("False", "Unschedulable")},
    ),
    "provisioner at work": (
        {"claim": claim("Pending"), "facts": CacheFacts(claim_event=EXTERNAL)},
        {"StorageBound": ("Unknown", "Provisioning")},
    ),
    "shared volumes that nobody makes": (
        {"claim": claim("Pending", modes=["ReadWriteMany"]), "facts": CacheFacts(claim_event=NO_SUCH_CLASS)},
        {"StorageBound": ("False", "ProvisioningFailed")},
    ),
    "measuring": (
        {"claim": None, "plan": CachePlan(job=job(mode="measure"))},
        {
            "StorageBound": ("Unknown", "Measuring"),
            "Downloaded": ("Unknown", "Measuring"),
            "Ready": ("Unknown", "Measuring"),
        },
    ),
    "cannot be measured": (
        {"claim": None, "plan": CachePlan(job=job(mode="measure"), failed=LOST)},
        {
            "StorageBound": ("Unknown", "Measuring"),
            "Downloaded": ("False", "NotFound"),
            "Ready": ("False", "NotFound"),
        },
    ),
    "too large for its volume": (
        {"plan": CachePlan(job=GONE, failed=LARGE)},
        {"StorageBound": ("True", "Bound"), "Downloaded": ("False", "OutOfSpace")},
    ),
    "growing": (
        {"claim": claim(size="34Gi"), "plan": CachePlan(job=GONE, failed=LARGE)},
        {"Downloaded": ("Unknown", "Expanding"), "Ready": ("Unknown", "Expanding")},
    ),
    "does not grow": (
        {
            "claim": claim(
                size="34Gi", conditions=[condition("ControllerResizeError", "True", "Quota", "disk is full")]
            ),
            "plan": CachePlan(job=GONE, failed=LARGE),
        },
        {"Downloaded": ("False", "ExpansionFailed")},
    ),
    "grows when it is mounted": (
        {
            "claim": claim(size="34Gi", conditions=[condition("FileSystemResizePending", "True")]),
            "plan": CachePlan(job=job()),
        },
        {"Downloaded": ("Unknown", "Starting")},
    ),
    "no place for all": ({"plan": CachePlan(conflict="a and b")}, {"StorageBound": ("False", "PlacementConflict")}),
    "before the job": ({}, {"StorageBound": ("True", "Bound"), "Downloaded": ("Unknown", "WaitingForClaim")}),
    "job refused": ({"refusals": NO_JOB}, {"Downloaded": ("False", "JobRefused")}),
    "starting": ({"plan": CachePlan(job=job())}, {"Downloaded": ("Unknown", "Starting")}),
    "pod not started": (
        {"plan": CachePlan(job=job()), "facts": MOUNT, "pods": (CREATING,)},
        {"Downloaded": ("False", "FailedMount"), "Ready": ("False", "FailedMount")},
    ),
    "pod refused": (
        {"plan": CachePlan(job=job({})), "facts": QUOTA},
        {"StorageBound": ("True", "Bound"), "Downloaded": ("False", "PodsRefused"), "Ready": ("False", "PodsRefused")},
    ),
    "pod refused where the volume waits for it": (
        {
            "claim": claim("Pending"),
            "plan": CachePlan(job=job({})),
            "facts": CacheFacts(claim_event=CONSUMER, words=QUOTA.words),
        },
        {"StorageBound": ("Unknown", "WaitsForPod"), "Ready": ("False", "PodsRefused")},
    ),
    "next pod refused": (
        {"plan": CachePlan(job=job({"failed": 1})), "facts": QUOTA, "pods": (FAILED_TRY,)},
        {"Downloaded": ("False", "PodsRefused")},
    ),
    "pod that measures refused": (
        {"claim": None, "plan": CachePlan(job=job({}, mode="measure")), "facts": QUOTA},
        {"StorageBound": ("Unknown", "Measuring"), "Downloaded": ("False", "PodsRefused")},
    ),
    "pod that verifies refused": (
        {"plan": CachePlan(memory=CACHED, check=job({}, mode="verify")), "facts": QUOTA},
        {"Verified": ("Unknown", "PodsRefused"), "Ready": ("True", "Cached")},
    ),
    "running": (
        {"plan": CachePlan(job=job()), "pods": (RUNNING,)},
        {"Downloaded": ("Unknown", "Downloading"), "Ready": ("Unknown", "Downloading")},
    ),
    "running again after a failure": (
        {"plan": CachePlan(job=job()), "pods": (FAILED_TRY, RUNNING)},
        {"Downloaded": ("Unknown", "Downloading")},
    ),
    "a failed pod that was replaced": (
        {"plan": CachePlan(job=job()), "pods": (FAILED_TRY, NEXT_TRY)},
        {"Downloaded": ("Unknown", "Starting"), "Ready": ("Unknown", "Starting")},
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
        {"plan": CachePlan(job=job(), memory=CACHED)},
        {"Downloaded": ("True", "Downloaded"), "Verified": ("True", "Verified"), "Ready": ("True", "Cached")},
    ),
    "being verified": (
        {"plan": CachePlan(job=job(), memory=CACHED, check=CHECK), "pods": (RUNNING,)},
        {"Verified": ("True", "Verifying"), "Ready": ("True", "Cached")},
    ),
    "repaired": (
        {"plan": CachePlan(memory=Memory(None, PROOF, Verification(at=AT, repaired=("a", "b"))))},
        {"Verified": ("True", "Repaired"), "Ready": ("True", "Cached")},
    ),
    "damaged": (
        {"plan": CachePlan(memory=DAMAGE, check=CHECK, check_failed=BROKEN)},
        {
            "Downloaded": ("True", "Downloaded"),
            "Verified": ("False", "ChecksumMismatch"),
            "Ready": ("False", "ChecksumMismatch"),
        },
    ),
    "not verified": (
        {"plan": CachePlan(memory=CACHED, check=CHECK, check_failed=LOST)},
        {"Verified": ("Unknown", "NotFound"), "Ready": ("True", "Cached")},
    ),
    "deleted while in use": (
        {
            "known": cache(deletionTimestamp=timestamp(NOW)),
            "users": (service("a"), service("b")),
            "plan": CachePlan(memory=CACHED),
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

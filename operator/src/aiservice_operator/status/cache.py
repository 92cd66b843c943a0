"""The status of a ModelCache."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from aiservice_api.v1alpha1 import DownloadStatus, ModelCacheSpec, ModelCacheStatus
from aiservice_operator.downloads import progress_status
from aiservice_operator.failures import Failure, of_pods
from aiservice_operator.kinds import Kind
from aiservice_operator.observed import Cache
from aiservice_operator.plan.actions import Refusal
from aiservice_operator.plan.download import CachePlan, CacheView, FailedDownload, last_failure, pods_of
from aiservice_operator.quantities import human_bytes
from aiservice_operator.states import pod_running, unbound
from aiservice_operator.status.conditions import FALSE, TRUE, Check, merge, no, pending, yes
from aiservice_operator.status.conditions import last_failure as merge_failure
from aiservice_operator.status.storage import CacheFacts, own_claim, provided_claim

_LISTED_USERS = 256
_WAITING = frozenset({"Unschedulable", "ImagePullBackOff", "CreateContainerConfigError"})
"""Failures of a pod that goes on as soon as they are mended."""


def cache_status(
    view: CacheView,
    cache: Cache,
    plan: CachePlan,
    *,
    facts: CacheFacts,
    refusals: Sequence[Refusal],
    now: datetime,
) -> ModelCacheStatus:
    """Computes the status of a ModelCache."""
    previous, spec = cache.status, cache.spec
    if spec is None:
        unreadable = no("InvalidSpec", f"this version of the operator cannot read it: {cache.invalid}")
        conditions = merge(previous.conditions, [("Ready", unreadable)], cache.meta.generation, now)
        return previous.model_copy(update={"observed_generation": cache.meta.generation, "conditions": conditions})
    if spec.pvc is not None:
        checks = _provided(spec.pvc.claim_name, cache.meta.namespace, facts, now)
        failure, claim_name = None, spec.pvc.claim_name
    else:
        problem = _problem(view, plan, now)
        failure = problem.failure if problem is not None else None
        checks = {
            "StorageBound": own_claim(view, plan, facts, refusals=refusals, now=now),
            "Downloaded": _downloaded(view, plan, problem, refusals),
            "Verified": _verified(plan, failure),
        }
        claim_name = cache.meta.name
    checks["Ready"] = _ready(view, cache, checks)
    return ModelCacheStatus(
        observed_generation=cache.meta.generation,
        source=describe(spec),
        revision=plan.proof.revision if plan.proof is not None else None,
        claim_name=claim_name,
        used_by=[user.meta.name for user in view.users][:_LISTED_USERS],
        download=_download(view, plan, facts, previous) if spec.pvc is None else None,
        last_failure=merge_failure(failure, previous.last_failure),
        conditions=merge(previous.conditions, list(checks.items()), cache.meta.generation, now),
    )


def describe(spec: ModelCacheSpec) -> str:
    """Returns the source in one line, for people."""
    if spec.hugging_face is not None:
        return f"huggingFace {spec.hugging_face.repo}@{spec.hugging_face.revision}"
    if spec.http is not None:
        first, more = spec.http.files[0].path, len(spec.http.files) - 1
        return f"http {first}" + (f" and {more} more" if more else "")
    if spec.pvc is not None:
        return f"pvc {spec.pvc.claim_name}/{spec.pvc.path}".rstrip("/")
    return ""


def _provided(name: str, namespace: str, facts: CacheFacts, now: datetime) -> dict[str, Check]:
    """The checks of a `pvc` source: the claim exists, and pods can use it."""
    unchecked = "the operator neither writes nor reads the files of a claim that you made"
    return {
        "StorageBound": provided_claim(name, namespace, facts, now),
        "Downloaded": yes("NotNeeded", "the files are on the claim already"),
        "Verified": pending("NotChecked", unchecked),
    }


def _problem(view: CacheView, plan: CachePlan, now: datetime) -> FailedDownload | None:
    """What is wrong with the download now; None where it runs, is done, or has not had the time to fail."""
    if plan.proof is not None or plan.job is None:
        return None
    if plan.failed is not None:
        return plan.failed
    pods = pods_of(plan.job, view.pods)
    if any(pod_running(pod) for pod in pods):
        return None
    waiting = [pod for pod in pods if pod.body.get("status", {}).get("phase") == "Pending"]
    stuck = of_pods(waiting, now)
    if stuck is not None and stuck.reason == "Unschedulable" and unbound(view.claim):
        return None  # what keeps the claim keeps the pod: StorageBound says what it is
    if stuck is not None:
        return FailedDownload(stuck, retryable=True)
    return last_failure(plan.job, [pod for pod in pods if pod not in waiting])


def _downloaded(view: CacheView, plan: CachePlan, problem: FailedDownload | None, refusals: Sequence[Refusal]) -> Check:
    if plan.proof is not None:
        size = plan.proof.size()
        files = f" in {plan.proof.files} files" if plan.proof.files is not None else ""
        return yes("Downloaded", f"{size}{files} on {view.key.name}" if size else f"on {view.key.name}")
    if problem is not None:
        found = problem.failure
        return no(found.reason, f"{found.message.rstrip('.')}. {_what_next(plan, problem)}".strip())
    refused = next((refusal.message for refusal in refusals if refusal.identity.kind is Kind.JOB), "")
    if refused:
        return no("JobRefused", f"the download Job cannot be created: {refused}")
    if plan.job is None:
        return pending("WaitingForClaim", "the download begins when there is a claim for it")
    if any(pod_running(pod) for pod in pods_of(plan.job, view.pods)):
        return pending("Downloading", "the download is running; status.download shows how far it is")
    return pending("Starting", "the download is being started")


def _what_next(plan: CachePlan, problem: FailedDownload) -> str:
    """When it is tried again, and what to do about it."""
    if plan.job is None or problem.failure.reason in _WAITING:
        return ""
    name = plan.job.child.meta.name
    if plan.retry_at is not None:
        return f"The next try is at {plan.retry_at:%H:%M:%S} UTC; delete Job {name} to try at once."
    if problem.retryable:
        return "It is being tried again."
    return f"Another try would not help: mend it, then delete Job {name} to try again."


def _verified(plan: CachePlan, failure: Failure | None) -> Check:
    if plan.proof is not None:
        return yes("Verified", "every file had the expected size and digest when it was published")
    if failure is not None and failure.reason == "ChecksumMismatch":
        return no("ChecksumMismatch", failure.message)
    return pending("NotDownloaded", "files are verified while they are downloaded")


def _ready(view: CacheView, cache: Cache, checks: dict[str, Check]) -> Check:
    needed = [checks["StorageBound"], checks["Downloaded"]]
    if all(check.status is TRUE for check in needed):
        if cache.meta.deleting:
            users = ", ".join(user.meta.name for user in view.users)
            return yes(
                "InUse",
                f"it will be deleted when nobody uses it any more. It is used by AIService {users}: delete them or "
                "give them another model",
            )
        return yes("Cached", "the model is cached")
    failed = next((check for check in needed if check.status is FALSE), None)
    waiting = next(check for check in needed if check.status is not TRUE)
    found = failed or waiting
    return Check(found.status, found.reason, found.message)


def _download(view: CacheView, plan: CachePlan, facts: CacheFacts, previous: ModelCacheStatus) -> DownloadStatus | None:
    # The Job counts its pods a moment after they appear, and remembers them when they are gone.
    pods = max(plan.job.pods, len(pods_of(plan.job, view.pods))) if plan.job is not None else 0
    attempts = pods + plan.job.earlier_pods if plan.job is not None else 0
    known = previous.download or DownloadStatus()
    if plan.proof is not None:
        size = plan.proof.bytes
        return DownloadStatus(
            bytes_done=size or 0,
            bytes_total=size,
            progress=f"100% of {human_bytes(size)}" if size is not None else "100%",
            attempts=max(attempts, known.attempts),
        )
    if facts.progress is not None:
        return progress_status(facts.progress, attempts)
    if plan.job is None:
        return None
    # Between two tries nothing moves: how fast it was is no longer so.
    return known.model_copy(update={"bytes_per_second": None, "eta_seconds": None, "attempts": attempts})

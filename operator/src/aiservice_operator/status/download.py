"""How far a download is, and what is wrong with it: the `Downloaded` check and `status.download`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from aiservice_api.v1alpha1 import DownloadStatus, ModelCacheSpec, ModelCacheStatus, Storage
from aiservice_operator.desired.credentials import credentials_of
from aiservice_operator.desired.pvc import volume_size
from aiservice_operator.downloads import progress_status
from aiservice_operator.failures import Failure, of_pods
from aiservice_operator.kinds import Kind
from aiservice_operator.names import Mode
from aiservice_operator.observed import Child, Meta
from aiservice_operator.plan.actions import Refusal
from aiservice_operator.plan.download import CachePlan, CacheView, waits_to_grow
from aiservice_operator.plan.tries import FailedTry, failed_last, pods_of
from aiservice_operator.quantities import human_bytes
from aiservice_operator.states import CacheJob, pod_running, unbound
from aiservice_operator.status.conditions import TRUE, Check, find, no, pending, yes
from aiservice_operator.status.remedies import DOWNLOADING, advised, resize, sentence
from aiservice_operator.status.storage import CacheFacts, claim_refusal, held, with_nodes

_SECRET_FIELDS = {
    "hugging_face": "huggingFace.tokenSecretRef",
    "s3": "s3.credentialsSecretRef",
    "oci": "oci.pullSecretRef",
}

_UNBOUND = "unbound immediate PersistentVolumeClaims"
"""The scheduler's words about a pod whose claim it saw without a volume."""


def problem_of(
    view: CacheView, job: CacheJob | None, failed: FailedTry | None, facts: CacheFacts, now: datetime
) -> FailedTry | None:
    """Returns what is wrong with a Job now; None where it runs, is done, or has not had the time to fail."""
    if job is None or job.succeeded:
        return None
    if failed is not None:
        return failed
    pods = pods_of(job, view.pods)
    if any(pod_running(pod) for pod in pods):
        return None
    refused = _pods_refused(job, facts)
    if refused is not None:
        return FailedTry(refused, retryable=True)
    waiting = [pod for pod in pods if pod.body.get("status", {}).get("phase") == "Pending"]
    return _stuck(job, waiting, view, facts, now) if waiting else failed_last(job, pods)


def _stuck(
    job: CacheJob, waiting: Sequence[Child], view: CacheView, facts: CacheFacts, now: datetime
) -> FailedTry | None:
    """What keeps pods from starting; None where it may still pass, or is told elsewhere."""
    found = of_pods(waiting, now, facts.words)
    if found is None:
        return None
    if found.reason == "Unschedulable" and (unbound(view.claim) or _UNBOUND in found.message):
        # What keeps the claim keeps the pod: StorageBound says what it is. Of a claim that has been bound since, the
        # scheduler still has to hear.
        return None
    return FailedTry(with_nodes(found, job, view), retryable=True)


def _pods_refused(job: CacheJob, facts: CacheFacts) -> Failure | None:
    """A quota or a policy that lets no pod of the Job be made."""
    meta = job.child.meta
    said = facts.words.get(meta.uid)
    if said is None:
        return None
    return Failure(said.reason, f"pods cannot be created: {said.message}", f"Job/{meta.name}", said.time)


def downloaded(
    cache: Meta,
    spec: ModelCacheSpec,
    view: CacheView,
    plan: CachePlan,
    problem: FailedTry | None,
    *,
    facts: CacheFacts,
    refusals: Sequence[Refusal],
) -> Check:
    """Checks that the files are there."""
    if plan.proof is not None:
        size = plan.proof.size()
        files = f" in {plan.proof.files} files" if plan.proof.files is not None else ""
        return yes("Downloaded", f"{size}{files} on {view.key.name}" if size else f"on {view.key.name}")
    if problem is not None and problem.failure.reason == "OutOfSpace":
        return _out_of_space(cache, spec, plan, problem, claim_refusal(refusals))
    if problem is not None:
        found = problem.failure
        todo = what_next(spec, plan, plan.job, problem, secrets_followed=facts.secrets_followed)
        return no(found.reason, f"{found.message.rstrip('.')}. {todo}".strip())
    refused = next((refusal.message for refusal in refusals if refusal.identity.kind is Kind.JOB), "")
    if refused:
        return no("JobRefused", advised(f"the download Job cannot be created: {refused}", DOWNLOADING["JobRefused"]))
    if plan.job is None or plan.job.succeeded:
        return pending("WaitingForClaim", "the download begins when there is a claim for it")
    return _under_way(view, plan.job)


def _under_way(view: CacheView, job: CacheJob) -> Check:
    if job.held:
        return held(job)
    if job.mode is Mode.MEASURE:
        return pending("Measuring", "the source is asked how large it is")
    if any(pod_running(pod) for pod in pods_of(job, view.pods)):
        return pending("Downloading", "the download is running; status.download shows how far it is")
    return pending("Starting", "the download is being started")


def _out_of_space(cache: Meta, spec: ModelCacheSpec, plan: CachePlan, problem: FailedTry, refused: str) -> Check:
    """A model that is larger than its volume: the volume grows, or somebody has to make it."""
    state, said = plan.claim, problem.failure.message.rstrip(".")
    needed = volume_size(problem.required_bytes) if problem.required_bytes is not None else "more"
    if state is None:
        return no("OutOfSpace", f"{said}. {sentence(resize(cache, needed))}.")
    if state.growing and state.growth_fault:
        return no(
            "ExpansionFailed",
            f"{said}. PersistentVolumeClaim {state.name} does not grow to {state.requested}: {state.growth_fault}. "
            "Mend that, or delete the claim: it is made anew with that size",
        )
    if waits_to_grow(state, problem):
        return pending("Expanding", f"PersistentVolumeClaim {state.name} grows to {state.requested}, then it goes on")
    if refused:
        return no(
            "OutOfSpace",
            f"{said}. PersistentVolumeClaim {state.name} cannot grow to {needed}: {refused}. Let its StorageClass "
            f"expand volumes (allowVolumeExpansion: true), or {resize(cache, needed)} and delete the claim: it is "
            "made anew with that size",
        )
    if (spec.storage or Storage()).size is None:
        return no("OutOfSpace", f"{said}. {state.requested} should do, and do not: {resize(cache, 'more')}.")
    return no("OutOfSpace", f"{said}. {sentence(resize(cache, needed))}: the download then starts again.")


def what_next(
    spec: ModelCacheSpec, plan: CachePlan, job: CacheJob | None, problem: FailedTry, *, secrets_followed: bool
) -> str:
    """Returns when it is tried again, and what to do about it."""
    remedy = DOWNLOADING.get(problem.failure.reason, "")
    if job is None or remedy:
        return remedy
    name = job.child.meta.name
    if plan.again_at is not None and problem.retryable and job.failed_at is not None:
        return f"The next try is at {plan.again_at:%H:%M:%S} UTC; delete Job {name} to try at once."
    if problem.retryable:
        return "It is being tried again."
    return _for_good(spec, plan, job, problem, secrets_followed=secrets_followed)


def _for_good(
    spec: ModelCacheSpec, plan: CachePlan, job: CacheJob, problem: FailedTry, *, secrets_followed: bool
) -> str:
    """What to do where another try would not help."""
    name = job.child.meta.name
    advice = {
        "Unauthorized": _secret_advice(spec, "" if secrets_followed else name),
        "ForbiddenAddress": "It is tried again when the operator's download.allowedHosts has changed.",
        "NotFound": _pinned_advice(plan, job),
    }.get(problem.failure.reason)
    return advice or f"Another try would not help: mend it, then delete Job {name} to try again."


def _pinned_advice(plan: CachePlan, job: CacheJob) -> str:
    """Empty where the claim pins no revision: a Job that is made anew asks for the present one then."""
    measured = plan.memory.measurement
    if plan.claim is None or measured is None or not measured.revision or measured.revision != job.revision:
        return ""
    return (
        f"What is asked for is revision {measured.revision}, pinned when the source was first looked at. If it is gone "
        f"there, delete PersistentVolumeClaim {plan.claim.name}: then the present one is downloaded; a source that "
        "names this revision has to be another ModelCache."
    )


def _secret_advice(spec: ModelCacheSpec, unfollowed: str) -> str:
    """Empty for sources that no Secret opens. `unfollowed`: the Job, where nobody looks whether a Secret changes."""
    credentials = credentials_of(spec)
    if credentials is not None and unfollowed:
        return (
            f"Correct Secret {credentials.secret} and delete Job {unfollowed}, or name another Secret: then it is "
            "tried again. The operator is configured to read no Secrets (rollOnConfigChange), and sees no change."
        )
    if credentials is not None:
        return f"Correct Secret {credentials.secret}, or name another: then it is tried again within a minute."
    field = next((path for source, path in _SECRET_FIELDS.items() if getattr(spec, source) is not None), "")
    return f"Name a Secret with credentials in {field}: then it is tried again." if field else ""


def progress(view: CacheView, plan: CachePlan, facts: CacheFacts, previous: ModelCacheStatus) -> DownloadStatus | None:
    """Returns the numbers of a download."""
    known = _known(plan, previous)
    if plan.job is not None and plan.job.mode is Mode.MEASURE:
        return None
    # The Job counts its pods a moment after they appear, and remembers them when they are gone.
    pods = max(plan.job.pods, len(pods_of(plan.job, view.pods))) if plan.job is not None else 0
    attempts = pods + plan.job.earlier_pods if plan.job is not None else 0
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


def _known(plan: CachePlan, previous: ModelCacheStatus) -> DownloadStatus:
    """What was said before; of a download that is no longer there, nothing."""
    done = find(previous.conditions, "Downloaded")
    if plan.proof is None and done is not None and done.status is TRUE:
        return DownloadStatus()
    return previous.download or DownloadStatus()

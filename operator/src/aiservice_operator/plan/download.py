"""What to do for a ModelCache that is downloaded: its claim, the download Job and the next try."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from aiservice_api.v1alpha1 import ModelCacheSpec, Storage
from aiservice_operator import names
from aiservice_operator.desired.common import wire
from aiservice_operator.desired.job import Attempt, Placement, job
from aiservice_operator.desired.pvc import pvc
from aiservice_operator.downloads import Proof, parse_failure, parse_proof, parse_success
from aiservice_operator.failures import Failure, of_pod
from aiservice_operator.kinds import Json, Key, Kind
from aiservice_operator.observed import Cache, Child, Meta, Service
from aiservice_operator.plan.actions import Action, Delete, belongs, ensure
from aiservice_operator.settings import Settings, Toleration
from aiservice_operator.states import (
    Claim,
    DownloadJob,
    claim,
    download_job,
    pod_controller,
    pod_running,
    termination_message,
)

FIRST_RETRY = timedelta(minutes=1)
LAST_RETRY = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class CacheView:
    """Everything that decides about one ModelCache."""

    key: Key
    cache: Cache | None
    users: tuple[Service, ...]
    claim: Child | None
    jobs: tuple[Child, ...]
    pods: tuple[Child, ...]


@dataclass(frozen=True, slots=True)
class FailedDownload:
    """Why a download failed."""

    failure: Failure
    retryable: bool


@dataclass(frozen=True, slots=True)
class CachePlan:
    """What to do, and what was found and decided on the way."""

    actions: tuple[Action, ...] = ()
    proof: Proof | None = None
    """Of the verified download; None while there is none."""
    job: DownloadJob | None = None
    """The newest Job for the present source and claim."""
    failed: FailedDownload | None = None
    """Why that Job has failed for good."""
    retry_at: datetime | None = None
    """When the next Job is due."""
    conflict: str = ""
    """Why no node can hold a volume that all users can mount; empty where one can."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What every Job for a cache is built from."""

    owner: Meta
    spec: ModelCacheSpec
    claim: Claim
    placement: Placement
    settings: Settings

    def body(self, attempt: Attempt) -> Json:
        built = job(
            self.owner, self.spec, self.claim, placement=self.placement, attempt=attempt, settings=self.settings
        )
        return wire(built)

    def differs(self, live: DownloadJob) -> bool:
        """Whether a Job runs by another template than one that was made now."""
        template: str = self.body(Attempt(live.attempt, 0))["metadata"]["annotations"][names.TEMPLATE_ANNOTATION]
        return template != live.template


def plan_download(view: CacheView, cache: Cache, spec: ModelCacheSpec, settings: Settings, now: datetime) -> CachePlan:
    """Decides what to do for the claim and the download."""
    owner = cache.meta
    known = view.claim if view.claim is not None and belongs(view.claim.meta, owner) else None
    live = claim(known) if known is not None else None
    source = names.source_digest(spec)
    jobs = [download_job(child) for child in view.jobs if not child.meta.deleting]
    current = [item for item in jobs if live is not None and item.source == source and item.claim_uid == live.uid]
    newest = max(current, key=lambda item: item.attempt, default=None)
    proof = _proof(live, newest, source, view.pods)
    failed = _failed(newest, view.pods)
    placement = place(view.users, spec, settings)
    actions = (
        *ensure(Kind.CLAIM, wire(pvc(owner, spec, proof.to_json() if proof else "", live)), known, owner),
        *(_delete(item.child, "another download takes its place") for item in jobs if item is not newest),
    )
    if isinstance(placement, str):
        return CachePlan(actions, proof, newest, failed, None, placement)
    if live is None or proof is not None:
        return CachePlan(actions, proof, newest, failed)
    if live.deleting:
        # A pod that has the claim would keep it, and it must go before a new one can come.
        going = (_delete(newest.child, "its claim is being deleted"),) if newest is not None else ()
        return CachePlan((*actions, *going), None, newest, failed)
    wanted = _Wanted(owner, spec, live, placement, settings)
    step, retry_at = _next_step(wanted, newest, failed, now, view.pods)
    return CachePlan((*actions, *step), None, newest, failed, retry_at)


def _proof(live: Claim | None, newest: DownloadJob | None, source: str, pods: Sequence[Child]) -> Proof | None:
    """What shows that the claim holds the download: its annotation, or a Job that has just succeeded on it."""
    if live is None:
        return None
    remembered = parse_proof(live.proof)
    if remembered is not None and remembered.source == source:
        return remembered
    if newest is None or not newest.succeeded:
        return None
    words = (parse_success(termination_message(pod)) for pod in pods_of(newest, pods))
    success = next((word for word in words if word is not None), None)
    if success is None:
        return Proof(source=source)
    return Proof(source=source, bytes=success.bytes, files=success.files, revision=success.revision)


def _next_step(
    wanted: _Wanted, newest: DownloadJob | None, failed: FailedDownload | None, now: datetime, pods: Sequence[Child]
) -> tuple[tuple[Action, ...], datetime | None]:
    """The step towards a finished download, and when to look again."""
    if newest is None:
        return ensure(Kind.JOB, wanted.body(Attempt(1, 0)), None, wanted.owner), None
    if wanted.differs(newest):
        # A download that runs is left to finish: a new image or another node is no reason to lose what it has.
        running = any(pod_running(pod) for pod in pods_of(newest, pods))
        return (() if running else (_delete(newest.child, "it would be made otherwise now"),)), None
    if failed is None or newest.failed_at is None:
        return ensure(
            Kind.JOB, wanted.body(Attempt(newest.attempt, newest.earlier_pods)), newest.child, wanted.owner
        ), None
    if not failed.retryable:
        return (), None
    retry_at = newest.failed_at + min(FIRST_RETRY * 2 ** min(newest.attempt - 1, 20), LAST_RETRY)
    if now < retry_at:
        return (), retry_at
    again = Attempt(newest.attempt + 1, newest.earlier_pods + newest.pods)
    return (
        *ensure(Kind.JOB, wanted.body(again), None, wanted.owner),
        _delete(newest.child, "it failed, and the next try begins"),
    ), None


def _failed(newest: DownloadJob | None, pods: Sequence[Child]) -> FailedDownload | None:
    if newest is None or newest.failed_at is None:
        return None
    failure = last_failure(newest, pods)
    if failure is not None:
        return failure
    # Its pods are gone, and their words with them.
    lost = Failure(
        newest.failed_reason or "Failed", newest.failed_message, f"Job/{newest.child.meta.name}", newest.failed_at
    )
    return FailedDownload(lost, retryable=newest.failed_reason != "PodFailurePolicy")


def last_failure(newest: DownloadJob, pods: Sequence[Child]) -> FailedDownload | None:
    """Returns why the newest of a Job's pods that failed did so, in the downloader's words where it left some."""
    for pod in reversed(pods_of(newest, pods)):
        failure = of_pod(pod)
        if failure is None:
            continue
        said = parse_failure(termination_message(pod))
        if said is not None:
            return FailedDownload(Failure(said.reason, said.message, failure.object, failure.time), said.retryable)
        return FailedDownload(failure, retryable=failure.reason != "OOMKilled")
    return None


def pods_of(newest: DownloadJob, pods: Sequence[Child]) -> list[Child]:
    """Returns a Job's pods, oldest first."""
    mine = [pod for pod in pods if pod_controller(pod) == newest.child.meta.uid]
    return sorted(mine, key=lambda pod: pod.meta.created)


def _delete(child: Child, reason: str) -> Delete:
    return Delete(child.id, child.meta.uid, reason)


def place(users: Sequence[Service], spec: ModelCacheSpec, settings: Settings) -> Placement | str:
    """Returns where a download's volume is one that all users' pods can mount, or why there is no such place."""
    selector: dict[str, str] = {}
    chosen_by: dict[str, str] = {}
    tolerations: list[Toleration] = []
    on_one_node = (spec.storage or Storage()).access_mode == "ReadWriteOnce"
    for user in users:
        profile = settings.profiles.get(user.spec.profile or "") if user.spec is not None else None
        if profile is None:
            continue
        tolerations += [item for item in profile.tolerations if item not in tolerations]
        for label, value in profile.node_selector.items() if on_one_node else ():
            if selector.setdefault(label, value) != value:
                return (
                    f"AIService {chosen_by[label]} runs on nodes with {label}={selector[label]} and AIService "
                    f"{user.meta.name} on nodes with {label}={value}, but a ReadWriteOnce volume can be on one node "
                    "only: use a StorageClass with storage.accessMode ReadWriteMany, or give one of them a cache of "
                    "its own"
                )
            chosen_by.setdefault(label, user.meta.name)
    return Placement(selector, tolerations)

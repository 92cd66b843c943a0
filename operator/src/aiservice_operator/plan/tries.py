"""The tries of a Job of a ModelCache: when the next one comes, and why the last one failed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from aiservice_api.v1alpha1 import ModelCacheSpec
from aiservice_operator import names
from aiservice_operator.desired.common import wire
from aiservice_operator.desired.job import Attempt, Placement, Task, job
from aiservice_operator.downloads import Success, parse_failure, parse_success
from aiservice_operator.failures import Failure, of_pod
from aiservice_operator.kinds import Json, Kind
from aiservice_operator.observed import Child, Meta
from aiservice_operator.plan.actions import Action, Delete, ensure
from aiservice_operator.settings import Settings
from aiservice_operator.states import CacheJob, pod_controller, pod_ended, pod_running, termination_message

FIRST_RETRY = timedelta(minutes=1)
LAST_RETRY = timedelta(hours=1)
_POD_LATE = timedelta(seconds=10)
"""How long a Job may have no pod before its Events are looked at: mostly there is one within a second."""


@dataclass(frozen=True, slots=True)
class FailedTry:
    """Why a try failed."""

    failure: Failure
    retryable: bool
    required_bytes: int | None = None
    """What the volume must hold, where that was too little."""
    revision: str = ""
    """What the source's revision was resolved to, where the try came so far."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the Jobs for one task are built from."""

    owner: Meta
    spec: ModelCacheSpec
    task: Task
    placement: Placement
    settings: Settings
    revision: str = ""
    """Where the first try begins; later ones go on with what was resolved then."""
    nodes: tuple[str, ...] = ()
    """Where a new try is to run; one that there is stays where it was told to, whatever has become of the nodes."""

    def body(self, attempt: Attempt) -> Json:
        """Builds the Job of a try."""
        return wire(
            job(
                self.owner,
                self.spec,
                self.task,
                placement=self.placement,
                attempt=attempt,
                settings=self.settings,
            )
        )

    def differs(self, live: CacheJob) -> bool:
        """Whether a Job runs by another template than one that was made now."""
        made_now = self.body(Attempt(live.attempt, 0, live.revision, live.nodes))
        template: str = made_now["metadata"]["annotations"][names.TEMPLATE_ANNOTATION]
        return template != live.template


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next for a task."""

    actions: tuple[Action, ...] = ()
    again_at: datetime | None = None
    """When the next try is due; None: none is planned."""


def next_step(
    recipe: Recipe, newest: CacheJob | None, failed: FailedTry | None, now: datetime, pods: Sequence[Child]
) -> Step:
    """Decides about the Job of a task that is not done yet."""
    if newest is None:
        return Step(_create(recipe, Attempt(1, 0, recipe.revision, recipe.nodes)))
    if recipe.differs(newest):
        # One that runs is left to finish: a new image or another node is no reason to lose what it has.
        running = any(pod_running(pod) for pod in pods_of(newest, pods))
        return Step(() if running else (delete(newest.child, "it would be made otherwise now"),))
    if failed is None or newest.failed_at is None:
        live = Attempt(newest.attempt, newest.earlier_pods, newest.revision, newest.nodes)
        return Step(ensure(Kind.JOB, recipe.body(live), newest.child, recipe.owner))
    if not failed.retryable:
        return Step()
    again_at = newest.failed_at + min(FIRST_RETRY * 2 ** min(newest.attempt - 1, 20), LAST_RETRY)
    if now < again_at:
        return Step((), again_at)
    revision = newest.revision or failed.revision
    again = Attempt(newest.attempt + 1, newest.earlier_pods + newest.pods, revision, recipe.nodes)
    return Step((*_create(recipe, again), delete(newest.child, "it failed, and the next try begins")))


def _create(recipe: Recipe, attempt: Attempt) -> tuple[Action, ...]:
    return ensure(Kind.JOB, recipe.body(attempt), None, recipe.owner)


def delete(child: Child, reason: str) -> Delete:
    """Returns the step that deletes this very object."""
    return Delete(child.id, child.meta.uid, reason)


def failed_for_good(newest: CacheJob | None, pods: Sequence[Child]) -> FailedTry | None:
    """Returns why a Job has failed; None where it has not, or still tries by itself."""
    if newest is None or newest.failed_at is None:
        return None
    tried = [failed for pod in reversed(pods_of(newest, pods)) if (failed := failed_try(pod)) is not None]
    if tried:
        return tried[0]
    # Its pods are gone, and their words with them.
    lost = Failure(
        newest.failed_reason or "Failed", newest.failed_message, f"Job/{newest.child.meta.name}", newest.failed_at
    )
    return FailedTry(lost, retryable=newest.failed_reason != "PodFailurePolicy")


def failed_last(newest: CacheJob, pods: Sequence[Child]) -> FailedTry | None:
    """Returns why the newest pod of a Job failed; one that was replaced by a later one does not count any more."""
    mine = pods_of(newest, pods)
    return failed_try(mine[-1]) if mine else None


def failed_try(pod: Child) -> FailedTry | None:
    """Returns why a pod failed, in the downloader's words where it left some; None where it has not."""
    found = of_pod(pod)
    if found is None:
        return None
    status = pod.body.get("status", {})
    if pod_ended(pod) and status.get("reason"):  # the node stopped it: how its container ended tells nothing
        stopped = f"its node stopped the pod: {status.get('message', '')}"
        reason = re.sub(r"\W+", "_", str(status["reason"]))
        return FailedTry(Failure(reason, stopped, found.object, found.time), retryable=True)
    said = parse_failure(termination_message(pod))
    if said is not None:
        failure = Failure(said.reason, said.message, found.object, found.time)
        return FailedTry(failure, said.retryable, said.required_bytes, said.revision or "")
    if found.reason == "CrashLoopBackOff":  # it is not started again: another pod is
        return FailedTry(Failure("DownloaderFailed", found.message, found.object, found.time), retryable=True)
    return FailedTry(found, retryable=found.reason != "OOMKilled")


def pods_of(newest: CacheJob, pods: Sequence[Child]) -> list[Child]:
    """Returns a Job's pods, oldest first."""
    mine = [pod for pod in pods if pod_controller(pod) == newest.child.meta.uid]
    # Two may begin in the same second: then the one that has ended was first.
    return sorted(mine, key=lambda pod: (pod.meta.created, not pod_ended(pod), pod.meta.version))


def pod_due(job: CacheJob, pods: Sequence[Child]) -> datetime | None:
    """Returns when a Job should have had a pod; None where it has one that has not ended, or needs none."""
    waits_for_none = job.completed_at is not None or job.failed_at is not None or job.held
    if waits_for_none or not all(pod_ended(pod) for pod in pods_of(job, pods)):
        return None
    return job.child.meta.created + _POD_LATE


def last_words(done: CacheJob, pods: Sequence[Child]) -> Success | None:
    """Returns what a Job that succeeded left; None where its pods are gone, and their words with them."""
    words = (parse_success(termination_message(pod)) for pod in pods_of(done, pods))
    return next((word for word in words if word is not None), None)

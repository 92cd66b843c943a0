"""What to do for a ModelCache that is downloaded: its size, its claim, and the Jobs that work on it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from aiservice_api.v1alpha1 import ModelCacheSpec, Storage
from aiservice_operator import names
from aiservice_operator.capacity import Capacity
from aiservice_operator.desired.common import wire
from aiservice_operator.desired.job import Placement, Task
from aiservice_operator.desired.pvc import Memory, pvc
from aiservice_operator.downloads import Measurement, Proof, Verification, parse_kept
from aiservice_operator.engines import Engine, accept
from aiservice_operator.kinds import Apis, Key, Kind
from aiservice_operator.names import Mode
from aiservice_operator.observed import Cache, Child, Service
from aiservice_operator.plan.actions import Action, Apply, belongs, ensure
from aiservice_operator.plan.placement import beside, hosts_with_devices, place
from aiservice_operator.plan.scaling import stated_replicas
from aiservice_operator.plan.tries import (
    FailedTry,
    Recipe,
    Step,
    delete,
    failed_for_good,
    last_words,
    next_step,
)
from aiservice_operator.plan.verification import always, answered, due_at, first_record, updated_record, wish
from aiservice_operator.settings import Settings
from aiservice_operator.states import CacheJob, Claim, cache_job, claim


@dataclass(frozen=True, slots=True)
class CacheView:
    """Everything that decides about one ModelCache."""

    key: Key
    cache: Cache | None
    users: tuple[Service, ...]
    claim: Child | None
    jobs: tuple[Child, ...]
    pods: tuple[Child, ...]
    secret: str = ""
    """Digest of the credentials that its source names; empty where it names none."""
    apis: Apis = field(default_factory=Apis)
    """What the cluster serves."""
    cache_claims: frozenset[str] = frozenset()
    """Those of the claims that its users' pods could write to which belong to ModelCaches."""
    capacity: Capacity | None = None
    """What nodes offer, whoever holds it; None: not looked at, because it is rarely needed."""


@dataclass(frozen=True, slots=True)
class CachePlan:
    """What to do, and what was found and decided on the way."""

    actions: tuple[Action, ...] = ()
    ends: bool = False
    """Whether the cache is about to go, or is not there."""
    unused_since: datetime | None = None
    claim: Claim | None = None
    """The claim, where there is one and it is this cache's."""
    memory: Memory = field(default_factory=Memory)
    """What the claim is to remember."""
    job: CacheJob | None = None
    """The newest Job that measures or downloads for the present source and claim."""
    failed: FailedTry | None = None
    """Why that Job has failed for good."""
    check: CacheJob | None = None
    """The newest Job that verifies, as long as what it finds is not remembered."""
    check_failed: FailedTry | None = None
    """Why that Job has failed for good."""
    again_at: datetime | None = None
    """When the next try or the next verification is due."""
    ends_at: datetime | None = None
    """When the cache goes, should nobody use it until then."""
    conflict: str = ""
    """Why no node can hold a volume that all users can mount; empty where one can, or holds the files already."""
    needs_capacity: bool = False
    """Whether it stops at a question: which nodes have the users' GPUs. It is to be made again with the answer."""

    @property
    def proof(self) -> Proof | None:
        """Of the verified download; None while there is none."""
        return self.memory.proof

    @property
    def verification(self) -> Verification | None:
        """What is known of the last comparison of the files with their digests."""
        return self.memory.verification


@dataclass(frozen=True, slots=True)
class _Context:
    """What all steps look at."""

    view: CacheView
    cache: Cache
    spec: ModelCacheSpec
    settings: Settings
    now: datetime
    source: str
    placement: Placement | str
    jobs: tuple[CacheJob, ...]

    def recipe(self, placement: Placement, task: Task, revision: str | None = None) -> Recipe:
        # Other sources have no revisions.
        pinned = revision if self.spec.hugging_face is not None or self.spec.oci is not None else None
        nodes = self.view.capacity.nodes if self.view.capacity is not None else ()
        hosts = hosts_with_devices(placement, nodes) if task.claim is not None else ()
        return Recipe(self.cache.meta, self.spec, task, placement, self.settings, pinned or "", hosts)

    def newest(self, mode: Mode, claim_uid: str = "") -> CacheJob | None:
        """The newest Job of a kind for the present source and claim."""
        mine = [job for job in self.jobs if (job.mode, job.source, job.claim_uid) == (mode, self.source, claim_uid)]
        return max(mine, key=lambda job: (job.child.meta.created, job.attempt), default=None)

    def others(self, *kept: CacheJob | None) -> tuple[Action, ...]:
        """The end of all Jobs but these."""
        return tuple(delete(job.child, "another Job takes its place") for job in self.jobs if job not in kept)


def accepted(view: CacheView, user: Service, settings: Settings) -> bool:
    """Whether the operator serves a user of the cache as its spec is written."""
    if user.spec is None:
        return False
    cached = view.cache.spec if view.cache is not None and user.cache_name == view.key.name else None
    return isinstance(accept(user.spec, settings, view.apis, cached, view.cache_claims), Engine)


def plan_download(view: CacheView, cache: Cache, spec: ModelCacheSpec, settings: Settings, now: datetime) -> CachePlan:
    """Decides what to do for the claim and the Jobs."""
    context = _Context(
        view=view,
        cache=cache,
        spec=spec,
        settings=settings,
        now=now,
        source=names.source_digest(spec),
        placement=_placement(view, spec, settings),
        jobs=tuple(cache_job(child) for child in view.jobs if not child.meta.deleting),
    )
    known = view.claim if view.claim is not None and belongs(view.claim.meta, cache.meta) else None
    if known is None and (spec.storage or Storage()).size is None:
        return _measure(context)
    return _keep(context, known)


def _placement(view: CacheView, spec: ModelCacheSpec, settings: Settings) -> Placement | str:
    """Where Jobs run: where all users can, and if there is no such place, where those can that have pods to run."""
    found = place(view.users, spec, settings)
    if isinstance(found, Placement):
        return found
    running = [user for user in view.users if accepted(view, user, settings) and _has_pods(user)]
    return place(running, spec, settings) if running else found


def _has_pods(user: Service) -> bool:
    return user.spec is not None and stated_replicas(user.spec) != 0


def _measure(context: _Context) -> CachePlan:
    """Asks the source how large it is; then the claim is made."""
    newest = context.newest(Mode.MEASURE)
    others = context.others(newest)
    if newest is not None and newest.succeeded:
        words = last_words(newest, context.view.pods)
        measurement = Measurement(source=context.source)
        if words is not None:
            packed = words.download_bytes if words.bytes is None else None
            measurement = Measurement(source=context.source, bytes=words.bytes, packed=packed, revision=words.revision)
        memory = Memory(measurement)
        body = wire(pvc(context.cache.meta, context.spec, memory))
        return CachePlan((*others, *ensure(Kind.CLAIM, body, None, context.cache.meta)), memory=memory, job=newest)
    failed = failed_for_good(newest, context.view.pods)
    plan = CachePlan(others, job=newest, failed=failed)
    if isinstance(context.placement, str):
        return replace(plan, conflict=context.placement)
    recipe = context.recipe(context.placement, Task(Mode.MEASURE, secret=context.view.secret))
    return _with(plan, next_step(recipe, newest, failed, context.now, context.view.pods))


def _keep(context: _Context, known: Child | None) -> CachePlan:
    """Keeps a claim, the download on it, and that download's files as they should be."""
    owner, pods = context.cache.meta, context.view.pods
    live = claim(known) if known is not None else None
    uid = live.uid if live is not None else ""
    newest = context.newest(Mode.DOWNLOAD, uid) if live is not None else None
    check = context.newest(Mode.VERIFY, uid) if live is not None else None
    memory = _memory(context, live, newest, check)
    failed = failed_for_good(newest, pods) if memory.proof is None else None
    unanswered = None if check is None or memory.verification is None or answered(memory.verification, check) else check
    check_failed = failed_for_good(unanswered, pods)
    required = next((item.required_bytes for item in (failed, check_failed) if item is not None), None)
    plan = CachePlan(
        (
            *ensure(Kind.CLAIM, wire(pvc(owner, context.spec, memory, live, required)), known, owner),
            *context.others(newest, check),
        ),
        claim=live,
        memory=memory,
        job=newest,
        failed=failed,
        check=unanswered,
        check_failed=check_failed,
    )
    placement = _where(context, live, memory)
    if isinstance(placement, str):
        return replace(plan, conflict=placement)
    if live is None:
        return plan
    if live.deleting:
        return replace(plan, actions=(*plan.actions, *_leave(plan)))
    if memory.proof is None:
        step = _download(context, placement, live, plan)
        if _asks_for_nodes(context, placement, live, step):
            return replace(plan, needs_capacity=True)
        return _with(plan, step)
    return _with(plan, _verify(context, placement, live, plan))


def _where(context: _Context, live: Claim | None, memory: Memory) -> Placement | str:
    """Where Jobs run that have the claim.

    Files that are there serve all who can be where they are. Of a user who cannot, the scheduler says so.
    """
    if isinstance(context.placement, Placement) or live is None or live.phase != "Bound" or memory.proof is None:
        return context.placement
    return beside(context.view.users, context.settings)


def _with(plan: CachePlan, step: Step) -> CachePlan:
    return replace(plan, actions=(*plan.actions, *step.actions), again_at=step.again_at)


def _leave(plan: CachePlan) -> tuple[Action, ...]:
    """A pod that has the claim would keep it, and it must go before a new one can come."""
    working = (plan.check, plan.job if plan.proof is None else None)
    return tuple(delete(job.child, "its claim is being deleted") for job in working if job is not None)


def _memory(context: _Context, live: Claim | None, newest: CacheJob | None, check: CacheJob | None) -> Memory:
    """What is known of the files on a claim: what it remembers, and what Jobs have found since."""
    if live is None:
        return Memory()
    pods, cache, spec = context.view.pods, context.cache.meta, context.spec
    measurement = _of_source(parse_kept(Measurement, live.annotations.get(names.MEASURED_ANNOTATION, "")), context)
    proof = _of_source(parse_kept(Proof, live.annotations.get(names.DOWNLOAD_ANNOTATION, "")), context)
    if proof is not None:
        remembered = parse_kept(Verification, live.annotations.get(names.VERIFIED_ANNOTATION, ""))
        # Without a memory of it, it is not known to have been verified since the claim was there.
        record = updated_record(remembered or Verification(at=live.created), spec, check, pods)
        return Memory(measurement, proof, record)
    if newest is None or newest.completed_at is None:
        return Memory(measurement)
    words = last_words(newest, pods)
    proof = Proof(source=context.source)
    if words is not None:
        proof = Proof(source=context.source, bytes=words.bytes, files=words.files, revision=words.revision)
    return Memory(measurement, proof, first_record(cache, spec, newest.completed_at))


_Sourced = TypeVar("_Sourced", Measurement, Proof)


def _of_source(kept: _Sourced | None, context: _Context) -> _Sourced | None:
    """What was found of another source says nothing of this one."""
    return kept if kept is not None and kept.source == context.source else None


def _download(context: _Context, placement: Placement, live: Claim, plan: CachePlan) -> Step:
    if waits_to_grow(live, plan.failed):
        return Step()
    measured = plan.memory.measurement
    task = Task(Mode.DOWNLOAD, live, context.view.secret)
    recipe = context.recipe(placement, task, measured.revision if measured is not None else None)
    return next_step(recipe, plan.job, plan.failed, context.now, context.view.pods)


def _asks_for_nodes(context: _Context, placement: Placement, live: Claim, step: Step) -> bool:
    """Whether a Job is about to be made whose node becomes that of the volume, and its users need one with GPUs."""
    makes = any(isinstance(action, Apply) and action.owner is not None for action in step.actions)
    return makes and bool(placement.devices) and live.phase != "Bound" and context.view.capacity is None


def waits_to_grow(live: Claim, failed: FailedTry | None) -> bool:
    """Whether what did not fit waits for its volume to grow."""
    return live.growing and failed is not None and failed.required_bytes is not None


def _verify(context: _Context, placement: Placement, live: Claim, plan: CachePlan) -> Step:
    """Compares the files with their digests when it is time, while they go on being used."""
    record, proof, now = plan.memory.verification, plan.memory.proof, context.now
    if record is None or proof is None:
        return Step()
    interval = timedelta(hours=context.settings.download.verify_interval_hours)
    due = due_at(record, context.cache.meta, context.spec, interval, now)
    if due is None or now < due:
        return Step((), due)
    if waits_to_grow(live, plan.check_failed):
        return Step()
    task = Task(Mode.VERIFY, live, context.view.secret, wish(context.cache.meta), record.at.isoformat())
    recipe = context.recipe(placement, task, proof.revision)
    step = next_step(recipe, plan.check, plan.check_failed, now, context.view.pods)
    return _another_day(step, plan, interval, now) if always(context.spec) else step


def _another_day(step: Step, plan: CachePlan, interval: timedelta, now: datetime) -> Step:
    """What another try would not mend now is tried again when files are next verified anyway."""
    check, failed = plan.check, plan.check_failed
    if step != Step() or check is None or check.failed_at is None or failed is None or failed.retryable:
        return step
    again_at = check.failed_at + interval
    if now < again_at:
        return Step((), again_at)
    return Step((delete(check.child, "its files are verified anew"),))

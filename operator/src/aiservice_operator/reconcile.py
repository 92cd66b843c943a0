"""The reconcile: observe, plan, execute, status. The same for create, update, delete, drift and restart.

It starts from what the store holds, never from an event, and can be cut off anywhere: the next one begins with what is
there then. What a write answers goes into the store at once, so planning goes on without waiting for its echo.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Generic, TypeVar

from aiservice_api.v1alpha1 import AIServiceStatus, Condition, ConditionStatus, ModelCacheStatus
from aiservice_operator.census import Census
from aiservice_operator.errors import KubeError
from aiservice_operator.events import Turn, event, turns
from aiservice_operator.execute import Executor
from aiservice_operator.facts import CacheQuestions
from aiservice_operator.failures import settles_after
from aiservice_operator.kinds import Apis, Key, Kind, ObjectId
from aiservice_operator.kube import Kube
from aiservice_operator.metrics import Metrics
from aiservice_operator.observed import Cache, Service, mounted_cache
from aiservice_operator.plan import (
    Action,
    Bodies,
    CachePlan,
    CacheView,
    Refusal,
    ServicePlan,
    ServiceView,
    plan_cache,
    plan_service,
)
from aiservice_operator.references import LOOK_SECONDS, References, named
from aiservice_operator.refusals import writable_claims
from aiservice_operator.settings import Settings
from aiservice_operator.status import cache_status, service_status
from aiservice_operator.status.conditions import find
from aiservice_operator.store import Store
from aiservice_operator.words import gather_refusals, gather_words, look_after

log = logging.getLogger(__name__)

_ROUNDS = 6
"""Plans in one reconcile: a cache, its claim and its Job follow each other, each from the answer to the one before."""
_INTERIM_SECONDS = {Kind.AISERVICE: (1.0, 5.0), Kind.MODEL_CACHE: (0.5, 2.0)}
"""How long a status in progress waits for a better one, so that a quick start costs no extra writes: the first, and
each after another. A download's progress is looked at sooner than a start's."""

_GIVE_WAY_SECONDS = 30.0
"""How long a status in progress gives way, beyond that, while there is much to do for others."""


def wall_clock() -> datetime:
    """Returns the time in UTC and whole seconds, as Kubernetes keeps it."""
    return datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a reconcile went."""

    again_after: float | None = None
    """Seconds after which to look again without any event."""
    unsettled: bool = False
    """Whether something was refused, or never became as wanted: it is tried again later and later."""


_View = TypeVar("_View")
_Plan = TypeVar("_Plan", ServicePlan, CachePlan)
_Decision = TypeVar("_Decision")


@dataclass(frozen=True, slots=True)
class _Settled(Generic[_Decision]):
    """The last decision, and how carrying it out ended."""

    decision: _Decision
    refusals: tuple[Refusal, ...]
    unsettled: bool


def _open(decision: tuple[_View, _Plan] | None, refusals: Mapping[ObjectId, Refusal]) -> list[Action]:
    """What of a plan is still to be tried."""
    return [action for action in decision[1].actions if action.identity not in refusals] if decision is not None else []


def _first(*waits: float | None) -> float | None:
    return min((wait for wait in waits if wait is not None), default=None)


def _ready_seconds(status: AIServiceStatus) -> float | None:
    return status.timings.ready_seconds if status.timings is not None else None


def _bytes_done(status: ModelCacheStatus) -> int:
    return status.download.bytes_done if status.download is not None else 0


def _interim(before: Sequence[Condition], after: Sequence[Condition]) -> bool:
    """Whether a status only tells of progress: nothing turned that anyone acts upon."""
    ready, available, was = find(after, "Ready"), find(after, "Available"), find(before, "Available")
    served, serves = (found is not None and found.status is ConditionStatus.TRUE for found in (was, available))
    return ready is not None and ready.status is ConditionStatus.UNKNOWN and served == serves


class Reconciler:
    """Reconciles one key at a time; different keys may run side by side.

    Args:
        store: What is known of the cluster.
        kube: The API server.
        settings: The operator's configuration.
        apis: What the cluster serves.
        metrics: Where counts go.
        notify: Takes the keys that a write concerns.
        reporter: Name of this process, for Events.
        busy: Whether there is much to do for other keys.
        clock: The time.
    """

    def __init__(
        self,
        store: Store,
        kube: Kube,
        settings: Settings,
        *,
        apis: Apis,
        metrics: Metrics,
        notify: Callable[[frozenset[Key]], None],
        reporter: str,
        busy: Callable[[], bool] = lambda: False,
        clock: Callable[[], datetime] = wall_clock,
    ) -> None:
        self._store = store
        self._kube = kube
        self._settings = settings
        self._apis = apis
        self._metrics = metrics
        self._notify = notify
        self._reporter = reporter
        self._busy = busy
        self._clock = clock
        self._executor = Executor(store, kube, notify)
        self._references = References(kube, enabled=settings.roll_on_config_change)
        self._census = Census(kube)
        self._questions = CacheQuestions(
            kube, self._references, settings.download.progress_interval_seconds, asyncio.get_running_loop().time
        )
        self._refused_caches: dict[Key, str] = {}
        self._bodies = Bodies()
        self._interim_due: dict[Key, float] = {}

    async def reconcile(self, key: Key) -> Outcome:
        """Brings what belongs to a key to what its spec asks for, and says in its status how that went.

        Raises:
            KubeError: something failed that another try may mend.
        """
        with self._metrics.reconcile_seconds.labels(key.kind).time():
            if key.kind is Kind.AISERVICE:
                return await self._reconcile_service(key)
            return await self._reconcile_cache(key)

    async def _reconcile_service(self, key: Key) -> Outcome:
        async def decide() -> tuple[ServiceView, ServicePlan] | None:
            service = self._store.service(key)
            if service is None or service.meta.deleting:
                return None
            references = await self._references.of_service(key.namespace, service.spec) if service.spec else ""
            view = replace(self._service_view(key, service), references=references)
            plan = plan_service(view, self._settings, self._clock(), self._bodies)
            if not plan.needs_capacity:
                return view, plan
            view = replace(view, capacity=await self._census.look())
            return view, plan_service(view, self._settings, self._clock(), self._bodies)

        settled = await self._settle(key, decide)
        if settled is None:
            self._interim_due.pop(key, None)
            return Outcome()
        (view, plan), now = settled.decision, self._clock()
        words = await gather_words(self._kube, view.pods, now)
        status = service_status(view, plan, settled.refusals, self._settings, now=now, words=words)
        written = await self._write_status(key, view.service, view.service.status, status)
        return Outcome(_first(written, *self._service_looks(view, plan, now)), settled.unsettled)

    def _service_looks(self, view: ServiceView, plan: ServicePlan, now: datetime) -> tuple[float | None, ...]:
        """When to look for what no event announces."""
        spec = view.service.spec
        refers = self._settings.roll_on_config_change and spec is not None and bool(named(spec))
        return (
            settles_after(view.pods, now),
            look_after(view.pods, now),
            LOOK_SECONDS if refers else None,
            max((plan.again_at - now).total_seconds(), 0.0) if plan.again_at is not None else None,
        )

    async def _settle(
        self, key: Key, decide: Callable[[], Awaitable[tuple[_View, _Plan] | None]]
    ) -> _Settled[tuple[_View, _Plan]] | None:
        """Decides and executes until there is nothing left to do; None where there is nothing to decide about.

        What is refused is not tried again here, and keeps nothing else from being done.
        """
        refusals: dict[ObjectId, Refusal] = {}
        decision = await decide()
        for _ in range(_ROUNDS):
            actions = _open(decision, refusals)
            if not actions:
                break
            executed = await self._executor.run(key, actions)
            if not executed.changed and not executed.refusals:
                return self._ended(key, decision, refusals, unsettled=bool(refusals))
            refusals |= {refusal.identity: refusal for refusal in executed.refusals}
            decision = await decide()
        if _open(decision, refusals):
            log.warning("%s: not as wanted after %d rounds", key, _ROUNDS)
        return self._ended(key, decision, refusals, unsettled=decision is not None and bool(decision[1].actions))

    def _ended(
        self, key: Key, decision: _Decision | None, refusals: Mapping[ObjectId, Refusal], *, unsettled: bool
    ) -> _Settled[_Decision] | None:
        if not unsettled:
            self._executor.forget(key)
        return _Settled(decision, tuple(refusals.values()), unsettled) if decision is not None else None

    def _service_view(self, key: Key, service: Service) -> ServiceView:
        namespace, name = key.namespace, key.name
        deployment = self._store.child(ObjectId(Kind.DEPLOYMENT, namespace, name))
        return ServiceView(
            service=service,
            cache=self._cache(namespace, service.cache_name),
            cache_refused=self._refused_caches.get(Key(Kind.MODEL_CACHE, namespace, service.cache_name or ""), ""),
            mounted=self._cache(namespace, mounted_cache(deployment) if deployment is not None else None),
            deployment=deployment,
            endpoint=self._store.child(ObjectId(Kind.SERVICE, namespace, name)),
            account=self._store.child(ObjectId(Kind.SERVICE_ACCOUNT, namespace, name)),
            pods=self._store.children(key, Kind.POD),
            rivals=self._store.defaults(),
            apis=self._apis,
            autoscaler=self._store.child(ObjectId(Kind.AUTOSCALER, namespace, name)),
            budget=self._store.child(ObjectId(Kind.DISRUPTION_BUDGET, namespace, name)),
            policy=self._store.child(ObjectId(Kind.NETWORK_POLICY, namespace, name)),
            monitor=self._store.child(ObjectId(Kind.POD_MONITOR, namespace, name)),
            cache_claims=self._store.cache_claims(namespace, writable_claims(service.spec) if service.spec else ()),
        )

    def _cache(self, namespace: str, name: str | None) -> Cache | None:
        return self._store.cache(Key(Kind.MODEL_CACHE, namespace, name)) if name is not None else None

    async def _reconcile_cache(self, key: Key) -> Outcome:
        secret = await self._questions.secret(self._store.cache(key))

        async def decide() -> tuple[CacheView, CachePlan]:
            view = self._cache_view(key, secret)
            plan = plan_cache(view, self._settings, self._clock())
            if not plan.needs_capacity:
                return view, plan
            view = replace(view, capacity=await self._census.look_at_nodes())
            return view, plan_cache(view, self._settings, self._clock())

        settled = await self._settle(key, decide)
        if settled is None:
            return Outcome()
        view, plan = settled.decision
        self._note_refusal(view, settled.refusals)
        cache = view.cache
        if cache is None or plan.ends:
            self._interim_due.pop(key, None)
            self._questions.forget(key)
            return Outcome(unsettled=settled.unsettled)
        now = self._clock()
        jobs = [job for job in (plan.job, plan.check) if job is not None]
        words = await gather_words(self._kube, view.pods, now)
        words |= await gather_refusals(self._kube, jobs, view.pods, now)
        followed = self._settings.roll_on_config_change
        found = replace(await self._questions.answers(view, cache, plan), words=words, secrets_followed=followed)
        status = cache_status(view, cache, plan, facts=found, refusals=settled.refusals, now=now)
        written = await self._write_status(key, cache, cache.status, status)
        due = [max((at - now).total_seconds(), 0.0) for at in (plan.again_at, plan.ends_at) if at is not None]
        look = self._questions.again_after(view, cache, plan, found, now)
        looks = (look, look_after(view.pods, now, jobs), settles_after(view.pods, now))
        return Outcome(_first(written, *looks, *due), settled.unsettled)

    def _note_refusal(self, view: CacheView, refusals: Sequence[Refusal]) -> None:
        """A ModelCache that the API server does not let exist cannot say so itself: its users do."""
        said = next((refusal.message for refusal in refusals if refusal.identity == view.key), "")
        if view.cache is not None or not said:
            self._refused_caches.pop(view.key, None)
        elif self._refused_caches.get(view.key) != said:
            self._refused_caches[view.key] = said
            self._notify(frozenset(user.id for user in view.users))

    def _cache_view(self, key: Key, secret: str) -> CacheView:
        users = self._store.users(key)
        written = {claim for user in users if user.spec is not None for claim in writable_claims(user.spec)}
        return CacheView(
            key=key,
            cache=self._store.cache(key),
            users=users,
            claim=self._store.child(ObjectId(Kind.CLAIM, key.namespace, key.name)),
            jobs=self._store.children(key, Kind.JOB),
            pods=self._store.children(key, Kind.POD),
            secret=secret,
            apis=self._apis,
            cache_claims=self._store.cache_claims(key.namespace, written),
        )

    async def _write_status(
        self,
        key: Key,
        of: Service | Cache,
        before: AIServiceStatus | ModelCacheStatus,
        after: AIServiceStatus | ModelCacheStatus,
    ) -> float | None:
        """Writes a status that has changed.

        Returns:
            Seconds to wait where it is held back, because it may be overtaken at once.
        """
        wire = after.to_wire()
        interim = _interim(before.conditions, after.conditions)
        if not interim:
            self._interim_due.pop(key, None)
        if before.to_wire() == wire:
            return None
        if interim:
            now = asyncio.get_running_loop().time()
            first, next_one = _INTERIM_SECONDS[key.kind]
            due = self._interim_due.setdefault(key, now + first)
            if now < due:
                return due - now
            if self._busy() and now < due + _GIVE_WAY_SECONDS:
                return _INTERIM_SECONDS[key.kind][1]
            self._interim_due[key] = now + next_one
        meta = of.meta
        metadata = {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid}
        written = await self._kube.apply(key, {"metadata": metadata, "status": wire}, "status")
        concerned = self._store.put(key.kind, written)
        if key.kind is Kind.MODEL_CACHE:  # an AIService's status concerns nobody
            self._notify(concerned - {key})
        await self._announce(key, meta.uid, turns(key.kind, before.conditions, after.conditions))
        self._measure(before, after)
        return None

    async def _announce(self, key: Key, uid: str, found: Sequence[Turn]) -> None:
        for turn in found:
            log.log(logging.WARNING if turn.warning else logging.INFO, "%s: %s: %s", key, turn.reason, turn.note)
            body = event(key, uid, turn, reporter=self._reporter, now=datetime.now(UTC))
            try:
                await self._kube.record(key.namespace, body)
            except KubeError as error:  # the status says the same, and stays
                log.info("%s: an Event was not recorded: %s", key, error.message)

    def _measure(self, before: AIServiceStatus | ModelCacheStatus, after: AIServiceStatus | ModelCacheStatus) -> None:
        if isinstance(before, ModelCacheStatus) and isinstance(after, ModelCacheStatus):
            self._metrics.download_bytes.inc(max(_bytes_done(after) - _bytes_done(before), 0))
        if isinstance(before, AIServiceStatus) and isinstance(after, AIServiceStatus):
            ready, took = find(after.conditions, "Ready"), _ready_seconds(after)
            serves = ready is not None and ready.reason == "Serving"  # not one that is Ready with nothing to run
            if serves and took is not None and _ready_seconds(before) is None:
                self._metrics.ready_seconds.observe(took)

"""What to do for an AIService."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from datetime import datetime

from pydantic import BaseModel

from aiservice_api.v1alpha1 import AIServiceSpec, Precision
from aiservice_operator import names
from aiservice_operator.capacity import Capacity
from aiservice_operator.desired.autoscaler import autoscaler
from aiservice_operator.desired.common import body_of, wire
from aiservice_operator.desired.container import Mount
from aiservice_operator.desired.disruption_budget import disruption_budget
from aiservice_operator.desired.network_policy import network_policy
from aiservice_operator.desired.pod_monitor import pod_monitor
from aiservice_operator.desired.service import service as desired_service
from aiservice_operator.desired.service_account import service_account
from aiservice_operator.desired.workload import template_digest, workload
from aiservice_operator.engines import Engine, accept
from aiservice_operator.kinds import Apis, Json, Kind
from aiservice_operator.observed import Cache, Child, Meta, Service
from aiservice_operator.plan.actions import Action, belongs, ensure, remove
from aiservice_operator.plan.bodies import Bodies
from aiservice_operator.plan.followed import Followed, followed
from aiservice_operator.plan.mount import choose_mount, is_of
from aiservice_operator.plan.scaling import hand_over, held_until, resized, scaling, stated_replicas
from aiservice_operator.plan.surge import Decision, Question, decide, looks_again_at
from aiservice_operator.refusals import Rejection
from aiservice_operator.settings import Settings


@dataclass(frozen=True, slots=True)
class ServiceView:
    """Everything that decides about one AIService."""

    service: Service
    cache: Cache | None
    """The ModelCache that it asks for."""
    mounted: Cache | None
    """The ModelCache that its Deployment mounts: another one while a new model is being cached."""
    deployment: Child | None
    endpoint: Child | None
    """Its Service."""
    account: Child | None
    pods: tuple[Child, ...]
    rivals: tuple[Service, ...]
    """AIServices that want to be the default of their tasks, this one among them."""
    cache_refused: str = ""
    """Why the API server does not take the ModelCache that it asks for; empty where it does."""
    apis: Apis = field(default_factory=Apis)
    """What the cluster serves."""
    autoscaler: Child | None = None
    budget: Child | None = None
    """Its PodDisruptionBudget."""
    policy: Child | None = None
    """Its NetworkPolicy."""
    monitor: Child | None = None
    """Its PodMonitor."""
    references: str | None = ""
    """Hash of the Secrets and ConfigMaps that its pods take values from; None: it cannot be told just now."""
    cache_claims: frozenset[str] = frozenset()
    """Those of the claims that its pods could write to which belong to ModelCaches."""
    capacity: Capacity | None = None
    """What nodes have left; None: not looked at, because it is rarely needed."""


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """What to do, and what was decided on the way."""

    actions: tuple[Action, ...]
    rejection: Rejection | None = None
    precision: Precision | None = None
    """Number format that pods are told to use."""
    rollout: Decision | None = None
    """How the present rollout replaces pods; None before there is one."""
    one_node: bool = False
    """Whether all pods have to run on one node, where their model's volume is."""
    needs_capacity: bool = False
    """Whether the plan stops at a question: what nodes have left. It is to be made again with the answer."""
    again_at: datetime | None = None
    """When something is to be decided anew even if nothing happens."""


def plan_service(view: ServiceView, settings: Settings, now: datetime, bodies: Bodies | None = None) -> ServicePlan:
    """Decides what to do for an AIService.

    What serves keeps serving: a spec that is rejected, or a model that is not cached yet, does not change the pods.
    How many of them there are does not wait for the model; and that none is wanted is done whatever else is wrong.

    Args:
        view: What is known.
        settings: The operator's configuration.
        now: The time.
        bodies: What was built before, for the same configuration; None: everything is built.
    """
    bodies = bodies or Bodies()
    spec, meta = view.service.spec, view.service.meta
    if spec is None:
        return ServicePlan(
            (),
            Rejection(
                "InvalidSpec",
                f"this version of the operator cannot read it: {view.service.invalid}. Upgrade the operator, or "
                "correct the spec",
            ),
        )
    if meta.deleting:
        return ServicePlan(())
    kept = _fenced(view, spec, settings, bodies)
    engine = accept(spec, settings, view.apis, view.cache.spec if view.cache is not None else None, view.cache_claims)
    if isinstance(engine, Rejection):
        return ServicePlan((*kept, *_stopped(view, spec, bodies, now)), engine)
    mount = choose_mount(view.cache, view.mounted, view.deployment)
    if mount is None:
        return ServicePlan((*kept, *_stopped(view, spec, bodies, now)), precision=engine.precision)
    plan = _plan_serving(view, _pods(view, spec, engine, mount, bodies), settings, now)
    moments = (plan.again_at, held_until(spec, view.deployment, view.pods, now))
    return replace(plan, again_at=min((moment for moment in moments if moment is not None), default=None))


def _plan_serving(view: ServiceView, pods: _Pods, settings: Settings, now: datetime) -> ServicePlan:
    """The plan where there are files to serve from."""
    spec, meta = pods.spec, pods.meta
    if _waits(view, pods):
        held = _companions(view, pods, settings, now, held=True)
        return ServicePlan((*held, *resized(spec, view.deployment, meta)), one_node=pods.mount.one_node)
    companions = _companions(view, pods, settings, now)
    # Pods are refused while their ServiceAccount is missing, and tried again later and later; without their policy
    # they would be open to everybody.
    open_to_all = view.deployment is None and any(action.identity.kind is Kind.NETWORK_POLICY for action in companions)
    if view.account is None or view.endpoint is None or open_to_all:
        return ServicePlan(companions, precision=pods.engine.precision)
    plan = _plan_pods(view, pods, now)
    return replace(plan, actions=(*companions, *plan.actions))


def _fenced(view: ServiceView, spec: AIServiceSpec, settings: Settings, bodies: Bodies) -> tuple[Action, ...]:
    """Pods that there are get their NetworkPolicy back, whatever is wrong with the rest."""
    if view.deployment is None or view.policy is not None:
        return ()
    meta = view.service.meta
    return _step(view, bodies, Kind.NETWORK_POLICY, None, lambda: network_policy(meta, spec, settings))


def _stopped(view: ServiceView, spec: AIServiceSpec, bodies: Bodies, now: datetime) -> tuple[Action, ...]:
    """Where no pod is wanted: none is left, whatever keeps others from being made."""
    if stated_replicas(spec) != 0 or view.deployment is None:
        return ()
    return (*_numbers(view, spec, bodies, now, one_node=False), *resized(spec, view.deployment, view.service.meta))


def _waits(view: ServiceView, pods: _Pods) -> bool:
    """Whether pods would become others than they are, though the model that they are to serve is not cached."""
    if view.deployment is None or is_of(pods.mount, view.cache):
        return False
    return template_digest(pods.body(surge=True)) != template_digest(view.deployment.body)


def _step(
    view: ServiceView,
    bodies: Bodies,
    kind: Kind,
    live: Child | None,
    build: Callable[[], BaseModel | Json | None],
    *variant: Hashable,
) -> tuple[Action, ...]:
    """Makes a child where it is wanted, and takes it away where it is not."""
    meta = view.service.meta
    key = (kind, meta.uid, meta.generation, *variant)
    body = bodies.get(key, lambda: wire(built) if (built := build()) is not None else None)
    return remove(live, meta) if body is None else ensure(kind, body, live, meta)


def _companions(
    view: ServiceView, pods: _Pods, settings: Settings, now: datetime, *, held: bool = False
) -> tuple[Action, ...]:
    """Everything but the Deployment. `held`: what leads to the pods stays as it is, because they do."""
    meta, spec, bodies = pods.meta, pods.spec, pods.bodies

    def leading(kind: Kind, live: Child | None, build: Callable[[], BaseModel | Json | None]) -> tuple[Action, ...]:
        if held and live is not None and belongs(live.meta, meta):
            return ()
        return _step(view, bodies, kind, live, build)

    monitored = view.apis.pod_monitors
    return (
        *_step(view, bodies, Kind.SERVICE_ACCOUNT, view.account, lambda: service_account(meta)),
        *leading(Kind.SERVICE, view.endpoint, lambda: desired_service(meta, spec.tasks)),
        *leading(Kind.NETWORK_POLICY, view.policy, lambda: network_policy(meta, spec, settings)),
        *_numbers(view, spec, bodies, now, one_node=pods.mount.one_node),
        *(leading(Kind.POD_MONITOR, view.monitor, lambda: pod_monitor(meta, spec, settings)) if monitored else ()),
    )


def _numbers(
    view: ServiceView, spec: AIServiceSpec, bodies: Bodies, now: datetime, *, one_node: bool
) -> tuple[Action, ...]:
    """The children that say how many pods there may be."""
    meta = view.service.meta
    down = held_until(spec, view.deployment, view.pods, now) is None

    def budget() -> BaseModel | None:
        return disruption_budget(meta, spec, one_node=one_node)

    return (
        *_step(view, bodies, Kind.DISRUPTION_BUDGET, view.budget, budget, one_node),
        *_step(view, bodies, Kind.AUTOSCALER, view.autoscaler, lambda: autoscaler(meta, spec, scale_down=down), down),
    )


@dataclass(frozen=True, slots=True)
class _Pods:
    """What the Deployment of a service is built from."""

    meta: Meta
    spec: AIServiceSpec
    engine: Engine
    mount: Mount
    references: Followed
    bodies: Bodies

    def body(self, *, surge: bool) -> Json:
        """Returns the Deployment, without what is noted on it."""
        return self._kept(
            (surge,),
            lambda: body_of(
                workload(
                    self.meta,
                    self.spec,
                    self.mount,
                    self.engine,
                    surge=surge,
                    replicas=stated_replicas(self.spec),
                    references=self.references.by_pods,
                )
            ),
        )

    def noted(self, decision: Decision) -> Json:
        """Returns the body to apply: the Deployment, with what was decided about it."""

        def build() -> Json:
            body = self.body(surge=decision.surge)
            notes = {
                names.SCALING_ANNOTATION: scaling(self.spec).value,
                names.ROLLOUT_ANNOTATION: decision.model_dump_json(),
            }
            if self.references.seen:
                notes[names.SEEN_ANNOTATION] = self.references.seen
            annotations = {**body["metadata"]["annotations"], **notes}
            return wire({**body, "metadata": {**body["metadata"], "annotations": annotations}})

        return self._kept((decision,), build)

    def _kept(self, key: tuple[Hashable, ...], build: Callable[[], Json]) -> Json:
        # The engine follows from the spec and the configuration, save for what fits the model.
        origin = (self.meta.uid, self.meta.generation, self.engine.precision, self.mount, self.references)
        return self.bodies.get((Kind.DEPLOYMENT, *origin, *key), build)


def _pods(view: ServiceView, spec: AIServiceSpec, engine: Engine, mount: Mount, bodies: Bodies) -> _Pods:
    """What pods are built from, in which only what they take from Secrets and ConfigMaps depends on those there are."""
    bare, live = _Pods(view.service.meta, spec, engine, mount, Followed(), bodies), view.deployment

    def unchanged() -> bool:
        return live is not None and template_digest(bare.body(surge=True)) == template_digest(live.body)

    return replace(bare, references=followed(view.references, live, unchanged))


def _plan_pods(view: ServiceView, pods: _Pods, now: datetime) -> ServicePlan:
    """The plan for the Deployment, which needs to know how a rollout would replace pods."""
    meta, spec, live = pods.meta, pods.spec, view.deployment
    wanted = pods.body(surge=True)
    question = Question(
        spec=spec,
        hardware=pods.engine.hardware,
        template=template_digest(wanted),
        pod=wanted["spec"]["template"]["spec"],
        live=live,
        pods=view.pods,
        capacity=view.capacity,
        beside=(meta.namespace, pods.mount.cache) if pods.mount.one_node else None,
    )
    decision, precision, one_node = decide(question, now), pods.engine.precision, pods.mount.one_node
    if decision is None:
        return ServicePlan((), precision=precision, one_node=one_node, needs_capacity=True)
    return ServicePlan(
        ensure(Kind.DEPLOYMENT, pods.noted(decision), live, meta, hand_over(spec, live)),
        precision=precision,
        rollout=decision,
        one_node=one_node,
        again_at=looks_again_at(decision, question, now),
    )

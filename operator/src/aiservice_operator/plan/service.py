"""What to do for an AIService."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiservice_api.v1alpha1 import ConditionStatus, Storage
from aiservice_operator.desired.common import wire
from aiservice_operator.desired.container import Mount
from aiservice_operator.desired.service import service as desired_service
from aiservice_operator.desired.service_account import service_account
from aiservice_operator.desired.workload import workload
from aiservice_operator.engines import choose_engine
from aiservice_operator.kinds import Apis, Kind
from aiservice_operator.names import source_digest
from aiservice_operator.observed import Cache, Child, Service, mounted_digest
from aiservice_operator.plan.actions import Action, ensure
from aiservice_operator.refusals import Rejection
from aiservice_operator.settings import Settings

PUBLISHED_FOLDER = "model"
"""Where the downloader publishes a complete download on its volume."""


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
    apis: Apis = field(default_factory=Apis)
    """What the cluster serves."""


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """What to do, and what was decided on the way."""

    actions: tuple[Action, ...]
    rejection: Rejection | None = None


def plan_service(view: ServiceView, settings: Settings) -> ServicePlan:
    """Decides what to do for an AIService.

    What serves keeps serving: a spec that is rejected, or a model that is not cached yet, changes nothing.
    """
    spec = view.service.spec
    if spec is None:
        return ServicePlan(
            (), Rejection("InvalidSpec", f"this version of the operator cannot read it: {view.service.invalid}")
        )
    engine = choose_engine(spec, settings, view.cache.spec if view.cache is not None else None)
    if isinstance(engine, Rejection):
        return ServicePlan((), engine)
    mount = choose_mount(view)
    if view.service.meta.deleting or mount is None:
        return ServicePlan(())
    meta = view.service.meta
    before = (
        *ensure(Kind.SERVICE_ACCOUNT, wire(service_account(meta)), view.account, meta),
        *ensure(Kind.SERVICE, wire(desired_service(meta, spec.tasks)), view.endpoint, meta),
    )
    # Pods are refused while their ServiceAccount is missing, and tried again later and later.
    if view.account is None:
        return ServicePlan(before)
    pods = workload(
        meta,
        spec,
        mount,
        engine,
        surge=not engine.hardware.on_gpu,
        replicas=1 if spec.replicas is None else spec.replicas,
        references="",
    )
    return ServicePlan((*before, *ensure(Kind.DEPLOYMENT, wire(pods), view.deployment, meta)))


def choose_mount(view: ServiceView) -> Mount | None:
    """Returns the files to serve from: the wanted ones once they are cached, until then those that are served."""
    if view.cache is not None and view.cache.spec is not None and cache_ready(view.cache):
        return _mount(view.cache, source_digest(view.cache.spec))
    if view.deployment is not None and view.mounted is not None:
        return _mount(view.mounted, mounted_digest(view.deployment))
    return None


def _mount(cache: Cache, digest: str) -> Mount | None:
    if cache.spec is None:
        return None
    name, pvc = cache.meta.name, cache.spec.pvc
    if pvc is not None:
        return Mount(name, digest, pvc.claim_name, pvc.path, one_node=_one_node(cache.status.access_mode))
    stated = (cache.spec.storage or Storage()).access_mode
    return Mount(name, digest, name, PUBLISHED_FOLDER, one_node=_one_node(cache.status.access_mode or stated))


def _one_node(access_mode: str | None) -> bool:
    return access_mode in {"ReadWriteOnce", "ReadWriteOncePod"}


def cache_ready(cache: Cache) -> bool:
    """Whether a cache's status says, of its present spec, that the files are there."""
    return any(
        condition.type == "Ready"
        and condition.status is ConditionStatus.TRUE
        and condition.observed_generation >= cache.meta.generation
        for condition in cache.status.conditions
    )

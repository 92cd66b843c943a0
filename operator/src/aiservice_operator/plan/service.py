"""What to do for an AIService."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiservice_api.tasks import ENGINES
from aiservice_api.v1alpha1 import AIServiceSpec, ConditionStatus
from aiservice_operator.desired.common import wire
from aiservice_operator.desired.service import service as desired_service
from aiservice_operator.desired.service_account import service_account
from aiservice_operator.desired.workload import Engine, Mount, workload
from aiservice_operator.kinds import Apis, Kind
from aiservice_operator.names import source_digest
from aiservice_operator.observed import Cache, Child, Service, mounted_digest
from aiservice_operator.plan.actions import Action, ensure
from aiservice_operator.settings import Profile, Settings

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
class Rejection:
    """Why an AIService cannot be served as it is written."""

    reason: str
    message: str


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
    engine = choose_engine(spec, settings)
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
    return ServicePlan(
        (*before, *ensure(Kind.DEPLOYMENT, wire(workload(meta, spec, mount, engine)), view.deployment, meta))
    )


def choose_engine(spec: AIServiceSpec, settings: Settings) -> Engine | Rejection:
    """Returns the server for a spec, and what it runs on."""
    profile = Profile()
    if spec.profile is not None:
        if spec.profile not in settings.profiles:
            return _unknown_profile(spec.profile, settings.profiles)
        profile = settings.profiles[spec.profile]
    image = spec.engine.image or settings.images.get(ENGINES[spec.tasks[0]])
    if image is None:
        tasks = " and ".join(task.value for task in spec.tasks)
        return Rejection(
            "NoEngine",
            f"the operator has no image for {tasks}: set spec.engine.image to a server that serves it, or give the "
            f"operator one (chart value images.{ENGINES[spec.tasks[0]]})",
        )
    return Engine(image, settings.image_pull_policy, settings.image_pull_secrets, profile)


def _unknown_profile(name: str, profiles: dict[str, Profile]) -> Rejection:
    known = ", ".join(_describe(name, profile) for name, profile in sorted(profiles.items()))
    return Rejection(
        "UnknownProfile",
        f"the operator has no resource profile {name!r}: set spec.profile to one of: {known}"
        if known
        else f"the operator has no resource profile {name!r}, and no other: set spec.resources instead, or give the "
        "operator profiles (chart value profiles)",
    )


def _describe(name: str, profile: Profile) -> str:
    if profile.gpu is None:
        return name
    memory = f", {profile.gpu.memory_gi_b} GiB" if profile.gpu.memory_gi_b is not None else ""
    return f"{name} ({profile.gpu.count} x {profile.gpu.resource}{memory})"


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
    if cache.spec.pvc is not None:
        return Mount(cache.meta.name, digest, cache.spec.pvc.claim_name, cache.spec.pvc.path)
    return Mount(cache.meta.name, digest, cache.meta.name, PUBLISHED_FOLDER)


def cache_ready(cache: Cache) -> bool:
    """Whether a cache's status says, of its present spec, that the files are there."""
    return any(
        condition.type == "Ready"
        and condition.status is ConditionStatus.TRUE
        and condition.observed_generation >= cache.meta.generation
        for condition in cache.status.conditions
    )

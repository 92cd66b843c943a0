"""Which server an AIService runs, on what, and with which number format; or why none."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from aiservice_api.tasks import ENGINES
from aiservice_api.v1alpha1 import AIServiceSpec, ModelCacheSpec, Precision
from aiservice_operator.hardware import Hardware, allocate, choose_precision, profile_memory
from aiservice_operator.kinds import Apis
from aiservice_operator.memory import CPU_PRECISIONS, GPU_PRECISIONS
from aiservice_operator.refusals import Rejection, contradiction, missing_api
from aiservice_operator.settings import Profile, Settings


@dataclass(frozen=True, slots=True)
class Engine:
    """Which server runs, and on what."""

    image: str
    pull_policy: str
    pull_secrets: list[str]
    profile: Profile
    hardware: Hardware
    precision: Precision
    """What the engine is told; never `auto`."""


def accept(
    spec: AIServiceSpec,
    settings: Settings,
    apis: Apis,
    cached: ModelCacheSpec | None,
    cache_claims: Collection[str],
) -> Engine | Rejection:
    """Returns the server for a spec, or why there is none: then no pod is made, and no model downloaded.

    Args:
        spec: What is asked for.
        settings: The operator's images and profiles.
        apis: What the cluster serves.
        cached: The ModelCache that the spec asks for; None: it is not there.
        cache_claims: Claims that are known to be ModelCaches'.
    """
    return missing_api(spec, apis) or choose_engine(spec, settings, cached, cache_claims=cache_claims)


def choose_engine(
    spec: AIServiceSpec,
    settings: Settings,
    cached: ModelCacheSpec | None = None,
    *,
    cache_claims: Collection[str] = (),
) -> Engine | Rejection:
    """Returns the server for a spec, and what it runs on.

    Args:
        spec: What is asked for.
        settings: The operator's images and profiles.
        cached: The ModelCache that `modelCacheRef` names, to compare what its model needs with the GPU's memory. None:
            it is not there, and nothing is compared.
        cache_claims: Claims that are known to be ModelCaches'.
    """
    profile = Profile()
    if spec.profile is not None:
        if spec.profile not in settings.profiles:
            return _unknown_profile(spec.profile, settings.profiles)
        profile = settings.profiles[spec.profile]
    engine = ENGINES[spec.tasks[0]]
    image = spec.engine.image or settings.images.get(engine)
    if image is None:
        return _no_engine(spec, engine)
    refused = contradiction(spec, cached, cache_claims)
    if refused is not None:
        return refused
    hardware = allocate(spec, profile)
    if isinstance(hardware, Rejection):
        return hardware
    known = GPU_PRECISIONS if hardware.on_gpu else CPU_PRECISIONS
    possible = known.get(engine) if spec.engine.image is None else None
    precision = choose_precision(spec, hardware, spec.model or cached, possible, settings.profiles)
    if isinstance(precision, Rejection):
        return precision
    return Engine(image, settings.image_pull_policy, settings.image_pull_secrets, profile, hardware, precision)


def _no_engine(spec: AIServiceSpec, engine: str) -> Rejection:
    tasks = " and ".join(task.value for task in spec.tasks)
    return Rejection(
        "NoEngine",
        f"the operator has no image for {tasks}: set spec.engine.image to a server that serves it, or give the "
        f"operator one (chart value images.{engine})",
    )


def _unknown_profile(name: str, profiles: Mapping[str, Profile]) -> Rejection:
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
    known = profile_memory(profile.gpu)
    memory = f", {known} GiB" if known is not None else ""
    return f"{name} ({profile.gpu.count} x {profile.gpu.resource}{memory})"

"""What a pod's engine gets to run on, and whether the model fits: the GPU, its memory, and the number format.

    profile and spec -> allocate() -> Hardware -> choose_precision() -> Precision

Whole GPUs, shares of one (time-slicing, MPS: `nvidia.com/gpu.shared`), partitions (MIG: `nvidia.com/mig-3g.20gb`) and
devices from dynamic resource allocation. Both functions refuse with a Rejection that says what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from aiservice_api.v1alpha1 import AIServiceSpec, ModelCacheSpec, Precision, ScalingMetric
from aiservice_operator.memory import Needs, known_needs
from aiservice_operator.quantities import parse, same
from aiservice_operator.refusals import Rejection
from aiservice_operator.settings import Gpu as ProfileGpu
from aiservice_operator.settings import Profile

GIB = Decimal(1024**3)
SHARED = ".shared"
"""How the names of resources end that stand for a share of a device."""
_GPU = re.compile(r"(nvidia\.com/(gpu|mig-)|amd\.com/gpu)")
_PARTITION = re.compile(r"/mig-(?:\d+c\.)?\d+g\.(\d+)gb")


@dataclass(frozen=True, slots=True)
class Gpu:
    """The GPUs of a pod."""

    resource: str
    count: int
    memory: Decimal | None
    """GiB of one of them; None: not known."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """Compute resources of the engine's container."""

    requests: Mapping[str, str]
    limits: Mapping[str, str]
    gpu: Gpu | None
    """What a device plugin gives; None: nothing, or a device that is claimed."""
    on_gpu: bool
    """Whether the engine is to use a GPU: one of a device plugin, or a claimed device."""


def allocate(spec: AIServiceSpec, profile: Profile) -> Hardware | Rejection:
    """Returns the profile's resources and GPUs, or the GPUs of the spec, and over both the spec's resources."""
    chosen = _chosen(spec, profile)
    requests, limits = dict(profile.resources.requests), dict(profile.resources.limits)
    if chosen is not None:
        limits[chosen.resource] = str(chosen.count)
    if spec.resources is not None:
        requests |= spec.resources.requests
        limits |= spec.resources.limits
    gpus = _gpus(limits, chosen)
    refused = (
        _stated_twice(spec, limits)
        or _two_kinds(gpus)
        or _claims_besides(spec, profile, gpus)
        or _more_than_a_share(limits)
        or _above_limit(requests, limits)
        or _no_cpu_request(spec, requests, limits)
    )
    if refused is not None:
        return refused
    gpu = gpus[0] if gpus else None
    return Hardware(requests, limits, gpu, on_gpu=gpu is not None or bool(spec.resource_claims))


def partition_memory(resource: str) -> Decimal | None:
    """Returns the GiB that the name of a MIG resource states; None for other resources."""
    found = _PARTITION.search(resource)
    return Decimal(found[1]) if found else None


def profile_memory(gpu: ProfileGpu) -> Decimal | None:
    """Returns the GiB of a profile's GPU; None where they are not known."""
    return gpu.memory_gi_b if gpu.memory_gi_b is not None else partition_memory(gpu.resource)


def _chosen(spec: AIServiceSpec, profile: Profile) -> Gpu | None:
    if spec.gpu is not None:
        stated = spec.gpu.memory
        memory = parse(stated) / GIB if stated is not None else partition_memory(spec.gpu.resource)
        return Gpu(spec.gpu.resource, spec.gpu.count, memory)
    if profile.gpu is not None:
        return Gpu(profile.gpu.resource, profile.gpu.count, profile_memory(profile.gpu))
    return None


def _gpus(limits: Mapping[str, str], chosen: Gpu | None) -> list[Gpu]:
    """The GPUs among the limits, each kind once: chosen ones, and those that resources name."""
    resources = [name for name in limits if _GPU.match(name) or (chosen is not None and name == chosen.resource)]
    counts = {name: int(parse(limits[name])) for name in resources}
    return [
        Gpu(name, count, chosen.memory if chosen is not None and name == chosen.resource else partition_memory(name))
        for name, count in counts.items()
        if count > 0
    ]


def _stated_twice(spec: AIServiceSpec, limits: Mapping[str, str]) -> Rejection | None:
    if spec.gpu is None or same(limits[spec.gpu.resource], spec.gpu.count):
        return None
    return _invalid(
        f"spec.gpu asks for {spec.gpu.count} of {spec.gpu.resource}, and spec.resources.limits for "
        f"{limits[spec.gpu.resource]}: leave it out of spec.resources"
    )


def _two_kinds(gpus: Sequence[Gpu]) -> Rejection | None:
    if len(gpus) < 2:
        return None
    kinds = " and ".join(gpu.resource for gpu in gpus)
    return _invalid(
        f"a pod gets GPUs of one kind, and this one would get {kinds}: say which in spec.gpu, which replaces the "
        "profile's, and leave GPUs out of spec.resources"
    )


def _claims_besides(spec: AIServiceSpec, profile: Profile, gpus: Sequence[Gpu]) -> Rejection | None:
    """Claimed devices come besides the profile's GPU, and mostly are meant in its place: who wants both says so."""
    if not spec.resource_claims or profile.gpu is None or spec.gpu is not None:
        return None
    if all(gpu.resource != profile.gpu.resource for gpu in gpus):
        return None  # spec.resources says that there is to be none
    return _invalid(
        f"pods would get {profile.gpu.count} {profile.gpu.resource} from profile {spec.profile}, and what "
        "spec.resourceClaims name besides: choose a profile without a GPU, or, where pods are to have both, state that "
        "GPU in spec.gpu too"
    )


def _more_than_a_share(limits: Mapping[str, str]) -> Rejection | None:
    for name, amount in limits.items():
        if name.endswith(SHARED) and parse(amount) > 1:
            return _invalid(
                f"{amount} of {name}: each is a share of the same GPU, and two give a pod no more of it than one. Ask "
                f"for 1, or for whole GPUs with {name.removesuffix(SHARED)}"
            )
    return None


def _above_limit(requests: Mapping[str, str], limits: Mapping[str, str]) -> Rejection | None:
    for name, request in requests.items():
        if name in limits and parse(request) > parse(limits[name]):
            return _invalid(
                f"the request for {name} ({request}) is above its limit ({limits[name]}), of which one comes from the "
                f"profile: set {name} under both spec.resources.requests and spec.resources.limits"
            )
    return None


def _no_cpu_request(spec: AIServiceSpec, requests: Mapping[str, str], limits: Mapping[str, str]) -> Rejection | None:
    if spec.autoscaling is None or spec.autoscaling.metric is not ScalingMetric.CPU:
        return None
    # Without a request the limit is the request.
    if any(parse(amounts.get("cpu", "0")) > 0 for amounts in (requests, limits)):
        return None
    return _invalid(
        "spec.autoscaling follows CPU use in percent of the request, and there is no request: set "
        "spec.resources.requests.cpu"
    )


def _invalid(message: str) -> Rejection:
    return Rejection("InvalidResources", message)


def choose_precision(
    spec: AIServiceSpec,
    hardware: Hardware,
    model: ModelCacheSpec | None,
    possible: Sequence[Precision] | None,
    profiles: Mapping[str, Profile],
) -> Precision | Rejection:
    """Returns the number format that pods are told to use.

    Args:
        spec: What is asked for.
        hardware: What the engine runs on.
        model: Where the model comes from, as far as that is known.
        possible: What the engine serves on this hardware, preferred first; None: not known.
        profiles: All of the operator's, to name those on which it would fit.
    """
    automatic = spec.precision is Precision.AUTO
    if not automatic and possible is not None and spec.precision not in possible:
        return _not_served(spec, hardware, possible)
    if not hardware.on_gpu:
        return Precision.FP32 if automatic else spec.precision
    wanted = _automatic(possible) if automatic else (spec.precision,)
    gpu, needs = hardware.gpu, _needs(spec, model)
    if gpu is None or gpu.memory is None:
        return wanted[0]
    fitting = [precision for precision in wanted if _fits(needs.get(precision), gpu.memory)]
    if fitting:
        return fitting[0]
    least = min(wanted, key=lambda precision: needs[precision])
    stated = spec.gpu_memory is not None
    remedies = [] if stated else _smaller(needs, gpu.memory, possible)
    remedies += _larger(needs[least], profiles)
    return Rejection(
        "DoesNotFit",
        f"{_title(model)} needs {_gib(needs[least])} GiB of GPU memory "
        f"{'(spec.gpuMemory)' if stated else f'in {least}'}, and {gpu.resource} has {_gib(gpu.memory)}: "
        + (", or ".join(remedies) or "choose a smaller model, or a GPU with more memory in spec.gpu"),
    )


def _not_served(spec: AIServiceSpec, hardware: Hardware, possible: Sequence[Precision]) -> Rejection:
    return Rejection(
        "PrecisionNotServed",
        f"the operator's engine for {' and '.join(spec.tasks)} does not serve {spec.precision} on a "
        f"{'GPU' if hardware.on_gpu else 'CPU'}: set spec.precision to {_either([Precision.AUTO, *possible])}, or "
        "spec.engine.image to a server that does",
    )


def _automatic(possible: Sequence[Precision] | None) -> tuple[Precision, ...]:
    """What `auto` stands for on a GPU, best first: the engine's own choice, and int8 where only that fits."""
    if possible is None:
        return (Precision.FP16,)
    return (possible[0], *(precision for precision in possible[1:] if precision is Precision.INT8))


def _needs(spec: AIServiceSpec, model: ModelCacheSpec | None) -> Needs:
    if spec.gpu_memory is None:
        return known_needs(model)
    return dict.fromkeys(Precision, parse(spec.gpu_memory) / GIB)


def _fits(need: Decimal | None, memory: Decimal | None) -> bool:
    """Whether it fits, or nothing says that it does not."""
    return need is None or memory is None or need <= memory


def _smaller(needs: Needs, memory: Decimal, possible: Sequence[Precision] | None) -> list[str]:
    """The most exact number format that would fit on this GPU, as a remedy."""
    offered = [precision for precision in Precision if possible is None or precision in possible]
    fitting = [precision for precision in offered if precision in needs and needs[precision] <= memory]
    return [f"set spec.precision to {fitting[0]} ({_gib(needs[fitting[0]])} GiB)"] if fitting else []


def _larger(need: Decimal, profiles: Mapping[str, Profile]) -> list[str]:
    """The profiles with enough memory, the smallest first, as a remedy."""
    memories = {name: profile_memory(profile.gpu) for name, profile in profiles.items() if profile.gpu is not None}
    enough = sorted((memory, name) for name, memory in memories.items() if memory is not None and memory >= need)
    named = _either([f"{name} ({_gib(memory)} GiB)" for memory, name in enough])
    return [f"use a GPU with as much, such as that of profile {named}"] if named else []


def _either(words: Sequence[str]) -> str:
    """The words as a choice: `a, b or c`."""
    *others, last = words or [""]
    return f"{', '.join(others)} or {last}" if others else last


def _title(model: ModelCacheSpec | None) -> str:
    return model.hugging_face.repo if model is not None and model.hugging_face is not None else "the model"


def _gib(amount: Decimal) -> str:
    return f"{amount:.1f}".removesuffix(".0")

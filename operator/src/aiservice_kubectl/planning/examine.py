"""One document examined: what would be made, whether it fits, what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from aiservice_api.v1alpha1 import AIService, AIServiceSpec, ModelCache, ModelCacheSpec, Precision
from aiservice_kubectl.lookup import progress
from aiservice_kubectl.planning import children
from aiservice_kubectl.planning.capacity import Need, Placed, place
from aiservice_kubectl.planning.children import Child, Pods
from aiservice_kubectl.planning.cost import HOURS, Cost, monthly
from aiservice_kubectl.planning.manifests import Document
from aiservice_kubectl.planning.report import Fit, Memory, Report
from aiservice_kubectl.planning.survey import Survey
from aiservice_operator import names
from aiservice_operator.capacity import requested
from aiservice_operator.engines import Engine, accept
from aiservice_operator.hardware import GIB
from aiservice_operator.kinds import Apis
from aiservice_operator.memory import known_needs
from aiservice_operator.quantities import parse
from aiservice_operator.refusals import Rejection
from aiservice_operator.settings import Settings

_ANY_APIS = Apis(dynamic_resources=True)
"""Of a cluster that was not asked nothing is said to be missing."""
_COMPUTE = ("pods", "cpu", "memory", "ephemeral-storage")


def examine_cache(document: Document, settings: Settings, survey: Survey) -> Report:
    """Examines a ModelCache."""
    spec = ModelCache.model_validate(document.body).spec
    live = _live_cache(document.name, document.namespace, survey)
    child = children.of_cache(document.name, spec, settings, live)
    exists = bool(live) if survey.reached else None
    return Report(document.title, document.namespace, exists, children=(child,))


def examine_service(
    document: Document, settings: Settings, survey: Survey, planned: Mapping[tuple[str, str], ModelCacheSpec]
) -> Report:
    """Examines an AIService.

    Args:
        document: What would be applied.
        settings: The operator's.
        survey: The cluster as it is. What is placed is taken from its nodes.
        planned: The ModelCaches of the manifest, by namespace and name.
    """
    spec = AIService.model_validate(document.body).spec
    exists = _exists(document, survey)
    cached = _referenced(spec, document.namespace, survey, planned)
    there = [item for item in survey.caches if item.meta.namespace == document.namespace]
    claims = [item.meta.name for item in there if item.has_own_claim]
    engine = accept(spec, settings, survey.apis or _ANY_APIS, cached, claims)
    if isinstance(engine, Rejection):
        refused = f"{engine.reason}: {engine.message}"
        return Report(document.title, document.namespace, exists, (refused,))
    made, pods = children.of_service(
        document.name,
        document.namespace,
        spec,
        engine,
        settings,
        cached=cached,
        pod_monitors=survey.apis.pod_monitors if survey.apis is not None else None,
    )
    cost, words = _cost(spec, settings, pods)
    return Report(
        document.title,
        document.namespace,
        exists,
        facts=_facts(spec, engine, pods),
        children=(*_caches(spec, document.namespace, settings, survey, cached), *made),
        memory=_memory(spec, engine, cached),
        fit=_fit(spec, pods, survey),
        cost=cost,
        cost_words=words,
    )


def _exists(document: Document, survey: Survey) -> bool | None:
    if not survey.reached:
        return None
    return any((item.meta.namespace, item.meta.name) == (document.namespace, document.name) for item in survey.services)


def _live_cache(name: str, namespace: str, survey: Survey) -> str:
    found = [item for item in survey.caches if (item.meta.namespace, item.meta.name) == (namespace, name)]
    return progress(found[0]) if found else ""


def _referenced(
    spec: AIServiceSpec, namespace: str, survey: Survey, planned: Mapping[tuple[str, str], ModelCacheSpec]
) -> ModelCacheSpec | None:
    """The ModelCache that modelCacheRef names: of the manifest, or of the cluster."""
    if spec.model_cache_ref is None:
        return None
    key = (namespace, spec.model_cache_ref.name)
    if key in planned:
        return planned[key]
    return next((item.spec for item in survey.caches if (item.meta.namespace, item.meta.name) == key), None)


def _caches(
    spec: AIServiceSpec, namespace: str, settings: Settings, survey: Survey, cached: ModelCacheSpec | None
) -> list[Child]:
    """The ModelCache: made for the service, or used by it."""
    if spec.model is not None:
        name = names.cache_name(spec.model)
        return [children.of_cache(name, spec.model, settings, _live_cache(name, namespace, survey))]
    if spec.model_cache_ref is None:
        return []
    missing = "not there: make it, or the service waits for it" if survey.reached else "yours"
    return [Child("ModelCache", spec.model_cache_ref.name, "yours, used by reference" if cached else missing)]


def _facts(spec: AIServiceSpec, engine: Engine, pods: Pods) -> dict[str, str]:
    hardware = engine.hardware
    device = f"{hardware.gpu.count} x {hardware.gpu.resource}" if hardware.gpu else "CPU"
    if spec.resource_claims:
        device = f"claimed devices: {', '.join(claim.name for claim in spec.resource_claims)}"
    selector = ", ".join(f"{name}={value}" for name, value in (pods.spec.get("nodeSelector") or {}).items())
    compute = requested(pods.spec)
    return {
        "engine": f"{engine.image}, {engine.precision}",
        "each pod": ", ".join(
            [device, *(_amount(name, compute[name]) for name in ("cpu", "memory") if name in compute)]
        ),
        "nodes": selector or "any",
    }


def _memory(spec: AIServiceSpec, engine: Engine, cached: ModelCacheSpec | None) -> Memory | None:
    """How the model fits one GPU; that it does was decided with the engine."""
    gpu = engine.hardware.gpu
    if gpu is None:
        return None
    stated = spec.gpu_memory
    need = parse(stated) / GIB if stated is not None else known_needs(spec.model or cached).get(engine.precision)
    of_gpu = (
        f"{gpu.resource} has {_gib(gpu.memory)}" if gpu.memory is not None else f"that of {gpu.resource} is not known"
    )
    asked = (
        f"needs {_gib(need)} in {engine.precision}"
        if need is not None
        else "the need of this model is not known (spec.gpuMemory states it)"
    )
    verdict = "fits" if need is not None and gpu.memory is not None else "not compared"
    return Memory(_number(need), _number(gpu.memory), f"{verdict}: {asked}, {of_gpu}{_smaller(engine.precision)}")


def _smaller(precision: Precision) -> str:
    return "; in int8 because only that fits" if precision is Precision.INT8 else ""


def _fit(spec: AIServiceSpec, pods: Pods, survey: Survey) -> Fit:
    if survey.rooms is None:
        return Fit(None, "not looked at: no nodes are known")
    if pods.most == 0:
        return Fit(True, "no pod runs")
    if spec.resource_claims:
        return Fit(None, "not looked at: devices of resourceClaims are given by the scheduler")
    amounts = requested(pods.spec)
    found = place(Need(pods.least, pods.most, pods.spec, pods.beside), survey.rooms)
    words = _placed(found, amounts, pods)
    if found.placed == pods.least < pods.most:
        words += f"; {found.possible} of the {pods.most} that autoscaling may ask for would fit now"
    return Fit(found.placed == pods.least, words)


def _placed(placed: Placed, amounts: Mapping[str, Decimal], pods: Pods) -> str:
    wanted = pods.least
    devices = [name for name in amounts if name not in _COMPUTE]
    asked = _amounts({name: amounts[name] * wanted for name in devices or ("cpu",) if name in amounts}) or "a place"
    there = _amounts({name: placed.free[name] for name in devices or ("cpu",) if name in placed.free}) or "places"
    nodes = "1 matching node" if placed.matching == 1 else f"{placed.matching} matching nodes"
    lead = f"needs {asked}; free now {there} on {nodes}"
    if placed.placed == wanted:
        return f"fits: {lead}"
    if not placed.matching:
        return f"does not fit: no node that is Ready has the labels and taints that its pods can run on ({lead})"
    short = f"; short of {', '.join(placed.short)}" if placed.short else ""
    return f"does not fit: {placed.placed} of {wanted} pods find a place{_together(placed, pods)}: {lead}{short}"


def _together(placed: Placed, pods: Pods) -> str:
    """Where the pods have to run because of their volume."""
    why = "since the volume of the cache is ReadWriteOnce (storage.accessMode)"
    if placed.bound:
        return f", on {' or '.join(placed.bound)} beside others that use the cache, {why}"
    return f", all on one node, {why}" if pods.beside is not None and pods.least > 1 else ""


def _cost(spec: AIServiceSpec, settings: Settings, pods: Pods) -> tuple[Cost | None, str]:
    if spec.profile is None:
        return None, "not known: it has no profile, and prices are those of profiles"
    price = settings.profiles[spec.profile].price
    if price is None:
        return None, f"not known: give the operator one (chart value profiles.{spec.profile}.price)"
    cost = monthly(price, pods.least, pods.most)
    number = f"{pods.least} to {pods.most}" if pods.least != pods.most else str(pods.least)
    other = "; spec.gpu replaces the profile's GPU, so the true price may differ" if spec.gpu is not None else ""
    return cost, (
        f"about {cost} a month: {number} x {price.hourly} {price.currency} an hour (profile {spec.profile}) x "
        f"{HOURS} h{other}"
    )


def _amounts(amounts: Mapping[str, Decimal]) -> str:
    return ", ".join(_amount(name, amount) for name, amount in amounts.items())


def _amount(name: str, amount: Decimal) -> str:
    if name == "memory":
        return f"{_gib(amount / GIB)} memory"
    number = f"{amount.normalize():f}"
    return f"{number} CPU" if name == "cpu" else f"{number} x {name}"


def _gib(amount: Decimal | None) -> str:
    return "?" if amount is None else f"{amount:.1f}".removesuffix(".0") + " GiB"


def _number(amount: Decimal | None) -> float | None:
    return None if amount is None else float(amount)

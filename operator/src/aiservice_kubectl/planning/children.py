"""What the operator would make of an AIService or a ModelCache: the one module that calls its builders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import BaseModel

from aiservice_api.v1alpha1 import AIServiceSpec, ModelCacheSpec, Storage, Surge
from aiservice_operator import names
from aiservice_operator.desired.autoscaler import autoscaler
from aiservice_operator.desired.common import body_of
from aiservice_operator.desired.container import Mount
from aiservice_operator.desired.disruption_budget import disruption_budget
from aiservice_operator.desired.network_policy import network_policy
from aiservice_operator.desired.pod_monitor import pod_monitor
from aiservice_operator.desired.service import service
from aiservice_operator.desired.service_account import service_account
from aiservice_operator.desired.workload import workload
from aiservice_operator.engines import Engine
from aiservice_operator.kinds import Json, Kind
from aiservice_operator.observed import Meta
from aiservice_operator.plan.mount import PUBLISHED_FOLDER
from aiservice_operator.settings import Settings
from aiservice_operator.status.cache import describe

_ONE_NODE = "ReadWriteOnce"


@dataclass(frozen=True, slots=True)
class Child:
    """One object that the operator would make, and what matters about it."""

    kind: str
    name: str
    facts: str
    children: tuple[Child, ...] = ()


@dataclass(frozen=True, slots=True)
class Pods:
    """The pods of a service."""

    least: int
    most: int
    spec: Json
    """Of each, as Kubernetes takes it."""
    beside: tuple[str, str] | None
    """Namespace and name of their ModelCache, where its volume is mounted on one node only."""


def pod_numbers(spec: AIServiceSpec) -> tuple[int, int]:
    """Returns the fewest and the most pods of a service."""
    if spec.suspend:
        return 0, 0
    if spec.autoscaling is not None:
        return spec.autoscaling.min, spec.autoscaling.max
    fixed = 1 if spec.replicas is None else spec.replicas
    return fixed, fixed


def of_service(
    name: str,
    namespace: str,
    spec: AIServiceSpec,
    engine: Engine,
    settings: Settings,
    *,
    cached: ModelCacheSpec | None,
    pod_monitors: bool | None,
) -> tuple[list[Child], Pods]:
    """Returns what an AIService would have besides its ModelCache, and its pods.

    Args:
        name: Of the AIService.
        namespace: Of the AIService.
        spec: What it asks for.
        engine: The server that was chosen, and what it runs on.
        settings: The operator's.
        cached: What its ModelCache asks for; None: not known.
        pod_monitors: Whether the cluster serves them; None: not known.
    """
    owner = _meta(name, namespace)
    mount = _mount(spec, cached)
    least, most = pod_numbers(spec)
    scaled = spec.autoscaling is not None and not spec.suspend
    surge = spec.rollout.surge is Surge.ALWAYS or (spec.rollout.surge is Surge.AUTO and not engine.hardware.on_gpu)
    deployment = body_of(
        workload(owner, spec, mount, engine, surge=surge, replicas=None if scaled else least, references="")
    )
    pod: Json = deployment["spec"]["template"]["spec"]
    built: list[tuple[Kind, BaseModel | Json | None]] = [
        (Kind.SERVICE_ACCOUNT, service_account(owner)),
        (Kind.SERVICE, service(owner, spec.tasks)),
        (Kind.DEPLOYMENT, deployment),
        (Kind.AUTOSCALER, autoscaler(owner, spec, scale_down=True)),
        (Kind.DISRUPTION_BUDGET, disruption_budget(owner, spec, one_node=mount.one_node)),
        (Kind.NETWORK_POLICY, network_policy(owner, spec, settings)),
        (Kind.POD_MONITOR, pod_monitor(owner, spec, settings) if pod_monitors is not False else None),
    ]
    children = [
        Child(kind.value, name, _facts(kind, body_of(body), least, most, pod_monitors=pod_monitors))
        for kind, body in built
        if body is not None
    ]
    return children, Pods(least, most, pod, (namespace, mount.cache) if mount.one_node else None)


def of_cache(name: str, spec: ModelCacheSpec, settings: Settings, live: str) -> Child:
    """Returns a ModelCache with its claim and its download.

    Args:
        name: Of the ModelCache.
        spec: What it asks for.
        settings: The operator's.
        live: How far one of this name is that exists; empty: there is none.
    """
    state = live or "new"
    if spec.pvc is not None:
        claim = Child(Kind.CLAIM.value, spec.pvc.claim_name, "yours; it must exist, and nothing is downloaded")
        return Child(Kind.MODEL_CACHE.value, name, f"{describe(spec)}; {state}", (claim,))
    storage = spec.storage or Storage()
    size = storage.size or "as large as the model and a margin"
    of_class = f", StorageClass {storage.storage_class_name}" if storage.storage_class_name else ""
    claim = Child(Kind.CLAIM.value, name, f"{size}, {storage.access_mode}{of_class}")
    download = Child(Kind.JOB.value, f"{name}-...", f"downloads once, with {settings.download.image}")
    done = live == "cached"
    return Child(Kind.MODEL_CACHE.value, name, f"{describe(spec)}; {state}", (claim,) if done else (claim, download))


def _meta(name: str, namespace: str) -> Meta:
    """The owner as the builders know it; what the API server gives out is not known before."""
    return Meta(name, namespace, "", 0, 0, datetime.fromtimestamp(0, UTC), False, {}, {}, (), ())


def _mount(spec: AIServiceSpec, cached: ModelCacheSpec | None) -> Mount:
    stated = spec.model or cached
    name = names.cache_name(spec.model) if spec.model is not None else ""
    if spec.model_cache_ref is not None:
        name = spec.model_cache_ref.name
    if stated is not None and stated.pvc is not None:
        # How nodes share a claim of the user's own is read from it when it is there.
        return Mount(name, "", stated.pvc.claim_name, stated.pvc.path, one_node=False)
    access = (stated.storage or Storage()).access_mode if stated is not None else ""
    return Mount(name, "", name, PUBLISHED_FOLDER, one_node=access == _ONE_NODE)


def _facts(kind: Kind, body: Json, least: int, most: int, *, pod_monitors: bool | None) -> str:
    """What matters about a child, read from what would be applied."""
    spec = body.get("spec", {})
    facts: dict[Kind, Callable[[], str]] = {
        Kind.SERVICE_ACCOUNT: lambda: "no rights, no token",
        Kind.SERVICE: lambda: ", ".join(f"port {port['port']} {port['name']}" for port in spec["ports"]),
        Kind.DEPLOYMENT: lambda: _deployment(spec, least, most),
        Kind.AUTOSCALER: lambda: f"{least} to {most} pods, by {_metric(spec['metrics'][0])}",
        Kind.DISRUPTION_BUDGET: lambda: _budget(spec),
        Kind.NETWORK_POLICY: lambda: _policy(spec),
        Kind.POD_MONITOR: lambda: "" if pod_monitors else "where the Prometheus Operator is installed",
    }
    return facts[kind]()


def _budget(spec: Json) -> str:
    if "minAvailable" in spec:
        return f"drains of nodes leave {spec['minAvailable']} of its pods"
    if spec["maxUnavailable"] == "100%":
        return "drains of nodes may stop all of its pods at once"
    return f"drains of nodes stop at most {spec['maxUnavailable']} of its pods at once"


def _policy(spec: Json) -> str:
    peers = sum(len(rule["from"]) for rule in spec["ingress"])
    return f"{peers} kinds of pods may connect, others may not" if peers else "nobody may connect"


def _deployment(spec: Json, least: int, most: int) -> str:
    pods = f"{least} to {most} pods" if least != most else "1 pod" if least == 1 else f"{least} pods"
    surge = spec["strategy"]["rollingUpdate"]["maxSurge"]
    replaced = "a new pod starts before an old one stops" if surge else "an old pod stops before a new one starts"
    return f"{pods}; {replaced}"


def _metric(metric: Json) -> str:
    if metric["type"] == "Pods":
        return f"{metric['pods']['target']['averageValue']} requests in flight a pod (custom metrics API)"
    return f"{metric['containerResource']['target']['averageUtilization']}% CPU use (metrics-server)"

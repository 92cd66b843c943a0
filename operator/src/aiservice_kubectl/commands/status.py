"""`kubectl ais status`: all AIServices in a table, or one in detail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from aiservice_api.v1alpha1 import ConditionStatus
from aiservice_kubectl.cluster import if_allowed
from aiservice_kubectl.commands.detail import detail
from aiservice_kubectl.errors import Exit
from aiservice_kubectl.lookup import cache_of, condition, find_service, progress
from aiservice_kubectl.request import Request
from aiservice_kubectl.text import Paint, age, plain, table
from aiservice_operator import names
from aiservice_operator.kinds import Json, Kind
from aiservice_operator.observed import Cache, Child, Service


@dataclass(frozen=True, slots=True)
class Row:
    """One AIService at a glance."""

    namespace: str
    name: str
    tasks: list[str]
    ready: str
    reason: str
    message: str
    pods: int
    ready_pods: int
    wanted_pods: str
    gpu: str
    model: str
    cache: str
    cache_progress: str
    url: str
    age: str


def run(request: Request) -> int:
    """Shows all AIServices, or one."""
    if request.options.name is not None:
        return _one(request, request.options.name)
    scope, left_out = request.scope, list[str]()
    found = request.cluster.services(scope)
    caches = if_allowed(lambda: request.cluster.caches(scope), left_out) if found else []
    deployments = if_allowed(lambda: request.cluster.children(Kind.DEPLOYMENT, scope), left_out) if found else []
    rows = [
        row(service, caches, deployments, age(request.now - service.meta.created))
        for service in sorted(found, key=lambda item: (item.meta.namespace, item.meta.name))
    ]
    if request.as_json:
        request.say_json([asdict(item) for item in rows])
    elif rows:
        request.say(render(rows, request.paint, namespaces=scope is None))
    else:
        request.note(f"There is no AIService in {f'namespace {scope}' if scope else 'any namespace'}.")
    for missing in left_out:
        request.note(f"Left out: {missing}")
    return Exit.OK


def _one(request: Request, name: str) -> int:
    service = find_service(request.cluster, request.namespace, name)
    if request.as_json:
        request.say_json({"spec": service.spec.to_wire() if service.spec else None, "status": service.status.to_wire()})
        return Exit.OK
    request.say(detail(request, service))
    return Exit.OK


def row(service: Service, caches: Sequence[Cache], deployments: Sequence[Child], how_old: str) -> Row:
    """Returns what the table says of an AIService."""
    status, spec = service.status, service.spec
    ready = condition(status.conditions, "Ready")
    cache = cache_of(service, caches)
    deployment = next(
        (
            child
            for child in deployments
            if child.meta.name == service.meta.name and child.meta.namespace == service.meta.namespace
        ),
        None,
    )
    return Row(
        namespace=service.meta.namespace,
        name=service.meta.name,
        tasks=[task.value for task in spec.tasks] if spec else [],
        ready=ready.status.value if ready else ConditionStatus.UNKNOWN.value,
        reason=ready.reason if ready else "NotSeenYet",
        message=ready.message if ready else "",
        pods=status.replicas,
        ready_pods=status.ready_replicas,
        wanted_pods=wanted_pods(service),
        gpu=_gpu(service, deployment),
        model=status.model,
        cache=service.cache_name or "",
        cache_progress=progress(cache),
        url=status.url or "",
        age=how_old,
    )


def wanted_pods(service: Service) -> str:
    """Returns how many pods there are to be: `2`, or `1-4` where an autoscaler decides."""
    spec = service.spec
    if spec is None:
        return "?"
    if spec.suspend:
        return "0"
    if spec.autoscaling is not None:
        return f"{spec.autoscaling.min}-{spec.autoscaling.max}"
    return str(1 if spec.replicas is None else spec.replicas)


def gpus(deployment: Child) -> str:
    """Returns the devices that each pod of a Deployment gets: `1 x nvidia.com/gpu`."""
    containers: list[Json] = deployment.body["spec"]["template"]["spec"]["containers"]
    engine: Json = next((item for item in containers if item["name"] == names.ENGINE_CONTAINER), {})
    limits: Json = engine.get("resources", {}).get("limits", {})
    return ", ".join(f"{amount} x {name}" for name, amount in limits.items() if "/" in name)


def _gpu(service: Service, deployment: Child | None) -> str:
    """What pods get; before there are any, what the spec asks for."""
    if deployment is not None:
        return gpus(deployment) or "none"
    spec = service.spec
    if spec is None:
        return ""
    if spec.gpu is not None:
        return f"{spec.gpu.count} x {spec.gpu.resource}"
    return f"profile {spec.profile}" if spec.profile else ""


def render(rows: Sequence[Row], paint: Paint, *, namespaces: bool) -> str:
    """Returns the table."""
    heads = ["NAME", "TASKS", "READY", "REASON", "PODS", "GPU", "MODEL", "CACHE", "URL", "AGE"]
    lines = [
        [
            item.name,
            ",".join(item.tasks),
            paint.state(item.ready),
            plain(item.reason),
            f"{item.ready_pods}/{item.wanted_pods}",
            item.gpu,
            plain(item.model),
            plain(item.cache_progress),
            item.url,
            item.age,
        ]
        for item in rows
    ]
    if not namespaces:
        return table(heads, lines)
    spaces = [[item.namespace, *line] for item, line in zip(rows, lines, strict=True)]
    return table(["NAMESPACE", *heads], spaces)

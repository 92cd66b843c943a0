"""`kubectl ais status NAME`: one AIService with its conditions, timings and children."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from aiservice_api.v1alpha1 import Condition, Timings
from aiservice_kubectl.cluster import if_allowed, together
from aiservice_kubectl.explain.pods import pod_state
from aiservice_kubectl.lookup import condition
from aiservice_kubectl.request import Request
from aiservice_kubectl.text import Colour, age, paragraph, plain, sentence, table
from aiservice_operator import names
from aiservice_operator.kinds import Json, Kind
from aiservice_operator.observed import Child, Service

_OF_SERVICE = (
    Kind.DEPLOYMENT,
    Kind.SERVICE,
    Kind.SERVICE_ACCOUNT,
    Kind.AUTOSCALER,
    Kind.DISRUPTION_BUDGET,
    Kind.NETWORK_POLICY,
    Kind.POD_MONITOR,
    Kind.POD,
)
_OF_CACHE = (Kind.CLAIM, Kind.JOB)


def detail(request: Request, service: Service) -> str:
    """Returns everything about one AIService, in the order in which one asks."""
    left_out: list[str] = []
    children = _children(request, service, left_out)
    parts = [
        _head(request, service),
        _facts(service),
        _section("Conditions", _conditions(request, service.status.conditions)),
        _section("Last start", _timings(service.status.timings)),
        _section("Last failure", _failure(request, service)),
        _section("Children", _tree(request, service, children)),
        *(f"Left out: {missing}" for missing in left_out),
        f"`kubectl ais why {service.meta.name} -n {service.meta.namespace}` says in words what this means.",
    ]
    return "\n\n".join(part for part in parts if part)


def _head(request: Request, service: Service) -> str:
    ready = condition(service.status.conditions, "Ready")
    state = f"Ready={ready.status} {ready.reason}" if ready else "not seen by the operator yet"
    title = request.paint(service.meta.name, Colour.STRONG)
    seen = service.status.observed_generation
    behind = (
        f"   (of generation {seen}; the spec is at {service.meta.generation})" if seen < service.meta.generation else ""
    )
    coloured = request.paint.state(ready.status.value) if ready else ""
    return f"{title}   {state.replace(f'={ready.status}', f'={coloured}', 1) if ready else state}{behind}"


def _facts(service: Service) -> str:
    status, spec = service.status, service.spec
    facts = {
        "namespace": service.meta.namespace,
        "tasks": ", ".join(task.value for task in spec.tasks) if spec else "",
        "model": status.model,
        "precision": status.precision.value if status.precision else "",
        "profile": (spec.profile or "") if spec else "",
        "pods": f"{status.ready_replicas} ready of {status.replicas}",
        "rollout": status.rollout.reason if status.rollout else "",
        "url": "\n".join(f"{task}: {url}" for task, url in status.endpoints.items()) or (status.url or ""),
    }
    lines = [f"{name:<11}{plain(line)}" for name, text in facts.items() for line in text.splitlines() if line]
    return "\n".join(lines)


def _section(title: str, body: str) -> str:
    return f"{title}\n{body}" if body else ""


def _conditions(request: Request, conditions: Sequence[Condition]) -> str:
    lines = []
    for item in conditions:
        state = request.paint.state(f"{item.status:<8}")
        when = age(request.now - item.last_transition_time)
        lines.append(f"  {item.type:<15}{state}{item.reason}   {when}")
        if item.message:
            lines.append(paragraph(plain(item.message), request.width, " " * 25))
    return "\n".join(lines)


def _timings(timings: Timings | None) -> str:
    if timings is None:
        return ""
    parts = {
        "first ready after": timings.ready_seconds,
        "model cached after": timings.cache_seconds,
        "node found after": timings.schedule_seconds,
        "loaded after": timings.load_seconds,
    }
    return "\n".join(f"  {name:<20}{seconds:.1f} s" for name, seconds in parts.items() if seconds is not None)


def _failure(request: Request, service: Service) -> str:
    failure = service.status.last_failure
    if failure is None:
        return ""
    lead = f"  {failure.reason}   {failure.object}   {age(request.now - failure.time)} ago"
    return f"{lead}\n{paragraph(sentence(failure.message), request.width, '    ')}"


def _children(request: Request, service: Service, left_out: list[str]) -> list[Child]:
    def ask(kind: Kind, app: str, name: str) -> Callable[[], list[Child]]:
        selector = f"{names.NAME_LABEL}={app},{names.INSTANCE_LABEL}={name}"
        read = partial(request.cluster.children, kind, service.meta.namespace, selector)
        # Not every cluster serves PodMonitors: that they are missing is nothing to speak of.
        return partial(if_allowed, read, [] if kind is Kind.POD_MONITOR else left_out)

    asked = [ask(kind, names.SERVICE_APP, service.meta.name) for kind in _OF_SERVICE]
    if service.cache_name is not None:
        asked += [ask(kind, names.CACHE_APP, service.cache_name) for kind in _OF_CACHE]
    return [child for found in together(*asked) for child in found]


def _tree(request: Request, service: Service, children: Sequence[Child]) -> str:
    cache = [["ModelCache", service.cache_name, ""]] if service.cache_name else []
    # A pod that was evicted or ran out of memory stays as a record, and there can be many.
    ended = [child for child in children if child.kind is Kind.POD and _phase(child) in {"Failed", "Succeeded"}]
    rows = [[child.kind.value, child.meta.name, _state(child)] for child in children if child not in ended]
    rows.sort(key=lambda line: line[0] == Kind.POD.value)
    if ended:
        newest = max(ended, key=lambda child: child.meta.created)
        rows.append([Kind.POD.value, f"({len(ended)} that ended)", f"the newest: {_state(newest)}"])
    return "\n".join(f"  {line}" for line in table(["KIND", "NAME", "STATE"], [*cache, *rows]).splitlines())


def _phase(pod: Child) -> str:
    return str(pod.body.get("status", {}).get("phase", "Pending"))


def _state(child: Child) -> str:
    states: dict[Kind, Callable[[Child], str]] = {
        Kind.DEPLOYMENT: _deployment,
        Kind.POD: pod_state,
        Kind.AUTOSCALER: _autoscaler,
        Kind.CLAIM: lambda claim: _claim(claim.body),
        Kind.JOB: _job,
        Kind.SERVICE: lambda found: ", ".join(f"{port['name']}:{port['port']}" for port in found.body["spec"]["ports"]),
    }
    known = states.get(child.kind)
    going = "being deleted; " if child.meta.deleting else ""
    return plain(going + known(child)) if known else going.rstrip("; ")


def _deployment(child: Child) -> str:
    status = child.body.get("status", {})
    return f"{status.get('readyReplicas', 0)} of {child.body['spec'].get('replicas', 1)} pods ready"


def _autoscaler(child: Child) -> str:
    spec, status = child.body["spec"], child.body.get("status", {})
    now, least, most = status.get("currentReplicas", 0), spec.get("minReplicas", 1), spec["maxReplicas"]
    return f"{now} pods now, {status.get('desiredReplicas', now)} wanted, {least} to {most} allowed"


def _claim(body: Json) -> str:
    status = body.get("status", {})
    size = status.get("capacity", {}).get("storage") or body["spec"]["resources"]["requests"]["storage"]
    return f"{status.get('phase', 'Pending')}, {size}, {', '.join(body['spec'].get('accessModes', []))}"


def _job(child: Child) -> str:
    status = child.body.get("status", {})
    done = [item["type"] for item in status.get("conditions", []) if item["status"] == "True"]
    return done[-1] if done else f"{status.get('active', 0)} running, {status.get('failed', 0)} failed"

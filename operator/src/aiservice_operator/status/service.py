"""The status of an AIService."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from aiservice_api.v1alpha1 import AIServiceSpec, AIServiceStatus
from aiservice_operator import names
from aiservice_operator.desired.service import endpoints
from aiservice_operator.failures import Failure, of_pods
from aiservice_operator.observed import Service, mounted_cache
from aiservice_operator.plan.actions import Refusal
from aiservice_operator.plan.service import ServicePlan, ServiceView, cache_ready
from aiservice_operator.states import Rollout, rollout
from aiservice_operator.status.cache import describe
from aiservice_operator.status.conditions import (
    FALSE,
    TRUE,
    UNKNOWN,
    Check,
    find,
    last_failure,
    merge,
    no,
    pending,
    yes,
)
from aiservice_operator.status.timings import timings


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the checks look at."""

    view: ServiceView
    plan: ServicePlan
    refusals: Sequence[Refusal]
    rollout: Rollout | None
    failure: Failure | None
    wanted: int
    """Pods that the spec asks for."""


def service_status(view: ServiceView, plan: ServicePlan, refusals: Sequence[Refusal], now: datetime) -> AIServiceStatus:
    """Computes the status of an AIService."""
    service, previous = view.service, view.service.status
    spec = service.spec
    facts = _Facts(
        view=view,
        plan=plan,
        refusals=refusals,
        rollout=rollout(view.deployment) if view.deployment is not None else None,
        failure=_failure(view, now),
        wanted=1 if spec is None or spec.replicas is None else spec.replicas,
    )
    checks = {
        "Accepted": _accepted(facts),
        "ModelReady": _model_ready(facts),
        "Scheduled": _scheduled(facts),
        "Available": _available(facts),
    }
    checks["Ready"] = _ready(facts, checks)
    checks["Progressing"] = _progressing(checks["Ready"])
    if spec is not None and spec.gateway.default:
        checks["GatewayDefault"] = _gateway_default(service, spec, view.rivals)
    served = endpoints(service.meta, spec.tasks) if spec is not None and view.endpoint is not None else {}
    merged = merge(previous.conditions, list(checks.items()), service.meta.generation, now)
    selector = names.workload_selector(service.meta.name)
    return AIServiceStatus(
        observed_generation=service.meta.generation,
        replicas=facts.rollout.existing if facts.rollout else 0,
        ready_replicas=facts.rollout.ready if facts.rollout else 0,
        selector=",".join(f"{label}={value}" for label, value in selector.items()),
        url=next(iter(served.values()), None),
        endpoints=served,
        model=describe(view.cache.spec) if view.cache is not None and view.cache.spec is not None else "",
        model_cache=service.cache_name,
        timings=timings(service.meta, view.pods, find(merged, "ModelReady"), previous.timings),
        last_failure=last_failure(facts.failure, previous.last_failure),
        conditions=merged,
    )


def _failure(view: ServiceView, now: datetime) -> Failure | None:
    """The deepest failure below the service: a pod's, or why there is no pod."""
    found = of_pods(view.pods, now)
    if found is not None or view.deployment is None:
        return found
    state = rollout(view.deployment)
    if state.refused and state.refused_at is not None:
        deployment = f"Deployment/{view.deployment.meta.name}"
        return Failure("PodsRefused", f"pods cannot be created: {state.refused}", deployment, state.refused_at)
    return None


def _accepted(facts: _Facts) -> Check:
    if facts.plan.rejection is not None:
        return no(facts.plan.rejection.reason, facts.plan.rejection.message)
    return yes("Accepted", "the operator can serve this")


def _model_ready(facts: _Facts) -> Check:
    service, cache = facts.view.service, facts.view.cache
    name = service.cache_name
    if service.spec is None or name is None:
        return pending("Unknown", "the spec cannot be read")
    if cache is None:
        return _without_cache(facts, service.spec, name)
    if cache_ready(cache):
        return yes("Cached", f"ModelCache {name} is ready")
    ready = find(cache.status.conditions, "Ready")
    if ready is None or ready.observed_generation < cache.meta.generation or ready.status is TRUE:
        return pending("Creating", f"ModelCache {name} is being prepared")
    return Check(ready.status, ready.reason, f"ModelCache {name}: {ready.message}")


def _without_cache(facts: _Facts, spec: AIServiceSpec, name: str) -> Check:
    if spec.model is None:
        return no(
            "CacheNotFound",
            f"there is no ModelCache {name} in namespace {facts.view.service.meta.namespace}: create it, or correct "
            "spec.modelCacheRef.name",
        )
    if facts.plan.rejection is not None:
        return pending("NotAccepted", "nothing is downloaded while the spec is not accepted")
    return pending("Creating", f"ModelCache {name} is being created")


def _scheduled(facts: _Facts) -> Check:
    waiting = _without_pods(facts)
    if waiting is not None:
        return waiting
    pods = [pod for pod in facts.view.pods if not pod.meta.deleting]
    if facts.failure is not None and facts.failure.reason == "Unschedulable":
        return no("Unschedulable", facts.failure.message)
    placed = sum(bool(pod.body["spec"]["nodeName"]) for pod in pods)
    if placed < facts.wanted:
        return pending("Scheduling", f"{placed} of {facts.wanted} pods have a node")
    return yes("Scheduled", f"{_pods(facts.wanted)} on {len({pod.body['spec']['nodeName'] for pod in pods})} node(s)")


def _available(facts: _Facts) -> Check:
    state = facts.rollout
    if state is not None and state.ready > 0:
        return yes("Serving", f"{state.ready} of {_pods(facts.wanted)} ready")
    if facts.wanted == 0:
        return no("Idle", "scaled to zero: raise spec.replicas to serve")
    if facts.failure is not None:
        return no(facts.failure.reason, facts.failure.message)
    return _without_pods(facts) or pending("Starting", "no pod is ready yet; loading a large model takes minutes")


def _without_pods(facts: _Facts) -> Check | None:
    """The check for what pods decide, where there are none to be."""
    if facts.plan.rejection is not None and facts.rollout is None:
        return no(facts.plan.rejection.reason, "nothing runs, because the spec is not accepted")
    if facts.rollout is None:
        return pending("WaitingForModel", "pods are created when the model is cached")
    if facts.wanted == 0:
        return yes("Idle", "scaled to zero: no pod is wanted")
    return None


def _ready(facts: _Facts, checks: dict[str, Check]) -> Check:
    """The one answer, from the first that has one."""
    for name in ("Accepted", "ModelReady"):
        if checks[name].status is not TRUE:
            return _meanwhile(facts, checks[name])
    deciders: list[Callable[[_Facts], Check | None]] = [_refused, _complete, _failing, _scaling_down, _starting]
    found = next((check for decide in deciders if (check := decide(facts)) is not None), None)
    if found is not None:
        return found
    updated = facts.rollout.updated if facts.rollout is not None else 0
    return _meanwhile(facts, pending("RollingOut", f"{updated} of {_pods(facts.wanted)} replaced"))


def _refused(facts: _Facts) -> Check | None:
    if not facts.refusals:
        return None
    refused = facts.refusals[0]
    return no("ChildRefused", f"{refused.identity.kind} {refused.identity.name}: {refused.message}")


def _complete(facts: _Facts) -> Check | None:
    if facts.rollout is None or not facts.rollout.complete:
        return None
    if facts.wanted == 0:
        return yes("Idle", "scaled to zero: the model stays cached; raise spec.replicas to serve")
    return yes("Serving", f"{_pods(facts.rollout.ready)} ready")


def _failing(facts: _Facts) -> Check | None:
    return None if facts.failure is None else _meanwhile(facts, no(facts.failure.reason, facts.failure.message))


def _scaling_down(facts: _Facts) -> Check | None:
    if facts.rollout is None or facts.wanted > 0:
        return None
    return pending("ScalingDown", f"{_pods(facts.rollout.existing)} still there")


def _starting(facts: _Facts) -> Check | None:
    state = facts.rollout
    if state is None:
        return pending("Starting", "the Deployment is being created")
    if not (state.current and state.updated >= facts.wanted and _mounts_wanted(facts.view)):
        return None
    return pending("Starting", f"{state.ready} of {_pods(facts.wanted)} ready; loading a large model takes minutes")


def _mounts_wanted(view: ServiceView) -> bool:
    return view.deployment is not None and mounted_cache(view.deployment) == view.service.cache_name


def _meanwhile(facts: _Facts, check: Check) -> Check:
    """Says so where the pods of the time before still serve."""
    if facts.rollout is None or facts.rollout.ready == 0:
        return check
    still = f"Meanwhile {_pods(facts.rollout.ready)} as before."
    return Check(check.status, check.reason, f"{check.message.rstrip('.')}. {still}")


def _progressing(ready: Check) -> Check:
    if ready.status is UNKNOWN:
        return yes(ready.reason, ready.message)
    if ready.status is FALSE:
        return no("Blocked", ready.message)
    return no("Complete", "everything is as the spec asks")


def _gateway_default(service: Service, spec: AIServiceSpec, rivals: Sequence[Service]) -> Check:
    """Of two defaults for one task the older wins."""
    for task in spec.tasks:
        claimants = [rival for rival in rivals if rival.spec is not None and task in rival.spec.tasks]
        winner = min(claimants, key=lambda rival: (rival.meta.created, rival.meta.namespace, rival.meta.name))
        if winner.meta.uid != service.meta.uid:
            return no(
                "OlderDefault",
                f"AIService {winner.meta.namespace}/{winner.meta.name} is older and the default for {task.value}, in "
                "every gateway that serves both: set spec.gateway.default of one of them to false",
            )
    return yes("Default", f"requests that name no service come here: {', '.join(task.value for task in spec.tasks)}")


def _pods(count: int) -> str:
    return "1 pod" if count == 1 else f"{count} pods"

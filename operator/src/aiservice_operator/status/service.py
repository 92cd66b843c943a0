"""The status of an AIService."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from aiservice_api.tasks import Task
from aiservice_api.v1alpha1 import AIServiceStatus, RolloutStatus
from aiservice_operator import names
from aiservice_operator.desired.service import endpoints
from aiservice_operator.failures import Failure, Words, of_replaced
from aiservice_operator.plan.actions import Refusal
from aiservice_operator.plan.service import ServicePlan, ServiceView
from aiservice_operator.plan.surge import recorded
from aiservice_operator.settings import Settings
from aiservice_operator.status.cache import describe
from aiservice_operator.status.conditions import Check, last_failure, merge
from aiservice_operator.status.service_checks import accepted, available, model_ready, scheduled
from aiservice_operator.status.service_extras import extras
from aiservice_operator.status.service_facts import ServiceFacts, service_facts
from aiservice_operator.status.service_ready import progressing, ready
from aiservice_operator.status.timings import timings


def service_status(
    view: ServiceView,
    plan: ServicePlan,
    refusals: Sequence[Refusal],
    settings: Settings,
    *,
    now: datetime,
    words: Mapping[str, Words],
) -> AIServiceStatus:
    """Computes the status of an AIService.

    Args:
        view: What was observed.
        plan: What was decided.
        refusals: What the API server would not carry out.
        settings: The operator's configuration.
        now: The time.
        words: What Events say of pods that do not start, by uid.
    """
    service, previous = view.service, view.service.status
    facts = service_facts(view, plan, settings, refusals, words=words, now=now)
    checks = _checks(facts, refusals)
    served = endpoints(service.meta, _reachable(view))
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
        precision=plan.precision or previous.precision,
        rollout=_rollout(view),
        timings=timings(service.meta, view.pods, merged, previous.timings),
        last_failure=last_failure(facts.failure or _past(view, previous), previous.last_failure),
        conditions=merged,
    )


def _reachable(view: ServiceView) -> list[Task]:
    """The tasks that the Service has ports of: those of before, while a model for others is being cached."""
    ports = view.endpoint.body["spec"].get("ports") or [] if view.endpoint is not None else []
    return [Task(port["name"]) for port in ports if port.get("name") in set(Task)]


def _checks(facts: ServiceFacts, refusals: Sequence[Refusal]) -> dict[str, Check]:
    checks = {
        "Accepted": accepted(facts),
        "ModelReady": model_ready(facts),
        "Scheduled": scheduled(facts),
        "Available": available(facts),
    }
    checks["Ready"] = ready(facts, checks)
    checks["Progressing"] = progressing(checks["Ready"])
    spec = facts.view.service.spec
    return checks if spec is None else {**checks, **extras(facts, spec, refusals)}


def _past(view: ServiceView, previous: AIServiceStatus) -> Failure | None:
    """What went wrong since the last failure, and was mended before anyone saw it."""
    found, known = of_replaced(view.pods), previous.last_failure
    return found if found is not None and (known is None or found.time > known.time) else None


def _rollout(view: ServiceView) -> RolloutStatus | None:
    decided = recorded(view.deployment)
    return RolloutStatus(surge=decided.surge, reason=decided.reason) if decided is not None else None

"""`Ready` of an AIService, the one answer to how it is; and `Progressing`, which follows from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiservice_operator.observed import mounted_cache
from aiservice_operator.plan.service import ServiceView
from aiservice_operator.status.conditions import FALSE, TRUE, UNKNOWN, Check, no, pending, yes
from aiservice_operator.status.remedies import REFUSED, advised
from aiservice_operator.status.service_facts import ServiceFacts, pods


def ready(facts: ServiceFacts, checks: Mapping[str, Check]) -> Check:
    """Checks `Ready`: exactly what the spec asks for serves. Answered by the first that has an answer.

    Args:
        facts: What is known.
        checks: What was found of `Accepted` and `ModelReady`.
    """
    for name in ("Accepted", "ModelReady"):
        if checks[name].status is not TRUE:
            return _meanwhile(facts, checks[name])
    deciders: list[Callable[[ServiceFacts], Check | None]] = [_refused, _complete, _failing, _scaling_down, _starting]
    found = next((check for decide in deciders if (check := decide(facts)) is not None), None)
    if found is not None:
        return found
    updated = facts.rollout.updated if facts.rollout is not None else 0
    return _meanwhile(facts, pending("RollingOut", f"{updated} of {pods(facts.wanted)} replaced"))


def progressing(ready_check: Check) -> Check:
    """Checks `Progressing`: something is under way."""
    if ready_check.status is UNKNOWN:
        return yes(ready_check.reason, ready_check.message)
    if ready_check.status is FALSE:
        return no("Blocked", ready_check.message)
    return no("Complete", "everything is as the spec asks")


def _refused(facts: ServiceFacts) -> Check | None:
    if not facts.refusals:
        return None
    refused = facts.refusals[0]
    said = f"{refused.identity.kind} {refused.identity.name}: {refused.message}"
    return _meanwhile(facts, no("ChildRefused", advised(said, REFUSED)))


def _complete(facts: ServiceFacts) -> Check | None:
    if facts.rollout is None or not facts.rollout.complete or facts.rollout.wanted != facts.wanted:
        return None
    if facts.suspended:
        return yes("Suspended", "nothing runs, as asked: the model stays cached; set spec.suspend to false to serve")
    if facts.wanted == 0:
        return yes("Idle", "scaled to zero: the model stays cached; raise spec.replicas to serve")
    return yes("Serving", f"{pods(facts.rollout.ready)} ready")


def _failing(facts: ServiceFacts) -> Check | None:
    return None if facts.failure is None else _meanwhile(facts, no(facts.failure.reason, facts.failure.message))


def _scaling_down(facts: ServiceFacts) -> Check | None:
    if facts.rollout is None or facts.wanted > 0:
        return None
    return pending("ScalingDown", f"{pods(facts.rollout.existing)} still there")


def _starting(facts: ServiceFacts) -> Check | None:
    state = facts.rollout
    if state is None:
        return pending("Starting", "the Deployment is being created")
    replaced = state.updated >= facts.wanted or state.updated == state.existing
    if not (state.current and replaced and _mounts_wanted(facts.view)):
        return None
    return pending("Starting", f"{state.ready} of {pods(facts.wanted)} ready; loading a large model takes minutes")


def _mounts_wanted(view: ServiceView) -> bool:
    return view.deployment is not None and mounted_cache(view.deployment) == view.service.cache_name


def _how(facts: ServiceFacts) -> str:
    return " by spec.suspend" if facts.suspended else ""


def _meanwhile(facts: ServiceFacts, check: Check) -> Check:
    """Says so where the pods of the time before still serve, or none is left because none is wanted."""
    state = facts.rollout
    if state is None or (state.ready == 0 and (state.existing > 0 or facts.wanted > 0)):
        return check
    still = (
        f"Meanwhile {pods(state.ready)} as before."
        if state.ready
        else f"Meanwhile nothing runs, as asked{_how(facts)}."
    )
    return Check(check.status, check.reason, f"{check.message.rstrip('.')}. {still}")

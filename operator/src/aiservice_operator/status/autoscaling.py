"""How the autoscaler of an AIService is, in its own words, and what to do where it cannot work."""

from __future__ import annotations

from collections.abc import Mapping

from aiservice_api.v1alpha1 import AIServiceSpec, Autoscaling, ScalingMetric
from aiservice_operator.kinds import Json, Kind
from aiservice_operator.states import conditions
from aiservice_operator.status.conditions import Check, no, pending, yes
from aiservice_operator.status.remedies import REFUSED, advised
from aiservice_operator.status.service_facts import ServiceFacts, pods

_NO_METRIC = frozenset({"FailedGetPodsMetric", "FailedGetContainerResourceMetric", "FailedGetResourceMetric"})


def autoscaling(facts: ServiceFacts, spec: AIServiceSpec) -> Check | None:
    """Checks `Autoscaling`; None where the number of pods is fixed, or zero for now."""
    scaling, live = spec.autoscaling, facts.view.autoscaler
    if scaling is None or spec.suspend:
        return None
    refused = next((item for item in facts.refusals if item.identity.kind is Kind.AUTOSCALER), None)
    if refused is not None:
        return no("ChildRefused", advised(refused.message, REFUSED))
    if live is None:
        return pending("WaitingForModel", "the autoscaler is created when the model is cached")
    return _told(facts, scaling, conditions(live.body))


def _told(facts: ServiceFacts, scaling: Autoscaling, state: Mapping[str, Json]) -> Check:
    """What the autoscaler's own conditions tell."""
    able, active = state.get("AbleToScale", {}), state.get("ScalingActive", {})
    if able.get("status") == "False":
        said = f"the autoscaler cannot scale: {able.get('message', '')}"
        return no(able["reason"], advised(said, _more(facts)))
    if active.get("status") == "False":
        return _inactive(facts, scaling, active)
    if not active:
        return pending("Starting", "the autoscaler has not looked at the pods yet")
    return _active(scaling, state.get("ScalingLimited", {}))


def _active(scaling: Autoscaling, limited: Json) -> Check:
    if limited.get("status") == "True" and limited.get("reason") == "TooManyReplicas":
        return yes("AtMaximum", f"the load asks for more than {pods(scaling.max)}: raise spec.autoscaling.max for more")
    followed = "CPU use" if scaling.metric is ScalingMetric.CPU else "requests in flight"
    return yes("Active", f"between {scaling.min} and {pods(scaling.max)}, by {followed}")


def _inactive(facts: ServiceFacts, scaling: Autoscaling, active: Json) -> Check:
    reason, message = active["reason"], active.get("message", "")
    if facts.rollout is None or facts.rollout.ready == 0:
        return pending("Starting", "the autoscaler waits for pods that are ready")
    if reason not in _NO_METRIC:
        return no(reason, advised(f"the autoscaler does not scale: {message}", _more(facts)))
    remedy = (
        "metrics-server has to be installed in the cluster"
        if scaling.metric is ScalingMetric.CPU
        else "Prometheus has to read the pods' metrics, and an adapter such as prometheus-adapter to serve "
        "aiservice_requests_in_flight in the custom metrics API, as docs/install.md says; or set "
        "spec.autoscaling.metric to CPU"
    )
    return no("MetricMissing", f"the number of pods stays as it is: {remedy}. {message}")


def _more(facts: ServiceFacts) -> str:
    return f"Its Events tell more: `kubectl describe hpa {facts.view.service.meta.name}`"

"""The conditions of an AIService that say how far it is: from its spec being accepted to pods that serve."""

from __future__ import annotations

from aiservice_api.v1alpha1 import AIServiceSpec, Storage
from aiservice_operator.kinds import Kind
from aiservice_operator.plan.mount import cache_ready
from aiservice_operator.states import pod_ended
from aiservice_operator.status.conditions import TRUE, Check, find, no, pending, yes
from aiservice_operator.status.remedies import REFUSED, advised
from aiservice_operator.status.service_facts import ServiceFacts, pods, unplaced_devices

_BEFORE_PODS = frozenset({Kind.SERVICE_ACCOUNT, Kind.SERVICE, Kind.NETWORK_POLICY, Kind.DEPLOYMENT})
"""Children without which there are no pods."""


def accepted(facts: ServiceFacts) -> Check:
    """Checks `Accepted`: the operator can serve the spec."""
    if facts.plan.rejection is not None:
        return no(facts.plan.rejection.reason, facts.plan.rejection.message)
    return yes("Accepted", f"the operator can serve this{_unplaced_claims(facts)}")


def _unplaced_claims(facts: ServiceFacts) -> str:
    """A warning about claimed devices: which nodes have them no node tells, so a download may run beside them."""
    spec, mount = facts.view.service.spec, facts.view.cache
    if spec is None or not spec.resource_claims or not unplaced_devices(spec, facts.settings):
        return ""
    stated = mount.spec if mount is not None else spec.model
    if stated is None or stated.pvc is not None or (stated.storage or Storage()).access_mode != "ReadWriteOnce":
        return ""
    return (
        ". Its model's ReadWriteOnce volume will be on the node where the download runs, which claims no device: where "
        "only some nodes have it, name them in spec.pod.nodeSelector"
    )


def model_ready(facts: ServiceFacts) -> Check:
    """Checks `ModelReady`: the model is cached."""
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


def _without_cache(facts: ServiceFacts, spec: AIServiceSpec, name: str) -> Check:
    if spec.model is None:
        return no(
            "CacheNotFound",
            f"there is no ModelCache {name} in namespace {facts.view.service.meta.namespace}: create it, or correct "
            "spec.modelCacheRef.name",
        )
    if facts.plan.rejection is not None:
        return pending("NotAccepted", "nothing is downloaded while the spec is not accepted")
    if facts.view.cache_refused:
        said = f"ModelCache {name} cannot be created: {facts.view.cache_refused}"
        return no("CacheRefused", advised(said, REFUSED))
    return pending("Creating", f"ModelCache {name} is being created")


def scheduled(facts: ServiceFacts) -> Check:
    """Checks `Scheduled`: all pods have a node."""
    waiting = without_pods(facts)
    if waiting is not None:
        return waiting
    there = [pod for pod in facts.view.pods if not pod.meta.deleting and not pod_ended(pod)]
    if facts.failure is not None and facts.failure.reason == "Unschedulable":
        return no("Unschedulable", facts.failure.message)
    nodes = [pod.body["spec"]["nodeName"] for pod in there if pod.body["spec"]["nodeName"]]
    asked = max(facts.wanted, len(there))
    if len(nodes) < asked:
        return pending("Scheduling", f"{len(nodes)} of {asked} pods have a node")
    return yes("Scheduled", f"{pods(len(nodes))} on {len(set(nodes))} node(s)")


def available(facts: ServiceFacts) -> Check:
    """Checks `Available`: requests can be sent."""
    state = facts.rollout
    if state is not None and state.ready > 0:
        return yes("Serving", f"{state.ready} of {pods(facts.wanted)} ready")
    if facts.suspended:
        return no("Suspended", "suspended: set spec.suspend to false to serve")
    if facts.wanted == 0:
        return no("Idle", "scaled to zero: raise spec.replicas to serve")
    if facts.failure is not None:
        return no(facts.failure.reason, facts.failure.message)
    return without_pods(facts) or pending("Starting", "no pod is ready yet; loading a large model takes minutes")


def without_pods(facts: ServiceFacts) -> Check | None:
    """The check for what pods decide, where there are none to be."""
    stays_at_none = facts.rollout is None or (facts.rollout.wanted == 0 and facts.wanted > 0)
    if facts.plan.rejection is not None and stays_at_none:
        return no(
            facts.plan.rejection.reason, "nothing runs, because the spec is not accepted: mend it as Accepted says"
        )
    if facts.rollout is None and any(refusal.identity.kind in _BEFORE_PODS for refusal in facts.refusals):
        return no("ChildRefused", "no pod is created before what it needs is there: mend it as Ready says")
    if facts.rollout is None:
        return pending("WaitingForModel", "pods are created when the model is cached")
    if facts.suspended:
        return yes("Suspended", "suspended: no pod is wanted")
    if facts.wanted == 0:
        return yes("Idle", "scaled to zero: no pod is wanted")
    return None

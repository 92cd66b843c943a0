"""The conditions of an AIService that are there only where they have something to say."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aiservice_api.v1alpha1 import AIServiceSpec
from aiservice_operator.kinds import Kind
from aiservice_operator.observed import Service
from aiservice_operator.plan.actions import Refusal
from aiservice_operator.status.autoscaling import autoscaling
from aiservice_operator.status.conditions import Check, no, yes
from aiservice_operator.status.remedies import REFUSED, advised
from aiservice_operator.status.service_facts import ServiceFacts, pods


def extras(facts: ServiceFacts, spec: AIServiceSpec, refusals: Sequence[Refusal]) -> dict[str, Check]:
    """Returns the conditions that apply, by type."""
    found = {
        "GatewayDefault": _gateway_default(facts.view.service, spec, facts.view.rivals),
        "Autoscaling": autoscaling(facts, spec),
        "Disruptable": _disruptable(facts, spec),
        "Network": _network(facts, spec),
        "Monitored": _monitored(refusals),
    }
    return {name: check for name, check in found.items() if check is not None}


def _gateway_default(service: Service, spec: AIServiceSpec, rivals: Sequence[Service]) -> Check | None:
    """Only where the service wants to be a default: of two for one task the older wins, unless they share."""
    if not spec.gateway.default:
        return None
    shared = False
    for task in spec.tasks:
        claimants = [rival for rival in rivals if rival.spec is not None and task in rival.spec.tasks]
        winner = min(claimants, key=lambda rival: rival.seniority)
        if len([rival for rival in claimants if _shares(winner, rival)]) > 1 and _shares(winner, service):
            shared = True
        elif winner.meta.uid != service.meta.uid:
            return no(
                "OlderDefault",
                f"AIService {winner.meta.namespace}/{winner.meta.name} is older and the default for {task.value}, in "
                "every gateway that serves both: set spec.gateway.default of one of them to false, or, to share the "
                "requests of one namespace, spec.gateway.weight of both",
            )
    if shared:
        return yes("Shared", "requests that name no service are shared by spec.gateway.weight")
    return yes("Default", f"requests that name no service come here: {', '.join(task.value for task in spec.tasks)}")


def _shares(winner: Service, rival: Service) -> bool:
    """Whether a service gets a part of the requests that the older default would have for itself."""
    stated = [item.spec is not None and item.spec.gateway.weight is not None for item in (winner, rival)]
    return all(stated) and winner.meta.namespace == rival.meta.namespace


def _disruptable(facts: ServiceFacts, spec: AIServiceSpec) -> Check | None:
    """Only where the budget keeps a node with the pods from being drained."""
    stated, count = spec.disruption, facts.wanted
    if stated is None or count == 0:
        return None
    if stated.min_available is not None:
        allowed, name, value = count - _amount(stated.min_available, count), "minAvailable", stated.min_available
        remedy = f"lower spec.disruption.minAvailable, or run more than {pods(_amount(value, count))}"
    elif stated.max_unavailable is not None:
        allowed, name, value = _amount(stated.max_unavailable, count), "maxUnavailable", stated.max_unavailable
        remedy = "raise spec.disruption.maxUnavailable to 1 or more"
    else:
        return None
    if allowed <= 0:
        return no(
            "BlocksDrains",
            f"with {pods(count)} and {name} {value} none may be stopped, so no node with one of them can be drained: "
            f"{remedy}",
        )
    if facts.plan.one_node and allowed < count:
        # What a drain has stopped waits for the others to go, and they wait for it to be back.
        return no(
            "BlocksDrains",
            f"with {pods(count)} and {name} {value} not all may be stopped, and all run on one node, because the "
            "model's volume is ReadWriteOnce, so that node cannot be drained: use a cache with storage.accessMode "
            "ReadWriteMany, or leave spec.disruption out, which lets all be stopped",
        )
    return None


def _amount(stated: str, count: int) -> int:
    """A share is rounded up, as the disruption controller does."""
    return math.ceil(count * int(stated[:-1]) / 100) if stated.endswith("%") else int(stated)


def _network(facts: ServiceFacts, spec: AIServiceSpec) -> Check | None:
    """Only where the spec asks for what the operator is configured not to make."""
    if facts.settings.network.enabled or not spec.network.restrict:
        return None
    return no(
        "Disabled",
        "everybody may connect to the pods: the operator makes no NetworkPolicies, so spec.network does nothing. Set "
        "its chart value network.enabled to true, or spec.network.restrict to false",
    )


def _monitored(refusals: Sequence[Refusal]) -> Check | None:
    """Only where Prometheus is not told of the pods, which keeps them from nothing else."""
    refused = next((item for item in refusals if item.identity.kind is Kind.POD_MONITOR), None)
    if refused is None:
        return None
    return no("ChildRefused", advised(f"PodMonitor {refused.identity.name}: {refused.message}", REFUSED))

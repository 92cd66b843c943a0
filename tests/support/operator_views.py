"""What is known of an AIService, for unit tests: nothing yet, or everything planned applied."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aiservice_operator.kinds import Json, Kind
from aiservice_operator.observed import Service
from aiservice_operator.plan import Apply, ServiceView, plan_service
from support.operator_objects import NOW, SETTINGS, live

CHILDREN = {
    Kind.SERVICE_ACCOUNT: "account",
    Kind.SERVICE: "endpoint",
    Kind.DEPLOYMENT: "deployment",
    Kind.AUTOSCALER: "autoscaler",
    Kind.DISRUPTION_BUDGET: "budget",
    Kind.NETWORK_POLICY: "policy",
    Kind.POD_MONITOR: "monitor",
}
"""The field of a view in which a child of each kind is."""


def view(known: Service, **fields: Any) -> ServiceView:
    """A service of which nothing is there but what is said."""
    empty: dict[str, Any] = {
        **dict.fromkeys(("cache", "mounted", "deployment", "endpoint", "account")),
        "pods": (),
        "rivals": (),
    }
    return ServiceView(service=known, **{**empty, **fields})


def settled(known: Service, **fields: Any) -> ServiceView:
    """A view in which everything planned has been applied."""
    found: dict[str, Any] = dict(fields)
    for _ in range(2):
        for action in plan_service(view(known, **found), SETTINGS, NOW).actions:
            assert isinstance(action, Apply)
            found[CHILDREN[action.identity.kind]] = live(action.identity.kind, action.body)
    return view(known, **found)


def serving(known: Service, count: int = 1, **fields: Any) -> ServiceView:
    """A view of a service that serves with so many pods."""
    found = settled(known, **fields)
    counts = {"observedGeneration": 1, "replicas": count, "updatedReplicas": count, "readyReplicas": count}
    return with_status(found, counts)


def with_status(found: ServiceView, status: Json) -> ServiceView:
    """The view with another status of the Deployment."""
    assert found.deployment is not None
    return replace(found, deployment=replace(found.deployment, body={**found.deployment.body, "status": status}))

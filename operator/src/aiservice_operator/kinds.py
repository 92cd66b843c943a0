"""The kinds of objects that the operator watches and writes, and how reconciles are keyed."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

Json = dict[str, Any]
"""A JSON object as Kubernetes sends it."""


class Kind(StrEnum):
    """A watched kind; the value is its `kind` on the wire."""

    AISERVICE = "AIService"
    MODEL_CACHE = "ModelCache"
    DEPLOYMENT = "Deployment"
    SERVICE = "Service"
    SERVICE_ACCOUNT = "ServiceAccount"
    CLAIM = "PersistentVolumeClaim"
    JOB = "Job"
    POD = "Pod"
    AUTOSCALER = "HorizontalPodAutoscaler"
    DISRUPTION_BUDGET = "PodDisruptionBudget"
    NETWORK_POLICY = "NetworkPolicy"
    POD_MONITOR = "PodMonitor"
    """Of the Prometheus Operator: only where its API is served."""


@dataclass(frozen=True, slots=True)
class Resource:
    """Where a kind lives in the API."""

    group: str
    version: str
    plural: str
    ours_only: bool
    """Whether lists and watches ask only for objects with the operator's `managed-by` label."""

    @property
    def api_version(self) -> str:
        """`apps/v1`, or `v1` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Returns the URL path of the collection, of one object, or of its subresource; no namespace: of all."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part is not None]
        return "/".join(parts)


RESOURCES: dict[Kind, Resource] = {
    Kind.AISERVICE: Resource("aiservice.dev", "v1alpha1", "aiservices", ours_only=False),
    Kind.MODEL_CACHE: Resource("aiservice.dev", "v1alpha1", "modelcaches", ours_only=False),
    Kind.DEPLOYMENT: Resource("apps", "v1", "deployments", ours_only=True),
    Kind.SERVICE: Resource("", "v1", "services", ours_only=True),
    Kind.SERVICE_ACCOUNT: Resource("", "v1", "serviceaccounts", ours_only=True),
    Kind.CLAIM: Resource("", "v1", "persistentvolumeclaims", ours_only=True),
    Kind.JOB: Resource("batch", "v1", "jobs", ours_only=True),
    Kind.POD: Resource("", "v1", "pods", ours_only=True),
    Kind.AUTOSCALER: Resource("autoscaling", "v2", "horizontalpodautoscalers", ours_only=True),
    Kind.DISRUPTION_BUDGET: Resource("policy", "v1", "poddisruptionbudgets", ours_only=True),
    Kind.NETWORK_POLICY: Resource("networking.k8s.io", "v1", "networkpolicies", ours_only=True),
    Kind.POD_MONITOR: Resource("monitoring.coreos.com", "v1", "podmonitors", ours_only=True),
}

DYNAMIC_RESOURCES = "resource.k8s.io"
"""API group of dynamic resource allocation."""


@dataclass(frozen=True, slots=True)
class Apis:
    """Which of the APIs that not every cluster has are served."""

    pod_monitors: bool = False
    dynamic_resources: bool = False
    refused: str = field(default="", compare=False)
    """Why PodMonitors are left alone although they are served, for the log; empty where nothing is refused."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What can be watched and written."""
        return tuple(kind for kind in Kind if kind is not Kind.POD_MONITOR or self.pod_monitors)


class ObjectId(NamedTuple):
    """Which object: kind, namespace and name."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


Key = ObjectId
"""What is reconciled: the id of an AIService or a ModelCache, whether it exists or not."""

"""Everything in the cluster that tells why an AIService is as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from aiservice_kubectl.cluster import Cluster, if_allowed, together
from aiservice_kubectl.lookup import cache_of
from aiservice_operator import names
from aiservice_operator.kinds import Json, Kind
from aiservice_operator.observed import Cache, Child, Service

_OF_SERVICE = (Kind.DEPLOYMENT, Kind.POD, Kind.AUTOSCALER)
_OF_CACHE = (Kind.CLAIM, Kind.JOB, Kind.POD)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about one AIService."""

    service: Service
    cache: Cache | None = None
    deployments: tuple[Child, ...] = ()
    pods: tuple[Child, ...] = ()
    autoscalers: tuple[Child, ...] = ()
    claims: tuple[Child, ...] = ()
    jobs: tuple[Child, ...] = ()
    download_pods: tuple[Child, ...] = ()
    events: tuple[Json, ...] = ()
    """About any of these, oldest first."""
    left_out: tuple[str, ...] = ()
    """What the user may not see, in the API server's words."""


def gather(cluster: Cluster, service: Service) -> Evidence:
    """Asks for everything about an AIService, at once where that can be."""
    namespace, left_out = service.meta.namespace, list[str]()

    def ask(kind: Kind, app: str, name: str) -> Callable[[], list[Child]]:
        selector = f"{names.NAME_LABEL}={app},{names.INSTANCE_LABEL}={name}"
        return partial(if_allowed, partial(cluster.children, kind, namespace, selector), left_out)

    asked = [ask(kind, names.SERVICE_APP, service.meta.name) for kind in _OF_SERVICE]
    if service.cache_name is not None:
        asked += [ask(kind, names.CACHE_APP, service.cache_name) for kind in _OF_CACHE]
    deployments, pods, autoscalers, *of_cache = (tuple(found) for found in together(*asked))
    claims, jobs, download_pods = of_cache or ((), (), ())
    cache = cache_of(service, if_allowed(lambda: cluster.caches(namespace), left_out))
    about = [service.meta.uid, *((cache.meta.uid,) if cache else ())]
    children = (*deployments, *pods, *autoscalers, *claims, *jobs, *download_pods)
    uids = {*about, *(child.meta.uid for child in children), *_replica_sets(pods)}
    events = if_allowed(lambda: cluster.events(namespace, uids), left_out)
    return Evidence(
        service, cache, deployments, pods, autoscalers, claims, jobs, download_pods, tuple(events), tuple(left_out)
    )


def _replica_sets(pods: tuple[Child, ...]) -> set[str]:
    """Quotas and policies refuse pods in Events about the ReplicaSet."""
    return {pod.meta.controller.uid for pod in pods if pod.meta.controller is not None}

"""Finding the AIService that a name means."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from aiservice_api.v1alpha1 import Condition, ConditionStatus
from aiservice_kubectl.cluster import Cluster
from aiservice_kubectl.errors import NotFoundError
from aiservice_operator.observed import Cache, Service


def find_service(cluster: Cluster, namespace: str, name: str) -> Service:
    """Returns the AIService of this name.

    Raises:
        NotFoundError: there is none; the message names the nearest.
    """
    services = cluster.services(namespace)
    found = next((service for service in services if service.meta.name == name), None)
    if found is None:
        raise NotFoundError(unknown("AIService", name, namespace, [service.meta.name for service in services]))
    return found


def unknown(kind: str, name: str, namespace: str, known: Sequence[str]) -> str:
    """Returns the sentence for a name that nothing has."""
    lead = f"there is no {kind} {name} in namespace {namespace}"
    if not known:
        return f"{lead}, nor any other: another one may be meant (-n NAMESPACE); `kubectl ais status -A` lists all"
    near = get_close_matches(name, known, n=2, cutoff=0.6)
    if near:
        return f"{lead}; did you mean {' or '.join(near)}?"
    listed = ", ".join(sorted(known)[:10]) + (" ..." if len(known) > 10 else "")
    return f"{lead}; there are: {listed}"


def condition(conditions: Sequence[Condition], kind: str) -> Condition | None:
    """Returns the condition of this type."""
    return next((item for item in conditions if item.type == kind), None)


def cache_of(service: Service, caches: Sequence[Cache]) -> Cache | None:
    """Returns the ModelCache that an AIService asks for, if it is there."""
    return next(
        (
            cache
            for cache in caches
            if cache.meta.name == service.cache_name and cache.meta.namespace == service.meta.namespace
        ),
        None,
    )


def describe_source(cache: Cache) -> str:
    """Returns where the files of a cache come from, in one line; its status says it once the operator has seen it."""
    if cache.status.source or cache.spec is None:
        return cache.status.source
    stated = cache.spec.to_wire()
    return next((kind for kind in ("huggingFace", "s3", "http", "oci", "pvc") if kind in stated), "")


def progress(cache: Cache | None) -> str:
    """Returns how far a download is, in a word or two."""
    if cache is None:
        return "none"
    ready = condition(cache.status.conditions, "Ready")
    if ready is not None and ready.status is ConditionStatus.TRUE:
        return "cached"
    if cache.status.download is not None and cache.status.download.progress:
        return cache.status.download.progress
    return ready.reason if ready is not None else "waiting"

"""Which files pods serve from."""

from __future__ import annotations

from aiservice_api.v1alpha1 import ConditionStatus, Storage
from aiservice_operator.desired.container import Mount
from aiservice_operator.names import source_digest
from aiservice_operator.observed import Cache, Child, mounted_digest

PUBLISHED_FOLDER = "model"
"""Where the downloader publishes a complete download on its volume."""


def choose_mount(wanted: Cache | None, mounted: Cache | None, live: Child | None) -> Mount | None:
    """Returns the files to serve from: the wanted ones once they are cached, until then those that are served.

    Args:
        wanted: The ModelCache that the spec asks for.
        mounted: The ModelCache that the Deployment mounts.
        live: The Deployment.
    """
    if wanted is not None and wanted.spec is not None and cache_ready(wanted):
        return _mount(wanted, source_digest(wanted.spec))
    if live is not None and mounted is not None:
        return _mount(mounted, mounted_digest(live))
    return None


def is_of(mount: Mount, cache: Cache | None) -> bool:
    """Whether these are the files that a ModelCache asks for, be it ready just now or not."""
    if cache is None or cache.spec is None:
        return False
    return (mount.cache, mount.digest) == (cache.meta.name, source_digest(cache.spec))


def _mount(cache: Cache, digest: str) -> Mount | None:
    if cache.spec is None:
        return None
    name, pvc = cache.meta.name, cache.spec.pvc
    if pvc is not None:
        mode = cache.status.access_mode
        read_only = mode == "ReadOnlyMany"
        return Mount(name, digest, pvc.claim_name, pvc.path, one_node=_one_node(mode), read_only=read_only)
    stated = (cache.spec.storage or Storage()).access_mode
    return Mount(name, digest, name, PUBLISHED_FOLDER, one_node=_one_node(cache.status.access_mode or stated))


def _one_node(access_mode: str | None) -> bool:
    return access_mode in {"ReadWriteOnce", "ReadWriteOncePod"}


def cache_ready(cache: Cache) -> bool:
    """Whether a cache's status says, of its present spec, that the files are there."""
    return any(
        condition.type == "Ready"
        and condition.status is ConditionStatus.TRUE
        and condition.observed_generation >= cache.meta.generation
        for condition in cache.status.conditions
    )

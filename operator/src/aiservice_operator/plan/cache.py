"""What to do for a ModelCache: whether it exists, whose it is, and what it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from aiservice_api.v1alpha1 import ModelCacheSpec, RetentionPolicy, Storage
from aiservice_operator import names, quantities
from aiservice_operator.compare import differs
from aiservice_operator.desired.cache import hold, inline_cache
from aiservice_operator.desired.common import wire
from aiservice_operator.kinds import Json
from aiservice_operator.observed import Cache, Meta, Service
from aiservice_operator.plan.actions import Action, Apply, Delete
from aiservice_operator.plan.download import CachePlan, CacheView, accepted, plan_download
from aiservice_operator.quantities import duration
from aiservice_operator.settings import Settings

_SECOND = timedelta(seconds=1)


def plan_cache(view: CacheView, settings: Settings, now: datetime) -> CachePlan:
    """Decides what to do for a ModelCache."""
    cache = view.cache
    existence = _existence(view, settings)
    if cache is None or _goes(view, cache):
        return CachePlan(existence, ends=True)
    since = unused_since(view, cache, now)
    if cache.spec is None:
        return CachePlan(existence, unused_since=since)
    end = _end(cache.spec, cache.meta, since)
    if end is not None and now >= end:
        going = () if cache.meta.deleting else (_delete(view, cache),)
        return CachePlan(existence or going, ends=True)
    plan = CachePlan() if cache.spec.pvc is not None else plan_download(view, cache, cache.spec, settings, now)
    return replace(plan, actions=(*existence, *plan.actions), unused_since=since, ends_at=end)


def _goes(view: CacheView, cache: Cache) -> bool:
    """Whether nothing but letting go of it is left to do."""
    return not view.users and (cache.meta.deleting or _with_its_users(cache))


def _with_its_users(cache: Cache) -> bool:
    """Whether a cache is one that the operator made and that goes with its last user."""
    return cache.meta.inline_cache and cache.spec is not None and cache.spec.retention is None


def unused_since(view: CacheView, cache: Cache, now: datetime) -> datetime | None:
    """Returns since when nobody uses a cache: its creation where nobody ever has; None where somebody does."""
    if view.users:
        return None
    if cache.status.unused_since is not None:
        return cache.status.unused_since
    used = cache.meta.inline_cache or bool(cache.status.used_by) or names.FINALIZER in cache.meta.finalizers
    # A whole second later than its creation, which stands for "never".
    return max(now, cache.meta.created + _SECOND) if used else cache.meta.created


def _end(spec: ModelCacheSpec, meta: Meta, since: datetime | None) -> datetime | None:
    """When an unused cache is deleted; None: not before somebody has used it, or never."""
    retention = spec.retention
    if retention is None or retention.policy is RetentionPolicy.RETAIN or since is None:
        return None
    if retention.after is None and since <= meta.created:
        return None  # it was made for services that are still to come
    return since + (duration(retention.after) if retention.after is not None else timedelta())


def _existence(view: CacheView, settings: Settings) -> tuple[Action, ...]:
    """Whether the ModelCache should exist, whose it is, and whether it is held."""
    cache = view.cache
    if cache is None:
        # What cannot be served is not worth a download.
        served = [user for user in view.users if accepted(view, user, settings)]
        stated = _stated(served, view.key.name)
        return () if stated is None else (Apply(view.key, _inline(view, stated, settings), "missing"),)
    held = names.FINALIZER in cache.meta.finalizers
    if cache.spec is None:  # made for a newer operator: nothing but letting go of it is safe
        release = Apply(view.key, hold(cache.meta, in_use=False), "no longer in use")
        return (release,) if held and not view.users else ()
    if view.users and cache.meta.deleting:
        return ()  # it stays as it is until they are gone; what is going takes no new finalizer
    if cache.meta.inline_cache:
        return _keep_inline(view, cache, cache.spec, settings, held=held)
    if held == bool(view.users):
        return ()
    reason = "in use" if view.users else "no longer in use"
    return (Apply(view.key, hold(cache.meta, in_use=not held), reason),)


def _keep_inline(
    view: CacheView, cache: Cache, live: ModelCacheSpec, settings: Settings, *, held: bool
) -> tuple[Action, ...]:
    """The owners, finalizer and spec of a cache that the operator made; its end when nobody uses it."""
    unused = not view.users
    if unused and not held and (cache.meta.deleting or live.retention is None):
        return () if cache.meta.deleting else (_delete(view, cache),)
    body = _inline(view, _by_hand(_stated(view.users, view.key.name) or live, live), settings)
    different = differs(body, cache.body)
    if different is None and not (unused and held):
        return ()
    return (Apply(view.key, body, "no longer in use" if unused and held else f"{different} is not as wanted"),)


def _delete(view: CacheView, cache: Cache) -> Delete:
    """Deletes a cache only as it is known here: somebody may just have begun to use it."""
    return Delete(view.key, cache.meta.uid, "no AIService uses it any more", cache.meta.version)


def _inline(view: CacheView, spec: ModelCacheSpec, settings: Settings) -> Json:
    users = [user.meta for user in view.users]
    return wire(inline_cache(view.key.namespace, view.key.name, spec, users, settings.watch.labels))


def _stated(users: Sequence[Service], name: str) -> ModelCacheSpec | None:
    """The model as an AIService states it inline, for the cache of this name."""
    specs = (user.spec.model for user in users if user.spec is not None and user.cache_name == name)
    return next((spec for spec in specs if spec is not None), None)


def _by_hand(wanted: ModelCacheSpec, live: ModelCacheSpec) -> ModelCacheSpec:
    """What someone changed by hand and what stays so: a larger volume, since none shrinks, and how long it is kept."""
    retention = wanted.retention or live.retention
    if live.storage is None or live.storage.size is None:
        return wanted.model_copy(update={"retention": retention})
    storage = wanted.storage or Storage()
    size = live.storage.size if storage.size is None else quantities.larger(storage.size, live.storage.size)
    return wanted.model_copy(
        update={
            "storage": storage if size == storage.size else storage.model_copy(update={"size": size}),
            "retention": retention,
        }
    )

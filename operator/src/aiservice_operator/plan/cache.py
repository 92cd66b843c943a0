"""What to do for a ModelCache: whether it exists, whose it is, and what it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from aiservice_api.v1alpha1 import ModelCacheSpec, Storage
from aiservice_operator import names, quantities
from aiservice_operator.compare import differs
from aiservice_operator.desired.cache import hold, inline_cache
from aiservice_operator.desired.common import wire
from aiservice_operator.engines import Engine, choose_engine
from aiservice_operator.kinds import Json
from aiservice_operator.observed import Cache, Service
from aiservice_operator.plan.actions import Action, Apply, Delete
from aiservice_operator.plan.download import CachePlan, CacheView, plan_download
from aiservice_operator.settings import Settings


def plan_cache(view: CacheView, settings: Settings, now: datetime) -> CachePlan:
    """Decides what to do for a ModelCache."""
    existence = _existence(view, settings)
    cache = view.cache
    unused_inline = cache is not None and cache.meta.inline_cache and not view.users
    if cache is None or cache.spec is None or unused_inline or (cache.meta.deleting and not view.users):
        return CachePlan(existence)
    if cache.spec.pvc is not None:
        return CachePlan(existence)
    download = plan_download(view, cache, cache.spec, settings, now)
    return replace(download, actions=(*existence, *download.actions))


def _existence(view: CacheView, settings: Settings) -> tuple[Action, ...]:
    """Whether the ModelCache should exist, whose it is, and whether it is held."""
    if view.cache is None:
        # What cannot be served is not worth a download.
        served = [user for user in view.users if user.spec and isinstance(choose_engine(user.spec, settings), Engine)]
        stated = _stated(served, view.key.name)
        return () if stated is None else (Apply(view.key, _inline(view, stated, settings), "missing"),)
    held = names.FINALIZER in view.cache.meta.finalizers
    if view.cache.spec is None:  # made for a newer operator: nothing but letting go of it is safe
        release = Apply(view.key, hold(view.cache.meta, in_use=False), "no longer in use")
        return (release,) if held and not view.users else ()
    if view.users and view.cache.meta.deleting:
        return ()  # it stays as it is until they are gone; what is going takes no new finalizer
    if view.cache.meta.inline_cache:
        return _keep_inline(view, view.cache, view.cache.spec, settings, held=held)
    if held == bool(view.users):
        return ()
    reason = "in use" if view.users else "no longer in use"
    return (Apply(view.key, hold(view.cache.meta, in_use=not held), reason),)


def _keep_inline(
    view: CacheView, cache: Cache, live: ModelCacheSpec, settings: Settings, *, held: bool
) -> tuple[Action, ...]:
    """The owners, finalizer and spec of a cache that the operator made; its end when nobody uses it."""
    if not view.users and not held:
        # Deleted only as it is known here: somebody may just have begun to use it.
        delete = Delete(view.key, cache.meta.uid, "no AIService uses it any more", cache.meta.version)
        return () if cache.meta.deleting else (delete,)
    body = _inline(view, _grown(_stated(view.users, view.key.name) or live, live), settings)
    different = differs(body, cache.body)
    if different is None and view.users:
        return ()
    return (Apply(view.key, body, f"{different} is not as wanted" if view.users else "no longer in use"),)


def _inline(view: CacheView, spec: ModelCacheSpec, settings: Settings) -> Json:
    users = [user.meta for user in view.users]
    return wire(inline_cache(view.key.namespace, view.key.name, spec, users, settings.watch.labels))


def _stated(users: Sequence[Service], name: str) -> ModelCacheSpec | None:
    """The model as an AIService states it inline, for the cache of this name."""
    specs = (user.spec.model for user in users if user.spec is not None and user.cache_name == name)
    return next((spec for spec in specs if spec is not None), None)


def _grown(wanted: ModelCacheSpec, live: ModelCacheSpec) -> ModelCacheSpec:
    """A volume never shrinks: where someone made it larger by hand, it stays so."""
    if live.storage is None or live.storage.size is None:
        return wanted
    storage = wanted.storage or Storage()
    size = live.storage.size if storage.size is None else quantities.larger(storage.size, live.storage.size)
    if size == storage.size:
        return wanted
    return wanted.model_copy(update={"storage": storage.model_copy(update={"size": size})})

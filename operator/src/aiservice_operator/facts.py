"""What a reconcile has to ask for because no watch tells it: words about claims, and a download's progress."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from aiservice_operator import names
from aiservice_operator.desired.credentials import credentials_of
from aiservice_operator.downloads import Progress, parse_progress
from aiservice_operator.errors import RefusedError
from aiservice_operator.kinds import Json, Key, Kind, ObjectId
from aiservice_operator.kube import Kube
from aiservice_operator.names import Mode
from aiservice_operator.observed import Cache, Child, parse
from aiservice_operator.plan.download import CachePlan, CacheView
from aiservice_operator.plan.mount import cache_ready
from aiservice_operator.plan.tries import pods_of
from aiservice_operator.references import LOOK_SECONDS, References
from aiservice_operator.states import pod_running, unbound
from aiservice_operator.status.conditions import find
from aiservice_operator.status.storage import CacheFacts, ClaimEvent

log = logging.getLogger(__name__)

_YOUNG = timedelta(seconds=30)
_LOOK_SECONDS = (2.0, 15.0)
"""How often a claim that no watch tells of is looked at: while it is young, and afterwards."""
_CALM_SHARE, _CALM_SECONDS = 10, 300.0
"""How rarely the claim of a `pvc` source is looked at that has long been fine: after a share of that time, and at most
after so long. Nobody can take it away from pods that mount it, so this is for those that are still to come."""


class CacheQuestions:
    """What has to be asked for about ModelCaches.

    Args:
        kube: The API server.
        references: Reads Secrets.
        progress_seconds: How long what a download has printed is not asked for again.
        clock: Seconds that only grow.
    """

    def __init__(self, kube: Kube, references: References, progress_seconds: float, clock: Callable[[], float]) -> None:
        self._kube = kube
        self._references = references
        self._progress_seconds = progress_seconds
        self._clock = clock
        self._told: dict[Key, tuple[float, Progress | None]] = {}

    async def secret(self, cache: Cache | None) -> str:
        """Returns the digest of the credentials that a cache's source names; empty where none are read."""
        credentials = credentials_of(cache.spec) if cache is not None and cache.spec is not None else None
        if cache is None or credentials is None:
            return ""
        # A Secret is looked at as a whole where some keys need not be there.
        keys = None if credentials.optional else sorted(credentials.keys.values())
        return await self._references.digest(cache.meta.namespace, "Secret", credentials.secret, keys)

    def again_after(
        self, view: CacheView, cache: Cache, plan: CachePlan, found: CacheFacts, now: datetime
    ) -> float | None:
        """Returns the seconds after which to ask again for what no event announces; None: there is nothing such."""
        if running_pod(view, plan) is not None:
            return self._progress_seconds
        if cache.spec is not None and cache.spec.pvc is not None:
            young = now - (found.source_claim or cache).meta.created < _YOUNG
            return _calm_seconds(cache, now) if cache_ready(cache) else _LOOK_SECONDS[0 if young else 1]
        if view.claim is not None and unbound(view.claim):
            return _LOOK_SECONDS[0 if now - view.claim.meta.created < _YOUNG else 1]
        waits = cache.spec is not None and credentials_of(cache.spec) is not None and not cache_ready(cache)
        return LOOK_SECONDS if waits else None

    async def answers(self, view: CacheView, cache: Cache, plan: CachePlan) -> CacheFacts:
        """Asks for what the status of a cache needs beyond the store."""
        if cache.spec is not None and cache.spec.pvc is not None:
            identity = ObjectId(Kind.CLAIM, cache.meta.namespace, cache.spec.pvc.claim_name)
            body = await self._kube.get(identity)
            found = parse(Kind.CLAIM, body) if body is not None else None
            source = found if isinstance(found, Child) else None
            return CacheFacts(source_claim=source, claim_event=await _claim_event(self._kube, source))
        event = await _claim_event(self._kube, view.claim)
        return CacheFacts(claim_event=event, progress=await self._progress(view, plan))

    def forget(self, key: Key) -> None:
        """Drops what is remembered of a cache that is gone."""
        self._told.pop(key, None)

    async def _progress(self, view: CacheView, plan: CachePlan) -> Progress | None:
        pod, now = running_pod(view, plan), self._clock()
        if pod is None:
            self.forget(view.key)
            return None
        asked_at, told = self._told.get(view.key, (None, None))
        if asked_at is None or now >= asked_at + self._progress_seconds:
            line = await self._kube.last_log_line(pod.meta.namespace, pod.meta.name, names.DOWNLOAD_CONTAINER)
            told = parse_progress(line)
            self._told[view.key] = (now, told)
        return told


def _calm_seconds(cache: Cache, now: datetime) -> float:
    """How long a claim that was as it should be is left alone: the longer it has been so, the longer."""
    ready = find(cache.status.conditions, "Ready")
    calm = (now - ready.last_transition_time).total_seconds() if ready is not None else 0.0
    return min(max(calm / _CALM_SHARE, _LOOK_SECONDS[1]), _CALM_SECONDS)


def running_pod(view: CacheView, plan: CachePlan) -> Child | None:
    """Returns the pod that downloads now."""
    if plan.job is None or plan.job.mode is Mode.MEASURE or plan.proof is not None:
        return None
    return next((pod for pod in pods_of(plan.job, view.pods) if pod_running(pod)), None)


async def _claim_event(kube: Kube, child: Child | None) -> ClaimEvent | None:
    return newest_event(await events_about(kube, child)) if child is not None and unbound(child) else None


async def events_about(kube: Kube, child: Child) -> Sequence[Json]:
    """Asks for the Events about an object. They only explain: where they may not be read there are none."""
    try:
        return await kube.events_about(child.meta.namespace, child.meta.uid)
    except RefusedError as error:
        log.info("Events about %s cannot be read: %s", child.id, error.message)
        return ()


def newest_event(events: Sequence[Json]) -> ClaimEvent | None:
    """Returns the newest of the Events (core/v1) about one object."""
    if not events:
        return None
    newest = max(events, key=seen_at)
    reason = str(newest.get("reason", ""))
    words = str(newest.get("message", "")).strip().rstrip(".")
    return ClaimEvent(reason, words, problem=newest.get("type") == "Warning")


def seen_at(event: Json) -> str:
    """Returns when an Event was seen last, as text: RFC 3339 in UTC sorts so."""
    series = event.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"]["creationTimestamp"]
    )

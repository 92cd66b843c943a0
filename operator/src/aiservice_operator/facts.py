"""What a reconcile has to ask for because no watch tells it: words about claims, and a download's progress."""

from __future__ import annotations

from collections.abc import Sequence

from aiservice_operator import names
from aiservice_operator.downloads import Progress, parse_progress
from aiservice_operator.kinds import Json, Kind, ObjectId
from aiservice_operator.kube import Kube
from aiservice_operator.observed import Cache, Child, parse
from aiservice_operator.plan.download import CachePlan, CacheView, pods_of
from aiservice_operator.states import pod_running, unbound
from aiservice_operator.status.storage import CacheFacts, ClaimEvent


async def gather(kube: Kube, view: CacheView, cache: Cache, plan: CachePlan) -> CacheFacts:
    """Asks the API server for what the status of a cache needs beyond the store."""
    if cache.spec is not None and cache.spec.pvc is not None:
        identity = ObjectId(Kind.CLAIM, cache.meta.namespace, cache.spec.pvc.claim_name)
        body = await kube.get(identity)
        found = parse(Kind.CLAIM, body) if body is not None else None
        source = found if isinstance(found, Child) else None
        return CacheFacts(source_claim=source, claim_event=await _claim_event(kube, source))
    return CacheFacts(claim_event=await _claim_event(kube, view.claim), progress=await _progress(kube, view, plan))


def running_pod(view: CacheView, plan: CachePlan) -> Child | None:
    """Returns the pod that downloads now."""
    if plan.job is None or plan.proof is not None:
        return None
    return next((pod for pod in pods_of(plan.job, view.pods) if pod_running(pod)), None)


async def _claim_event(kube: Kube, child: Child | None) -> ClaimEvent | None:
    if child is None or not unbound(child):
        return None
    return newest_event(await kube.events_about(child.meta.namespace, child.meta.uid))


def newest_event(events: Sequence[Json]) -> ClaimEvent | None:
    """Returns the newest of the Events (core/v1) about a claim."""
    if not events:
        return None
    newest = max(events, key=_seen)
    reason = str(newest.get("reason", ""))
    words = str(newest.get("message", "")).strip().rstrip(".")
    return ClaimEvent(reason, words, problem=newest.get("type") == "Warning")


def _seen(event: Json) -> str:
    """RFC 3339 in UTC sorts as text."""
    series = event.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"]["creationTimestamp"]
    )


async def _progress(kube: Kube, view: CacheView, plan: CachePlan) -> Progress | None:
    pod = running_pod(view, plan)
    if pod is None:
        return None
    return parse_progress(await kube.last_log_line(pod.meta.namespace, pod.meta.name, names.DOWNLOAD_CONTAINER))

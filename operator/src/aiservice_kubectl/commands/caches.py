"""`kubectl ais cache ls`: what is cached, for whom, and what nobody uses."""

from __future__ import annotations

from collections.abc import Sequence

from aiservice_kubectl.cluster import if_allowed
from aiservice_kubectl.errors import Exit
from aiservice_kubectl.lookup import condition, describe_source, progress
from aiservice_kubectl.request import Request
from aiservice_kubectl.text import age, plain, table
from aiservice_operator.kinds import Json, Kind
from aiservice_operator.observed import Cache, Child
from aiservice_operator.quantities import human_bytes


def run(request: Request) -> int:
    """Shows all ModelCaches."""
    scope, left_out = request.scope, list[str]()
    caches = sorted(request.cluster.caches(scope), key=lambda cache: (cache.meta.namespace, cache.meta.name))
    claims = if_allowed(lambda: request.cluster.children(Kind.CLAIM, scope), left_out) if caches else []
    rows = [row(request, cache, claims) for cache in caches]
    if request.as_json:
        request.say_json([_as_json(cache, claims) for cache in caches])
    elif rows:
        heads = ["NAME", "READY", "SOURCE", "SIZE", "PROGRESS", "USED BY", "UNUSED FOR", "CLAIM", "AGE"]
        if scope is None:
            heads, rows = (
                ["NAMESPACE", *heads],
                [[cache.meta.namespace, *line] for cache, line in zip(caches, rows, strict=True)],
            )
        request.say(table(heads, rows))
    else:
        request.note(f"There is no ModelCache in {f'namespace {scope}' if scope else 'any namespace'}.")
    for missing in left_out:
        request.note(f"Left out: {missing}")
    return Exit.OK


def row(request: Request, cache: Cache, claims: Sequence[Child]) -> list[str]:
    """Returns the cells of a cache."""
    status = cache.status
    ready = condition(status.conditions, "Ready")
    unused = age(request.now - status.unused_since) if status.unused_since else ""
    return [
        cache.meta.name,
        request.paint.state(ready.status.value if ready else "Unknown"),
        plain(describe_source(cache)),
        _size(cache),
        plain(progress(cache)),
        ",".join(status.used_by),
        unused,
        _claim(cache, claims),
        age(request.now - cache.meta.created),
    ]


def _size(cache: Cache) -> str:
    download = cache.status.download
    if download is None:
        return ""
    size = download.bytes_total if download.bytes_total is not None else download.bytes_done
    return human_bytes(size) if size else ""


def _capacity(cache: Cache, claims: Sequence[Child]) -> str:
    found = next((claim for claim in claims if _is_of(claim, cache)), None)
    if found is None:
        return ""
    body: Json = found.body
    return str(
        body.get("status", {}).get("capacity", {}).get("storage") or body["spec"]["resources"]["requests"]["storage"]
    )


def _is_of(claim: Child, cache: Cache) -> bool:
    return claim.meta.name == cache.status.claim_name and claim.meta.namespace == cache.meta.namespace


def _claim(cache: Cache, claims: Sequence[Child]) -> str:
    capacity = _capacity(cache, claims)
    name = cache.status.claim_name or ""
    return f"{name} ({capacity})" if capacity else name


def _as_json(cache: Cache, claims: Sequence[Child]) -> Json:
    ready = condition(cache.status.conditions, "Ready")
    return {
        "namespace": cache.meta.namespace,
        "name": cache.meta.name,
        "ready": ready.status.value if ready else "Unknown",
        "reason": ready.reason if ready else "NotSeenYet",
        "source": describe_source(cache),
        "capacity": _capacity(cache, claims) or None,
        **cache.status.model_dump(
            mode="json", by_alias=True, include={"revision", "claim_name", "used_by", "unused_since", "download"}
        ),
    }

"""ModelCaches, their claims, Jobs and pods for unit tests of what is decided about them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from aiservice_api.v1alpha1 import ModelCacheSpec
from aiservice_operator import names
from aiservice_operator.desired.cache import inline_cache
from aiservice_operator.desired.common import wire
from aiservice_operator.desired.job import Attempt, Placement, Task, job
from aiservice_operator.desired.pvc import Memory, pvc
from aiservice_operator.downloads import Proof, Verification
from aiservice_operator.kinds import Json, Key, Kind
from aiservice_operator.names import Mode
from aiservice_operator.observed import Cache, Child, Service, parse
from aiservice_operator.plan import Apply, CachePlan, CacheView, plan_cache
from aiservice_operator.settings import Settings
from aiservice_operator.states import Claim, claim
from support.operator_objects import (
    MODEL,
    NAMESPACE,
    NOW,
    SETTINGS,
    cache,
    condition,
    container_status,
    live,
    metadata,
    pod,
    timestamp,
)

SIZED: Json = {**MODEL, "storage": {"size": "10Gi"}}
HUB: Json = {"huggingFace": {"repo": "o/m", "revision": "main"}}
DIGEST = names.source_digest(ModelCacheSpec.model_validate(MODEL))
PROOF = Proof(source=DIGEST, bytes=7, files=2)
HOUR = timedelta(hours=1)
ANYWHERE = Placement(one_node=True)


def spec_of(known: Cache) -> ModelCacheSpec:
    assert known.spec is not None
    return known.spec


def mine(spec: Json = SIZED, **fields: Any) -> Cache:
    """A cache of a user."""
    return cache("mine", spec, **fields)


def inline(users: tuple[Service, ...], spec: Json = MODEL, **fields: Any) -> Cache:
    """An inline cache as the operator has applied it for its users."""
    stated = ModelCacheSpec.model_validate(spec)
    name = names.cache_name(stated)
    body = wire(inline_cache(NAMESPACE, name, stated, [user.meta for user in users]))
    status = fields.pop("status", {})
    parsed = parse(
        Kind.MODEL_CACHE, {**body, "metadata": {**metadata(name), **body["metadata"], **fields}, "status": status}
    )
    assert isinstance(parsed, Cache)
    return parsed


def live_claim(owner: Cache, memory: Memory | None = None, **fields: Any) -> Child:
    """Its claim, bound, as the operator applied it."""
    built = pvc(owner.meta, spec_of(owner), memory or Memory())
    assert built.spec is not None
    assert built.spec.resources is not None
    assert built.spec.resources.requests is not None
    size = fields.pop("size", built.spec.resources.requests["storage"])
    built.spec.resources.requests["storage"] = size
    body = wire(built)
    status = {"phase": "Bound", "capacity": {"storage": fields.pop("capacity", size)}, **fields.pop("status", {})}
    return live(Kind.CLAIM, body, status, **{"uid": "uid-claim", **fields})


def claim_of(owner: Cache, **fields: Any) -> Claim:
    return claim(live_claim(owner, **fields))


def downloaded_claim(owner: Cache, *, verified: timedelta = HOUR, proof: Proof = PROOF, **record: Any) -> Child:
    """A claim with a download on it, verified some time ago."""
    proof = proof.model_copy(update={"source": names.source_digest(spec_of(owner))})
    return live_claim(owner, Memory(None, proof, Verification(at=NOW - verified, **record)))


def live_job(
    owner: Cache,
    status: Json | None = None,
    *,
    mode: Mode = Mode.DOWNLOAD,
    attempt: int = 1,
    settings: Settings = SETTINGS,
    revision: str = "",
    **fields: Any,
) -> Child:
    """A Job as the operator made it."""
    task = {name: fields.pop(name) for name in ("claim", "secret", "request", "since") if name in fields}
    if mode is not Mode.MEASURE:
        task.setdefault("claim", claim_of(owner))
    built = job(
        owner.meta,
        spec_of(owner),
        Task(mode, **task),
        placement=fields.pop("placement", ANYWHERE),
        attempt=Attempt(attempt, 0, revision),
        settings=settings,
    )
    return live(Kind.JOB, wire(built), status, **{"uid": f"uid-{mode}-{attempt}", **fields})


def complete(age: timedelta = timedelta(minutes=1)) -> Json:
    """Status of a Job that succeeded some time ago."""
    done = {**condition("Complete", "True"), "lastTransitionTime": timestamp(NOW - age)}
    return {"succeeded": 1, "conditions": [done]}


def failed(age: timedelta, reason: str = "BackoffLimitExceeded") -> Json:
    """Status of a Job that failed some time ago."""
    gone = condition("Failed", "True", reason, "Job has reached the specified backoff limit")
    return {"failed": 6, "conditions": [{**gone, "lastTransitionTime": timestamp(NOW - age)}]}


def ended(owner: str, message: str, code: int = 1, reason: str = "Error", name: str = "try", **fields: Any) -> Child:
    """A pod of a Job that has ended."""
    state = {"exitCode": code, "reason": reason, "message": message, "finishedAt": timestamp(NOW)}
    status = container_status("downloader", terminated=state)
    return pod(name, status, owner=owner, container="downloader", **fields)


def view(known: Cache | None, **fields: Any) -> CacheView:
    """What is there; of a cache that is not, its users tell the name."""
    name = known.meta.name if known is not None else next((user.cache_name for user in fields["users"]), None)
    empty: dict[str, Any] = {"users": (), "claim": None, "jobs": (), "pods": ()}
    return CacheView(key=Key(Kind.MODEL_CACHE, NAMESPACE, name or "mine"), cache=known, **{**empty, **fields})


def decide(known: Cache | None, *, now: datetime = NOW, settings: Settings = SETTINGS, **fields: Any) -> CachePlan:
    return plan_cache(view(known, **fields), settings, now)


def steps(plan: CachePlan) -> list[str]:
    """`apply Kind`, `delete Kind`, in order."""
    return [f"{'apply' if isinstance(action, Apply) else 'delete'} {action.identity.kind}" for action in plan.actions]


def applied(plan: CachePlan, kind: Kind) -> Json:
    """The body of the one object of a kind that a plan applies."""
    (body,) = [action.body for action in plan.actions if isinstance(action, Apply) and action.identity.kind is kind]
    return body


def environment(job_body: Json) -> dict[str, Any]:
    """The variables of a Job's container: values, and what Secrets they are from."""
    (container,) = job_body["spec"]["template"]["spec"]["containers"]
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}

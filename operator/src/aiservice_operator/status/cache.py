"""The status of a ModelCache."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from aiservice_api.v1alpha1 import ModelCacheSpec, ModelCacheStatus
from aiservice_operator import names
from aiservice_operator.observed import Cache, Child
from aiservice_operator.plan.actions import Refusal
from aiservice_operator.plan.download import CachePlan, CacheView
from aiservice_operator.states import Claim, claim
from aiservice_operator.status.conditions import FALSE, MESSAGE_LENGTH, TRUE, Check, merge, no, pending, yes
from aiservice_operator.status.conditions import last_failure as merge_failure
from aiservice_operator.status.download import downloaded, problem_of, progress
from aiservice_operator.status.remedies import advised
from aiservice_operator.status.storage import CacheFacts, own_claim, provided_claim
from aiservice_operator.status.verified import verified

_LISTED_USERS = 256
DELETION_WAITS = "It will be deleted when nobody uses it any more"
"""How a message says that a deletion waits, whatever else it says before."""


def cache_status(
    view: CacheView,
    cache: Cache,
    plan: CachePlan,
    *,
    facts: CacheFacts,
    refusals: Sequence[Refusal],
    now: datetime,
) -> ModelCacheStatus:
    """Computes the status of a ModelCache."""
    previous, spec = cache.status, cache.spec
    if spec is None:
        said = f"this version of the operator cannot read it: {cache.invalid}"
        unreadable = no("InvalidSpec", advised(said, "Upgrade the operator, or correct the spec"))
        ready = _held(view, cache, unreadable)
        conditions = merge(previous.conditions, [("Ready", ready)], cache.meta.generation, now)
        return previous.model_copy(update={"observed_generation": cache.meta.generation, "conditions": conditions})
    if spec.pvc is not None:
        checks = _provided(spec.pvc.claim_name, cache.meta.namespace, facts, now)
        failure, claim_name, state = None, spec.pvc.claim_name, _state(facts.source_claim)
    else:
        problem = problem_of(view, plan.job, plan.failed, facts, now) if plan.proof is None else None
        check_problem = problem_of(view, plan.check, plan.check_failed, facts, now)
        found = problem or check_problem
        failure, claim_name, state = found.failure if found is not None else None, cache.meta.name, plan.claim
        checks = {
            "StorageBound": own_claim(spec, view, plan, facts, refusals=refusals, now=now),
            "Downloaded": downloaded(cache.meta, spec, view, plan, problem, facts=facts, refusals=refusals),
            "Verified": verified(
                cache.meta, spec, plan, problem, check_problem, secrets_followed=facts.secrets_followed
            ),
        }
    checks["Ready"] = _ready(view, cache, checks)
    return ModelCacheStatus(
        observed_generation=cache.meta.generation,
        source=describe(spec),
        revision=_revision(plan),
        claim_name=claim_name,
        access_mode=state.access_mode or None if state is not None else None,
        verified_at=plan.verification.at if plan.verification is not None else None,
        unused_since=plan.unused_since,
        used_by=[user.meta.name for user in view.users][:_LISTED_USERS],
        download=progress(view, plan, facts, previous) if spec.pvc is None else None,
        last_failure=merge_failure(failure, previous.last_failure),
        conditions=merge(previous.conditions, list(checks.items()), cache.meta.generation, now),
    )


def _state(child: Child | None) -> Claim | None:
    return claim(child) if child is not None else None


def _revision(plan: CachePlan) -> str | None:
    """What the source's revision was resolved to: of what is there, until then of what is being downloaded."""
    if plan.proof is not None:
        return plan.proof.revision
    return plan.memory.measurement.revision if plan.memory.measurement is not None else None


def describe(spec: ModelCacheSpec) -> str:
    """Returns the source in one line, for people."""
    if spec.hugging_face is not None:
        return f"huggingFace {spec.hugging_face.repo}@{spec.hugging_face.revision}"
    if spec.s3 is not None:
        server = f" at {spec.s3.endpoint}" if spec.s3.endpoint is not None else ""
        return f"s3 {spec.s3.bucket}/{spec.s3.prefix}".rstrip("/") + server
    if spec.oci is not None:
        return f"oci {spec.oci.image}" + (f" {spec.oci.path}" if spec.oci.path else "")
    if spec.http is not None:
        first, more = spec.http.files[0].path, len(spec.http.files) - 1
        return f"http {first}" + (f" and {more} more" if more else "")
    if spec.pvc is not None:
        return f"pvc {spec.pvc.claim_name}/{spec.pvc.path}".rstrip("/")
    return ""


def _provided(name: str, namespace: str, facts: CacheFacts, now: datetime) -> dict[str, Check]:
    """The checks of a `pvc` source: the claim exists, and pods can use it."""
    unchecked = "the operator neither writes nor reads the files of a claim that you made"
    return {
        "StorageBound": provided_claim(name, namespace, facts, now),
        "Downloaded": yes("NotNeeded", "the files are on the claim already"),
        "Verified": pending("NotChecked", unchecked),
    }


def _ready(view: CacheView, cache: Cache, checks: dict[str, Check]) -> Check:
    needed = [checks["StorageBound"], checks["Downloaded"]]
    if checks["Verified"].status is FALSE:  # files that nobody knows to be damaged are good enough to serve from
        needed.append(checks["Verified"])
    if all(check.status is TRUE for check in needed):
        waits = _waits(view, cache)
        return yes("InUse", waits) if waits else yes("Cached", "the model is cached")
    failed = next((check for check in needed if check.status is FALSE), None)
    waiting = next(check for check in needed if check.status is not TRUE)
    return _held(view, cache, failed or waiting)


def _held(view: CacheView, cache: Cache, check: Check) -> Check:
    """Whatever is wrong with it or still to come: whoever deleted it is told what that waits for."""
    waits = _waits(view, cache)
    if not waits:
        return check
    room = MESSAGE_LENGTH - len(waits) - len(". ")
    return Check(check.status, check.reason, advised(check.message[:room], waits))


def _waits(view: CacheView, cache: Cache) -> str:
    """What a deletion waits for, and what to do; empty where there is none, or nothing holds it."""
    if not cache.meta.deleting or not view.users:
        return ""
    users = names.listed(user.meta.name for user in view.users)
    return (
        f"{DELETION_WAITS}: delete the AIServices that use it, or give them another model. It is used by "
        f"AIService {users}"
    )

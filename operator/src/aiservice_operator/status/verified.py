"""Whether the files are what they should be: the `Verified` check."""

from __future__ import annotations

from datetime import datetime

from aiservice_api.v1alpha1 import ModelCacheSpec
from aiservice_operator import names
from aiservice_operator.desired.pvc import volume_size
from aiservice_operator.downloads import Verification
from aiservice_operator.observed import Meta
from aiservice_operator.plan.download import CachePlan
from aiservice_operator.plan.tries import FailedTry
from aiservice_operator.plan.verification import DAMAGED
from aiservice_operator.states import Claim
from aiservice_operator.status.conditions import Check, no, pending, yes
from aiservice_operator.status.download import what_next
from aiservice_operator.status.remedies import advised, resize, sentence


def verified(
    cache: Meta,
    spec: ModelCacheSpec,
    plan: CachePlan,
    download_problem: FailedTry | None,
    check_problem: FailedTry | None,
    *,
    secrets_followed: bool,
) -> Check:
    """Checks that every file has its size and digest."""
    record = plan.verification
    if plan.proof is None or record is None:
        return _not_downloaded(download_problem)
    if record.damage:
        return no(DAMAGED, f"{record.damage.rstrip('.')}. {_repair(cache, plan, check_problem)}")
    if check_problem is not None:
        found = check_problem.failure
        words = f"{_sound(record)}; comparing them again failed: {found.message.rstrip('.')}."
        todo = what_next(spec, plan, plan.check, check_problem, secrets_followed=secrets_followed)
        return pending(found.reason, f"{words} {todo}".strip())
    if plan.check is not None:
        return yes("Verifying", f"{_sound(record)}; they are being compared with their digests again")
    return yes("Repaired", _repaired(record)) if record.repaired else yes("Verified", _sound(record))


def _not_downloaded(problem: FailedTry | None) -> Check:
    if problem is not None and problem.failure.reason == DAMAGED:
        return no(DAMAGED, advised(problem.failure.message, "Correct the digest, or the files at the source"))
    return pending("NotDownloaded", "files are verified while they are downloaded")


def _sound(record: Verification) -> str:
    return f"every file had its size and digest at {_moment(record.at)}"


def _repaired(record: Verification) -> str:
    more = record.repaired_files - len(record.repaired)
    names_of = ", ".join(record.repaired) + (f" and {more} more" if more > 0 else "")
    return (
        f"at {_moment(record.at)} these files were damaged and were fetched again: {names_of}. Pods "
        "that started before may have loaded what was damaged: restart them"
    )


def _repair(cache: Meta, plan: CachePlan, problem: FailedTry | None) -> str:
    """What to do about files that could not be repaired."""
    claim = plan.claim.name if plan.claim is not None else ""
    anew = f"or delete PersistentVolumeClaim {claim}, and the model is downloaded anew when no pod uses it"
    if plan.claim is not None and problem is not None and problem.required_bytes is not None:
        return f"{_room(cache, plan.claim, problem.required_bytes)}, {anew}"
    if problem is not None and not problem.retryable:
        return (
            f"Mend the source, then give annotation {names.VERIFY_ANNOTATION} of the ModelCache a new value to try "
            f"again, {anew}"
        )
    return f"Fetching them again is tried later; mend what stood in the way, {anew}"


def _room(cache: Meta, live: Claim, required: int) -> str:
    """What gives files that are fetched again the room that they need."""
    if live.growing and live.growth_fault:
        return f"PersistentVolumeClaim {live.name} does not grow to {live.requested}: {live.growth_fault}. Mend that"
    if live.growing:
        return f"PersistentVolumeClaim {live.name} grows to {live.requested}, and they are fetched again: wait for that"
    remedy = sentence(resize(cache, volume_size(required)))
    return f"{remedy}, and they are fetched again where the StorageClass expands volumes"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"

"""When the files of a cache are compared with their digests again, and what is remembered of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from aiservice_api.v1alpha1 import ModelCacheSpec, Verify
from aiservice_operator import names
from aiservice_operator.downloads import Verification
from aiservice_operator.observed import Child, Meta
from aiservice_operator.plan.tries import failed_try, last_words, pods_of
from aiservice_operator.states import CacheJob

DAMAGED = "ChecksumMismatch"
"""The downloader's reason for files that are not what they should be and could not be repaired."""


def wish(cache: Meta) -> str:
    """Returns what tells one wish of a user for verification from another; empty: there is none."""
    value = cache.annotations.get(names.VERIFY_ANNOTATION, "")
    return names.digest(value) if value else ""


def always(spec: ModelCacheSpec) -> bool:
    """Whether the files are to be verified from time to time."""
    return spec.verify is Verify.ALWAYS


def first_record(cache: Meta, spec: ModelCacheSpec, downloaded_at: datetime) -> Verification:
    """Returns what is remembered of a download, which verified every file: wishes up to then are fulfilled."""
    return Verification(at=downloaded_at, request=wish(cache), always=always(spec))


def updated_record(
    record: Verification, spec: ModelCacheSpec, newest: CacheJob | None, pods: Sequence[Child]
) -> Verification:
    """Returns what is to be remembered after the newest Job that verified."""
    changed = record.model_copy(update={"always": record.always and always(spec)})
    if newest is None or answered(record, newest):
        return changed
    if newest.completed_at is not None:
        words = last_words(newest, pods)
        repaired, files = (words.repaired, words.repaired_files) if words is not None else ((), 0)
        return Verification(
            at=newest.completed_at, request=newest.request, always=always(spec), repaired=repaired, repaired_files=files
        )
    tries = [failed for pod in pods_of(newest, pods) if (failed := failed_try(pod)) is not None]
    damage = [failed.failure.message for failed in tries if failed.failure.reason == DAMAGED]
    return changed.model_copy(update={"damage": damage[-1]}) if damage else changed


def answered(record: Verification, done: CacheJob) -> bool:
    """Whether what a Job found is remembered already."""
    return done.completed_at is not None and done.completed_at <= record.at


def due_at(
    record: Verification, cache: Meta, spec: ModelCacheSpec, interval: timedelta, now: datetime
) -> datetime | None:
    """Returns when files are to be compared with their digests; None: not until something changes."""
    asked = wish(cache) not in ("", record.request)
    if asked or record.damage or (always(spec) and not record.always):
        return now
    return record.at + interval if always(spec) else None

"""Kubernetes Events for what a user should know: only when something turns, so none is said twice.

A restarted operator sees no turn, because what it compares with is the status that it wrote before.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from aiservice_api.v1alpha1 import Condition
from aiservice_operator import names
from aiservice_operator.kinds import RESOURCES, Json, Key, Kind
from aiservice_operator.status.cache import DELETION_WAITS
from aiservice_operator.status.conditions import FALSE, TRUE, find

_NOTE_LENGTH = 1024
"""The API server's limit."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Something a user should know of."""

    warning: bool
    reason: str
    note: str


def turns(kind: Kind, before: Sequence[Condition], after: Sequence[Condition]) -> list[Turn]:
    """Returns what turned between two states of an object.

    That a model is cached is said of its ModelCache, once, and not of each AIService that uses it.
    """
    return _service_turns(before, after) if kind is Kind.AISERVICE else _cache_turns(before, after)


def _service_turns(before: Sequence[Condition], after: Sequence[Condition]) -> list[Turn]:
    found = []
    if (rejected := _became(FALSE, "Accepted", before, after)) is not None:
        found.append(Turn(True, "Rejected", rejected.message))
    if (ready := _became(TRUE, "Ready", before, after)) is not None:
        found.append(Turn(False, "Ready" if ready.reason == "Serving" else ready.reason, ready.message))
    if rejected is None and (failed := _became(FALSE, "Ready", before, after)) is not None:
        available = find(after, "Available")
        degraded = available is not None and available.status is TRUE
        found.append(Turn(True, "Degraded" if degraded else "Failed", f"{failed.reason}: {failed.message}"))
    return found


def _cache_turns(before: Sequence[Condition], after: Sequence[Condition]) -> list[Turn]:
    found = []
    if (unbound := _became(FALSE, "StorageBound", before, after)) is not None:
        found.append(Turn(True, "StorageNotBound", unbound.message))
    if (done := _became(TRUE, "Downloaded", before, after)) is not None and done.reason == "Downloaded":
        found.append(Turn(False, "ModelCached", done.message))
    if (failed := _became(FALSE, "Downloaded", before, after)) is not None:
        found.append(Turn(True, "DownloadFailed", f"{failed.reason}: {failed.message}"))
    found += _files_turned(before, after)
    if (waits := _waits(after)) and not _waits(before):
        found.append(Turn(True, "DeletionWaits", waits))
    return found


def _waits(conditions: Sequence[Condition]) -> str:
    """What the deletion of a cache waits for; empty where it waits for nothing."""
    ready = find(conditions, "Ready")
    if ready is None:
        return ""
    _, sentence, users = ready.message.partition(DELETION_WAITS)
    return sentence + users


def _files_turned(before: Sequence[Condition], after: Sequence[Condition]) -> list[Turn]:
    """What a verification of files that were there already has found."""
    downloaded, verified, was = find(after, "Downloaded"), find(after, "Verified"), find(before, "Verified")
    if downloaded is None or downloaded.status is not TRUE or verified is None:
        return []
    if (damaged := _became(FALSE, "Verified", before, after)) is not None:
        return [Turn(True, "FilesDamaged", damaged.message)]
    repaired = verified.reason == "Repaired" and (was is None or was.message != verified.message)
    return [Turn(True, "FilesRepaired", verified.message)] if repaired else []


def _became(status: str, name: str, before: Sequence[Condition], after: Sequence[Condition]) -> Condition | None:
    """Returns a condition that has this status now and had not, or has it for another reason."""
    now, was = find(after, name), find(before, name)
    if now is None or now.status != status:
        return None
    same = was is not None and was.status == status and (status == TRUE or was.reason == now.reason)
    return None if same else now


def shortened(note: str) -> str:
    """Cuts a note to what an Event may hold, which the API server counts in bytes."""
    encoded = note.encode()
    return note if len(encoded) <= _NOTE_LENGTH else encoded[: _NOTE_LENGTH - 3].decode(errors="ignore") + "…"


def event(regarding: Key, uid: str, turn: Turn, *, reporter: str, now: datetime) -> Json:
    """Builds the body of an Event (events.k8s.io/v1)."""
    return {
        "metadata": {"name": f"{regarding.name}.{uuid.uuid4().hex[:16]}", "namespace": regarding.namespace},
        "regarding": {
            "apiVersion": RESOURCES[regarding.kind].api_version,
            "kind": regarding.kind.value,
            "name": regarding.name,
            "namespace": regarding.namespace,
            "uid": uid,
        },
        "type": "Warning" if turn.warning else "Normal",
        "reason": turn.reason,
        "note": shortened(turn.note),
        "action": "Reconcile",
        "reportingController": f"{names.FIELD_MANAGER}.aiservice.dev",
        "reportingInstance": reporter,
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }

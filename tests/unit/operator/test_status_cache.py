"""The status of a ModelCache, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from aiservice_operator.downloads import Progress
from aiservice_operator.facts import newest_event
from aiservice_operator.failures import Failure
from aiservice_operator.kinds import Json
from aiservice_operator.observed import Cache
from aiservice_operator.plan import CachePlan
from aiservice_operator.plan.tries import FailedTry
from aiservice_operator.status import CacheFacts, ClaimEvent
from aiservice_operator.status.cache import describe
from support.cache_statuses import AT, CACHED, CASES, DISK, FAILED_TRY, RUNNING, job, message, status_of, told
from support.operator_objects import MODEL, NOW, cache, metadata, service, timestamp


@pytest.mark.parametrize("case", CASES)
def test_conditions(case: str) -> None:
    fields, expected = CASES[case]
    found = told(status_of(**fields))
    assert {name: found[name] for name in expected} == expected


def test_what_is_used_and_how_much_there_is() -> None:
    status = status_of(plan=CachePlan(job=job(), memory=CACHED), users=(service("a"), service("b")))
    assert status.used_by == ["a", "b"]
    assert (status.revision, status.claim_name, status.source) == ("c0ffee", "mine", "http a")
    assert (status.access_mode, status.verified_at) == ("ReadWriteOnce", AT)
    assert status.download is not None
    assert (status.download.bytes_done, status.download.progress) == (6_900_000_000, "100% of 6.9 GB")


def test_progress_is_reported_and_forgets_its_speed_between_two_tries() -> None:
    progress = Progress(event="progress", bytes_done=50, bytes_total=100, bytes_per_second=5, eta_seconds=10)
    running = status_of(plan=CachePlan(job=job()), facts=CacheFacts(progress=progress), pods=(RUNNING,))
    assert running.download is not None
    assert (running.download.progress, running.download.eta_seconds) == ("50% of 100 B", 10)
    between = status_of(cache(status=running.to_wire()), CachePlan(job=job({"failed": 1})), pods=(FAILED_TRY,))
    assert between.download is not None
    assert (between.download.progress, between.download.eta_seconds) == ("50% of 100 B", None)


def test_a_wrong_checksum_shows_where_it_belongs() -> None:
    wrong = FailedTry(Failure("ChecksumMismatch", "a: wrong digest", "Pod/try", NOW), retryable=False)
    status = status_of(plan=CachePlan(job=job(), failed=wrong))
    assert told(status)["Verified"] == ("False", "ChecksumMismatch")
    assert status.last_failure is not None
    assert status.last_failure.object == "Pod/try"


def test_those_for_whom_a_deletion_waits_are_named() -> None:
    fields, _ = CASES["deleted while in use"]
    assert message(status_of(**fields), "Ready") == (
        "It will be deleted when nobody uses it any more: delete the AIServices that use it, or give them another "
        "model. It is used by AIService a, b"
    )


def test_of_many_for_whom_a_deletion_waits_some_are_named() -> None:
    users = tuple(service(f"{number:03}-{'x' * 59}") for number in range(200))
    said = message(status_of(**{**CASES["deleted while in use"][0], "users": users}), "Ready")
    assert said.endswith(f"{users[9].meta.name} and 190 more")
    assert "give them another model" in said


def test_whoever_deleted_a_cache_is_told_what_that_waits_for_whatever_is_wrong() -> None:
    going, users = cache(deletionTimestamp=timestamp(NOW)), (service("a"), service("b"))
    waits = "It will be deleted when nobody uses it any more: delete the AIServices that use it"
    loading = status_of(going, CachePlan(job=job()), users=users)
    assert told(loading)["Ready"] == ("Unknown", "Starting")
    assert message(loading, "Ready").startswith(f"the download is being started. {waits}")
    gone = FailedTry(Failure("NotFound", "4" * 9000, "Pod/try", NOW), retryable=False)
    broken = message(status_of(going, CachePlan(job=job(), failed=gone), users=users), "Ready")
    assert broken.startswith("444")
    assert broken.endswith("It is used by AIService a, b")
    unreadable = cache(spec={"carrierPigeon": {}, "http": {"files": 3}}, deletionTimestamp=timestamp(NOW))
    assert waits in message(status_of(unreadable, users=users), "Ready")
    assert waits not in message(status_of(going, CachePlan(job=job())), "Ready"), "nothing holds it"


def test_what_this_version_cannot_read_is_said() -> None:
    status = status_of(cache(spec={"carrierPigeon": {}, "http": {"files": 3}}))
    assert told(status) == {"Ready": ("False", "InvalidSpec")}


def test_a_status_that_was_written_is_computed_again_as_it_is() -> None:
    for fields, _ in CASES.values():
        known = fields.get("known", cache())
        first = status_of(**fields)
        again = status_of(**{**fields, "known": cache(spec=known.body["spec"], status=first.to_wire(), **extra(known))})
        assert again.to_wire() == first.to_wire()


def extra(known: Cache) -> dict[str, Any]:
    return {"deletionTimestamp": timestamp(NOW)} if known.meta.deleting else {}


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (MODEL, "http a"),
        ({"http": {"files": MODEL["http"]["files"] * 3}}, "http a and 2 more"),
        ({"huggingFace": {"repo": "o/m", "revision": "v1"}}, "huggingFace o/m@v1"),
        (DISK, "pvc disk/m"),
        ({"pvc": {"claimName": "disk"}}, "pvc disk"),
        ({"s3": {"bucket": "b"}}, "s3 b"),
        ({"s3": {"bucket": "b", "prefix": "p/q", "endpoint": "http://minio:9000"}}, "s3 b/p/q at http://minio:9000"),
        ({"oci": {"image": "r.test/m:1"}}, "oci r.test/m:1"),
        ({"oci": {"image": "r.test/m:1", "path": "a"}}, "oci r.test/m:1 a"),
    ],
)
def test_sources_for_people(spec: Json, text: str) -> None:
    known = cache(spec=spec)
    assert known.spec is not None
    assert describe(known.spec) == text


def test_of_several_events_the_newest_is_told() -> None:
    def event(reason: str, kind: str, **fields: Any) -> Json:
        return {"reason": reason, "type": kind, "message": f"{reason}. ", "metadata": metadata("e"), **fields}

    old = event("WaitForFirstConsumer", "Normal", lastTimestamp="2026-11-23T11:00:00Z")
    new = event("ProvisioningFailed", "Warning", eventTime="2026-11-23T11:30:00.5Z")
    assert newest_event([new, old]) == ClaimEvent("ProvisioningFailed", "ProvisioningFailed", problem=True)
    series = event("WaitForFirstConsumer", "Normal", series={"lastObservedTime": "2026-11-23T11:40:00Z"})
    assert newest_event([new, series, old]) == ClaimEvent("WaitForFirstConsumer", "WaitForFirstConsumer", problem=False)
    assert newest_event([]) is None

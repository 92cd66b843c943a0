"""When the files of a ModelCache are compared with their digests again, and what is remembered of it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from aiservice_operator import names
from aiservice_operator.desired.pvc import Memory
from aiservice_operator.downloads import Proof, Verification
from aiservice_operator.kinds import Json, Kind
from aiservice_operator.names import Mode
from aiservice_operator.observed import Cache, Child
from aiservice_operator.plan import CachePlan
from aiservice_operator.plan.verification import wish
from support.cache_objects import (
    HOUR,
    HUB,
    SIZED,
    applied,
    complete,
    decide,
    downloaded_claim,
    ended,
    environment,
    failed,
    live_claim,
    live_job,
    mine,
    spec_of,
    steps,
)
from support.operator_objects import NOW, SETTINGS, container_status, pod

ALWAYS: Json = {**SIZED, "verify": "Always"}
DAMAGED = '{"status":"failed","reason":"ChecksumMismatch","message":"a is damaged","retryable":%s}'


def asked(value: str = "1", spec: Json = SIZED) -> Cache:
    """A cache whose user wants its files verified."""
    return mine(spec, annotations={names.VERIFY_ANNOTATION: value})


def verifying(owner: Cache, status: Json | None = None, **fields: Any) -> Any:
    """The Job that verifies for the present wish."""
    since = (NOW - HOUR).isoformat()
    return live_job(owner, status, mode=Mode.VERIFY, request=wish(owner.meta), since=since, **fields)


def starts(plan: CachePlan) -> bool:
    """Whether a plan begins to verify."""
    return "apply Job" in steps(plan) and environment(applied(plan, Kind.JOB))["AISERVICE_MODE"] == "verify"


def test_nothing_is_verified_again_unless_somebody_wants_it() -> None:
    plan = decide(mine(), claim=downloaded_claim(mine(), verified=1000 * HOUR))
    assert (plan.actions, plan.again_at) == ((), None)


def test_a_new_value_of_the_annotation_starts_a_verification_of_what_was_downloaded() -> None:
    owner = asked(spec={**HUB, "storage": {"size": "10Gi"}})
    proof = Proof(source="", bytes=7, revision="c" * 40)
    plan = decide(owner, claim=downloaded_claim(owner, proof=proof))
    assert starts(plan)
    body = applied(plan, Kind.JOB)
    assert environment(body)["AISERVICE_REVISION"] == "c" * 40
    assert environment(body)["AISERVICE_CACHE_DIR"] == "/cache"
    assert body["metadata"]["annotations"][names.REQUEST_ANNOTATION] == wish(owner.meta)
    assert plan.proof is not None, "the files go on being used"


def test_a_value_that_was_there_before_the_download_ended_is_answered_by_it() -> None:
    owner = asked()
    plan = decide(owner, claim=live_claim(owner), jobs=(live_job(owner, complete()),))
    assert plan.verification is not None
    assert plan.verification.request == wish(owner.meta)
    assert not starts(decide(owner, claim=live_claim(owner, plan.memory)))


@pytest.mark.parametrize(
    ("age", "always", "expected"),
    [
        (timedelta(hours=23), True, False),
        (timedelta(hours=24), True, True),
        (timedelta(minutes=1), False, True),  # it has just become Always
    ],
)
def test_always_means_every_day_and_at_once_when_it_is_set(age: timedelta, always: bool, expected: bool) -> None:
    owner = mine(ALWAYS)
    plan = decide(owner, claim=downloaded_claim(owner, verified=age, always=always))
    assert starts(plan) is expected
    if not expected:
        assert plan.again_at == NOW + timedelta(hours=1)


def test_the_interval_is_the_operators() -> None:
    settings = SETTINGS.model_copy(
        update={"download": SETTINGS.download.model_copy(update={"verify_interval_hours": 48})}
    )
    owner = mine(ALWAYS)
    claim = downloaded_claim(owner, verified=timedelta(hours=30), always=True)
    assert not starts(decide(owner, claim=claim, settings=settings))
    assert starts(decide(owner, claim=claim))


def test_set_back_and_forth_it_is_verified_again() -> None:
    claim = downloaded_claim(mine(), always=True)
    plan = decide(mine(), claim=claim)
    assert steps(plan) == ["apply PersistentVolumeClaim"]
    assert plan.verification is not None
    assert not plan.verification.always
    assert starts(decide(mine(ALWAYS), claim=live_claim(mine(ALWAYS), plan.memory)))


def test_a_verification_that_succeeded_is_remembered_with_what_it_repaired() -> None:
    owner = asked()
    done = verifying(owner, complete())
    words = ended(
        "uid-verify-1", '{"status":"ok","bytes":7,"files":2,"repaired":["a","b/c"],"repairedFiles":2}', code=0
    )
    plan = decide(owner, claim=downloaded_claim(owner), jobs=(done,), pods=(words,))
    assert plan.verification == Verification(
        at=NOW - timedelta(minutes=1), request=wish(owner.meta), repaired=("a", "b/c"), repaired_files=2
    )
    assert steps(plan) == ["apply PersistentVolumeClaim"]
    kept = applied(plan, Kind.CLAIM)["metadata"]["annotations"]
    assert json.loads(kept[names.VERIFIED_ANNOTATION])["repaired"] == ["a", "b/c"]
    assert json.loads(kept[names.DOWNLOAD_ANNOTATION])["bytes"] == 7, "the proof stays"
    again = decide(owner, claim=live_claim(owner, plan.memory), jobs=(done,), pods=(words,))
    assert (again.actions, again.check) == ((), None)


def test_the_next_one_is_another_job_and_takes_the_place_of_the_last() -> None:
    owner = mine(ALWAYS)
    done = live_job(owner, complete(timedelta(hours=24)), mode=Mode.VERIFY, since="before")
    plan = decide(owner, claim=downloaded_claim(owner, verified=timedelta(hours=24), always=True), jobs=(done,))
    assert starts(plan)
    assert applied(plan, Kind.JOB)["metadata"]["name"] != done.meta.name


def test_one_that_is_wanted_while_another_runs_comes_after_it() -> None:
    running = pod("p", container_status("downloader", running={}), owner="uid-verify-1", container="downloader")
    first, second = asked("1"), asked("2")
    job = verifying(first, {"active": 1})
    plan = decide(second, claim=downloaded_claim(second), jobs=(job,), pods=(running,))
    assert plan.actions == ()
    finished = verifying(first, complete())
    plan = decide(second, claim=downloaded_claim(second), jobs=(finished,))
    assert plan.verification is not None
    assert plan.verification.request == wish(first.meta)
    assert starts(plan)


def test_damage_is_remembered_and_a_source_that_may_come_back_is_tried_later() -> None:
    owner = asked()
    lost = verifying(owner, failed(timedelta(seconds=30)))
    said = ended("uid-verify-1", DAMAGED % "true")
    plan = decide(owner, claim=downloaded_claim(owner), jobs=(lost,), pods=(said,))
    assert steps(plan) == ["apply PersistentVolumeClaim"]
    assert plan.verification is not None
    assert (plan.verification.damage, plan.verification.at) == ("a is damaged", NOW - HOUR)
    assert plan.again_at == NOW + timedelta(seconds=30)
    # Its pods and the Job may go: it is known.
    kept = live_claim(owner, plan.memory)
    assert decide(owner, claim=kept).verification == plan.verification
    assert starts(decide(owner, claim=kept)), "until it is repaired"


def test_damage_that_another_try_cannot_mend_waits_for_somebody() -> None:
    owner = asked("1")
    fields: dict[str, Any] = {
        "jobs": (verifying(owner, failed(timedelta(days=3), "PodFailurePolicy")),),
        "pods": (ended("uid-verify-1", DAMAGED % "false", 2),),
    }
    record = Verification(at=NOW - HOUR, damage="a is damaged")
    proof = Proof(source=names.source_digest(spec_of(owner)), bytes=7)
    claim = live_claim(owner, Memory(None, proof, record))
    assert (decide(owner, claim=claim, **fields).actions, decide(owner, claim=claim, **fields).again_at) == ((), None)
    assert steps(decide(asked("2"), claim=claim, **fields)) == ["delete Job"], "a new wish starts it again"


def test_with_always_it_is_tried_again_the_next_day() -> None:
    owner = mine(ALWAYS)
    record = Verification(at=NOW - 30 * HOUR, always=True, damage="a is damaged")
    proof = Proof(source=names.source_digest(spec_of(owner)), bytes=7)
    claim = live_claim(owner, Memory(None, proof, record))

    def after(age: timedelta) -> CachePlan:
        job = live_job(owner, failed(age, "PodFailurePolicy"), mode=Mode.VERIFY, since=(NOW - 30 * HOUR).isoformat())
        return decide(owner, claim=claim, jobs=(job,), pods=(ended("uid-verify-1", DAMAGED % "false", 2),))

    assert (after(HOUR).actions, after(HOUR).again_at) == ((), NOW + 23 * HOUR)
    assert steps(after(24 * HOUR)) == ["delete Job"]


def test_a_verification_that_could_not_be_done_says_nothing_of_the_files() -> None:
    owner = asked()
    lost = verifying(owner, failed(timedelta(seconds=30)))
    plan = decide(owner, claim=downloaded_claim(owner), jobs=(lost,), pods=(ended("uid-verify-1", "", 137),))
    assert plan.verification is not None
    assert plan.verification.damage == ""
    assert plan.check_failed is not None
    assert plan.proof is not None


def test_a_verification_stops_when_its_claim_goes() -> None:
    owner = asked()
    proof = Proof(source=names.source_digest(spec_of(owner)), bytes=7)
    going = live_claim(
        owner, Memory(None, proof, Verification(at=NOW)), deletionTimestamp=NOW.strftime("%Y-%m-%dT%H:%M:%SZ")
    )
    assert steps(decide(owner, claim=going, jobs=(verifying(owner, {"active": 1}),))) == ["delete Job"]


def test_a_repair_that_needs_more_room_gets_it_and_waits_for_it() -> None:
    owner = asked(spec={key: value for key, value in SIZED.items() if key != "storage"})
    failure = {"status": "failed", "reason": "ChecksumMismatch", "message": "a is damaged", "retryable": False}
    words = json.dumps({**failure, "requiredBytes": 30 << 30})
    fields: dict[str, Any] = {
        "jobs": (verifying(owner, failed(timedelta(), "PodFailurePolicy")),),
        "pods": (ended("uid-verify-1", words, 2),),
    }
    plan = decide(owner, claim=downloaded_claim(owner), **fields)
    assert plan.verification is not None
    assert plan.verification.damage == "a is damaged"
    assert applied(plan, Kind.CLAIM)["spec"]["resources"]["requests"]["storage"] == "34Gi"

    def grown(capacity: str) -> Child:
        return live_claim(owner, plan.memory, size="34Gi", capacity=capacity)

    assert steps(decide(owner, claim=grown("10Gi"), **fields)) == []
    assert steps(decide(owner, claim=grown("34Gi"), **fields)) == ["delete Job"], "the next one knows the new size"

"""How large the claim of a ModelCache is, and when it grows."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from aiservice_api.v1alpha1 import ModelCacheSpec
from aiservice_operator import names
from aiservice_operator.desired.pvc import Memory, volume_size
from aiservice_operator.downloads import Measurement
from aiservice_operator.kinds import Json, Kind
from aiservice_operator.names import Mode
from aiservice_operator.observed import Cache
from aiservice_operator.states import claim as state_of
from support.cache_objects import (
    HUB,
    SIZED,
    applied,
    complete,
    decide,
    ended,
    environment,
    failed,
    live_claim,
    live_job,
    mine,
    steps,
)
from support.operator_objects import MODEL, NOW

COMMIT = "c" * 40
ATTEMPTED = "uid-download-1"


def words(reason: str, *, retryable: bool = False, **more: Any) -> str:
    return json.dumps({"status": "failed", "reason": reason, "message": "why", "retryable": retryable, **more})


# The size of what is not there yet.


def test_a_source_without_a_stated_size_is_asked_first() -> None:
    plan = decide(mine(MODEL))
    assert steps(plan) == ["apply Job"]
    body = applied(plan, Kind.JOB)
    assert environment(body)["AISERVICE_MODE"] == "measure"
    template = body["spec"]["template"]
    assert [volume["name"] for volume in template["spec"]["volumes"]] == ["tmp"], "nothing is written"
    assert names.CACHE_LABEL not in template["metadata"]["labels"]


def test_with_a_stated_size_the_claim_is_made_at_once() -> None:
    plan = decide(mine(SIZED))
    assert steps(plan) == ["apply PersistentVolumeClaim"]
    assert applied(plan, Kind.CLAIM)["spec"]["resources"]["requests"]["storage"] == "10Gi"


def measured(words: Json | None, spec: Json = HUB) -> Any:
    """The plan once a source has been asked."""
    owner = mine(spec)
    done = live_job(owner, complete(), mode=Mode.MEASURE)
    message = "" if words is None else json.dumps({"status": "ok", **words})
    return decide(owner, jobs=(done,), pods=(ended("uid-measure-1", message, code=0),))


def test_the_claim_gets_what_was_measured_and_a_margin_and_remembers_it() -> None:
    plan = measured({"bytes": 10 << 30, "files": 3, "revision": COMMIT})
    body = applied(plan, Kind.CLAIM)
    assert body["spec"]["resources"]["requests"]["storage"] == "12Gi"
    kept = json.loads(body["metadata"]["annotations"][names.MEASURED_ANNOTATION])
    assert kept == {
        "source": names.source_digest(ModelCacheSpec.model_validate(HUB)),
        "bytes": 10 << 30,
        "revision": COMMIT,
    }


@pytest.mark.parametrize(
    ("needed", "size"), [(0, "1Gi"), (1, "2Gi"), (10 * 2**30, "12Gi"), (6_900_000_000, "9Gi"), (2**41, "2254Gi")]
)
def test_the_margin_is_a_tenth_and_one_gib_in_whole_gib(needed: int, size: str) -> None:
    assert volume_size(needed) == size


@pytest.mark.parametrize("words", [{"bytes": None, "files": 3}, None], ids=["not told", "words lost"])
def test_a_source_that_does_not_tell_gets_a_usual_volume(words: Json | None) -> None:
    assert applied(measured(words), Kind.CLAIM)["spec"]["resources"]["requests"]["storage"] == "20Gi"


def test_of_what_is_packed_there_must_be_room_for_both() -> None:
    plan = measured({"bytes": None, "downloadBytes": 30 << 30, "files": 1})
    assert applied(plan, Kind.CLAIM)["spec"]["resources"]["requests"]["storage"] == "67Gi"
    plan = measured({"bytes": None, "downloadBytes": 1 << 30, "files": 1})
    assert applied(plan, Kind.CLAIM)["spec"]["resources"]["requests"]["storage"] == "20Gi"


def test_it_is_not_measured_twice_and_what_measured_it_goes() -> None:
    owner = mine(HUB)
    measurement = Measurement(source=names.source_digest(ModelCacheSpec.model_validate(HUB)), bytes=1, revision=COMMIT)
    plan = decide(
        owner,
        claim=live_claim(owner, Memory(measurement)),
        jobs=(live_job(owner, complete(), mode=Mode.MEASURE),),
    )
    assert steps(plan) == ["delete Job", "apply Job"]
    assert environment(applied(plan, Kind.JOB))["AISERVICE_MODE"] == "download"
    assert environment(applied(plan, Kind.JOB))["AISERVICE_REVISION"] == COMMIT, "what was measured is downloaded"


def test_a_claim_of_before_is_not_measured() -> None:
    owner = mine(MODEL)
    plan = decide(owner, claim=live_claim(owner))
    assert steps(plan) == ["apply Job"]
    assert environment(applied(plan, Kind.JOB))["AISERVICE_MODE"] == "download"


def test_a_source_that_cannot_be_measured_is_asked_again_later() -> None:
    owner = mine(MODEL)
    words = '{"status":"failed","reason":"Unreachable","message":"no answer","retryable":true}'
    lost: dict[str, Any] = {
        "jobs": (live_job(owner, failed(timedelta(seconds=30)), mode=Mode.MEASURE),),
        "pods": (ended("uid-measure-1", words),),
    }
    plan = decide(owner, **lost)
    assert (plan.actions, plan.again_at) == ((), NOW + timedelta(seconds=30))
    again = decide(owner, **lost, now=NOW + timedelta(minutes=1))
    assert steps(again) == ["apply Job", "delete Job"]
    assert environment(applied(again, Kind.JOB))["AISERVICE_MODE"] == "measure"


# Growing.


def too_large(owner: Cache, required: int, **claim: Any) -> dict[str, Any]:
    size = claim.get("size", "20Gi")
    known = live_claim(owner, **{"size": size, **claim})
    return {
        "claim": known,
        "jobs": (live_job(owner, failed(timedelta(), "PodFailurePolicy"), claim=state_of(known)),),
        "pods": (ended(ATTEMPTED, words("OutOfSpace", requiredBytes=required), 2),),
    }


def test_a_volume_that_turned_out_too_small_grows() -> None:
    owner = mine(MODEL)
    plan = decide(owner, **too_large(owner, 30 << 30))
    assert steps(plan) == ["apply PersistentVolumeClaim"]
    assert applied(plan, Kind.CLAIM)["spec"]["resources"]["requests"]["storage"] == "34Gi"


def test_one_whose_size_somebody_stated_does_not() -> None:
    owner = mine(SIZED)
    assert decide(owner, **too_large(owner, 30 << 30, size="10Gi")).actions == ()


def test_the_download_waits_for_the_volume_and_then_starts_again() -> None:
    owner = mine(MODEL)
    before = too_large(owner, 30 << 30)
    grown: dict[str, Any] = {"size": "34Gi", "capacity": "20Gi"}
    assert decide(owner, **{**before, "claim": live_claim(owner, **grown)}).actions == ()
    offline = [{"type": "FileSystemResizePending", "status": "True"}]
    for ready in (
        live_claim(owner, size="34Gi"),
        live_claim(owner, **grown, status={"conditions": offline}),  # it grows as soon as a pod mounts it
    ):
        assert steps(decide(owner, **{**before, "claim": ready})) == ["delete Job"]
    again = decide(owner, claim=live_claim(owner, size="34Gi"))
    assert environment(applied(again, Kind.JOB))["AISERVICE_CAPACITY_BYTES"] == str(34 << 30)


def test_a_claim_that_is_not_bound_cannot_grow_yet() -> None:
    waiting = live_claim(mine({**MODEL, "storage": {"size": "10Gi"}}), status={"phase": "Pending"})
    larger = mine({**MODEL, "storage": {"size": "20Gi"}})
    assert "apply PersistentVolumeClaim" not in steps(decide(larger, claim=waiting))
    bound = live_claim(mine({**MODEL, "storage": {"size": "10Gi"}}))
    assert "apply PersistentVolumeClaim" in steps(decide(larger, claim=bound))

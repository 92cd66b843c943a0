"""What is decided for a ModelCache, case by case."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from aiservice_api.v1alpha1 import ModelCacheSpec
from aiservice_operator import names
from aiservice_operator.desired.cache import inline_cache
from aiservice_operator.desired.common import wire
from aiservice_operator.desired.job import Attempt, Placement, job
from aiservice_operator.desired.pvc import pvc
from aiservice_operator.downloads import Proof
from aiservice_operator.kinds import Json, Key, Kind
from aiservice_operator.observed import Cache, Child, Service, parse
from aiservice_operator.plan import Apply, CachePlan, CacheView, Delete, plan_cache
from aiservice_operator.settings import Settings
from aiservice_operator.states import claim
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
    service,
    timestamp,
)

SPEC = ModelCacheSpec.model_validate(MODEL)
INLINE = names.cache_name(SPEC)
DIGEST = names.source_digest(SPEC)
REFERRING = {"model": None, "modelCacheRef": {"name": "mine"}}


def view(known: Cache | None, **fields: Any) -> CacheView:
    name = known.meta.name if known is not None else INLINE
    empty: dict[str, Any] = {"users": (), "claim": None, "jobs": (), "pods": ()}
    return CacheView(key=Key(Kind.MODEL_CACHE, NAMESPACE, name), cache=known, **{**empty, **fields})


def decide(known: Cache | None, *, now: datetime = NOW, settings: Settings = SETTINGS, **fields: Any) -> CachePlan:
    return plan_cache(view(known, **fields), settings, now)


def steps(plan: CachePlan) -> list[str]:
    """`apply Kind`, `delete Kind`, in order."""
    return [f"{'apply' if isinstance(action, Apply) else 'delete'} {action.identity.kind}" for action in plan.actions]


def inline(users: tuple[Service, ...], **fields: Any) -> Cache:
    """An inline cache as the operator has applied it for its users."""
    body = wire(inline_cache(NAMESPACE, INLINE, SPEC, [user.meta for user in users]))
    parsed = parse(Kind.MODEL_CACHE, {**body, "metadata": {**metadata(INLINE), **body["metadata"], **fields}})
    assert isinstance(parsed, Cache)
    return parsed


def live_claim(owner: Cache, proof: str = "", **fields: Any) -> Child:
    return live(Kind.CLAIM, wire(pvc(owner.meta, SPEC, proof, None)), {"phase": "Bound"}, uid="uid-claim", **fields)


def live_job(
    owner: Cache, status: Json | None = None, *, attempt: int = 1, settings: Settings = SETTINGS, **fields: Any
) -> Child:
    built = job(
        owner.meta,
        SPEC,
        claim(live_claim(owner)),
        placement=Placement({}, []),
        attempt=Attempt(attempt, 0),
        settings=settings,
    )
    return live(Kind.JOB, wire(built), status, uid=f"uid-job-{attempt}", **fields)


def failed_status(age: timedelta, reason: str = "BackoffLimitExceeded") -> Json:
    failed = condition("Failed", "True", reason, "Job has reached the specified backoff limit")
    return {"failed": 6, "conditions": [{**failed, "lastTransitionTime": timestamp(NOW - age)}]}


def ended(owner: str, message: str, code: int = 1, reason: str = "Error") -> Child:
    state = {"exitCode": code, "reason": reason, "message": message, "finishedAt": timestamp(NOW)}
    return pod("try", container_status("downloader", terminated=state), owner=owner, container="downloader")


# Whether it exists, and whose it is.


def test_a_model_stated_inline_gets_a_cache_that_all_who_state_it_own() -> None:
    (action,) = decide(None, users=(service("one"), service("two"))).actions
    assert isinstance(action, Apply)
    assert [owner["name"] for owner in action.body["metadata"]["ownerReferences"]] == ["one", "two"]
    assert action.body["metadata"]["finalizers"] == [names.FINALIZER]


@pytest.mark.parametrize(
    "users",
    [
        (),
        (service(spec=REFERRING),),
        (service(spec={"profile": "none-such"}),),
        (service(spec={"tasks": ["text-to-speech"]}),),
    ],
    ids=["nobody", "by reference", "unknown profile", "no engine"],
)
def test_nothing_is_made_for_those_who_state_no_model_or_cannot_be_served(users: tuple[Service, ...]) -> None:
    assert decide(None, users=users).actions == ()


def test_owners_come_and_go() -> None:
    one, two = service("one"), service("two")
    assert "apply ModelCache" not in steps(decide(inline((one,)), users=(one,)))
    assert steps(decide(inline((one,)), users=(one, two)))[0] == "apply ModelCache"
    assert steps(decide(inline((one, two)), users=(one,)))[0] == "apply ModelCache"


def test_what_nobody_uses_any_more_is_let_go_and_then_deleted_as_it_is_known() -> None:
    one = service("one")
    released = decide(inline((one,)))
    assert steps(released) == ["apply ModelCache"]
    (action,) = released.actions
    assert isinstance(action, Apply)
    assert action.body["metadata"]["finalizers"] == action.body["metadata"]["ownerReferences"] == []
    (action,) = decide(inline(())).actions
    assert isinstance(action, Delete)
    assert (action.uid, action.version) == (f"uid-{INLINE}", 1)
    going = inline((one,), deletionTimestamp=timestamp(NOW))
    assert steps(decide(going)) == ["apply ModelCache"]
    assert decide(inline((), deletionTimestamp=timestamp(NOW))).actions == ()


def test_one_that_is_deleted_while_in_use_keeps_all_it_has() -> None:
    one = service("one")
    going = inline((one,), deletionTimestamp=timestamp(NOW))
    proof = Proof(source=DIGEST).to_json()
    assert decide(going, users=(one,), claim=live_claim(going, proof)).actions == ()


def test_a_user_who_made_it_larger_by_hand_keeps_it_so() -> None:
    one = service("one")
    stated = {**inline((one,)).body["spec"], "storage": {"size": "50Gi"}}
    larger = parse(Kind.MODEL_CACHE, {**inline((one,)).body, "spec": stated})
    assert isinstance(larger, Cache)
    actions = decide(larger, users=(one,)).actions
    assert isinstance(actions[0], Apply)
    assert actions[0].body["spec"]["storage"]["size"] == "50Gi"


def test_a_cache_of_a_user_is_held_while_it_is_in_use_and_never_deleted() -> None:
    user = service(spec=REFERRING)
    held: dict[str, Any] = {"finalizers": [names.FINALIZER]}
    assert steps(decide(cache(), users=(user,)))[0] == "apply ModelCache"
    assert steps(decide(cache(**held), users=(user,))) == ["apply PersistentVolumeClaim"]
    assert steps(decide(cache(**held))) == ["apply ModelCache", "apply PersistentVolumeClaim"]
    going = cache(**held, deletionTimestamp=timestamp(NOW))
    assert steps(decide(going)) == ["apply ModelCache"]
    assert "apply ModelCache" not in steps(decide(cache(deletionTimestamp=timestamp(NOW)), users=(user,)))


def test_a_pvc_source_needs_nothing() -> None:
    assert decide(cache(spec={"pvc": {"claimName": "disk"}})).actions == ()


# Claim and download.


def test_the_claim_comes_first_and_the_job_knows_it() -> None:
    mine = cache()
    assert steps(decide(mine)) == ["apply PersistentVolumeClaim"]
    (action,) = decide(mine, claim=live_claim(mine)).actions
    assert isinstance(action, Apply)
    assert action.identity.kind is Kind.JOB
    assert action.body["metadata"]["annotations"][names.CLAIM_UID_ANNOTATION] == "uid-claim"


def test_a_job_that_is_there_is_left_alone() -> None:
    mine = cache()
    assert decide(mine, claim=live_claim(mine), jobs=(live_job(mine, {"active": 1}),)).actions == ()


def test_a_job_that_succeeded_is_proof_and_the_claim_keeps_it() -> None:
    mine = cache()
    done = live_job(mine, {"succeeded": 1, "conditions": [condition("Complete", "True")]})
    words = ended("uid-job-1", '{"status":"ok","bytes":7,"files":2,"revision":"c0ffee"}', code=0)
    plan = decide(mine, claim=live_claim(mine), jobs=(done,), pods=(words,))
    assert plan.proof == Proof(source=DIGEST, bytes=7, files=2, revision="c0ffee")
    (action,) = plan.actions
    assert isinstance(action, Apply)
    assert action.body["metadata"]["annotations"][names.DOWNLOAD_ANNOTATION] == plan.proof.to_json()
    assert decide(mine, claim=live_claim(mine, plan.proof.to_json()), jobs=(done,)).actions == ()


def test_a_job_whose_words_are_lost_is_proof_as_well() -> None:
    mine = cache()
    done = live_job(mine, {"succeeded": 1, "conditions": [condition("Complete", "True")]})
    assert decide(mine, claim=live_claim(mine), jobs=(done,)).proof == Proof(source=DIGEST)


def test_a_proven_download_is_not_repeated_when_its_job_is_gone() -> None:
    mine = cache()
    plan = decide(mine, claim=live_claim(mine, Proof(source=DIGEST, bytes=7).to_json()))
    assert plan.actions == ()
    assert plan.proof is not None


def test_the_proof_of_another_download_proves_nothing() -> None:
    mine = cache()
    plan = decide(mine, claim=live_claim(mine, Proof(source="other").to_json()))
    assert plan.proof is None
    assert "apply Job" in steps(plan)


def test_a_job_that_filled_another_claim_is_replaced() -> None:
    mine = cache()
    done = live_job(mine, {"succeeded": 1, "conditions": [condition("Complete", "True")]})
    plan = decide(mine, claim=live(Kind.CLAIM, live_claim(mine).body, {"phase": "Bound"}, uid="uid-new"), jobs=(done,))
    assert plan.proof is None
    assert steps(plan) == ["delete Job", "apply Job"]


def test_nothing_is_begun_on_a_claim_that_goes() -> None:
    mine = cache()
    going = live_claim(mine, deletionTimestamp=timestamp(NOW))
    assert decide(mine, claim=going).actions == ()
    assert steps(decide(mine, claim=going, jobs=(live_job(mine, {"active": 1}),))) == ["delete Job"]


def test_a_claim_of_an_owner_of_before_is_not_taken_for_ones_own() -> None:
    mine = cache()
    stranger = live_claim(cache(uid="uid-before"))
    plan = decide(mine, claim=stranger)
    assert steps(plan) == ["apply PersistentVolumeClaim"]
    assert isinstance(plan.actions[0], Apply)
    assert plan.actions[0].owner is mine.meta, "which makes the executor look first"


FAILED = '{"status":"failed","reason":"Unreachable","message":"no answer","retryable":true}'


@pytest.mark.parametrize(
    ("attempt", "age", "expected"),
    [
        (1, timedelta(seconds=59), []),
        (1, timedelta(seconds=61), ["apply Job", "delete Job"]),
        (3, timedelta(seconds=239), []),
        (3, timedelta(seconds=241), ["apply Job", "delete Job"]),
        (40, timedelta(minutes=59), []),
        (40, timedelta(minutes=61), ["apply Job", "delete Job"]),
    ],
)
def test_the_next_try_comes_later_each_time(attempt: int, age: timedelta, expected: list[str]) -> None:
    mine = cache()
    failed = live_job(mine, failed_status(age), attempt=attempt)
    plan = decide(mine, claim=live_claim(mine), jobs=(failed,), pods=(ended(f"uid-job-{attempt}", FAILED),))
    assert steps(plan) == expected
    assert (plan.retry_at is None) is bool(expected)
    if expected:
        assert isinstance(plan.actions[0], Apply)
        annotations = plan.actions[0].body["metadata"]["annotations"]
        assert annotations[names.ATTEMPT_ANNOTATION] == str(attempt + 1)
        assert annotations[names.EARLIER_PODS_ANNOTATION] == "6"


@pytest.mark.parametrize(
    "words",
    [
        ended("uid-job-1", '{"status":"failed","reason":"NotFound","message":"gone","retryable":false}', 2),
        ended("uid-job-1", "", 137, "OOMKilled"),
    ],
    ids=["not found", "out of memory"],
)
def test_what_another_try_cannot_mend_is_not_tried_again(words: Child) -> None:
    mine = cache()
    failed = live_job(mine, failed_status(timedelta(days=2), "PodFailurePolicy"))
    plan = decide(mine, claim=live_claim(mine), jobs=(failed,), pods=(words,))
    assert plan.actions == ()
    assert plan.retry_at is None
    assert plan.failed is not None


def test_a_failed_job_without_its_pods_is_judged_by_its_own_condition() -> None:
    mine = cache()
    for reason, retryable in (("PodFailurePolicy", False), ("BackoffLimitExceeded", True)):
        plan = decide(mine, claim=live_claim(mine), jobs=(live_job(mine, failed_status(timedelta(), reason)),))
        assert plan.failed is not None
        assert plan.failed.retryable is retryable


def test_a_job_that_would_be_made_otherwise_is_replaced_unless_it_runs() -> None:
    mine = cache()
    download = SETTINGS.download.model_copy(update={"image": "example.test/downloader:2"})
    newer = SETTINGS.model_copy(update={"download": download})
    fields: dict[str, Any] = {"claim": live_claim(mine), "jobs": (live_job(mine, {"active": 1}),), "settings": newer}
    assert steps(decide(mine, **fields)) == ["delete Job"]
    running = pod("p", container_status("downloader", running={}), owner="uid-job-1", container="downloader")
    assert decide(mine, **fields, pods=(running,)).actions == ()


def test_the_download_runs_where_its_users_can() -> None:
    mine = cache()
    user = service(spec={**REFERRING, "profile": "nvidia-l4"})
    plan = decide(cache(finalizers=[names.FINALIZER]), users=(user,), claim=live_claim(mine))
    (action,) = plan.actions
    assert isinstance(action, Apply)
    template = action.body["spec"]["template"]["spec"]
    assert template["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}
    assert template["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "nvidia.com/gpu" not in template["containers"][0]["resources"]["limits"]


def test_users_who_exclude_each_other_get_no_download() -> None:
    users = tuple(
        service(name, {**REFERRING, "profile": profile}) for name, profile in (("l", "nvidia-l4"), ("t", "nvidia-t4"))
    )
    held: dict[str, Any] = {"finalizers": [names.FINALIZER]}
    plan = decide(cache(**held), users=users, claim=live_claim(cache()))
    assert plan.actions == ()
    assert "AIService l runs on nodes with nvidia.com/gpu.product=NVIDIA-L4" in plan.conflict
    many = {**MODEL, "storage": {"accessMode": "ReadWriteMany"}}
    assert decide(cache(spec=many, **held), users=users).conflict == ""

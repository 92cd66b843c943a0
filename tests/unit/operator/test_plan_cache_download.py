"""What is decided for the claim and the download of a ModelCache, case by case."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from aiservice_api.v1alpha1 import ModelCacheSpec
from aiservice_operator import names
from aiservice_operator.desired.pvc import Memory
from aiservice_operator.downloads import Proof
from aiservice_operator.kinds import Json, Kind
from aiservice_operator.observed import Child, Service
from aiservice_operator.plan import Apply
from support.cache_objects import (
    DIGEST,
    HOUR,
    HUB,
    PROOF,
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
    steps,
)
from support.operator_objects import MODEL, NOW, SETTINGS, child, container_status, live, pod, service, timestamp

COMMIT = "c" * 40
ATTEMPTED = "uid-download-1"


def settings(**download: Any) -> Any:
    return SETTINGS.model_copy(update={"download": SETTINGS.download.model_copy(update=download)})


# The claim and the Job.


def test_the_claim_comes_first_and_the_job_knows_it() -> None:
    body = applied(decide(mine(), claim=live_claim(mine())), Kind.JOB)
    assert body["metadata"]["annotations"][names.CLAIM_UID_ANNOTATION] == "uid-claim"
    assert body["spec"]["template"]["metadata"]["labels"][names.CACHE_LABEL] == "mine"


def test_a_job_that_is_there_is_left_alone() -> None:
    assert decide(mine(), claim=live_claim(mine()), jobs=(live_job(mine(), {"active": 1}),)).actions == ()


def test_a_job_that_succeeded_is_proof_and_the_claim_keeps_it() -> None:
    owner = mine(HUB)
    words = ended(ATTEMPTED, '{"status":"ok","bytes":7,"files":2,"revision":"c0ffee"}', code=0)
    fields: dict[str, Any] = {"jobs": (live_job(owner, complete()),)}
    plan = decide(owner, claim=live_claim(owner), **fields, pods=(words,))
    source = names.source_digest(ModelCacheSpec.model_validate(HUB))
    assert plan.proof == Proof(source=source, bytes=7, files=2, revision="c0ffee")
    assert plan.verification is not None
    assert plan.verification.at == NOW - timedelta(minutes=1), "when the Job was complete"
    body = applied(plan, Kind.CLAIM)
    assert body["metadata"]["annotations"][names.DOWNLOAD_ANNOTATION] == plan.proof.to_json()
    kept = decide(owner, claim=live_claim(owner, plan.memory), **fields)
    assert (kept.actions, kept.memory) == ((), plan.memory)


def test_a_job_whose_words_are_lost_is_proof_as_well() -> None:
    plan = decide(mine(), claim=live_claim(mine()), jobs=(live_job(mine(), complete()),))
    assert plan.proof == Proof(source=DIGEST)


def test_a_proven_download_is_not_repeated_when_its_job_is_gone() -> None:
    plan = decide(mine(), claim=downloaded_claim(mine()))
    assert plan.actions == ()
    assert plan.proof is not None


def test_the_proof_of_another_download_proves_nothing() -> None:
    plan = decide(mine(), claim=live_claim(mine(), Memory(None, Proof(source="other"))))
    assert plan.proof is None
    assert "apply Job" in steps(plan)


def test_a_job_that_filled_another_claim_is_replaced() -> None:
    plan = decide(mine(), claim=live_claim(mine(), uid="uid-new"), jobs=(live_job(mine(), complete()),))
    assert plan.proof is None
    assert steps(plan) == ["delete Job", "apply Job"]


def test_nothing_is_begun_on_a_claim_that_goes() -> None:
    going = live_claim(mine(), deletionTimestamp=timestamp(NOW))
    assert decide(mine(), claim=going).actions == ()
    assert steps(decide(mine(), claim=going, jobs=(live_job(mine(), {"active": 1}),))) == ["delete Job"]


def test_a_claim_of_an_owner_of_before_is_not_taken_for_ones_own() -> None:
    owner = mine()
    plan = decide(owner, claim=live_claim(mine(uid="uid-before")))
    assert (steps(plan), plan.claim) == (["apply PersistentVolumeClaim"], None)
    assert isinstance(plan.actions[0], Apply)
    assert plan.actions[0].owner is owner.meta, "which makes the executor look first"


def test_a_job_that_would_be_made_otherwise_is_replaced_unless_it_runs() -> None:
    fields: dict[str, Any] = {
        "claim": live_claim(mine()),
        "jobs": (live_job(mine(), {"active": 1}),),
        "settings": settings(image="example.test/downloader:2"),
    }
    assert steps(decide(mine(), **fields)) == ["delete Job"]
    running = pod("p", container_status("downloader", running={}), owner=ATTEMPTED, container="downloader")
    assert decide(mine(), **fields, pods=(running,)).actions == ()


def test_other_hosts_in_the_allow_list_make_another_job() -> None:
    fields: dict[str, Any] = {"claim": live_claim(mine()), "jobs": (live_job(mine(), failed(timedelta())),)}
    refused = ended(ATTEMPTED, words("ForbiddenAddress"), 2)
    assert decide(mine(), **fields, pods=(refused,)).actions == ()
    plan = decide(mine(), **fields, pods=(refused,), settings=settings(allowed_hosts=["10.0.0.0/8"]))
    assert steps(plan) == ["delete Job"]


# Tries.


def words(reason: str, *, retryable: bool = False, **more: Any) -> str:
    return json.dumps({"status": "failed", "reason": reason, "message": "why", "retryable": retryable, **more})


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
    lost = live_job(mine(), failed(age), attempt=attempt)
    said = ended(f"uid-download-{attempt}", words("Unreachable", retryable=True))
    plan = decide(mine(), claim=live_claim(mine()), jobs=(lost,), pods=(said,))
    assert steps(plan) == expected
    assert (plan.again_at is None) is bool(expected)
    if expected:
        annotations = applied(plan, Kind.JOB)["metadata"]["annotations"]
        assert annotations[names.ATTEMPT_ANNOTATION] == str(attempt + 1)
        assert annotations[names.EARLIER_PODS_ANNOTATION] == "6"


@pytest.mark.parametrize(
    "lost",
    [ended(ATTEMPTED, words("NotFound"), 2), ended(ATTEMPTED, "", 137, "OOMKilled")],
    ids=["not found", "out of memory"],
)
def test_what_another_try_cannot_mend_is_not_tried_again(lost: Child) -> None:
    job = live_job(mine(), failed(timedelta(days=2), "PodFailurePolicy"))
    plan = decide(mine(), claim=live_claim(mine()), jobs=(job,), pods=(lost,))
    assert (plan.actions, plan.again_at) == ((), None)
    assert plan.failed is not None


def test_a_failed_job_without_its_pods_is_judged_by_its_own_condition() -> None:
    for reason, retryable in (("PodFailurePolicy", False), ("BackoffLimitExceeded", True)):
        plan = decide(mine(), claim=live_claim(mine()), jobs=(live_job(mine(), failed(timedelta(), reason)),))
        assert plan.failed is not None
        assert plan.failed.retryable is retryable


def test_a_pod_that_its_node_stopped_failed_for_the_nodes_reason() -> None:
    evicted = ended(ATTEMPTED, words("Interrupted", retryable=True), 1)
    body = {**evicted.body, "status": {**evicted.body["status"], "reason": "Evicted", "message": "low on memory"}}
    plan = decide(
        mine(), claim=live_claim(mine()), jobs=(live_job(mine(), failed(timedelta())),), pods=(child(Kind.POD, body),)
    )
    assert plan.failed is not None
    assert (plan.failed.failure.reason, plan.failed.retryable) == ("Evicted", True)
    assert "low on memory" in plan.failed.failure.message


def test_other_tries_take_the_revision_that_the_first_one_found() -> None:
    owner = mine({**HUB, "storage": {"size": "10Gi"}})
    first = live_job(owner, failed(timedelta(hours=2)))
    said = ended(ATTEMPTED, words("Unreachable", retryable=True, revision=COMMIT))
    plan = decide(owner, claim=live_claim(owner), jobs=(first,), pods=(said,))
    second = applied(plan, Kind.JOB)
    assert environment(second)["AISERVICE_REVISION"] == COMMIT
    assert "AISERVICE_REVISION" not in environment(first.body)
    # The second is as it should be, and the third goes on with its revision.
    known = live(Kind.JOB, second, failed(timedelta(hours=2)), uid="uid-download-2")
    plan = decide(owner, claim=live_claim(owner), jobs=(known,), pods=())
    assert environment(applied(plan, Kind.JOB))["AISERVICE_REVISION"] == COMMIT


# Credentials.

GATED: Json = {**HUB, "storage": {"size": "10Gi"}}
OPENED: list[tuple[Json, Json]] = [
    (
        {"huggingFace": {"repo": "o/m", "tokenSecretRef": {"name": "s", "key": "t"}}},
        {"HF_TOKEN": {"secretKeyRef": {"name": "s", "key": "t"}}},
    ),
    (
        {"s3": {"bucket": "models", "credentialsSecretRef": {"name": "s"}}},
        {
            "AWS_ACCESS_KEY_ID": {"secretKeyRef": {"name": "s", "key": "AWS_ACCESS_KEY_ID"}},
            "AWS_SECRET_ACCESS_KEY": {"secretKeyRef": {"name": "s", "key": "AWS_SECRET_ACCESS_KEY"}},
            "AWS_SESSION_TOKEN": {"secretKeyRef": {"name": "s", "key": "AWS_SESSION_TOKEN", "optional": True}},
        },
    ),
    (
        {"oci": {"image": "registry.test/m:1", "pullSecretRef": {"name": "s"}}},
        {"DOCKER_AUTH_CONFIG": {"secretKeyRef": {"name": "s", "key": ".dockerconfigjson"}}},
    ),
]


@pytest.mark.parametrize(("source", "expected"), OPENED, ids=["huggingFace", "s3", "oci"])
def test_the_download_is_given_the_secret_and_the_source_does_not_name_it(source: Json, expected: Json) -> None:
    variables = environment(applied(decide(mine(source)), Kind.JOB))
    assert {name: value for name, value in variables.items() if isinstance(value, dict)} == expected
    assert "SecretRef" not in variables["AISERVICE_SOURCE"]
    (kind,) = source
    assert set(json.loads(variables["AISERVICE_SOURCE"])) == {kind}


def test_another_content_of_the_secret_makes_another_job() -> None:
    owner = mine(GATED)
    lost = live_job(owner, failed(timedelta()), secret="before")
    fields: dict[str, Any] = {
        "claim": live_claim(owner),
        "jobs": (lost,),
        "pods": (ended(ATTEMPTED, words("Unauthorized"), 2),),
    }
    assert decide(owner, **fields, secret="before").actions == ()
    assert steps(decide(owner, **fields, secret="after")) == ["delete Job"]
    again = decide(owner, claim=live_claim(owner), secret="after")
    assert applied(again, Kind.JOB)["metadata"]["name"] != lost.meta.name


# Where it runs (more in test_plan_cache_placement).


def test_the_download_runs_where_its_users_can() -> None:
    user = service(spec={"model": None, "modelCacheRef": {"name": "mine"}, "profile": "nvidia-l4"})
    known = mine(finalizers=[names.FINALIZER])
    template = applied(decide(known, users=(user,), claim=live_claim(known)), Kind.JOB)["spec"]["template"]["spec"]
    assert template["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}
    assert template["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "nvidia.com/gpu" not in template["containers"][0]["resources"]["limits"]


HELD: dict[str, Any] = {"finalizers": [names.FINALIZER]}


def torn(first: Json | None = None, second: Json | None = None) -> tuple[Service, Service]:
    """Two users that no node can serve together, with what else their specs say."""
    of_mine = {"model": None, "modelCacheRef": {"name": "mine"}}
    return (
        service("l", {**of_mine, "profile": "nvidia-l4", **(first or {})}),
        service("t", {**of_mine, "profile": "nvidia-t4", **(second or {})}),
    )


def test_users_who_exclude_each_other_get_no_download() -> None:
    plan = decide(mine(**HELD), users=torn(), claim=live_claim(mine()))
    assert plan.actions == ()
    assert "AIService l runs on nodes with nvidia.com/gpu.product=NVIDIA-L4" in plan.conflict
    plan = decide(mine(MODEL, **HELD), users=torn())
    assert (plan.actions, bool(plan.conflict)) == ((), True), "nor is it measured"


@pytest.mark.parametrize("none", [{"suspend": True}, {"replicas": 0}, {"tasks": ["image-to-text"]}], ids=str)
def test_one_who_has_no_pods_to_run_keeps_nobody_from_the_download(none: Json) -> None:
    users = torn(second=none)
    plan = decide(mine(**HELD), users=users, claim=live_claim(mine()))
    assert plan.conflict == ""
    template = applied(plan, Kind.JOB)["spec"]["template"]["spec"]
    assert template["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}
    alone = decide(mine(**HELD), users=users[1:], claim=live_claim(mine()))
    template = applied(alone, Kind.JOB)["spec"]["template"]["spec"]
    assert template["nodeSelector"] == {"nvidia.com/gpu.product": "Tesla-T4"}, "its place is kept where it can be"
    assert decide(mine(**HELD), users=torn(none, none), claim=live_claim(mine())).conflict


def test_files_that_are_there_serve_those_who_can_be_where_they_are() -> None:
    owner = mine({**SIZED, "verify": "Always"}, **HELD)
    plan = decide(owner, users=torn(), claim=downloaded_claim(owner, verified=25 * HOUR))
    assert (plan.conflict, plan.proof is not None) == ("", True)
    verifying = applied(plan, Kind.JOB)["spec"]["template"]["spec"]
    assert "nodeSelector" not in verifying, "the volume knows its node"
    assert verifying["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert list(verifying["affinity"]) == ["podAffinity"]


@pytest.mark.parametrize("phase", ["Pending", "Lost"])
def test_a_proof_without_a_volume_is_no_place_to_be(phase: str) -> None:
    owner = mine(**HELD)
    proven = live_claim(owner, Memory(None, PROOF), status={"phase": phase})
    assert decide(owner, users=torn(), claim=proven).conflict


def test_a_volume_for_one_node_has_its_pods_together() -> None:
    body = applied(decide(mine(), claim=live_claim(mine())), Kind.JOB)["spec"]["template"]["spec"]
    (term,) = body["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term == {
        "labelSelector": {"matchLabels": {names.CACHE_LABEL: "mine"}},
        "topologyKey": "kubernetes.io/hostname",
    }
    many = mine({**SIZED, "storage": {"size": "10Gi", "accessMode": "ReadWriteMany"}})
    body = applied(decide(many, claim=live_claim(many)), Kind.JOB)["spec"]["template"]["spec"]
    assert "affinity" not in body

"""What the status of a ModelCache says in words, and what to do about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from aiservice_operator.desired.pvc import Memory
from aiservice_operator.downloads import Measurement, Verification
from aiservice_operator.failures import Failure
from aiservice_operator.kinds import Json, Kind, ObjectId
from aiservice_operator.observed import Child
from aiservice_operator.plan import CachePlan, Refusal
from aiservice_operator.plan.tries import FailedTry
from aiservice_operator.states import cache_job
from aiservice_operator.status import CacheFacts
from support.cache_statuses import (
    AT,
    BROKEN,
    CACHED,
    CASES,
    CHECK,
    CONSUMER,
    DAMAGE,
    DISK,
    FAILED_TRY,
    GONE,
    LARGE,
    LOST,
    PROOF,
    REFUSED,
    WAITING_POD,
    claim,
    job,
    message,
    status_of,
    told,
)
from support.operator_objects import MODEL, NAMESPACE, NOW, cache, condition, live, service


def test_the_message_says_when_it_is_tried_again_or_how() -> None:
    again = NOW + timedelta(minutes=2)
    retryable = FailedTry(Failure("Unreachable", "no answer", "Pod/try", NOW), retryable=True)
    planned = status_of(plan=CachePlan(job=GONE, failed=retryable, again_at=again))
    assert message(planned, "Downloaded") == (
        "no answer. The next try is at 12:02:00 UTC; delete Job job to try at once."
    )
    given_up = status_of(plan=CachePlan(job=GONE, failed=LOST))
    assert message(given_up, "Downloaded") == (
        "404. Another try would not help: mend it, then delete Job job to try again."
    )
    between = status_of(plan=CachePlan(job=job()), pods=(FAILED_TRY,))
    assert message(between, "Downloaded") == "no answer. It is being tried again."


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ({"huggingFace": {"repo": "o/m"}}, "Name a Secret with credentials in huggingFace.tokenSecretRef"),
        ({"s3": {"bucket": "models"}}, "Name a Secret with credentials in s3.credentialsSecretRef"),
        ({"oci": {"image": "r.test/m:1"}}, "Name a Secret with credentials in oci.pullSecretRef"),
        ({"oci": {"image": "r.test/m:1", "pullSecretRef": {"name": "login"}}}, "Correct Secret login, or name another"),
        (MODEL, "mend it, then delete Job job"),
    ],
)
def test_what_is_not_let_in_is_told_which_secret_to_correct(source: Json, advice: str) -> None:
    refused = FailedTry(Failure("Unauthorized", "401", "Pod/try", NOW), retryable=False)
    assert advice in message(status_of(cache(spec=source), CachePlan(job=GONE, failed=refused)), "Downloaded")


@pytest.mark.parametrize(
    ("pinned", "asked", "told_so"), [("c0ffee", "c0ffee", True), ("c0ffee", "", False), (None, "c0ffee", False)]
)
def test_a_pinned_revision_that_is_gone_is_told_with_what_lets_go_of_it(
    pinned: str | None, asked: str, told_so: bool
) -> None:
    """Another Job would ask for the same one: the claim remembers it."""
    memory = Memory(Measurement(source="s", bytes=5, revision=pinned))
    plan = CachePlan(memory=memory, job=replace(GONE, revision=asked), failed=LOST)
    said = message(status_of(plan=plan), "Downloaded")
    assert ("is revision c0ffee, pinned" in said and "delete PersistentVolumeClaim mine" in said) == told_so
    assert ("delete Job job to try again" in said) != told_so


def test_where_no_secret_is_read_a_corrected_one_is_not_promised_to_be_seen() -> None:
    refused = FailedTry(Failure("Unauthorized", "401", "Pod/try", NOW), retryable=False)
    private = cache(spec={"oci": {"image": "r.test/m:1", "pullSecretRef": {"name": "login"}}})
    unread = CacheFacts(secrets_followed=False)
    said = message(status_of(private, CachePlan(job=GONE, failed=refused), unread), "Downloaded")
    assert "Correct Secret login and delete Job job, or name another Secret" in said
    assert "within a minute" not in said
    checked = CachePlan(memory=CACHED, check=CHECK, check_failed=refused)
    assert "delete Job" in message(status_of(private, checked, unread), "Verified")


def test_who_refuses_a_pod_is_told_with_where_to_look() -> None:
    status = status_of(**CASES["pod refused"][0])
    said = message(status, "Downloaded")
    assert said.startswith("pods cannot be created: exceeded quota: tight. `kubectl describe resourcequota,")
    assert status.last_failure is not None
    assert status.last_failure.object == "Job/job"


@pytest.mark.parametrize("bound", [True, False])
def test_the_nodes_that_a_download_needs_are_named(bound: bool) -> None:
    """On most clusters the first fault is that no node has the label of the profile."""
    users = (service("a", {"profile": "nvidia-l4"}), service("b", {"profile": "nvidia-l4"}))
    where = {"nvidia.com/gpu.product": "NVIDIA-L4"}
    made = cache_job(
        live(Kind.JOB, {"metadata": {"name": "job"}, "spec": {"template": {"spec": {"nodeSelector": where}}}})
    )
    facts = CacheFacts() if bound else CacheFacts(claim_event=CONSUMER)
    volume = claim() if bound else claim("Pending")
    status = status_of(plan=CachePlan(job=made), users=users, pods=(WAITING_POD,), claim=volume, facts=facts)
    said = message(status, "Downloaded" if bound else "StorageBound")
    assert "It needs a node with nvidia.com/gpu.product=NVIDIA-L4 (profile nvidia-l4). Make room on a node" in said
    assert said.count("It needs") == 1


def test_an_address_that_is_not_allowed_is_tried_again_when_it_is() -> None:
    refused = FailedTry(Failure("ForbiddenAddress", "10.0.0.1", "Pod/try", NOW), retryable=False)
    assert "download.allowedHosts" in message(status_of(plan=CachePlan(job=GONE, failed=refused)), "Downloaded")


def test_a_volume_that_is_too_small_is_told_with_the_size_that_would_do() -> None:
    plan = CachePlan(job=GONE, failed=LARGE)
    stated = cache(spec={**MODEL, "storage": {"size": "20Gi"}})
    assert message(status_of(stated, plan), "Downloaded") == (
        "too large. Set storage.size to 34Gi: the download then starts again."
    )
    refused = (Refusal(ObjectId(Kind.CLAIM, NAMESPACE, "mine"), "storageclass must support resize"),)
    said = message(status_of(plan=plan, refusals=refused), "Downloaded")
    assert "PersistentVolumeClaim mine cannot grow to 34Gi: storageclass must support resize" in said
    assert "allowVolumeExpansion: true" in said
    assert "set storage.size to 34Gi and delete the claim" in said
    enough = status_of(plan=plan, claim=claim(size="40Gi", capacity="40Gi"))
    assert "40Gi should do, and do not: set storage.size to more" in message(enough, "Downloaded")
    fault = status_of(**CASES["does not grow"][0])
    assert "does not grow to 34Gi: disk is full" in message(fault, "Downloaded")


def test_an_inline_cache_gets_its_size_where_it_is_no_other_cache() -> None:
    """In the AIService another size is another model text, so another cache and another download."""
    ours, there = cache("mc-1", {**MODEL, "storage": {"size": "20Gi"}}, ours=True), "there: in the AIService"
    plan = CachePlan(job=GONE, failed=LARGE)
    said = message(status_of(ours, plan), "Downloaded")
    assert said.startswith("too large. Set spec.storage.size of ModelCache mc-1 to 34Gi (there: in the AIService")
    assert said.endswith("the download then starts again.")
    refused = (Refusal(ObjectId(Kind.CLAIM, NAMESPACE, "mc-1"), "no resize"),)
    enough = claim(size="40Gi", capacity="40Gi")
    assert there in message(status_of(ours, plan, refusals=refused), "Downloaded")
    assert there in message(status_of(cache("mc-1", ours=True), plan, claim=enough), "Downloaded")
    assert there in message(status_of(ours, plan, claim=None), "Downloaded")
    small = CachePlan(memory=DAMAGE, check=CHECK, check_failed=replace(BROKEN, required_bytes=30 << 30))
    assert there in message(status_of(ours, small), "Verified")


def test_a_size_that_was_guessed_is_told() -> None:
    unknown = CachePlan(memory=Memory(Measurement(source="s")))
    assert "with 20Gi, since its source does not tell" in message(status_of(plan=unknown), "StorageBound")
    assert "source" not in message(status_of(plan=CachePlan(memory=CACHED)), "StorageBound")


def test_a_claim_that_cannot_be_changed_is_bound_all_the_same() -> None:
    status = status_of(plan=CachePlan(memory=CACHED), refusals=REFUSED)
    assert told(status)["StorageBound"] == ("True", "Bound")
    assert "it stays as it is: exceeded quota" in message(status, "StorageBound")


def test_a_volume_that_nodes_cannot_share_is_told_the_other_way() -> None:
    fields, _ = CASES["shared volumes that nobody makes"]
    assert "storage.accessMode ReadWriteOnce keeps all its pods on one node" in message(
        status_of(**fields), "StorageBound"
    )
    assert "accessMode" not in message(status_of(**CASES["no such class"][0]), "StorageBound")


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        (["ReadWriteOnce"], "ReadWriteOnce"),
        (["ReadWriteOnce", "ReadWriteMany"], "ReadWriteMany"),
        (["ReadWriteOncePod"], "ReadWriteOncePod"),
        (["ReadWriteOnce", "ReadOnlyMany"], "ReadOnlyMany"),
        ([], None),
    ],
)
def test_the_mode_of_a_claim_is_the_one_that_most_nodes_can_use(modes: list[str], expected: str | None) -> None:
    disk = claim(name="disk", modes=modes)
    assert status_of(cache(spec=DISK), facts=CacheFacts(source_claim=disk)).access_mode == expected


def test_damage_is_told_with_what_to_do() -> None:
    waits = message(status_of(**CASES["damaged"][0]), "Verified")
    assert waits.startswith("a is damaged. Mend the source, then give annotation aiservice.dev/verify")
    assert "delete PersistentVolumeClaim mine" in waits
    later = replace(BROKEN, retryable=True)
    tried = status_of(plan=CachePlan(memory=DAMAGE, check=CHECK, check_failed=later))
    assert "Fetching them again is tried later" in message(tried, "Verified")
    assert tried.last_failure is not None
    assert tried.last_failure.reason == "ChecksumMismatch"


@pytest.mark.parametrize(
    ("live", "expected"),
    [
        (claim(), "Set storage.size to 34Gi, and they are fetched again where the StorageClass expands volumes, or"),
        (claim(size="34Gi"), "PersistentVolumeClaim mine grows to 34Gi, and they are fetched again: wait for that, or"),
        (
            claim(size="34Gi", conditions=[condition("ControllerResizeError", "True", "Quota", "disk is full")]),
            "PersistentVolumeClaim mine does not grow to 34Gi: disk is full. Mend that, or",
        ),
    ],
)
def test_damage_that_finds_no_room_is_told_with_what_gives_it(live: Child, expected: str) -> None:
    small = replace(BROKEN, required_bytes=30 << 30)
    told = status_of(claim=live, plan=CachePlan(memory=DAMAGE, check=CHECK, check_failed=small))
    assert f"a is damaged. {expected} delete PersistentVolumeClaim mine" in message(told, "Verified")
    ready = next(item for item in told.conditions if item.type == "Ready")
    assert (ready.status.value, ready.reason) == ("False", "ChecksumMismatch")


def test_repaired_files_are_named() -> None:
    said = message(status_of(**CASES["repaired"][0]), "Verified")
    assert "fetched again: a, b. Pods that started before" in said
    many = Verification(at=AT, repaired=("a",), repaired_files=3)
    said = message(status_of(plan=CachePlan(memory=Memory(None, PROOF, many))), "Verified")
    assert "fetched again: a and 2 more. Pods" in said


def test_what_kept_a_verification_from_being_done_is_told_beside_what_is_known() -> None:
    said = message(status_of(**CASES["not verified"][0]), "Verified")
    assert said.startswith("every file had its size and digest at 2026-11-23 11:00:00 UTC; comparing them again failed")


def test_the_pinned_revision_shows_while_it_is_downloaded() -> None:
    pinned = CachePlan(job=job(), memory=Memory(Measurement(source="s", bytes=5, revision="c0ffee")))
    assert status_of(plan=pinned).revision == "c0ffee"


def test_of_a_download_that_is_gone_no_numbers_are_told() -> None:
    cached = status_of(plan=CachePlan(job=job(), memory=CACHED))
    anew = status_of(cache(status=cached.to_wire()), CachePlan(job=job()))
    assert anew.download is not None
    assert (anew.download.bytes_done, anew.download.progress) == (0, "")


def test_since_when_nobody_uses_it() -> None:
    assert status_of(plan=CachePlan(unused_since=AT)).unused_since == AT

"""What operator and downloader say to each other; tests/data/contract holds it, and the downloader's tests read it."""

from __future__ import annotations

import json
import os

import pytest
from pydantic import BaseModel

from aiservice_api.v1alpha1 import ModelCacheSpec
from aiservice_operator.desired.common import wire
from aiservice_operator.desired.job import Attempt, Placement, Task, job
from aiservice_operator.downloads import Failure, Progress, Success, parse_failure, parse_progress, parse_success
from aiservice_operator.kinds import Json, Kind
from aiservice_operator.names import Mode
from aiservice_operator.plan.verification import DAMAGED
from aiservice_operator.states import claim
from support.cluster import REPOSITORY
from support.full_manifests import MODELS
from support.operator_objects import SETTINGS, cache, live

CONTRACT = REPOSITORY / "tests/data/contract"
WORDS: Json = json.loads((CONTRACT / "words.json").read_text())
DOWNLOAD = SETTINGS.download.model_copy(
    update={
        "allowed_hosts": ["minio.storage.svc", "10.1.0.0/16"],
        "denied_networks": ["2001:db8:42::/48"],
        "env": {"HTTP_PROXY": "http://proxy.test:3128", "HTTPS_PROXY": "http://proxy.test:3128", "NO_PROXY": ".svc"},
    }
)
CLAIM = claim(
    live(
        Kind.CLAIM,
        {"metadata": {"name": "mine"}, "spec": {"resources": {"requests": {"storage": "40Gi"}}}},
        uid="uid-claim",
    )
)
TASKS = {
    "hub": (Task(Mode.DOWNLOAD, CLAIM), "c" * 40),
    "bucket": (Task(Mode.MEASURE), ""),
    "files": (Task(Mode.VERIFY, CLAIM, since="yesterday"), ""),
    "image": (Task(Mode.VERIFY, CLAIM, since="yesterday"), f"sha256:{'d' * 64}"),
}
"""By the names of `MODELS`, which state every field that a source has."""


def environment(name: str) -> Json:
    """The variables of a Job: those with values, and the names of those that a Secret gives."""
    task, revision = TASKS[name]
    spec = ModelCacheSpec.model_validate(MODELS[name])
    settings = SETTINGS.model_copy(update={"download": DOWNLOAD})
    attempt = Attempt(1, 0, revision)
    body = wire(job(cache("mine").meta, spec, task, placement=Placement(), attempt=attempt, settings=settings))
    (container,) = body["spec"]["template"]["spec"]["containers"]
    values = {item["name"]: item["value"] for item in container["env"] if "value" in item}
    return {"values": values, "secrets": [item["name"] for item in container["env"] if "value" not in item]}


def test_jobs_tell_the_downloader_what_its_tests_read() -> None:
    file, built = CONTRACT / "jobs.json", {name: environment(name) for name in TASKS}
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(json.dumps(built, indent=2) + "\n")
    assert built == json.loads(file.read_text())


def test_every_source_that_is_downloaded_is_in_the_contract() -> None:
    sources = [next(iter(MODELS[name])) for name in TASKS]
    assert sorted(sources) == sorted(set(names_of(ModelCacheSpec)) & {"huggingFace", "s3", "http", "oci"})
    assert [next(iter(model)) for name, model in MODELS.items() if name not in TASKS] == ["pvc"]
    assert {task.mode for task, _ in TASKS.values()} == set(Mode)


def names_of(model: type[BaseModel]) -> set[str]:
    """The fields of a message, as they are spelt."""
    return {field.alias or name for name, field in model.model_fields.items()}


def test_every_field_that_is_read_is_one_that_the_downloader_writes() -> None:
    successes = [WORDS[name] for name in ("downloaded", "measured", "verified")]
    assert names_of(Progress) <= set(WORDS["progress"])
    assert names_of(Success) <= {field for message in successes for field in message}
    assert names_of(Failure) <= set(WORDS["failed"])
    assert {"OutOfSpace", "Unauthorized", "ForbiddenAddress", DAMAGED} <= set(WORDS["reasons"])


def test_progress_is_read_as_it_was_meant() -> None:
    assert parse_progress(json.dumps(WORDS["progress"])) == Progress(
        event="progress", bytes_done=1400, bytes_total=6000, bytes_per_second=500, eta_seconds=10
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("downloaded", Success(status="ok", bytes=6000, files=2, revision="c" * 40)),
        ("measured", Success(status="ok", bytes=6000, files=2, revision="c" * 40, download_bytes=4000)),
        ("verified", Success(status="ok", bytes=6000, files=2, repaired=("a", "b"), repaired_files=2)),
    ],
)
def test_last_words_of_success_are_read_as_they_were_meant(name: str, expected: Success) -> None:
    assert parse_success(json.dumps(WORDS[name])) == expected


def test_last_words_of_failure_are_read_as_they_were_meant() -> None:
    assert parse_failure(json.dumps(WORDS["failed"])) == Failure(
        status="failed",
        reason="OutOfSpace",
        message="The volume is full.",
        retryable=False,
        required_bytes=9000,
        revision="c" * 40,
    )

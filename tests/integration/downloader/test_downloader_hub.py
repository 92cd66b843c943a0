"""Repositories of a Hub: revisions, globs, tokens, and a Hub's ways to say no."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from support.downloads import Job, assert_published, content, sha256, wait_until
from support.file_server import Answer, CutAfter, FileServer
from support.hub_server import HubServer, Repository

REPO = "openai/whisper-test"


def hub_source(hub: HubServer, **fields: Any) -> dict[str, Any]:
    return {"huggingFace": {"repo": REPO, "endpoint": hub.url, **fields}}


FILES = {"config.json": b'{"a": 1}', "model.safetensors": content(2 << 20), "onnx/model.onnx": content(50_000, "o")}


def test_a_repository_is_fetched_at_the_commit_of_its_branch(job: Job, hub: HubServer) -> None:
    repository = hub.repository(REPO)
    repository.commit({"config.json": b"old"})
    commit = repository.commit(FILES)
    outcome = job.run(hub_source(hub))

    assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.message["revision"] == commit
    planned = next(line for line in outcome.lines if line.get("bytesTotal") is not None)
    assert planned["bytesTotal"] == sum(len(data) for data in FILES.values())
    manifest = assert_published(job, FILES)
    assert manifest["revision"] == commit
    assert all(f"/resolve/{commit}/" in r.path for r in hub.requests if "/resolve/" in r.path)

    repository.commit({"config.json": b"newer"})
    assert job.run(hub_source(hub)).message["revision"] == commit  # a cache does not change under its users


def test_globs_choose_the_files(job: Job, hub: HubServer) -> None:
    hub.repository(REPO).commit({**FILES, "pytorch_model.bin": content(5000, "p"), "model.fp16.safetensors": b"x"})
    outcome = job.run(hub_source(hub, include=["*.json", "*.safetensors"], exclude=["*.fp16.*"]))
    assert outcome.code == 0
    assert_published(job, {name: FILES[name] for name in ("config.json", "model.safetensors")})


def test_globs_that_match_nothing_are_told(job: Job, hub: HubServer) -> None:
    hub.repository(REPO).commit(FILES)
    outcome = job.run(hub_source(hub, include=["*.gguf"]))
    assert outcome.failure == (2, "NotFound", False)
    assert "3 files" in outcome.message["message"]
    assert "correct the globs" in outcome.message["message"]


def test_the_token_goes_to_the_hub_only_and_into_no_output(job: Job, hub: HubServer) -> None:
    token = "hf_s3cretTokenOfTheTest"
    hub.repository(REPO, token=token).commit(FILES)
    job.environ["HF_TOKEN"] = token
    outcome = job.run(hub_source(hub))
    assert outcome.code == 0
    assert_published(job, FILES)
    large = [request for request in hub.requests if request.path.startswith("/cdn/")]
    assert len(large) == 2
    assert all(request.header("Authorization") is None for request in large)
    assert all(request.header("Authorization") for request in hub.requests if request not in large)
    shown = outcome.stderr + json.dumps(outcome.lines) + json.dumps(outcome.message)
    stored = b"".join(path.read_bytes() for path in job.cache.rglob("*") if path.is_file())
    assert token not in shown
    assert token.encode() not in stored


@pytest.mark.parametrize(
    ("exists", "token", "failure", "words"),
    [
        (True, None, (2, "Unauthorized", False), "tokenSecretRef"),
        (True, "hf_wrong", (2, "Unauthorized", False), "wrong, expired"),
        (False, None, (2, "Unauthorized", False), "does not exist"),
        (False, "hf_any", (2, "NotFound", False), "check repo and endpoint"),
    ],
)
def test_repositories_that_cannot_be_seen(  # noqa: PLR0917  pytest passes them by name
    job: Job, hub: HubServer, exists: bool, token: str | None, failure: tuple[int, str, bool], words: str
) -> None:
    if exists:
        hub.repository(REPO, token="hf_right").commit(FILES)
    if token:
        job.environ["HF_TOKEN"] = token
    outcome = job.run(hub_source(hub))
    assert outcome.failure == failure
    assert words in outcome.message["message"]
    assert REPO in outcome.message["message"]


def test_a_revision_that_is_not_there(job: Job, hub: HubServer) -> None:
    hub.repository(REPO).commit(FILES)
    outcome = job.run(hub_source(hub, revision="v9"))
    assert outcome.failure == (2, "NotFound", False)
    assert "no revision 'v9'" in outcome.message["message"]


def test_a_gated_file_is_refused_with_what_to_do(job: Job, hub: HubServer) -> None:
    commit = hub.repository(REPO).commit(FILES)
    hub.faults[f"/{REPO}/resolve/{commit}/model.safetensors"] = [Answer(403, {"X-Error-Code": "GatedRepo"})]
    outcome = job.run(hub_source(hub))
    assert outcome.failure == (2, "Unauthorized", False)
    assert "gated" in outcome.message["message"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_hub_that_sends_other_content_than_it_lists_is_caught(job: Job, hub: HubServer, name: str) -> None:
    repository = hub.repository(REPO)
    commit = repository.commit(FILES)
    damaged = bytes([FILES[name][0] ^ 1]) + FILES[name][1:]
    if name == "model.safetensors":
        hub.files[f"/cdn/{sha256(FILES[name])}"] = damaged
    else:
        _replace_after_listing(hub, repository, commit, name, damaged)
    outcome = job.run(hub_source(hub))
    assert outcome.failure == (2, "ChecksumMismatch", False)
    assert name in outcome.message["message"]


def _replace_after_listing(hub: HubServer, repository: Repository, commit: str, name: str, data: bytes) -> None:
    hub.after_listing = lambda: repository.commits.update({commit: {**FILES, name: data}})


def test_an_answer_that_is_cut_off_without_a_length_goes_on(job: Job, hub: HubServer) -> None:
    hub.repository(REPO).commit(FILES)
    hub.send_lengths = False
    large = f"/cdn/{sha256(FILES['model.safetensors'])}"
    hub.faults[large] = [CutAfter(100_000)]
    assert job.run(hub_source(hub)).code == 0
    assert [request.status for request in hub.gets(large)] == [200, 206]
    assert_published(job, FILES)


def test_a_mirror_that_lists_no_digests_is_asked_for_each_file(job: Job, hub: HubServer) -> None:
    hub.list_digests = False
    hub.repository(REPO).commit(FILES)
    outcome = job.run(hub_source(hub))
    assert outcome.code == 0
    assert sum(request.method == "HEAD" for request in hub.requests) == len(FILES)
    assert_published(job, FILES)


def test_a_busy_hub_is_asked_again(job: Job, hub: HubServer) -> None:
    hub.repository(REPO).commit(FILES)
    hub.faults[f"/api/models/{REPO}/revision/main"] = [Answer(429, {"Retry-After": "1"}), Answer(408), Answer(500)]
    assert job.run(hub_source(hub)).code == 0
    assert_published(job, FILES)


def test_an_endpoint_that_is_no_hub_is_told(job: Job, server: FileServer) -> None:
    server.add(f"/api/models/{REPO}/revision/main", b"<html>Welcome</html>")
    outcome = job.run({"huggingFace": {"repo": REPO, "endpoint": server.url}})
    assert outcome.failure == (2, "BadSource", False)
    assert "check the endpoint" in outcome.message["message"]


@pytest.mark.parametrize("host", ["hub..example.com", "ü..example.com"])
def test_an_endpoint_with_a_host_that_is_no_name_is_told(job: Job, host: str) -> None:
    outcome = job.run({"huggingFace": {"repo": REPO, "endpoint": f"https://{host}"}})
    assert outcome.failure == (2, "BadSource", False)
    assert host in outcome.message["message"]


def test_a_repository_with_a_path_that_leads_out_is_refused(job: Job, hub: HubServer) -> None:
    hub.repository(REPO).commit({**FILES, "../../etc/cron.d/job": b"x"})
    outcome = job.run(hub_source(hub))
    assert outcome.failure == (2, "BadSource", False)
    assert "'../../etc/cron.d/job' must be a relative path" in outcome.message["message"]
    assert not list(job.cache.rglob("*.data"))


def test_a_repository_killed_in_the_middle_goes_on_where_it_was(job: Job, hub: HubServer) -> None:
    hub.repository(REPO).commit(FILES)
    hub.bytes_per_second = 1 << 20
    process = job.start(hub_source(hub))
    wait_until(lambda: job.bytes_on_volume() > 1 << 20, "for a MiB on the volume")
    process.send_signal(signal.SIGKILL)
    job.finish(process)
    kept = job.bytes_on_volume()
    hub.bytes_per_second = None
    assert job.run(hub_source(hub)).code == 0
    large = hub.gets(f"/cdn/{sha256(FILES['model.safetensors'])}")
    assert [request.status for request in large] == [200, 206]
    # Sent twice is what was on its way to the process that died; starting over would send again all that was kept.
    assert sum(request.body_bytes for request in large) - len(FILES["model.safetensors"]) < kept
    assert_published(job, FILES)

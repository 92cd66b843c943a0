"""The downloader as its Job runs it: the real process, a real volume folder, real HTTP servers."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.file_server import Answer, CutAfter, FileServer, IgnoreRange, Redirect, serving
from support.hub_server import HubServer, Repository

MANIFEST = ".aiservice-manifest.json"
SECONDS = 60.0


def content(size: int, seed: str = "weights") -> bytes:
    """Bytes that differ everywhere, so that a wrong offset shows."""
    return hashlib.shake_128(seed.encode()).digest(size)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Outcome:
    code: int
    lines: list[dict[str, Any]]
    stderr: str
    message: dict[str, Any]

    @property
    def failure(self) -> tuple[int, str, bool]:
        return self.code, self.message["reason"], self.message["retryable"]


@dataclass
class Job:
    """Runs of the downloader on one volume."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def model(self) -> Path:
        return self.cache / "model"

    def start(self, source: dict[str, Any]) -> subprocess.Popen[str]:
        environ = {
            "PATH": os.environ["PATH"],
            "AISERVICE_SOURCE": json.dumps(source),
            "AISERVICE_CACHE_DIR": str(self.cache),
            "TERMINATION_LOG": str(self.root / "termination-log"),
            **self.environ,
        }
        (self.root / "termination-log").unlink(missing_ok=True)
        return subprocess.Popen(
            [sys.executable, "-m", "aiservice_downloader"],
            env=environ,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def finish(self, process: subprocess.Popen[str]) -> Outcome:
        try:
            stdout, stderr = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
        log = self.root / "termination-log"
        return Outcome(
            process.returncode,
            [json.loads(line) for line in stdout.splitlines()],
            stderr,
            json.loads(log.read_text()) if log.exists() else {},
        )

    def run(self, source: dict[str, Any]) -> Outcome:
        return self.finish(self.start(source))

    def bytes_on_volume(self) -> int:
        return sum(path.stat().st_size for path in self.cache.rglob("*.data"))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(FileServer()) as running:
        yield running


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with serving(HubServer()) as running:
        yield running


def http_source(server: FileServer, files: dict[str, bytes], **digests: str) -> dict[str, Any]:
    """A source of files that the server serves; a digest by keyword replaces the true one."""
    return {
        "http": {
            "files": [
                {
                    "url": server.add(f"/{path}", data),
                    "path": path,
                    "sha256": digests.get(path, sha256(data)),
                }
                for path, data in files.items()
            ]
        }
    }


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"gave up waiting: {what}"
        time.sleep(0.01)


def assert_published(job: Job, files: dict[str, bytes]) -> dict[str, Any]:
    found = {
        path.relative_to(job.model).as_posix(): path.read_bytes() for path in job.model.rglob("*") if path.is_file()
    }
    manifest: dict[str, Any] = json.loads(found.pop(MANIFEST))
    assert found == files
    assert manifest["files"] == [
        {"path": path, "size": len(data), "sha256": sha256(data)} for path, data in sorted(files.items())
    ]
    assert manifest["totalBytes"] == sum(len(data) for data in files.values())
    assert sorted(path.name for path in job.cache.iterdir()) == [".lock", "model"]
    return manifest


# Files over HTTP


def test_files_are_fetched_verified_and_published_and_a_second_run_asks_nobody(job: Job, server: FileServer) -> None:
    files = {"config.json": b"{}", "weights/model.bin": content(3 << 20), "empty": b""}
    source = http_source(server, files)
    first = job.run(source)

    assert (first.code, first.stderr) == (0, "")
    total = sum(len(data) for data in files.values())
    assert first.message == {"status": "ok", "bytes": total, "files": 3, "revision": None}
    assert first.lines[0]["event"] == "progress"
    assert first.lines[0]["bytesTotal"] == total
    assert {key: first.lines[-1][key] for key in ("event", "bytes", "files")} == {
        "event": "done",
        "bytes": total,
        "files": 3,
    }
    assert_published(job, files)

    asked = len(server.requests)
    second = job.run(source)
    assert second.message == first.message
    assert [line["event"] for line in second.lines] == ["done"]
    assert len(server.requests) == asked


def test_a_download_killed_in_the_middle_goes_on_where_it_was(job: Job, server: FileServer) -> None:
    data = content(8 << 20)
    source = http_source(server, {"model.bin": data})
    server.bytes_per_second = 4 << 20
    process = job.start(source)
    wait_until(lambda: job.bytes_on_volume() > 3 << 20, "for three MiB on the volume")
    process.send_signal(signal.SIGKILL)
    killed = job.finish(process)
    assert killed.code == -signal.SIGKILL
    assert not job.model.exists()
    kept = job.bytes_on_volume()

    server.bytes_per_second = None
    outcome = job.run(source)

    assert outcome.code == 0
    assert outcome.lines[0]["bytesDone"] == kept
    assert_published(job, {"model.bin": data})
    first, second = server.gets("/model.bin")
    assert second.status == 206
    assert second.header("Range") == f"bytes={kept}-"
    assert second.header("If-Range") == server.etag("/model.bin")
    # What the first answer had on its way when the process died is all that is sent twice.
    assert first.body_bytes + second.body_bytes - len(data) < 512 << 10


def test_a_file_that_changed_at_the_server_meanwhile_is_fetched_whole(job: Job, server: FileServer) -> None:
    right, wrong = content(1 << 20), content(1 << 20, "older")
    source = http_source(server, {"model.bin": right})
    server.files["/model.bin"] = wrong
    server.bytes_per_second = 200 << 10
    process = job.start(source)
    wait_until(lambda: job.bytes_on_volume() > 100 << 10, "for some bytes")
    process.send_signal(signal.SIGKILL)
    job.finish(process)

    server.files["/model.bin"] = right
    server.bytes_per_second = None
    assert job.run(source).code == 0
    assert server.gets("/model.bin")[-1].status == 200  # If-Range did not match
    assert_published(job, {"model.bin": right})


def test_bytes_of_another_version_that_nothing_gave_away_are_found_by_the_digest(job: Job, server: FileServer) -> None:
    right, wrong = content(1 << 20), content(1 << 20, "older")
    source = http_source(server, {"model.bin": right})
    server.send_etags = False
    server.files["/model.bin"] = wrong
    server.bytes_per_second = 200 << 10
    process = job.start(source)
    wait_until(lambda: job.bytes_on_volume() > 100 << 10, "for some bytes")
    process.send_signal(signal.SIGKILL)
    job.finish(process)

    server.files["/model.bin"] = right
    server.bytes_per_second = None
    assert job.run(source).code == 0
    assert [request.status for request in server.gets("/model.bin")] == [200, 206, 200]
    assert_published(job, {"model.bin": right})


def test_a_server_that_ignores_ranges_sends_the_file_anew(job: Job, server: FileServer) -> None:
    data = content(1 << 20)
    source = http_source(server, {"model.bin": data})
    server.faults["/model.bin"] = [CutAfter(700 << 10), IgnoreRange()]
    assert job.run(source).code == 0
    assert [request.status for request in server.gets("/model.bin")] == [200, 200]
    assert_published(job, {"model.bin": data})


def die_with_one_file_staged(job: Job, server: FileServer, source: dict[str, Any], path: str) -> Path:
    """Kills a download when its small file is complete and its large one is not."""
    server.bytes_per_second = 1 << 20
    process = job.start(source)
    staged = job.cache / ".staging" / path
    wait_until(staged.exists, f"for {path} to be complete")
    process.send_signal(signal.SIGKILL)
    job.finish(process)
    server.bytes_per_second = None
    assert not job.model.exists()
    return staged


def test_a_complete_file_whose_process_died_before_it_was_verified_is_not_fetched_again(
    job: Job, server: FileServer
) -> None:
    files = {"large.bin": content(4 << 20, "l"), "small.bin": content(200_000, "s")}
    source = http_source(server, files)
    staged = die_with_one_file_staged(job, server, source, "small.bin")
    # As if killed between the last byte and the rename.
    staged.rename(job.cache / ".partial" / _key(files["small.bin"], "small.bin"))

    assert job.run(source).code == 0
    assert [request.status for request in server.gets("/small.bin")] == [200, 416]
    assert_published(job, files)


def _key(data: bytes, path: str) -> str:
    return hashlib.sha256(f"sha256:{sha256(data)} {path}".encode()).hexdigest()[:32] + ".data"


def test_broken_connections_and_busy_servers_are_survived(job: Job, server: FileServer) -> None:
    data = content(1 << 20)
    source = http_source(server, {"model.bin": data})
    server.faults["/model.bin"] = [
        Answer(503, {"Retry-After": "3"}),
        CutAfter(300 << 10),
        CutAfter(400 << 10),
        Answer(502),
    ]
    outcome = job.run(source)
    assert outcome.code == 0
    assert [request.status for request in server.gets("/model.bin")] == [503, 200, 206, 502, 206]
    assert server.body_bytes("/model.bin") < len(data) + (64 << 10)
    assert any("503 Service Unavailable" in line.get("note", "") for line in outcome.lines)
    assert_published(job, {"model.bin": data})


def test_progress_is_told_every_two_seconds(job: Job, server: FileServer) -> None:
    data = content(5 << 20)
    source = http_source(server, {"model.bin": data})
    server.bytes_per_second = 1 << 20
    started = time.monotonic()
    outcome = job.run(source)
    took = time.monotonic() - started
    lines = [line for line in outcome.lines if line["event"] == "progress"]
    assert 2 <= len(lines) <= took / 2 + 1
    assert [line["bytesDone"] for line in lines] == sorted(line["bytesDone"] for line in lines)
    last = lines[-1]
    assert last["bytesTotal"] == len(data)
    assert last["file"] == "model.bin"
    assert last["bytesPerSecond"] == pytest.approx(1 << 20, rel=0.5)
    assert last["etaSeconds"] == pytest.approx((len(data) - last["bytesDone"]) / (1 << 20), abs=2)


def test_sizes_that_the_server_does_not_tell_first_are_no_obstacle(job: Job, server: FileServer) -> None:
    data = content(1 << 20)
    source = http_source(server, {"model.bin": data})
    server.answer_head = False
    server.send_lengths = False
    outcome = job.run(source)
    assert outcome.code == 0
    assert outcome.lines[0]["bytesTotal"] is None
    assert_published(job, {"model.bin": data})


def test_four_files_are_fetched_at_a_time(job: Job, server: FileServer) -> None:
    files = {f"part-{number}.bin": content(512 << 10, str(number)) for number in range(8)}
    source = http_source(server, files)
    server.bytes_per_second = 512 << 10
    process = job.start(source)
    most = 0
    while process.poll() is None:
        gets = [request for request in list(server.requests) if request.method == "GET"]
        most = max(most, sum(0 < request.body_bytes < 512 << 10 for request in gets))
        time.sleep(0.02)
    assert job.finish(process).code == 0
    assert most == 4
    assert_published(job, files)


@pytest.mark.parametrize(
    ("answer", "failure", "words"),
    [
        (404, (2, "NotFound", False), "correct the address"),
        (410, (2, "NotFound", False), "410 Gone"),
        (401, (2, "Unauthorized", False), "needs credentials"),
        (403, (2, "Unauthorized", False), "403 Forbidden"),
        (400, (2, "BadSource", False), "check the address"),
    ],
)
def test_answers_that_will_not_change_end_the_download_at_once(
    job: Job, server: FileServer, answer: int, failure: tuple[int, str, bool], words: str
) -> None:
    source = http_source(server, {"model.bin": b"x", "other.bin": b"y"})
    source["http"]["files"][0]["url"] += "?signature=s3cret"
    server.faults["/model.bin"] = [Answer(answer)]
    outcome = job.run(source)
    assert outcome.failure == failure
    assert words in outcome.message["message"]
    assert "/model.bin" in outcome.message["message"]
    assert "s3cret" not in json.dumps(outcome.lines) + json.dumps(outcome.message)
    assert len(server.gets("/model.bin")) == 1
    assert outcome.lines[-1] == {"event": "failed", **{k: v for k, v in outcome.message.items() if k != "status"}}
    assert not job.model.exists()


def test_wrong_content_is_deleted_and_never_published(job: Job, server: FileServer) -> None:
    data = content(100_000)
    wanted = "0" * 64
    source = http_source(server, {"model.bin": data}, **{"model.bin": wanted})
    outcome = job.run(source)
    assert outcome.failure == (2, "ChecksumMismatch", False)
    assert sha256(data) in outcome.message["message"]
    assert wanted in outcome.message["message"]
    assert not job.model.exists()
    assert [path for path in job.cache.rglob("*") if path.is_file() and path.name != ".lock"] == []
    assert len(server.gets("/model.bin")) == 1

    job.run(source)
    assert server.gets("/model.bin")[-1].status == 200  # from the start, for the bytes were wrong


def test_complete_files_are_kept_but_not_if_they_were_damaged_on_the_volume(job: Job, server: FileServer) -> None:
    files = {"large.bin": content(4 << 20, "l"), "small.bin": content(200_000, "s")}
    source = http_source(server, files)
    staged = die_with_one_file_staged(job, server, source, "small.bin")
    assert job.run(source).code == 0
    assert len(server.gets("/small.bin")) == 1

    (job.model / MANIFEST).unlink()
    job.model.rename(job.cache / ".staging")  # as if killed just before the end
    staged.write_bytes(staged.read_bytes()[:-1] + b"!")
    assert job.run(source).code == 0
    assert len(server.gets("/small.bin")) == 2
    assert_published(job, files)


def test_nobody_at_the_address(job: Job) -> None:
    with serving(FileServer()) as gone:
        source = http_source(gone, {"model.bin": b"x"})
    process = job.start(source)
    lines = process.stdout
    assert lines is not None
    note = ""
    while "trying again" not in note:
        note = json.loads(lines.readline()).get("note", "")
    assert "Connection refused" in note
    process.send_signal(signal.SIGTERM)
    assert job.finish(process).code == 143


def test_redirects_are_followed_but_not_for_ever(job: Job, server: FileServer) -> None:
    data = content(1000)
    source = http_source(server, {"model.bin": data})
    server.add("/real.bin", data)
    server.faults["/model.bin"] = [Redirect("/hop")]
    server.faults["/hop"] = [Redirect(f"http://localhost:{server.port}/real.bin")]
    assert job.run(source).code == 0
    assert_published(job, {"model.bin": data})

    source = http_source(server, {"loop.bin": data})
    server.faults["/loop.bin"] = [Redirect("/loop.bin")] * 50
    outcome = job.run(source)
    assert outcome.failure == (2, "BadSource", False)
    assert "redirects more than 10 times" in outcome.message["message"]


def test_sigterm_ends_it_at_once_and_keeps_what_was_fetched(job: Job, server: FileServer) -> None:
    data = content(4 << 20)
    source = http_source(server, {"model.bin": data})
    server.bytes_per_second = 1 << 20
    process = job.start(source)
    wait_until(lambda: job.bytes_on_volume() > 1 << 20, "for a MiB on the volume")
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    outcome = job.finish(process)
    assert time.monotonic() - asked < 1
    assert outcome.failure == (143, "Interrupted", True)
    assert "goes on from there" in outcome.message["message"]

    server.bytes_per_second = None
    assert job.run(source).code == 0
    assert server.gets("/model.bin")[-1].status == 206


def test_sigterm_does_not_wait_for_a_server_that_says_nothing(job: Job, server: FileServer) -> None:
    source = http_source(server, {"model.bin": content(1 << 20)})
    server.bytes_per_second = 1  # the first 16 KiB come at once, the next hours later
    process = job.start(source)
    wait_until(lambda: job.bytes_on_volume() > 0, "for the first bytes")
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert job.finish(process).code == 143
    assert time.monotonic() - asked < 1


def test_a_second_download_on_the_volume_waits_and_finds_all_done(job: Job, server: FileServer) -> None:
    data = content(2 << 20)
    source = http_source(server, {"model.bin": data})
    server.bytes_per_second = 1 << 20
    first = job.start(source)
    wait_until(lambda: job.bytes_on_volume() > 0, "for the first to begin")
    second = job.run(source)
    assert job.finish(first).code == 0
    assert second.code == 0
    assert "another download" in second.lines[0]["note"]
    assert len(server.gets("/model.bin")) == 1


def test_a_model_larger_than_the_volume_was_asked_for_is_refused_before_a_byte(job: Job, server: FileServer) -> None:
    source = http_source(server, {"model.bin": content(2 << 20)})
    job.environ["AISERVICE_CAPACITY_BYTES"] = str(1 << 20)
    outcome = job.run(source)
    assert outcome.failure == (2, "OutOfSpace", False)
    assert "2097152 bytes" in outcome.message["message"]
    assert "raise storage.size" in outcome.message["message"]
    assert server.gets("/model.bin") == []


@contextmanager
def small_volume(path: Path, size: int) -> Iterator[None]:
    """A file system of its own; needs root."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system, which only root may")


@needs_root
def test_a_model_larger_than_the_free_space_is_refused_before_a_byte(job: Job, server: FileServer) -> None:
    source = http_source(server, {"model.bin": content(6 << 20)})
    with small_volume(job.cache, 4 << 20):
        outcome = job.run(source)
    assert outcome.failure == (2, "OutOfSpace", False)
    assert "6291456 bytes" in outcome.message["message"]
    assert "free" in outcome.message["message"]
    assert server.gets("/model.bin") == []


@needs_root
def test_a_volume_that_runs_full_on_the_way_is_told(job: Job, server: FileServer) -> None:
    source = http_source(server, {"model.bin": content(6 << 20)})
    server.answer_head = False
    server.send_lengths = False  # nothing told the size before
    with small_volume(job.cache, 4 << 20):
        outcome = job.run(source)
        kept = job.bytes_on_volume()
    assert outcome.failure == (2, "OutOfSpace", False)
    assert "raise storage.size" in outcome.message["message"]
    assert kept > 3 << 20
    assert not job.model.exists()


@needs_root
def test_space_that_others_take_meanwhile_ends_it_before_the_volume_is_full(job: Job, server: FileServer) -> None:
    source = http_source(server, {"model.bin": content(8 << 20)})
    server.bytes_per_second = 1 << 20
    with small_volume(job.cache, 12 << 20):
        process = job.start(source)
        wait_until(lambda: job.bytes_on_volume() > 0, "for the first bytes")
        (job.cache / "someone-elses").write_bytes(bytes(6 << 20))
        outcome = job.finish(process)
    assert outcome.failure == (2, "OutOfSpace", False)
    assert server.body_bytes("/model.bin") < 6 << 20


def test_a_volume_that_cannot_be_written_is_told(job: Job, server: FileServer) -> None:
    job.cache.write_text("a file where the volume should be")
    outcome = job.run(http_source(server, {"model.bin": b"x"}))
    assert outcome.failure == (1, "VolumeError", True)
    assert "mounted writable" in outcome.message["message"]


def test_a_bad_source_is_told_in_the_termination_message(job: Job) -> None:
    outcome = job.run({"http": {"files": [{"url": "http://m/a", "path": "../../etc/passwd", "sha256": "0" * 64}]}})
    assert outcome.failure == (2, "BadSource", False)
    assert "'../../etc/passwd' must be a relative path" in outcome.message["message"]


def test_help_says_what_the_environment_holds() -> None:
    text = subprocess.run(
        [sys.executable, "-m", "aiservice_downloader", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for name in ("AISERVICE_SOURCE", "AISERVICE_CACHE_DIR", "AISERVICE_CAPACITY_BYTES", "HF_TOKEN", "TERMINATION_LOG"):
        assert name in text


# Repositories of a Hub

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
    assert outcome.lines[0]["bytesTotal"] == sum(len(data) for data in FILES.values())
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
    token = "hf_s3cretTokenOfTheTest"  # noqa: S105  it is made up
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
    ("private", "token", "failure", "words"),
    [
        (True, None, (2, "Unauthorized", False), "tokenSecretRef"),
        (True, "hf_wrong", (2, "Unauthorized", False), "wrong, expired"),
        (None, None, (2, "Unauthorized", False), "does not exist"),
        (None, "hf_any", (2, "NotFound", False), "check repo and endpoint"),
    ],
)
def test_repositories_that_cannot_be_seen(
    job: Job, hub: HubServer, private: bool | None, token: str | None, failure: tuple[int, str, bool], words: str
) -> None:
    if private:
        hub.repository(REPO, token="hf_right").commit(FILES)  # noqa: S106  it is made up
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
    info = hub._info

    def list_then_replace(*arguments: Any) -> None:
        info(*arguments)
        repository.commits[commit] = {**FILES, name: data}

    hub._info = list_then_replace  # type: ignore[method-assign]  # the one wrong thing this server does


def test_a_mirror_that_lists_no_digests_is_asked_for_each_file(job: Job, hub: HubServer) -> None:
    hub.list_digests = False
    hub.repository(REPO).commit(FILES)
    outcome = job.run(hub_source(hub))
    assert outcome.code == 0
    assert sum(request.method == "HEAD" for request in hub.requests) == len(FILES)
    assert_published(job, FILES)


def test_a_busy_hub_is_asked_again(job: Job, hub: HubServer) -> None:
    hub.repository(REPO).commit(FILES)
    hub.faults[f"/api/models/{REPO}/revision/main"] = [Answer(429, {"Retry-After": "1"}), Answer(500)]
    assert job.run(hub_source(hub)).code == 0
    assert_published(job, FILES)


def test_an_endpoint_that_is_no_hub_is_told(job: Job, server: FileServer) -> None:
    server.add(f"/api/models/{REPO}/revision/main", b"<html>Welcome</html>")
    outcome = job.run({"huggingFace": {"repo": REPO, "endpoint": server.url}})
    assert outcome.failure == (2, "BadSource", False)
    assert "check the endpoint" in outcome.message["message"]


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
    hub.bytes_per_second = None
    assert job.run(hub_source(hub)).code == 0
    large = hub.gets(f"/cdn/{sha256(FILES['model.safetensors'])}")
    assert [request.status for request in large] == [200, 206]
    assert sum(request.body_bytes for request in large) < len(FILES["model.safetensors"]) + (256 << 10)
    assert_published(job, FILES)

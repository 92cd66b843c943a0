"""Files over HTTP: fetched, verified, published; and what is said when that cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from support.downloads import Job, assert_published, content, first_note, http_source, sha256
from support.file_server import Answer, FileServer, Redirect, serving


def test_files_are_fetched_verified_and_published_and_a_second_run_asks_nobody(job: Job, server: FileServer) -> None:
    files = {"config.json": b"{}", "weights/model.bin": content(3 << 20), "empty": b""}
    source = http_source(server, files)
    first = job.run(source)

    assert (first.code, first.stderr) == (0, "")
    total = sum(len(data) for data in files.values())
    assert first.message == {"status": "ok", "bytes": total, "files": 3, "revision": None, "fetchedBytes": total}
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
    assert second.message == {**first.message, "fetchedBytes": 0}
    assert [line["event"] for line in second.lines] == ["done"]
    assert len(server.requests) == asked


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
    speed = last["bytesPerSecond"]
    assert 0 < speed < 1.5 * (1 << 20)  # a throttled server is never faster, and a busy machine slower
    assert last["etaSeconds"] == pytest.approx((len(data) - last["bytesDone"]) / speed, abs=1)


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
    assert most in {4, 5}  # the server may count the end of one after the beginning of the next
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


def test_nobody_at_the_address(job: Job) -> None:
    with serving(FileServer()) as gone:
        source = http_source(gone, {"model.bin": b"x"})
    assert f"to 127.0.0.1:{gone.port} for {gone.url}/model.bin failed: [Errno 111]" in first_note(job, source)


def test_nobody_where_a_redirect_leads(job: Job, server: FileServer) -> None:
    with serving(FileServer()) as gone:
        pass
    source = http_source(server, {"model.bin": b"x"})
    server.faults["/model.bin"] = [Redirect(f"{gone.url}/blob")] * 9
    assert f"to 127.0.0.1:{gone.port} for {server.url}/model.bin failed: [Errno 111]" in first_note(job, source)


@pytest.mark.parametrize("host", ["files..example.com", f"{'a' * 64}.example.com", "."])
def test_a_host_that_is_no_name_is_told(job: Job, host: str) -> None:
    file = {"url": f"https://{host}/a", "path": "a", "sha256": "0" * 64}
    for source in ({"http": {"files": [file]}}, {"oci": {"image": f"{host}/team/model:v1"}}):
        outcome = job.run(source)
        assert outcome.failure == (2, "BadSource", False)
        assert f"leads to the host {host!r}, which is no name" in outcome.message["message"]
    job.environ["https_proxy"] = "http://127.0.0.1:1"  # nothing listens there, and nothing is asked
    assert job.run({"http": {"files": [file]}}).failure == (2, "BadSource", False)


def test_a_redirect_to_a_host_that_is_no_name_is_told(job: Job, server: FileServer) -> None:
    source = http_source(server, {"model.bin": b"x"})
    server.faults["/model.bin"] = [Redirect("http://files..example.com/a")]
    outcome = job.run(source)
    assert outcome.failure == (2, "BadSource", False)
    assert f"{server.url}/model.bin leads to the host 'files..example.com'" in outcome.message["message"]


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


def test_a_bad_source_is_told_in_the_termination_message(job: Job) -> None:
    outcome = job.run({"http": {"files": [{"url": "http://m/a", "path": "../../etc/passwd", "sha256": "0" * 64}]}})
    assert outcome.failure == (2, "BadSource", False)
    assert "'../../etc/passwd' must be a relative path" in outcome.message["message"]


def test_help_says_what_the_environment_holds() -> None:
    text = subprocess.run(
        [sys.executable, "-m", "aiservice_downloader", "--help"], capture_output=True, text=True, check=True
    ).stdout
    variables = (
        "AISERVICE_SOURCE AISERVICE_MODE AISERVICE_REVISION AISERVICE_CACHE_DIR AISERVICE_CAPACITY_BYTES "
        "AISERVICE_ALLOWED_HOSTS HF_TOKEN AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN DOCKER_AUTH_CONFIG "
        "TERMINATION_LOG"
    )
    for name in [*variables.split(), "huggingFace", "s3", "http", "oci"]:
        assert name in text

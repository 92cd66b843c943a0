"""Downloads that are broken off, by servers, networks and kills: they go on where they were, and end right."""

from __future__ import annotations

import hashlib
import json
import signal
from pathlib import Path
from typing import Any

from support.downloads import MANIFEST, Job, assert_published, content, http_source, sha256, wait_until
from support.file_server import Answer, CutAfter, FileServer, IgnoreRange


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
    # What the first answer had on its way when the process died is all that is sent twice, not what was kept.
    assert first.body_bytes + second.body_bytes - len(data) < kept


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


def test_sigterm_ends_it_at_once_and_keeps_what_was_fetched(job: Job, server: FileServer) -> None:
    data = content(4 << 20)
    source = http_source(server, {"model.bin": data})
    server.bytes_per_second = 1 << 20
    process = job.start(source)
    wait_until(lambda: job.bytes_on_volume() > 1 << 20, "for a MiB on the volume")
    process.send_signal(signal.SIGTERM)
    outcome = job.finish(process)
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
    process.send_signal(signal.SIGTERM)
    # Sooner than the minute after which a read of its own would end.
    assert process.wait(30) == 143
    assert job.finish(process).failure == (143, "Interrupted", True)


def test_a_second_download_on_the_volume_waits_and_finds_all_done(job: Job, server: FileServer) -> None:
    data = content(2 << 20)
    source = http_source(server, {"model.bin": data})
    server.bytes_per_second = 16 << 10
    first = job.start(source)
    wait_until(lambda: job.bytes_on_volume() > 0, "for the first to begin")
    second = job.start(source)
    assert second.stdout is not None
    assert "another download" in json.loads(second.stdout.readline())["note"]
    server.bytes_per_second = None
    assert job.finish(first).code == 0
    assert job.finish(second).code == 0
    assert len(server.gets("/model.bin")) == 1

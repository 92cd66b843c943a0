"""Volumes that are too small, run full, or cannot be written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.downloads import Job, content, http_source, wait_until
from support.file_server import FileServer


def test_a_model_larger_than_the_volume_was_asked_for_is_refused_before_a_byte(job: Job, server: FileServer) -> None:
    source = http_source(server, {"model.bin": content(2 << 20)})
    job.environ["AISERVICE_CAPACITY_BYTES"] = str(1 << 20)
    outcome = job.run(source)
    assert outcome.failure == (2, "OutOfSpace", False)
    assert "2097152 bytes" in outcome.message["message"]
    assert 2 << 20 < outcome.message["requiredBytes"] <= 4 << 20
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
    assert outcome.message["requiredBytes"] > 2 * kept  # nobody told the size: twice as much is tried next
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

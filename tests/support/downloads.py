"""Runs the model downloader as its Job does: the real process, on a folder as the volume."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.file_server import FileServer

MANIFEST = ".aiservice-manifest.json"
SECONDS = 60.0
"""How long anything may take before a test gives up on it."""


def content(size: int, seed: str = "weights") -> bytes:
    """Bytes that differ everywhere, so that a wrong offset shows."""
    return hashlib.shake_128(seed.encode()).digest(size)


def sha256(data: bytes) -> str:
    """The digest of `data`, in hex."""
    return hashlib.sha256(data).hexdigest()


@dataclass
class Outcome:
    """How a run ended: exit status, JSON lines, standard error, termination message."""

    code: int
    lines: list[dict[str, Any]]
    stderr: str
    message: dict[str, Any]

    @property
    def failure(self) -> tuple[int, str, bool]:
        """Exit status, reason and whether a retry can help."""
        return self.code, self.message["reason"], self.message["retryable"]


@dataclass
class Job:
    """Runs of the downloader on one volume."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)
    logs: dict[int, Path] = field(default_factory=dict)
    """Where each process leaves its termination message."""

    @property
    def cache(self) -> Path:
        """The volume."""
        return self.root / "cache"

    @property
    def model(self) -> Path:
        """The published model."""
        return self.cache / "model"

    def start(self, source: dict[str, Any]) -> subprocess.Popen[str]:
        """Starts a download."""
        log = self.root / f"termination-log-{len(self.logs)}"
        environ = {
            "PATH": os.environ["PATH"],
            "AISERVICE_SOURCE": json.dumps(source),
            "AISERVICE_CACHE_DIR": str(self.cache),
            "TERMINATION_LOG": str(log),
            "AISERVICE_ALLOWED_HOSTS": '["127.0.0.1", "localhost"]',
            **self.environ,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "aiservice_downloader"],
            env=environ,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.logs[process.pid] = log
        return process

    def finish(self, process: subprocess.Popen[str]) -> Outcome:
        """Waits for a download to end."""
        try:
            stdout, stderr = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
        log = self.logs[process.pid]
        return Outcome(
            process.returncode,
            [json.loads(line) for line in stdout.splitlines()],
            stderr,
            json.loads(log.read_text()) if log.exists() else {},
        )

    def run(self, source: dict[str, Any]) -> Outcome:
        """A download from start to end."""
        return self.finish(self.start(source))

    def bytes_on_volume(self) -> int:
        """Bytes of files that are not complete yet; the job may move any of them away meanwhile."""
        total = 0
        for path in self.cache.rglob("*.data"):
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total


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
    """Waits for something to happen in another process."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"gave up waiting: {what}"
        time.sleep(0.01)


def first_note(job: Job, source: dict[str, Any]) -> str:
    """What a download says while it waits to try again; it is stopped then."""
    process = job.start(source)
    assert process.stdout is not None
    note = ""
    while "trying again" not in note:
        note = json.loads(process.stdout.readline()).get("note", "")
    process.send_signal(signal.SIGTERM)
    assert job.finish(process).code == 143
    return note


def assert_published(job: Job, files: dict[str, bytes]) -> dict[str, Any]:
    """Checks that exactly these files are published; returns the manifest."""
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

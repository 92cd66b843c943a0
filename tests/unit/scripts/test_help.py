"""Every script tells what it does when it is asked, and does nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
COMMANDS = sorted(path.name for path in SCRIPTS.iterdir() if path.is_file() and os.access(path, os.X_OK))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_script_explains_itself(name: str) -> None:
    asked = subprocess.run([SCRIPTS / name, "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert (asked.returncode, asked.stderr) == (0, "")
    assert f"scripts/{name}" in asked.stdout

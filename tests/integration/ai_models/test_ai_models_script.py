"""scripts/download-ai-models.sh for real: from any folder, in an environment that it makes."""

from __future__ import annotations

import os
import subprocess

from support.ai_models import SCRIPT, Machine, files_below
from support.hub_server import HubServer


def run(machine: Machine, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the script as a person does; its environment and uv's cache are kept where they usually are."""
    environ = {key: value for key, value in machine.environment().items() if key not in {"PYTHONPATH", "HOME"}}
    return subprocess.run(
        [SCRIPT, *arguments],
        env={**inherited(), **environ},
        cwd=machine.root,
        text=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
        check=False,
    )


def inherited() -> dict[str, str]:
    """What a package client needs of the tests' own environment."""
    wanted = ("HOME", "UV_", "PIP_", "SSL_", "HTTP_PROXY", "HTTPS_PROXY", "AISERVICE_CACHE", "XDG_CACHE_HOME")
    return {key: value for key, value in os.environ.items() if key.startswith(wanted)}


def test_the_script_from_another_folder(machine: Machine, hub: HubServer) -> None:
    refused = run(machine)
    assert refused.returncode == 3
    assert "--accept-licences" in refused.stderr
    assert hub.requests == []
    done = run(machine, "paddleocr", "--folder", "my models")
    assert done.returncode == 0, done.stderr
    assert "Installing" not in done.stderr  # the first run did
    assert len(files_below(machine.root / "my models")) == 4


def test_help_needs_no_environment(machine: Machine) -> None:
    found = run(machine, "--help")
    assert found.returncode == 0
    assert "text-to-speech            xtts-v2" in found.stdout
    assert "exit status:" in found.stdout
    assert str(SCRIPT) in found.stdout
    assert found.stderr == ""

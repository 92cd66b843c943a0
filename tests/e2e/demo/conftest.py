"""The demo on a cluster of its own: brought up once for all end-to-end tests, taken down at the end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from support.demo import ROOT, RunningDemo, script


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    """Runs `scripts/demo up` as a newcomer would and takes it down at the end."""
    cluster = f"e2e-{os.getpid()}"
    output = tmp_path_factory.mktemp("demo-output")
    command = [str(ROOT / "scripts" / "demo"), "--cluster", cluster, "--output", str(output)]
    transcript = output / "transcript.txt"
    try:
        with transcript.open("w") as stream:
            code = subprocess.run([*command, "up"], stdout=stream, stderr=subprocess.STDOUT, check=False).returncode
        text = transcript.read_text()
        print(text)
        if code != 0:
            pytest.fail(f"scripts/demo up exited with {code}:\n{text}")
        yield RunningDemo(
            cluster=cluster,
            output=output,
            transcript=text,
            kubeconfig=script("cluster", "--name", cluster, "kubeconfig").strip(),
            kubectl_path=script("tool", "kubectl").strip(),
            gateway=next(line.split()[1].removesuffix("/health") for line in text.splitlines() if "curl http" in line),
        )
    finally:
        subprocess.run([*command, "down"], check=True, timeout=300)

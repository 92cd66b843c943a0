"""The demo on a cluster of its own: brought up once for all end-to-end tests, taken down at the end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from support.demo import ROOT, RunningDemo, script


@pytest.fixture(scope="session")
def demo() -> Iterator[RunningDemo]:
    """Runs `make demo` as a newcomer would and takes it down at the end."""
    cluster = f"e2e-{os.getpid()}"
    output = ROOT / "build" / "e2e"
    output.mkdir(parents=True, exist_ok=True)
    arguments = f"DEMO_ARGS=--cluster {cluster} --output {output}"
    transcript = output / "transcript.txt"
    try:
        with transcript.open("w") as stream:
            code = subprocess.run(
                ["make", "demo", arguments], cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, check=False
            ).returncode
        text = transcript.read_text()
        print(text)
        if code != 0:
            pytest.fail(f"make demo exited with {code}; its logs are in {output / 'logs'}:\n{text}")
        yield RunningDemo(
            cluster=cluster,
            output=output,
            transcript=text,
            kubeconfig=script("cluster", "--name", cluster, "kubeconfig").strip(),
            kubectl_path=script("tool", "kubectl").strip(),
            gateway=next(line.split()[1].removesuffix("/health") for line in text.splitlines() if "curl http" in line),
        )
    finally:
        subprocess.run(["make", "demo-down", arguments], cwd=ROOT, check=True, timeout=300)

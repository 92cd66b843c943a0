"""Runs the program behind scripts/download-ai-models on a folder, with a Hub that has all of its repositories."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from ai_models.__main__ import main
from ai_models.stock import STATE_FOLDER
from support.downloads import MANIFEST, SECONDS, content
from support.hub_server import HubServer

REPO_ROOT = Path(__file__).parents[2]
SCRIPT = REPO_ROOT / "scripts" / "download-ai-models.sh"

LARGE = 20_000
"""Bytes of the weights of each repository."""

UNWANTED = ("README.md", ".gitattributes", "pytorch_model.bin", "flax_model.msgpack", "sd_xl_base_1.0.safetensors")
"""What repositories hold beside what the images load."""

_DIFFUSERS = (
    "text_encoder/model",
    "text_encoder_2/model",
    "unet/diffusion_pytorch_model",
    "vae/diffusion_pytorch_model",
)

FILES = {
    "stabilityai/stable-diffusion-xl-base-1.0": (
        "LICENSE.md",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "vae_1_0/config.json",
        "vae_1_0/diffusion_pytorch_model.fp16.safetensors",
        "unet/openvino_model.bin",
        *(f"{part}.safetensors" for part in _DIFFUSERS),
        *(f"{part}.fp16.safetensors" for part in _DIFFUSERS),
    ),
    "coqui/XTTS-v2": (
        "LICENSE.txt",
        "config.json",
        "vocab.json",
        "model.pth",
        "speakers_xtts.pth",
        "dvae.pth",
        "samples/en_sample.wav",
    ),
    "openai/whisper-large-v3": (
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "model.fp32-00001-of-00002.safetensors",
        "merges.txt",
    ),
    "Systran/faster-whisper-large-v3": (
        "config.json",
        "model.bin",
        "tokenizer.json",
        "preprocessor_config.json",
        "vocabulary.json",
    ),
    "Salesforce/blip2-opt-2.7b": (
        "config.json",
        "merges.txt",
        "tokenizer.json",
        "preprocessor_config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "pytorch_model-00001-of-00002.bin",
    ),
    "PaddlePaddle/PP-OCRv6_small_det_onnx": ("config.json", "inference.onnx", "inference.yml"),
    "PaddlePaddle/PP-OCRv6_small_rec_onnx": ("config.json", "inference.onnx", "inference.yml"),
}
"""What the repositories hold, by what their pages on the Hub and public projects show."""


def fill(hub: HubServer) -> None:
    """Gives the Hub all repositories, with small content; files of weights are kept as large ones."""
    for name, paths in FILES.items():
        hub.repository(name).commit({path: body(name, path) for path in (*paths, *UNWANTED)})


def body(repo: str, path: str) -> bytes:
    """What a file of a repository holds."""
    is_small = path.endswith((".json", ".txt", ".md", ".yml", ".gitattributes"))
    return content(200 if is_small else LARGE, f"{repo}/{path}")


def files_below(folder: Path) -> set[str]:
    """The files of a folder, manifests and unfinished downloads aside."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if path.name != MANIFEST and path.parts[0] != STATE_FOLDER}


@dataclass
class Run:
    """How a run ended."""

    code: int
    stdout: str
    stderr: str


@dataclass
class Machine:
    """A person's machine: a folder, an environment, and a Hub."""

    root: Path
    hub: HubServer
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def models(self) -> Path:
        """The folder that models go to."""
        return self.root / "models"

    def environment(self) -> dict[str, str]:
        """What the program finds in its environment; nothing of the tests' own but the PATH."""
        sources = [REPO_ROOT / "scripts/lib", REPO_ROOT / "inference-images/model-downloader/src"]
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root),
            "PYTHONPATH": os.pathsep.join(str(source) for source in sources),
            "HF_ENDPOINT": self.hub.url,
            **self.environ,
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts the program, without a terminal."""
        return subprocess.Popen(
            [sys.executable, "-m", "ai_models", *arguments],
            env=self.environment(),
            cwd=self.root,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def finish(self, process: subprocess.Popen[str]) -> Run:
        """Waits for the program to end."""
        try:
            stdout, stderr = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
        return Run(process.returncode, stdout, stderr)

    def run(self, *arguments: str) -> Run:
        """The program from start to end, without a terminal."""
        return self.finish(self.start(*arguments))

    def run_here(self, *arguments: str) -> Run:
        """The program in this process, for what ends before the Hub is asked."""
        stdout, stderr = io.StringIO(), io.StringIO()
        options = [*arguments, "--folder", str(self.models)]
        # This process would ask the Hub itself, not the tests' one: that must not happen.
        with patch("ai_models.__main__.Downloader", side_effect=AssertionError("the Hub is asked")):
            code = main(options, self.environment(), io.StringIO(), stdout, stderr)
        return Run(code, stdout.getvalue(), stderr.getvalue())

    def run_at_terminal(self, answer: str, *arguments: str) -> Run:
        """The program at a terminal, where somebody types an answer."""
        ours, theirs = pty.openpty()
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "ai_models", *arguments],
                env={**self.environment(), "COLUMNS": "200"},
                cwd=self.root,
                text=True,
                stdin=theirs,
                stdout=theirs,
                stderr=subprocess.PIPE,
            )
            os.close(theirs)
            os.write(ours, f"{answer}\n".encode())
            shown = b""
            with contextlib.suppress(OSError):  # the terminal is gone with the process
                while chunk := os.read(ours, 4096):
                    shown += chunk
            run = self.finish(process)
            return Run(run.code, shown.decode(), run.stderr)
        finally:
            os.close(ours)

    def unfinished_bytes(self) -> int:
        """Bytes of files that are not complete yet; the program may move any of them away meanwhile."""
        total = 0
        for path in (self.models / STATE_FOLDER).rglob("*.data"):
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def sent_bytes(self) -> int:
        """Bytes of files that the Hub has sent so far."""
        return sum(seen.body_bytes for seen in self.hub.requests if not seen.path.startswith("/api/"))

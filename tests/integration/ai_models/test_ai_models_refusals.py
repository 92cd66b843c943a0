"""What stands in the way is told in words for people at a terminal, with an exit status, and costs nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.ai_models import FILES, Machine, files_below
from support.downloads import content, wait_until
from support.hub_server import HubServer

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system, which only root may")


def test_the_list_of_files_has_sizes_and_totals_in_columns_and_writes_nothing(machine: Machine, hub: HubServer) -> None:
    run = machine.run("--dry-run")
    assert run.code == 0, run.stderr
    assert not machine.models.exists()
    assert machine.sent_bytes() == 0
    lines = run.stdout.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("FILE"))
    rows = lines[start : start + 43]
    assert len({len(row) for row in rows if row}) == 1
    assert rows[0].split() == ["FILE", "SIZE", "TO", "FETCH"]
    commit = hub.repositories["coqui/XTTS-v2"].names["main"][:12]
    assert any(row.startswith(f"= xtts-v2: coqui/XTTS-v2 at {commit} ") for row in rows)
    assert next(row for row in rows if "ocr/det/inference.onnx" in row).split()[1:] == ["20.0", "kB", "20.0", "kB"]
    assert rows[-1].split() == ["all", "29", "files", "243.4", "kB", "243.4", "kB"]
    assert "Into " + str(machine.models) in run.stdout
    assert " free." in run.stdout


def test_the_licence_of_xtts_must_be_accepted(machine: Machine, hub: HubServer) -> None:
    run = machine.run_here()
    assert run.code == 3
    assert "there is no terminal" in run.stderr
    assert "--accept-licences" in run.stderr
    assert "NON-COMMERCIAL USE ONLY" in run.stderr
    assert hub.requests == []

    run = machine.run_at_terminal("", "text-to-speech")
    assert run.code == 3
    assert "Do you accept? [y/N]" in run.stdout
    assert "was not accepted, and nothing was fetched" in run.stderr
    assert hub.requests == []
    assert not machine.models.exists()

    run = machine.run_at_terminal("yes", "text-to-speech")
    assert run.code == 0, run.stderr
    assert "100 %" in run.stdout or "fetched and verified" in run.stdout
    assert (machine.models / "text-to-speech/xtts-v2/model.pth").exists()


def test_options_are_spelled_as_in_powershell_there(machine: Machine) -> None:
    machine.environ["AI_MODELS_PROGRAM"] = "download-ai-models.ps1"
    assert "-AcceptLicences;" in machine.run_here("xtts-v2").stderr


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[None]:
    """A file system of its own; needs root."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@needs_root
def test_a_disk_that_is_too_small_is_told_before_a_byte(machine: Machine) -> None:
    with small_disk(machine.models, 60 << 20):
        run = machine.run("--accept-licences")
        planned = machine.run("--dry-run")
    assert run.code == 2
    assert "243.4 kB are still to be fetched (stable-diffusion-xl 101.0 kB, xtts-v2" in run.stderr
    assert "has 62.9 MB free" in run.stderr
    assert "--folder" in run.stderr
    assert machine.sent_bytes() == 0
    assert planned.code == 0
    assert "has 62.9 MB free" in planned.stdout


@needs_root
def test_a_disk_that_others_fill_meanwhile(machine: Machine, hub: HubServer) -> None:
    files = {"config.json": b"{}", "generation_config.json": b"{}", "model.safetensors": content(12 << 20)}
    hub.repositories["openai/whisper-large-v3"].commit(files)
    hub.bytes_per_second = 4 << 20
    with small_disk(machine.models, 90 << 20):
        process = machine.start("speech-to-text")
        wait_until(lambda: machine.unfinished_bytes() > 0, "for the first bytes")
        (machine.models / "someone-elses").write_bytes(bytes(84 << 20))
        run = machine.finish(process)
    assert run.code == 2
    assert "are still to be written" in run.stderr
    assert "choose a folder on another disk with --folder" in run.stderr
    assert "storage.size" not in run.stderr


def test_a_repository_that_wants_a_token(machine: Machine, hub: HubServer) -> None:
    name = "Salesforce/blip2-opt-2.7b"
    closed = hub.repository(name, token="hf_secret")
    closed.commit({path: content(2_000, path) for path in FILES[name]})
    run = machine.run("blip-2")
    assert run.code == 2
    assert "answered 401" in run.stderr
    assert "set HF_TOKEN to an access token" in run.stderr
    assert "tokenSecretRef" not in run.stderr

    machine.environ["HF_TOKEN"] = "hf_wrong"
    run = machine.run("blip-2")
    assert run.code == 2
    assert "the token in HF_TOKEN is wrong" in run.stderr
    assert "hf_wrong" not in run.stdout + run.stderr

    machine.environ["HF_TOKEN"] = "hf_secret"
    assert machine.run("blip-2").code == 0
    # The tests' Hub answers 400 where a token comes along to another server.
    assert all(seen.status != 400 for seen in hub.requests)


def test_a_repository_that_is_gone(machine: Machine, hub: HubServer) -> None:
    del hub.repositories["PaddlePaddle/PP-OCRv6_small_rec_onnx"]
    machine.environ["HF_TOKEN"] = "hf_any"
    run = machine.run("image-to-text")
    assert run.code == 2
    assert "PaddlePaddle/PP-OCRv6_small_rec_onnx" in run.stderr
    assert "does not exist" in run.stderr
    assert machine.sent_bytes() == 0


def test_a_hub_that_cannot_be_asked(machine: Machine) -> None:
    machine.environ["HF_ENDPOINT"] = "hub.corp.example"
    run = machine.run_here("whisper-large-v3")
    assert run.code == 2
    assert "HF_ENDPOINT is 'hub.corp.example'" in run.stderr
    machine.environ["HF_ENDPOINT"] = machine.hub.url
    machine.environ["HF_HUB_OFFLINE"] = "1"
    run = machine.run_here("whisper-large-v3")
    assert run.code == 2
    assert "HF_HUB_OFFLINE is set" in run.stderr


def test_what_others_put_into_a_folder_is_not_replaced(machine: Machine, hub: HubServer) -> None:
    folder = machine.models / "text-to-image/stable-diffusion-xl"
    (folder / "loras").mkdir(parents=True)
    (folder / "loras/pencil.safetensors").write_bytes(b"mine")
    run = machine.run_here("text-to-image")
    assert run.code == 2
    assert "holds what this program did not put there (loras/pencil.safetensors)" in run.stderr
    assert hub.requests == []
    assert files_below(machine.models) == {"text-to-image/stable-diffusion-xl/loras/pencil.safetensors"}


def test_adapters_beside_a_complete_model_stay(machine: Machine, hub: HubServer) -> None:
    assert machine.run("text-to-image").code == 0
    folder = machine.models / "text-to-image/stable-diffusion-xl"
    (folder / "loras").mkdir()
    (folder / "loras/pencil.safetensors").write_bytes(b"mine")
    (folder / "unet/diffusion_pytorch_model.fp16.safetensors").unlink()
    assert machine.run("text-to-image", "--verify").code == 0
    assert (folder / "loras/pencil.safetensors").read_bytes() == b"mine"
    assert (folder / "unet/diffusion_pytorch_model.fp16.safetensors").stat().st_size == 20_000


def test_a_folder_that_is_no_folder(machine: Machine) -> None:
    machine.models.write_text("a file")
    run = machine.run_here("paddleocr")
    assert run.code == 1
    assert "Check that you may write there" in run.stderr
    assert "Traceback" not in run.stderr

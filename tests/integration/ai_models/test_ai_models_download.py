"""Models come into the folders that docs/inference.md describes, whole, once, and however often it takes."""

from __future__ import annotations

import json
import re
import signal

from support.ai_models import Machine, body, files_below
from support.downloads import MANIFEST, content, sha256, wait_until
from support.hub_server import HubServer

ALL = {
    "text-to-image/stable-diffusion-xl/LICENSE.md",
    "text-to-image/stable-diffusion-xl/model_index.json",
    "text-to-image/stable-diffusion-xl/scheduler/scheduler_config.json",
    "text-to-image/stable-diffusion-xl/tokenizer/merges.txt",
    "text-to-image/stable-diffusion-xl/tokenizer/vocab.json",
    "text-to-image/stable-diffusion-xl/text_encoder/model.fp16.safetensors",
    "text-to-image/stable-diffusion-xl/text_encoder_2/model.fp16.safetensors",
    "text-to-image/stable-diffusion-xl/unet/diffusion_pytorch_model.fp16.safetensors",
    "text-to-image/stable-diffusion-xl/vae/diffusion_pytorch_model.fp16.safetensors",
    "text-to-image/stable-diffusion-xl/vae/diffusion_pytorch_model.safetensors",
    "text-to-speech/xtts-v2/LICENSE.txt",
    "text-to-speech/xtts-v2/config.json",
    "text-to-speech/xtts-v2/vocab.json",
    "text-to-speech/xtts-v2/model.pth",
    "text-to-speech/xtts-v2/speakers_xtts.pth",
    "speech-to-text/whisper-large-v3/config.json",
    "speech-to-text/whisper-large-v3/generation_config.json",
    "speech-to-text/whisper-large-v3/model.safetensors",
    "image-to-text/caption/config.json",
    "image-to-text/caption/merges.txt",
    "image-to-text/caption/tokenizer.json",
    "image-to-text/caption/preprocessor_config.json",
    "image-to-text/caption/model-00001-of-00002.safetensors",
    "image-to-text/caption/model-00002-of-00002.safetensors",
    "image-to-text/caption/model.safetensors.index.json",
    "image-to-text/ocr/det/inference.onnx",
    "image-to-text/ocr/det/inference.yml",
    "image-to-text/ocr/rec/inference.onnx",
    "image-to-text/ocr/rec/inference.yml",
}


def test_all_five_tasks_and_then_nothing_twice(machine: Machine, hub: HubServer) -> None:
    run = machine.run("--accept-licences")
    assert run.code == 0, run.stderr
    assert files_below(machine.models) == ALL
    sdxl = machine.models / "text-to-image/stable-diffusion-xl"
    repo = "stabilityai/stable-diffusion-xl-base-1.0"
    for path in files_below(sdxl):
        assert (sdxl / path).read_bytes() == body(repo, path)
    manifest = json.loads((sdxl / MANIFEST).read_text())
    assert manifest["revision"] == hub.repositories[repo].names["main"]
    assert {file["path"]: file["sha256"] for file in manifest["files"]} == {
        path: sha256(body(repo, path)) for path in files_below(sdxl)
    }

    words = " ".join(run.stdout.split())
    assert "!! xtts-v2: Coqui Public Model License 1.0 (CPML). NON-COMMERCIAL USE ONLY" in words
    for licence in ("Open RAIL++-M", "Apache-2.0", "MIT", "EXCLUDES COMMERCIAL USE"):
        assert licence in words
    assert "image-to-image uses the weights of text-to-image: they are fetched once" in run.stdout
    assert f"text-to-image, image-to-image: {sdxl}" in run.stdout
    assert re.search(r"^image-to-text/ocr/rec: 2 files, 20\.2 kB, fetched and verified in \d+ s$", run.stdout, re.M)
    unet = f"/{repo}/resolve/{manifest['revision']}/unet/diffusion_pytorch_model.fp16.safetensors"
    assert len(hub.gets(unet)) == 1

    hub.requests.clear()
    again = machine.run()  # nothing is fetched, so nothing has to be accepted
    assert again.code == 0
    assert "text-to-speech/xtts-v2: there already" in again.stdout
    assert hub.requests == []


def test_a_task_that_shares_its_weights_comes_into_the_folder_of_the_other(machine: Machine) -> None:
    run = machine.run("image-to-image", "--folder", "elsewhere with spaces")
    assert run.code == 0, run.stderr
    found = files_below(machine.root / "elsewhere with spaces")
    assert found == {path for path in ALL if path.startswith("text-to-image/")}
    assert "they are fetched once, into text-to-image/" in run.stdout


def test_models_that_are_no_defaults(machine: Machine) -> None:
    run = machine.run("faster-whisper-large-v3", "stable-diffusion-xl-fp32", "paddleocr")
    assert run.code == 0, run.stderr
    found = files_below(machine.models)
    assert {path for path in found if path.startswith("speech")} == {
        f"speech-to-text/faster-whisper-large-v3/{name}"
        for name in ("config.json", "model.bin", "tokenizer.json", "preprocessor_config.json", "vocabulary.json")
    }
    assert {path for path in found if path.endswith(".safetensors")} == {
        f"text-to-image/stable-diffusion-xl-fp32/{name}.safetensors"
        for name in (
            "text_encoder/model",
            "text_encoder_2/model",
            "unet/diffusion_pytorch_model",
            "vae/diffusion_pytorch_model",
        )
    }
    assert "Not verified: the names of these two repositories" in " ".join(run.stdout.split())


def large_whisper(hub: HubServer, size: int) -> bytes:
    """Gives the Hub a larger model, which takes a while."""
    data = content(size)
    files = {"config.json": b"{}", "generation_config.json": b"{}", "model.safetensors": data}
    hub.repositories["openai/whisper-large-v3"].commit(files)
    return data


def test_a_kill_costs_no_more_than_what_was_on_its_way(machine: Machine, hub: HubServer) -> None:
    data = large_whisper(hub, 8 << 20)
    hub.bytes_per_second = 4 << 20
    process = machine.start("speech-to-text")
    wait_until(lambda: machine.unfinished_bytes() > 3 << 20, "for three MiB")
    process.send_signal(signal.SIGKILL)
    assert machine.finish(process).code == -signal.SIGKILL
    kept = machine.unfinished_bytes()
    assert files_below(machine.models) == set()

    hub.bytes_per_second = None
    planned = machine.run("speech-to-text", "--dry-run")
    assert f"{(len(data) - kept) / 1e6:.1f} MB" in planned.stdout
    run = machine.run("speech-to-text")
    assert run.code == 0, run.stderr
    folder = machine.models / "speech-to-text/whisper-large-v3"
    assert (folder / "model.safetensors").read_bytes() == data
    first, second = hub.gets(f"/cdn/{sha256(data)}")
    assert second.header("Range") == f"bytes={kept}-"
    assert first.body_bytes + second.body_bytes - len(data) < kept


def test_what_was_stopped_says_so_and_goes_on(machine: Machine, hub: HubServer) -> None:
    data = large_whisper(hub, 4 << 20)
    hub.bytes_per_second = 2 << 20
    process = machine.start("whisper-large-v3")
    wait_until(lambda: machine.unfinished_bytes() > 1 << 20, "for a MiB")
    process.send_signal(signal.SIGINT)
    stopped = machine.finish(process)
    assert stopped.code == 130
    assert stopped.stderr == "error: Stopped. What was fetched is kept, and the next run goes on from there.\n"

    hub.bytes_per_second = None
    assert machine.run("whisper-large-v3").code == 0
    assert hub.gets(f"/cdn/{sha256(data)}")[-1].status == 206


def test_two_at_a_time_fetch_it_once(machine: Machine, hub: HubServer) -> None:
    data = large_whisper(hub, 2 << 20)
    hub.bytes_per_second = 200 << 10
    first = machine.start("whisper-large-v3")
    wait_until(lambda: machine.unfinished_bytes() > 0, "for the first to begin")
    second = machine.start("whisper-large-v3")
    lists = "/api/models/openai/whisper-large-v3/revision/main"
    wait_until(lambda: len(hub.gets(lists)) == 2, "for the second to begin")
    hub.bytes_per_second = None
    assert machine.finish(first).code == 0
    assert machine.finish(second).code == 0
    assert len(hub.gets(f"/cdn/{sha256(data)}")) == 1


def test_damaged_files_are_mended_and_nothing_else_is_fetched(machine: Machine, hub: HubServer) -> None:
    assert machine.run("speech-to-text").code == 0
    model = machine.models / "speech-to-text/whisper-large-v3/model.safetensors"
    right = model.read_bytes()
    model.write_bytes(right[:-1])  # seen by its size
    hub.requests.clear()
    run = machine.run("speech-to-text")
    assert run.code == 0, run.stderr
    assert "1 of 3 files were damaged, and are right again" in run.stdout
    assert model.read_bytes() == right
    assert machine.sent_bytes() == len(right)

    model.write_bytes(right[:-1] + b"!")  # seen by its content only
    run = machine.run("speech-to-text", "--verify")
    assert "1 of 3 files were damaged" in run.stdout
    assert model.read_bytes() == right
    hub.requests.clear()
    run = machine.run("speech-to-text", "--verify")
    assert "3 files, 20.4 kB, verified" in run.stdout
    assert hub.requests == []  # so that it works where there is no Hub


def test_a_file_that_is_not_what_the_hub_lists_is_not_taken(machine: Machine, hub: HubServer) -> None:
    right = body("openai/whisper-large-v3", "model.safetensors")
    hub.files[f"/cdn/{sha256(right)}"] = right[:-1] + b"!"
    run = machine.run("speech-to-text")
    assert run.code == 2
    assert "has the sha256 digest" in run.stderr
    assert "run this program again" in run.stderr
    assert files_below(machine.models) == set()

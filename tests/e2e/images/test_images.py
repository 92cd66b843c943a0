"""The images as they are run: by another user than root, on a read-only root file system, without a network.

They are built first if they are not up to date, which takes minutes the first time and seconds later.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.oci import UnpackedImage, unpack

ROOT = Path(__file__).resolve().parents[3]

MODULES = {
    "operator": "aiservice_operator",
    "gateway": "aiservice_gateway",
    "model-downloader": "aiservice_downloader",
    "diffusion": "aiservice_diffusion",
    "speech-recognition": "aiservice_speech_recognition",
    "speech-synthesis": "aiservice_speech_synthesis",
    "vision": "aiservice_vision",
}
NEEDS = {
    "operator": ["kopf", "kubernetes.aio"],
    "gateway": ["fastapi", "hiredis", "asyncpg", "cryptography", "multipart", "opentelemetry.sdk"],
    "model-downloader": ["httpx2", "huggingface_hub"],
    "diffusion": ["torch", "diffusers", "peft", "accelerate", "bitsandbytes", "aiservice_runtime.app"],
    "speech-recognition": ["torch", "whisper", "faster_whisper", "aiservice_runtime.app"],
    "speech-synthesis": ["torch", "soundfile", "soxr", "aiservice_speech_synthesis.engine", "aiservice_runtime.app"],
    "vision": ["torch", "transformers", "bitsandbytes", "cv2", "paddleocr", "onnxruntime", "aiservice_runtime.app"],
}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="unpacks and runs images, which only root may")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if shutil.which("runc") is None:
        script = f"source {ROOT}/scripts/lib/debian.sh && need_packages runc"
        subprocess.run(["bash", "-c", script], check=True)
    folder = tmp_path_factory.mktemp("bundles")
    yield folder
    shutil.rmtree(folder)  # gigabytes, which pytest would keep


@pytest.fixture(scope="module", params=list(MODULES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def image(name: str, bundles: Path) -> Iterator[UnpackedImage]:
    subprocess.run([ROOT / "scripts/images", "--only", name], check=True, stdout=subprocess.DEVNULL)
    tar = subprocess.run(
        [ROOT / "scripts/images", "paths", "--only", name], check=True, capture_output=True, text=True
    ).stdout.strip()
    unpacked = unpack(Path(tar), bundles / name)
    yield unpacked
    shutil.rmtree(unpacked.root)


def test_the_image_says_what_it_is_and_who_it_runs_as(name: str, image: UnpackedImage) -> None:
    assert image.config["User"] == "65532:65532"
    assert image.config["Entrypoint"] == ["python", "-m", MODULES[name]]
    assert image.config["StopSignal"] == "SIGTERM"
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.version"] == "0.1.0"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.title"].startswith("AIService ")


def test_its_program_answers_as_that_user_on_a_read_only_root(name: str, image: UnpackedImage, bundles: Path) -> None:
    result = image.run(bundles, "python", "-m", MODULES[name], "--help")
    assert (result.code, result.stderr) == (0, "")
    assert "usage:" in result.stdout.lower()


def test_what_its_program_needs_can_be_imported(name: str, image: UnpackedImage, bundles: Path) -> None:
    script = "import os, pwd, " + ", ".join(NEEDS[name]) + "; print(os.getuid(), pwd.getpwuid(os.getuid()).pw_name)"
    result = image.run(bundles, "python", "-W", "ignore", "-c", script)
    assert result.code == 0, result.stderr
    assert result.stdout.split() == ["65532", "aiservice"]


def test_nothing_but_tmp_can_be_written(name: str, image: UnpackedImage, bundles: Path) -> None:
    script = (
        "touch /tmp/x && for folder in / /app /opt /opt/venv /root /var/cache;"
        " do touch $folder/x 2>/dev/null && echo $folder; done; true"
    )
    result = image.run(bundles, "sh", "-c", script)
    assert (result.code, result.stdout) == (0, "")


def test_its_user_owns_nothing_and_nothing_is_writable_by_all(name: str, image: UnpackedImage) -> None:
    writable = [
        path
        for folder in ("app", "opt", "usr", "etc")
        for path in (image.root / folder).rglob("*")
        if not path.is_symlink() and (path.stat().st_uid == 65532 or path.stat().st_mode & 0o002)
    ]
    assert writable == []


def test_the_build_left_nothing_behind(name: str, image: UnpackedImage) -> None:
    for folder in ("var/cache/build", "var/lib/apt/lists", "var/cache/apt", "root", "tmp", "run", "wheels"):
        # Empty folders are where the build's mounts were.
        left = [path for path in (image.root / folder).rglob("*") if path.is_file() and path.stat().st_size > 0]
        assert [path for path in left if path.name not in {".bashrc", ".profile"}] == []
    packages = image.root / "opt/venv/lib/python3.11/site-packages"
    assert not list(packages.glob("uv-*"))
    assert not list(packages.glob("pip-*"))
    assert not list((image.root / "app").rglob("tests"))


def test_python_files_are_compiled(name: str, image: UnpackedImage) -> None:
    """A read-only root cannot keep what Python compiles: every start would do it again."""
    for folder in (image.root / "app" / MODULES[name], image.root / "opt/venv/lib/python3.11/site-packages/pydantic"):
        sources = {path.stem for path in folder.glob("*.py")}
        compiled = {path.name.split(".")[0] for path in (folder / "__pycache__").glob("*.pyc")}
        assert sources
        assert sources == compiled


@pytest.mark.parametrize("name", ["diffusion", "speech-recognition", "speech-synthesis", "vision"], scope="module")
def test_inference_images_have_a_torch_without_other_torches(name: str, image: UnpackedImage, bundles: Path) -> None:
    packages = {
        path.name.split("-")[0] for path in image.root.glob("opt/venv/lib/python3.11/site-packages/*.dist-info")
    }
    assert "torch" in packages
    assert "torchvision" not in packages
    assert ("torchaudio" in packages) == (name == "speech-synthesis")
    script = "import torch; print(float((torch.ones(64, 64) @ torch.ones(64, 64)).sum()))"
    assert image.run(bundles, "python", "-c", script).stdout.strip() == str(float(64**3))


@pytest.mark.parametrize("name", ["diffusion"], scope="module")
def test_the_diffusion_image_can_compile(name: str, image: UnpackedImage, bundles: Path) -> None:
    script = "import torch; print(float(torch.compile(lambda x: x.sin() + x.cos())(torch.zeros(8)).sum()))"
    result = image.run(bundles, "python", "-W", "ignore", "-c", script)
    assert result.stdout.strip() == "8.0", result.stderr


@pytest.mark.parametrize("name", ["speech-recognition", "speech-synthesis"], scope="module")
def test_the_speech_images_decode_compressed_audio(name: str, image: UnpackedImage, bundles: Path) -> None:
    encode = "ffmpeg -v error -f lavfi -i sine=frequency=440:duration=1 /tmp/a.{kind} && "
    decode = "ffmpeg -v error -i /tmp/a.{kind} -f s16le -ac 1 -ar 16000 - | wc -c"
    for kind in ("mp3", "flac", "ogg", "m4a", "webm"):
        result = image.run(bundles, "sh", "-c", (encode + decode).format(kind=kind))
        assert result.code == 0, result.stderr
        assert int(result.stdout) == pytest.approx(32_000, rel=0.1)


@pytest.mark.parametrize("name", ["speech-synthesis"], scope="module")
def test_the_synthesis_image_imports_its_models(name: str, image: UnpackedImage, bundles: Path) -> None:
    script = (
        "from aiservice_speech_synthesis import coqui; coqui.prepare();"
        " import aiservice_speech_synthesis.xtts_model, aiservice_speech_synthesis.coqui_model;"
        " from TTS.tts.utils.text.phonemizers import ESpeak; print(ESpeak('en-us').phonemize('hello', separator=''))"
    )
    result = image.run(bundles, "python", "-W", "ignore", "-c", script)
    assert result.code == 0, result.stderr
    assert "l" in result.stdout

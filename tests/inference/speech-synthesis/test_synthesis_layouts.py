"""What a model folder may hold, what it may not, and what is told of one that is damaged."""

from __future__ import annotations

import importlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from aiservice_runtime import FatalError
from aiservice_speech_synthesis import folders
from aiservice_speech_synthesis.engine import SynthesisEngine
from aiservice_speech_synthesis.settings import SynthesisSettings
from support.synthesis import loaded


@pytest.fixture
def copy(vits: Path, tmp_path: Path) -> Path:
    """A VITS that a test may damage."""
    return Path(shutil.copytree(vits, tmp_path / "model"))


def test_nothing_is_written_beside_the_model(xtts: Path, engine: object) -> None:
    assert sorted(path.name for path in xtts.iterdir()) == [
        "config.json",
        "model.pth",
        "speakers_xtts.pth",
        "vocab.json",
    ]
    with pytest.raises(pickle.UnpicklingError):
        torch.load(xtts / "model.pth", weights_only=True)  # still as published, not converted in place


def test_xtts_is_read_straight_onto_the_device_and_draws_no_weights(xtts: Path) -> None:
    # `meta`, which holds no values, stands for a GPU; nothing is moved there later.
    checkpoints, xtts_model = (
        importlib.import_module(f"aiservice_speech_synthesis.{name}") for name in ("checkpoints", "xtts_model")
    )
    content = folders.read_config(xtts / "config.json", folders.MODELS)
    random = torch.get_rng_state()
    model = xtts_model._load(xtts, checkpoints.configured(content), "meta")
    places = {name: tensor.device.type for name, tensor in model.state_dict().items()}
    assert len(places) > 100
    assert set(places.values()) == {"meta"}
    assert torch.equal(torch.get_rng_state(), random)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match=r"No Coqui model in .*expected config\.json"):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("config.json", b"{", "is no JSON"),
        ("config.json", b"[]", "no object"),
        ("config.json", b'{"model": "bark"}', "not served here .'bark'"),
        ("model.pth", b"", "cannot be loaded"),
        ("model.pth", b"PK\x03\x04 and then nothing", "cannot be loaded"),
        ("model.pth", None, "No weights in"),
    ],
    ids=str,
)
def test_damage_is_told_in_a_sentence(copy: Path, name: str, content: bytes | None, sentence: str) -> None:
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_bytes(content)
    with pytest.raises(FatalError, match=sentence):
        loaded(copy)


def test_a_file_cut_short(copy: Path) -> None:
    content = (copy / "model.pth").read_bytes()
    (copy / "model.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(FatalError, match="cannot be loaded"):
        loaded(copy)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_no_room_is_not_told_as_damage(tmp_path: Path, error: Exception) -> None:
    checkpoints = importlib.import_module("aiservice_speech_synthesis.checkpoints")  # once coqui-tts can be imported
    with pytest.raises(type(error)), checkpoints.told(tmp_path):
        raise error


def test_weights_of_another_model(copy: Path) -> None:
    torch.save({"model": {"emb.weight": torch.zeros(3)}}, copy / "model.pth")
    with pytest.raises(FatalError, match=r"damaged, or config\.json is of another"):
        loaded(copy)


def examples_of(folder: Path) -> list[Any]:
    [task] = SynthesisEngine(SynthesisSettings(model_dir=folder)).tasks
    return [*task.examples]


def test_examples_are_those_that_the_model_answers(xtts: Path, small: SynthesisEngine, tmp_path: Path) -> None:
    [task] = small.tasks
    assert [example.name for example in task.examples] == ["speech", "same-again", "stream", "file"]
    for example in task.examples:
        assert task.prepare(task.body(**example.request)).pieces
    assert [example.name for example in examples_of(xtts)] == ["speech", "same-again", "cloned-voice", "stream", "file"]
    shutil.copy(xtts / "config.json", tmp_path)
    assert [example.name for example in examples_of(tmp_path)] == ["cloned-voice"], "it has no voices of its own"
    (tmp_path / "config.json").write_text("{")
    assert examples_of(tmp_path), "what is wrong with it, loading tells"


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('code of a checkpoint ran')",)


def test_code_in_a_checkpoint_is_not_run(copy: Path) -> None:
    torch.save({"model": _Code()}, copy / "model.pth")
    with pytest.raises(FatalError, match="cannot be loaded"):
        loaded(copy)


def test_xtts_without_its_vocabulary(xtts: Path, tmp_path: Path) -> None:
    shutil.copy(xtts / "config.json", tmp_path)
    with pytest.raises(FatalError, match=r"vocab\.json is missing"):
        loaded(tmp_path)


def test_a_configuration_names_files_of_its_folder_only(tmp_path: Path) -> None:
    (tmp_path / "speakers.json").touch()
    (tmp_path / "model_se.pth").touch()
    config = {
        "model": "vits",
        "speakers_file": "https://example.com/speaker_ids.json",
        "model_args": {
            "d_vector_file": ["/raid/x/speakers.json"],
            "speaker_encoder_model_path": "s3://bucket/model_se.pth",
            "speaker_encoder_config_path": "../config_se.json",
            "gpt_checkpoint": "/raid/gpt.pth",
        },
    }
    got = folders.localised(config, tmp_path)
    assert got["speakers_file"] is None
    assert got["model_args"] == {
        "d_vector_file": [str(tmp_path / "speakers.json")],
        "speaker_encoder_model_path": str(tmp_path / "model_se.pth"),
        "speaker_encoder_config_path": None,
        "gpt_checkpoint": None,
    }


@pytest.mark.parametrize(
    "change",
    [{"audio": {"stats_path": "scale_stats.npy"}}, {"characters": {"characters_class": "os.system"}}],
    ids=str,
)
def test_configurations_that_would_run_code_are_refused(copy: Path, change: dict[str, Any]) -> None:
    config = json.loads((copy / "config.json").read_text())
    for part, fields in change.items():
        config[part] = {**(config[part] or {}), **fields}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(FatalError, match=r"pickled code|not Coqui's own"):
        loaded(copy)


def test_fp16_is_refused(vits: Path) -> None:
    with pytest.raises(FatalError, match="set precision to auto or fp32"):
        loaded(vits, precision="fp16")

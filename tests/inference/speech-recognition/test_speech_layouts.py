"""Both layouts of a Whisper model give the same model; what is no model is told in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import whisper
from safetensors import safe_open
from transformers import WhisperForConditionalGeneration
from whisper.model import Whisper

from aiservice_runtime import FatalError, InvalidRequestError
from aiservice_runtime.precision import GIB
from aiservice_speech_recognition import weights as weights_module
from aiservice_speech_recognition.engine import SpeechEngine
from aiservice_speech_recognition.openai_model import OpenAITranscriber, build
from aiservice_speech_recognition.settings import SpeechSettings
from aiservice_speech_recognition.sizes import parameters_of
from aiservice_speech_recognition.weights import read_weights
from support import models
from support.engines import load
from weights import tiny


@pytest.mark.parametrize("shards", [False, True])
def test_the_hugging_face_layout_gives_what_transformers_computes(tmp_path: Path, shards: bool) -> None:
    tiny.hugging_face_whisper(tmp_path, shards=shards)
    assert (tmp_path / "model.safetensors.index.json").exists() == shards
    ours = build(read_weights(tmp_path), precision="fp32", device="cpu")
    theirs: Any = WhisperForConditionalGeneration.from_pretrained(tmp_path, local_files_only=True)
    theirs.eval()
    mel = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[50258, 50259, 50359, 50363, 400, 500]])
    with torch.no_grad():
        expected = theirs(input_features=mel, decoder_input_ids=tokens).logits
        got = ours(mel, tokens)
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1
    assert ours.alignment_heads.to_dense().tolist() == [[False, True], [True, False]]


def test_a_checkpoint_loads_as_whisper_itself_loads_it(weights: Path) -> None:
    ours = build(read_weights(weights / "whisper"), precision="fp32", device="cpu")
    theirs = whisper.load_model(str(weights / "whisper" / "tiny.en.pt"), device="cpu")
    mine, original = ours.state_dict(), theirs.state_dict()
    assert set(mine) == set(original)
    assert all(torch.equal(mine[name], original[name]) for name in original)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    # The heads that follow time, which load_model() knows only for checkpoints that it fetched itself.
    theirs.set_alignment_heads(whisper._ALIGNMENT_HEADS["tiny.en"])
    assert torch.equal(ours.alignment_heads.to_dense(), theirs.alignment_heads.to_dense())


def test_a_checkpoint_is_read_straight_onto_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `meta`, which holds no values, stands for a GPU; nothing is moved there later.
    tiny.whisper(tmp_path / "model.pt")
    monkeypatch.setattr(Whisper, "to", lambda model, _: model)
    on_device = build(read_weights(tmp_path, device="meta", dtype=torch.float16), precision="fp16", device="meta")
    assert {parameter.device.type for parameter in on_device.parameters()} == {"meta"}
    assert on_device.encoder.conv1.weight.dtype == torch.float16


@pytest.mark.parametrize("shards", [False, True])
def test_safetensors_are_opened_for_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: bool) -> None:
    tiny.hugging_face_whisper(tmp_path, shards=shards)
    opened: list[tuple[str, str]] = []

    def for_device(path: Path, *, framework: str, device: str) -> Any:
        opened.append((path.name, device))
        return safe_open(path, framework=framework, device="cpu")

    monkeypatch.setattr(weights_module, "safe_open", for_device)
    tensors = read_weights(tmp_path, device="cuda").tensors
    assert opened == [(path.name, "cuda") for path in sorted(tmp_path.glob("*.safetensors"))]
    # What is read is what the model holds: no tensor is copied again.
    read = read_weights(tmp_path)
    assert set(read.tensors) == set(tensors)
    built = build(read, precision="fp32", device="cpu").state_dict()
    assert {name for name in read.tensors if built[name].data_ptr() != read.tensors[name].data_ptr()} == set()


def test_half_precision_keeps_layer_norms_and_results(tmp_path: Path) -> None:
    tiny.whisper(tmp_path / "model.pt")
    half = build(read_weights(tmp_path), precision="fp16", device="cpu")
    full = build(read_weights(tmp_path), precision="fp32", device="cpu")
    kinds = {name: parameter.dtype for name, parameter in half.named_parameters()}
    assert kinds["encoder.ln_post.weight"] == kinds["decoder.blocks.0.attn_ln.bias"] == torch.float32
    assert kinds["encoder.conv1.weight"] == kinds["decoder.token_embedding.weight"] == torch.float16
    mel = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[50257, 50362, 400]])
    with torch.no_grad():
        expected = full(mel, tokens)
        difference = (half(mel.half(), tokens) - expected).abs().max()
    assert 0 < difference < 0.02 * expected.std()


def test_a_multilingual_model_detects_and_takes_languages(tmp_path: Path) -> None:
    tiny.whisper(tmp_path / "model.pt", vocabulary=51866)
    transcriber = OpenAITranscriber(
        build(read_weights(tmp_path), precision="fp32", device="cpu"), half=False, device="cpu", beam_size=1
    )
    assert transcriber.language_code(None, translate=True) is None
    assert transcriber.language_code("de", translate=False) == "de"
    assert transcriber.language_code("German", translate=False) == "de"
    assert transcriber.language_code("yue", translate=False) == "yue"
    with pytest.raises(InvalidRequestError, match="not known"):
        transcriber.language_code("klingon", translate=False)


def test_a_language_newer_than_the_model_is_refused(tmp_path: Path) -> None:
    tiny.whisper(tmp_path / "model.pt", vocabulary=51865)
    transcriber = OpenAITranscriber(
        build(read_weights(tmp_path), precision="fp32", device="cpu"), half=False, device="cpu", beam_size=1
    )
    with pytest.raises(InvalidRequestError, match="not known"):
        transcriber.language_code("yue", translate=False)  # Cantonese came with large-v3


def test_a_hugging_face_model_warms_up(tmp_path: Path) -> None:
    tiny.hugging_face_whisper(tmp_path)
    engine = SpeechEngine(SpeechSettings(model_dir=tmp_path))
    load(engine)
    engine.warm_up()  # encodes, decodes and aligns
    engine.release()


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match=r"No Whisper model in .*one \*\.pt file.*model\.safetensors"):
        read_weights(tmp_path)


def test_two_checkpoints_are_told(tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(FatalError, match=r"More than one checkpoint .*a\.pt, b\.pt"):
        read_weights(tmp_path)


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"not a model")
    with pytest.raises(FatalError, match="cannot be read"):
        read_weights(tmp_path)


def test_a_checkpoint_with_code_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return (Path.touch, (marker,))

    torch.save({"dims": Evil(), "model_state_dict": {}}, tmp_path / "model.pt")
    with pytest.raises(FatalError, match="cannot be read"):
        read_weights(tmp_path)
    assert not marker.exists()


def test_weights_of_another_shape_are_told(tmp_path: Path) -> None:
    tiny.hugging_face_whisper(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"decoder_layers": 3}))
    with pytest.raises(FatalError, match="do not fit the model"):
        build(read_weights(tmp_path), precision="fp32", device="cpu")


def test_a_missing_weights_file_is_told(tmp_path: Path) -> None:
    tiny.hugging_face_whisper(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FatalError, match="No weights beside"):
        read_weights(tmp_path)


def test_parameters_are_counted_without_loading(tmp_path: Path, weights: Path) -> None:
    tiny.hugging_face_whisper(tmp_path)
    model = build(read_weights(weights / "whisper"), precision="fp32", device="cpu")
    count = sum(parameter.numel() for parameter in model.parameters())
    for folder, faster in ((weights / "whisper", False), (models.faster_whisper_weights(), True)):
        found = parameters_of(folder, faster=faster)
        assert found is not None
        assert found.count == pytest.approx(count, rel=0.05)
    assert parameters_of(tmp_path, faster=False) is not None
    assert parameters_of(tmp_path / "nowhere", faster=True) is None


@pytest.mark.parametrize(
    ("backend", "free", "expected"), [("faster", 2.0, "fp16"), ("faster", 1.3, "int8"), ("openai", 2.0, "fp16")]
)
def test_what_is_free_decides_the_precision(weights: Path, backend: str, free: float, expected: str) -> None:
    engine = on_gpu(weights, backend, free)
    engine._settle()
    assert engine._precision == expected


@pytest.mark.parametrize(("backend", "precision"), [("faster", "int8"), ("openai", "fp16")])
def test_a_gpu_without_room_is_told(weights: Path, backend: str, precision: str) -> None:
    with pytest.raises(FatalError, match=rf"in {precision} \(1\.2 GiB of it to work in\), and 0\.5 GiB are free"):
        on_gpu(weights, backend, 0.5)._settle()


def on_gpu(weights: Path, backend: str, free: float) -> SpeechEngine:
    folder = models.faster_whisper_weights() if backend == "faster" else weights / "whisper"
    settings = SpeechSettings.model_validate({"model_dir": folder, "device": "cuda"})
    return SpeechEngine(settings, read_free=lambda: int(free * GIB))

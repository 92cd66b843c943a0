"""BLIP-2's real code and processor on random weights: what it says is noise, how it is handled is not."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import Blip2ForConditionalGeneration

from aiservice_runtime import FatalError, InvalidRequestError
from aiservice_vision.caption import Captioner, without_prompt
from aiservice_vision.engine import VisionEngine
from aiservice_vision.layout import parameters_of
from aiservice_vision.settings import VisionSettings
from support.engines import ask, ask_together, load
from weights import tiny


def picture(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_picture_gets_a_caption(captioner: VisionEngine) -> None:
    answer = ask(captioner, image=picture())
    caption = answer.body["caption"]
    assert isinstance(caption, str)
    assert caption
    assert 0 < answer.tokens <= 8
    assert (answer.body["text"], answer.body["lines"]) == ("", [])
    assert ask(captioner, image=picture()).body["caption"] == caption


def test_the_prompt_is_not_part_of_the_answer(captioner: VisionEngine, blip2: Path) -> None:
    prompt = "Question: what is it? Answer:"
    answer = ask(captioner, image=picture(), prompt=prompt)
    assert prompt not in answer.body["caption"]
    assert "Question" not in answer.body["caption"]
    # Transformers itself gives prompt and answer in one: what is cut off is the prompt and nothing else.
    model = Captioner(blip2, precision="fp32", device="cpu", max_new_tokens=8)
    processor: Any = model._processor
    inputs = processor(images=Image.new("RGB", (64, 48), "red"), text=prompt, return_tensors="pt")
    output = model.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    whole = processor.batch_decode(output, skip_special_tokens=True)[0]
    whole = whole.replace("<image>", "")
    assert whole.startswith(prompt)
    assert whole.removeprefix(prompt).strip() == answer.body["caption"]


def test_picture_and_prompt_decide_the_answer(captioner: VisionEngine) -> None:
    answers = {
        ask(captioner, image=picture(colour), prompt=prompt).body["caption"]
        for colour in ("red", "blue")
        for prompt in ("Question: a? Answer:", "Question: what colour? Answer:")
    }
    assert len(answers) >= 3  # two, if only one of them mattered


def test_without_prompt() -> None:
    repeated, alone = torch.tensor([5, 6, 7, 8]), torch.tensor([7, 8])
    prompt = torch.tensor([5, 6])
    assert without_prompt(repeated, prompt).tolist() == [7, 8]  # decoder-only models repeat it
    assert without_prompt(alone, prompt).tolist() == [7, 8]  # encoder-decoder models do not
    assert without_prompt(repeated, None).tolist() == [5, 6, 7, 8]
    assert without_prompt(torch.tensor([5]), prompt).tolist() == [5]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"ocr": True}, "no OCR model; it captions"),
        ({"caption": False}, "Nothing to do"),
        ({"prompt": "before <image> after"}, "must not contain <image>"),
        ({"languages": ["de"]}, "languages are of text, and none is read"),
    ],
)
def test_what_a_captioner_cannot_do_is_refused(
    captioner: VisionEngine, fields: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InvalidRequestError, match=sentence):
        ask(captioner, image=picture(), **fields)


def test_both_halves_answer_together_or_alone(tmp_path: Path, blip2: Path, weights: Path) -> None:
    shutil.copytree(blip2, tmp_path / "caption")
    shutil.copytree(weights / "ocr", tmp_path / "ocr")
    engine = VisionEngine(VisionSettings(model_dir=tmp_path, max_new_tokens=4))
    load(engine)
    engine.warm_up()
    image = (weights / "samples" / "text.png").read_bytes()
    both = ask(engine, image=image)
    assert both.body["caption"]
    assert both.body["text"].startswith("Invoice")
    text_only = ask(engine, image=image, caption=False)
    assert (text_only.body["caption"], text_only.body["text"]) == (None, both.body["text"])
    caption_only = ask(engine, image=image, ocr=False)
    assert (caption_only.body["caption"], caption_only.body["lines"]) == (both.body["caption"], [])
    assert both.tokens == text_only.tokens + caption_only.tokens


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision(blip2: Path, precision: str, dtype: torch.dtype) -> None:
    captioner = Captioner(blip2, precision=precision, device="cpu", max_new_tokens=4)
    assert captioner.model.language_model.dtype == dtype
    assert captioner.describe([Image.new("RGB", (64, 48))], None)[0].tokens > 0


def test_weights_are_read_straight_onto_the_device(blip2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `meta`, which holds no values, stands for a GPU; nothing is moved there later.
    monkeypatch.setattr(Blip2ForConditionalGeneration, "to", lambda model, _: model)
    captioner = Captioner(blip2, precision="fp16", device="meta", max_new_tokens=4)
    assert {parameter.device.type for parameter in captioner.model.parameters()} == {"meta"}
    assert captioner.model.language_model.dtype == torch.float16


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLIP-2 whose layers are of whole blocks of 64, as those of published ones are; bitsandbytes takes no others."""
    folder = tmp_path_factory.mktemp("wide")
    tiny.blip2(folder, width=64, inner=128)
    return folder


@pytest.mark.parametrize(("precision", "kind", "apart"), [("int8", "Int8Tensor", 0.1), ("int4", "Params4bit", 0.5)])
def test_quantized_weights_are_close_to_fp32_in_less_memory(
    wide: Path, precision: str, kind: str, apart: float
) -> None:
    exact, small = (Captioner(wide, precision=name, device="cpu", max_new_tokens=4) for name in ("fp32", precision))
    inputs: Any = exact._processor(images=Image.new("RGB", (64, 48), "red"), text="Question: a?", return_tensors="pt")
    with torch.inference_mode():
        expected, got = (each.model(**inputs).logits for each in (exact, small))
    # Random weights this large make the most of every error; real ones are off by less.
    assert 0 < (got - expected).abs().mean() < apart * expected.std()
    assert small.describe([Image.new("RGB", (64, 48))], None)[0].tokens > 0
    quantized = {name for name, parameter in small.model.named_parameters() if type(parameter).__name__ == kind}
    assert {name.split(".")[0] for name in quantized} == {"vision_model", "language_model"}
    assert not any("lm_head" in name or "embed" in name for name in quantized)
    sizes = {name: parameter.numel() for name, parameter in exact.model.named_parameters()}
    assert sum(sizes[name] for name in quantized) > 0.3 * sum(sizes.values())
    weights = [getattr(small.model.get_parameter(name), "qdata", small.model.get_parameter(name)) for name in quantized]
    bits = 8 * sum(each.numel() * each.element_size() for each in weights) / sum(sizes[name] for name in quantized)
    assert bits == pytest.approx({"int8": 8, "int4": 4}[precision], rel=0.05)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantized_weights_sleep_and_wake(wide: Path, precision: str) -> None:
    engine = VisionEngine(VisionSettings.model_validate({"model_dir": wide, "precision": precision}))
    load(engine)
    before = ask(engine, image=picture()).body["caption"]
    engine.sleep()
    engine.wake()
    assert ask(engine, image=picture()).body["caption"] == before


def test_fp16_is_not_for_cpus() -> None:
    with pytest.raises(FatalError, match="set precision to auto or fp32 or bf16 or int8 or int4"):
        VisionEngine(VisionSettings.model_validate({"precision": "fp16"}))


def test_parameters_are_counted_without_loading(blip2: Path) -> None:
    found = parameters_of(blip2)
    model = Captioner(blip2, precision="fp32", device="cpu", max_new_tokens=4).model
    assert found is not None
    assert found.count == pytest.approx(sum(parameter.numel() for parameter in model.parameters()), rel=0.05)
    assert parameters_of(blip2 / "nowhere") is None


def test_no_gpu_is_told(blip2: Path) -> None:
    with pytest.raises(FatalError, match="no GPU"):
        load(VisionEngine(VisionSettings(model_dir=blip2, device="cuda")))


def test_a_model_without_weights_is_told(tmp_path: Path, blip2: Path) -> None:
    shutil.copytree(blip2, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FatalError, match=r"BLIP-2 model in .* cannot be loaded"):
        load(VisionEngine(VisionSettings(model_dir=tmp_path)))


def test_captions_of_one_batch_are_those_of_each_alone(captioner: VisionEngine) -> None:
    asked = [
        {"image": picture(colour), "prompt": prompt}
        for colour in ("red", "blue")
        for prompt in ("Question: a? Answer:", "Question: what colour? Answer:")
    ]
    alone = [ask(captioner, **each).body["caption"] for each in asked]
    together = [answer.body["caption"] for answer in ask_together(captioner, "", asked)]
    assert together == alone
    assert len(set(alone)) >= 3


def test_captions_with_and_without_a_prompt_share_no_batch(captioner: VisionEngine) -> None:
    [task] = captioner.tasks
    with_prompt = task.prepare(task.body(image=picture(), prompt="Question: a? Answer:"))
    without = task.prepare(task.body(image=picture()))
    assert with_prompt.together != without.together

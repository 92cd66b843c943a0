"""What the model folder and the settings can add: samplers, adapters, number formats, the safety filter."""

from __future__ import annotations

import base64
import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aiservice_diffusion.engine import DiffusionEngine
from aiservice_diffusion.parts import parameters_of
from aiservice_diffusion.settings import DiffusionSettings
from aiservice_runtime import FatalError, Fault, InvalidRequestError
from aiservice_runtime.pictures import decode
from aiservice_runtime.precision import GIB
from aiservice_runtime.quantized import quantize
from support.engines import ask, ask_for_file, load
from weights import tiny

SMALL: dict[str, Any] = {"prompt": "a red cup", "size": "64x64", "seed": 7, "steps": 2}

Start = Callable[..., DiffusionEngine]


@pytest.fixture
def start(sdxl: Path, tmp_path: Path) -> Start:
    """Starts an engine on a copy of the model, which `prepare` may change."""

    def begin(prepare: Callable[[Path], None] = lambda _: None, **settings: Any) -> DiffusionEngine:
        folder = tmp_path / "model"
        shutil.copytree(sdxl, folder)
        prepare(folder)
        engine = DiffusionEngine(DiffusionSettings.model_validate({"model_dir": folder, **settings}))
        load(engine)
        engine.warm_up()
        return engine

    return begin


def image(engine: DiffusionEngine, **fields: Any) -> str:
    answer = ask(engine, "text-to-image", **SMALL | fields)
    picture: str = answer.body["images"][0]["b64"]
    return picture


@pytest.mark.parametrize("scheduler", ["euler", "euler-ancestral", "dpm++", "ddim", "unipc", "lcm", "lightning"])
def test_samplers(start: Start, engine: DiffusionEngine, scheduler: str) -> None:
    other = start(scheduler=scheduler)
    picture = image(other, steps=4)
    assert picture == image(other, steps=4)
    if scheduler != "euler":  # which is the model's own
        assert picture != image(engine, steps=4)


def test_lcm_takes_the_steps_that_it_was_distilled_from_and_no_more(start: Start) -> None:
    engine = start(scheduler="lcm", max_steps=200)
    made = base64.b64decode(image(engine, steps=50))
    for task, more in (("text-to-image", {}), ("image-to-image", {"image": made, "strength": 0.1})):
        fields = SMALL | more
        with pytest.raises(InvalidRequestError, match="steps are more than 50, the most that the model's scheduler"):
            ask(engine, task, **fields | {"steps": 51})
        assert ask(engine, task, **fields | {"steps": 50}).units == 1


def test_the_services_own_steps_keep_to_the_scheduler(start: Start) -> None:
    engine = start(scheduler="lcm", default_steps=80)
    assert ask(engine, "text-to-image", **SMALL | {"steps": None}).body["steps"] == 50


def test_warming_up_takes_every_way_that_a_request_may(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = start(lambda folder: tiny.safety_filter(folder / "safety_checker", refuses=False), safety_filter=True)
    ways: list[str] = []
    pipelines, safety = engine._loaded, engine._filter
    assert safety is not None
    for name in ("_from_text", "_from_image", "_from_mask"):
        pipeline = getattr(pipelines, name)

        def noted(*, _run: Any = pipeline, _name: str = name, **arguments: Any) -> Any:
            ways.append(_name)
            return _run(**arguments)

        monkeypatch.setattr(pipelines, name, noted)
    refused = safety.refused

    def filtering(images: Any) -> list[bool]:
        ways.append("filter")
        return refused(images)

    monkeypatch.setattr(safety, "refused", filtering)
    monkeypatch.setattr(pipelines, "_tile", lambda _: None)
    engine.warm_up()
    assert ways == ["_from_text", "filter", "_from_image", "filter", "_from_mask", "filter"]


def test_what_is_compiled_is_for_every_size(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda _, **options: asked.append(options))
    start(compile=True)
    assert asked == [{"dynamic": True}]


def test_a_lora_changes_the_picture_of_the_request_that_asks_for_it(start: Start, engine: DiffusionEngine) -> None:
    def prepare(folder: Path) -> None:
        tiny.lora(folder, folder / "loras" / "pencil.safetensors", seed=1)
        tiny.lora(folder, folder / "loras" / "ink.safetensors", seed=2)

    adapted = start(prepare)
    plain = image(adapted)
    assert plain == image(engine)
    pencil = image(adapted, loras=[{"name": "pencil"}])
    ink = image(adapted, loras='[{"name": "ink", "weight": 0.5}]')  # as a form sends it
    both = image(adapted, loras=[{"name": "pencil"}, {"name": "ink"}])
    assert len({plain, pencil, ink, both}) == 4
    assert image(adapted) == plain


def test_a_lora_that_does_not_fit_is_told(start: Start) -> None:
    def prepare(folder: Path) -> None:
        (folder / "loras").mkdir()
        (folder / "loras" / "broken.safetensors").write_bytes(b"no adapter")

    with pytest.raises(FatalError, match=r"The LoRA broken\.safetensors does not fit the model"):
        start(prepare)


@pytest.mark.parametrize("refuses", [True, False])
def test_the_safety_filter_keeps_pictures_back(start: Start, refuses: bool) -> None:
    engine = start(lambda folder: tiny.safety_filter(folder / "safety_checker", refuses=refuses), safety_filter=True)
    [entry] = ask(engine, "text-to-image", **SMALL).body["images"]
    assert (entry["filtered"], entry["b64"] is None) == (refuses, refuses)
    itself = ask_for_file(engine, "webp", "text-to-image", **SMALL)
    assert (itself.raw is None) == refuses, "of a picture that is kept back there are no bytes"
    if refuses:
        [entry] = itself.body["images"]
        assert (entry["filtered"], entry["format"]) == (True, "webp")


def test_a_missing_safety_filter_is_told(start: Start) -> None:
    with pytest.raises(FatalError, match=r"safety filter in .* cannot be loaded"):
        start(safety_filter=True)


def test_half_of_the_memory(start: Start) -> None:
    engine = start(precision="bf16")
    assert {parameter.dtype for module in engine.modules() for parameter in module.parameters()} == {torch.bfloat16}
    assert image(engine)


def pixels(picture: str) -> Any:
    return np.asarray(decode(base64.b64decode(picture), max_pixels=1e6), dtype=int)


def stored(parameter: Any) -> list[Any]:
    """The tensors of a parameter: of quantized weights their bytes and their scales."""
    if hasattr(parameter, "qdata"):
        return [parameter.qdata, parameter.scale]
    state = getattr(parameter, "quant_state", None)
    scales = [] if state is None else [state.absmax, *([state.state2.absmax] if state.nested else [])]
    return [parameter, *scales]


def weight_bytes(engine: DiffusionEngine) -> int:
    parts = [part for module in engine.modules() for parameter in module.parameters() for part in stored(parameter)]
    return sum(part.numel() * part.element_size() for part in parts)


def linear_layers(module: Any) -> list[Any]:
    return [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)]


def of_whole_blocks(layer: torch.nn.Linear) -> bool:
    """Whether bitsandbytes takes a layer: the tiny model has smaller ones too, published ones hardly any."""
    return layer.in_features % 64 == 0 and layer.out_features % 32 == 0


@pytest.mark.parametrize(("precision", "kind", "apart"), [("int8", "Int8Tensor", 4), ("int4", "Params4bit", 12)])
def test_quantized_weights_are_close_to_fp32_in_less_memory(
    start: Start, engine: DiffusionEngine, precision: str, kind: str, apart: float
) -> None:
    small = start(precision=precision)
    assert 0 < np.abs(pixels(image(small)) - pixels(image(engine))).mean() < apart, "of 255"
    assert weight_bytes(small) < 0.9 * weight_bytes(engine)
    pipeline = small._loaded._from_text
    parts = (pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2)
    layers = [layer for part in parts for layer in linear_layers(part) if precision == "int8" or of_whole_blocks(layer)]
    assert len(layers) > 100
    assert {type(layer.weight).__name__ for layer in layers} == {kind}
    assert {type(layer.weight).__name__ for layer in linear_layers(pipeline.vae)} == {"Parameter"}, "the VAE stays"


def test_a_layer_of_real_size_is_off_by_a_tenth_at_most_in_int4_and_a_hundredth_in_int8() -> None:
    torch.manual_seed(0)
    exact = torch.nn.Sequential(torch.nn.Linear(1280, 2560)).eval()
    rows = torch.randn(4, 1280)
    off = {}
    for precision in ("int8", "int4"):
        small = copy.deepcopy(exact)
        quantize([small], precision)
        with torch.inference_mode():
            off[precision] = float((small(rows) - exact(rows)).norm() / exact(rows).norm())
    assert 0 < off["int8"] < 0.01 < off["int4"] < 0.1


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantized_weights_sleep_and_wake(start: Start, precision: str) -> None:
    engine = start(precision=precision)
    before = image(engine)
    engine.sleep()
    engine.wake()
    assert image(engine) == before


@pytest.mark.parametrize(("precision", "apart"), [("int8", 0.01), ("int4", 0.1)])
def test_a_lora_works_on_quantized_weights(start: Start, tmp_path: Path, precision: str, apart: float) -> None:
    def prepare(folder: Path) -> None:
        tiny.lora(folder, folder / "loras" / "pencil.safetensors", seed=1)

    adapted = start(prepare, precision=precision)
    plain, pencil = image(adapted), image(adapted, loras=[{"name": "pencil"}])
    assert image(adapted) == plain != pencil
    # Pictures of random weights tell little: a layer with its adapter gives what it gives on weights that are exact.
    exact = DiffusionEngine(DiffusionSettings(model_dir=tmp_path / "model"))
    load(exact)
    rows = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    outputs = {}
    for engine in (adapted, exact):
        for weight in (0.0, 1.0):
            engine._loaded._use_loras((("pencil", weight),))
            [layer, *_] = [each for each in engine._loaded._from_text.unet.modules() if hasattr(each, "lora_A")]
            with torch.inference_mode():
                outputs[engine is adapted, weight] = layer(rows)
    effect = (outputs[False, 1.0] - outputs[False, 0.0]).abs().mean()
    assert effect > 1
    assert (outputs[True, 1.0] - outputs[False, 1.0]).abs().mean() < apart * effect


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_sequential_offloading_takes_no_quantized_weights(precision: str) -> None:
    settings = {"offload": "sequential", "precision": precision, "device": "cuda"}
    with pytest.raises(FatalError, match=f"cannot take {precision} weights apart: set offload to model or none"):
        DiffusionEngine(DiffusionSettings.model_validate(settings))


@pytest.mark.parametrize(
    ("free", "settings", "expected"),
    [
        # Of the tiny model 5.9 MiB in fp16, 4.8 in int8; its largest part 3.8 and 2.7; and 1 GiB to work in.
        (1.006, {}, ("fp16", "none")),
        (1.005, {}, ("int8", "none")),
        (1.005, {"offload": "auto"}, ("int8", "none")),
        (1.004, {"offload": "auto"}, ("fp16", "model")),
        (1.003, {"offload": "auto"}, ("int8", "model")),
        (1.004, {"offload": "auto", "precision": "fp16"}, ("fp16", "model")),
        (1.003, {"offload": "model"}, ("int8", "model")),
        (0.1, {"offload": "sequential"}, ("fp16", "sequential")),
        (0.1, {"precision": "bf16"}, ("bf16", "none")),
        (0.1, {"precision": "int4"}, ("int4", "none")),
        (1.0035, {"offload": "auto", "precision": "int4"}, ("int4", "model")),
    ],
)
def test_what_is_free_decides_how_it_is_loaded(
    sdxl: Path, free: float, settings: dict[str, Any], expected: tuple[str, str]
) -> None:
    asked = DiffusionSettings.model_validate({"model_dir": sdxl, "device": "cuda", **settings})
    engine = DiffusionEngine(asked, read_free=lambda: int(free * GIB))
    offload = engine._settle(asked.offload)
    assert (engine._precision, offload) == expected


def test_parameters_are_counted_without_loading(sdxl: Path, engine: DiffusionEngine) -> None:
    counted = sum(part.count for part in parameters_of(sdxl))
    assert counted == sum(parameter.numel() for module in engine.modules() for parameter in module.parameters())


def test_a_folder_with_fp16_files_only(start: Start) -> None:
    def prepare(folder: Path) -> None:
        shutil.rmtree(folder)
        tiny.sdxl(folder, variant="fp16")

    assert image(start(prepare))


@pytest.mark.parametrize("tiling", ["on", "off"])
def test_tiles_are_a_setting(start: Start, tiling: str) -> None:
    engine = start(vae_tiling=tiling)
    assert image(engine)
    assert engine._loaded._from_text.vae.use_tiling is (tiling == "on")


def test_offloading_needs_a_gpu() -> None:
    with pytest.raises(FatalError, match="set offload to none"):
        DiffusionEngine(DiffusionSettings(offload="model"))


def test_damaged_weights_are_told(start: Start) -> None:
    def prepare(folder: Path) -> None:
        (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"damaged")

    with pytest.raises(FatalError, match=r"diffusers pipeline in .* cannot be loaded"):
        start(prepare)


def test_a_model_that_gives_no_numbers_is_an_error_not_a_black_picture(start: Start) -> None:
    engine = start()
    engine._loaded._from_text.vae.decoder.conv_out.weight.data.fill_(float("nan"))
    with pytest.raises(ArithmeticError, match="NaN"):
        ask(engine, "text-to-image", **SMALL)


def test_the_real_error_from_inside_the_pipeline_is_out_of_memory(engine: DiffusionEngine) -> None:
    unet = engine._loaded._from_text.unet

    def hook(*_: Any) -> None:
        handle.remove()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    handle = unet.register_forward_pre_hook(hook)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        ask(engine, "text-to-image", **SMALL)
    assert engine.fault(caught.value) is Fault.OUT_OF_MEMORY
    assert image(engine)


def test_sleep_and_wake_keep_the_picture(engine: DiffusionEngine) -> None:
    before = image(engine)
    engine.sleep()
    engine.wake()
    assert image(engine) == before


def test_what_is_made_can_be_started_from(engine: DiffusionEngine) -> None:
    made = base64.b64decode(image(engine))
    assert decode(made, max_pixels=1e6).size == (64, 64)
    assert ask(engine, "image-to-image", prompt="a cup", image=made, seed=1).units == 1

"""SDXL's real pipelines on random weights: what is drawn is noise, how it is asked for and handed out is not."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from aiservice_diffusion import bodies
from aiservice_diffusion.bodies import TextToImage
from aiservice_diffusion.engine import DiffusionEngine
from aiservice_diffusion.settings import DiffusionSettings
from aiservice_runtime import Answer, FatalError, InvalidRequestError, PayloadTooLargeError
from aiservice_runtime.errors import AbandonedError
from support.engines import ask, ask_together, load
from support.polyglots import with_archive

SMALL = {"prompt": "a red cup", "size": "64x64", "seed": 7}
# Kernels sum in another order for another batch size. Seen: 0 or 1 of 255.
SAME = 2


def pictures(answer: Answer) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(entry["b64"]))) for entry in answer.body["images"]]


def pixels(answer: Answer) -> Any:
    return np.stack([np.asarray(picture.convert("RGB"), dtype=int) for picture in pictures(answer)])


def difference(one: Answer, other: Answer) -> int:
    return int(np.abs(pixels(one) - pixels(other)).max())


def png(colour: str = "red", size: tuple[int, int] = (64, 64)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_prompt_becomes_a_picture(engine: DiffusionEngine) -> None:
    answer = ask(engine, "text-to-image", **SMALL | {"size": "64x96"})
    [picture] = pictures(answer)
    assert (picture.format, picture.size) == ("PNG", (64, 96))
    [entry] = answer.body["images"]
    assert (answer.units, answer.body["steps"], entry["width"], entry["height"], entry["seed"]) == (1, 3, 64, 96, 7)
    assert answer.body["megapixel_steps"] == round(64 * 96 / 1e6 * 3, 3)


def test_the_same_seed_gives_the_same_picture_alone_and_in_a_batch(engine: DiffusionEngine) -> None:
    alone = [ask(engine, "text-to-image", **SMALL | {"seed": seed, "prompt": f"cup {seed}"}) for seed in range(4)]
    together = ask_together(
        engine, "text-to-image", [SMALL | {"seed": seed, "prompt": f"cup {seed}"} for seed in range(4)]
    )
    assert [difference(one, other) <= SAME for one, other in zip(alone, together, strict=True)] == [True] * 4
    assert difference(alone[0], alone[1]) > 20


def test_n_pictures_count_up_from_the_seed(engine: DiffusionEngine) -> None:
    several = ask(engine, "text-to-image", **SMALL | {"n": 3})
    assert [entry["seed"] for entry in several.body["images"]] == [7, 8, 9]
    assert several.units == 3
    second = ask(engine, "text-to-image", **SMALL | {"seed": 8})
    assert np.abs(pixels(several)[1] - pixels(second)[0]).max() <= SAME


def test_without_a_seed_one_is_drawn_and_told(engine: DiffusionEngine) -> None:
    first, second = (ask(engine, "text-to-image", **SMALL | {"seed": None}) for _ in range(2))
    seed = first.body["images"][0]["seed"]
    assert seed != second.body["images"][0]["seed"]
    assert difference(first, ask(engine, "text-to-image", **SMALL | {"seed": seed})) <= SAME


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a blue bird"},
        {"negative_prompt": "a handle"},
        {"style": "anime"},
        {"steps": 5},
        {"guidance": 9.0},
        {"seed": 8},
    ],
)
def test_what_is_asked_for_changes_the_picture(engine: DiffusionEngine, change: dict[str, Any]) -> None:
    assert difference(ask(engine, "text-to-image", **SMALL), ask(engine, "text-to-image", **SMALL | change)) > SAME


@pytest.mark.parametrize(("kind", "saved"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_formats(engine: DiffusionEngine, kind: str, saved: str) -> None:
    [picture] = pictures(ask(engine, "text-to-image", **SMALL | {"format": kind}))
    assert (picture.format, picture.size) == (saved, (64, 64))


def test_a_picture_becomes_another(engine: DiffusionEngine) -> None:
    asked = {"prompt": "a cup", "image": png(), "seed": 1, "strength": 0.7}
    answer = ask(engine, "image-to-image", **asked)
    assert pictures(answer)[0].size == (64, 64)
    assert difference(answer, ask(engine, "image-to-image", **asked)) <= SAME
    assert difference(answer, ask(engine, "image-to-image", **asked | {"image": png("blue")})) > SAME
    assert difference(answer, ask(engine, "image-to-image", **asked | {"strength": 1.0})) > SAME


def test_pictures_in_one_batch_start_each_from_its_own(engine: DiffusionEngine) -> None:
    asked = [{"prompt": "a cup", "image": png(colour), "seed": 1} for colour in ("red", "blue", "white")]
    alone = [ask(engine, "image-to-image", **each) for each in asked]
    together = ask_together(engine, "image-to-image", asked)
    assert [difference(one, other) <= SAME for one, other in zip(alone, together, strict=True)] == [True] * 3


def test_a_picture_of_any_size_is_fitted(engine: DiffusionEngine) -> None:
    answer = ask(engine, "image-to-image", prompt="a cup", image=png(size=(101, 67)), seed=1)
    assert pictures(answer)[0].size == (96, 64)
    answer = ask(engine, "image-to-image", prompt="a cup", image=png(size=(101, 67)), size="64x64", seed=1)
    assert pictures(answer)[0].size == (64, 64)


def _transparent(left: int) -> Image.Image:
    """A white picture that is transparent from a column on."""
    picture = Image.new("RGBA", (64, 64), (255, 255, 255, 255))
    picture.paste((255, 255, 255, 0), (left, 0, 64, 64))
    return picture


def _white(left: int) -> Image.Image:
    """A black picture that is white from a column on."""
    picture = Image.new("L", (64, 64), 0)
    picture.paste(255, (left, 0, 64, 64))
    return picture


@pytest.mark.parametrize("mask", [_white(32), _white(32).convert("RGBA"), _transparent(32)])
def test_a_mask_keeps_what_is_black_or_opaque(engine: DiffusionEngine, mask: Image.Image) -> None:
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    asked = {"prompt": "a cup", "image": png(), "strength": 1.0, "seed": 1}
    masked = pixels(ask(engine, "image-to-image", **asked, mask=buffer.getvalue()))[0]
    other = pixels(ask(engine, "image-to-image", **asked | {"seed": 2}, mask=buffer.getvalue()))[0]
    assert np.abs(masked[:, 40:] - other[:, 40:]).mean() > np.abs(masked[:, :16] - other[:, :16]).mean()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"size": "60x64"}, "multiples of 8"),
        ({"size": "0x64"}, "multiples of 8"),
        ({"size": "4096x4096"}, "megapixels"),
        ({"style": "cubist"}, "it can be none, realistic"),
        ({"n": 5}, "n is more than 4"),
        ({"steps": 101}, "steps are more than 100"),
        ({"loras": [{"name": "ink"}, {"name": "ink"}]}, "named twice"),
        ({"loras": [{"name": "pencil"}]}, "'pencil' is not in this service's model; it has none"),
    ],
)
def test_what_cannot_be_made_is_refused(engine: DiffusionEngine, fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequestError, match=sentence):
        ask(engine, "text-to-image", **SMALL | fields)


def test_deeply_nested_loras_are_refused(engine: DiffusionEngine) -> None:
    with pytest.raises(ValidationError, match="must be a JSON list"):
        ask(engine, "text-to-image", **SMALL | {"loras": "[" * 100_000})


@pytest.mark.parametrize(
    ("usual", "fields", "used"),
    [
        (5.0, {}, 5.0),
        (5.0, {"style": "realistic"}, 4.0),
        (5.0, {"style": "line-art"}, 7.0),
        (5.0, {"style": "line-art", "guidance": 3.0}, 3.0),
        (45.0, {"style": "line-art"}, 50.0),
        (1.5, {"style": "line-art"}, 1.5),  # few-step models take no more
    ],
)
def test_a_style_shifts_the_guidance_that_is_not_asked_for(usual: float, fields: dict[str, Any], used: float) -> None:
    body = TextToImage.model_validate(SMALL | fields)
    [picture] = bodies.from_text(body, DiffusionSettings(default_guidance=usual), bodies.Able())
    assert picture.guidance == used


def test_less_than_one_step_is_refused(engine: DiffusionEngine) -> None:
    with pytest.raises(InvalidRequestError, match="less than one step"):
        ask(engine, "image-to-image", prompt="x", image=png(), steps=2, strength=0.4)
    answer = ask(engine, "image-to-image", prompt="x", image=png(), steps=2, strength=0.5)
    assert answer.body["megapixel_steps"] == round(64 * 64 / 1e6, 3)


def test_an_upload_of_many_pixels_is_refused(sdxl: Path) -> None:
    engine = DiffusionEngine(DiffusionSettings(model_dir=sdxl, max_upload_megapixels=0.003))
    load(engine)
    with pytest.raises(PayloadTooLargeError):
        ask(engine, "image-to-image", prompt="x", image=png())


@pytest.mark.parametrize("field", ["image", "mask"])
def test_a_picture_that_is_an_archive_too_is_refused(engine: DiffusionEngine, field: str) -> None:
    asked = {"prompt": "x", "image": png(), "mask": png()} | {field: with_archive(png())}
    with pytest.raises(InvalidRequestError, match="can be opened as a ZIP archive too"):
        ask(engine, "image-to-image", **asked)


def test_a_client_that_leaves_ends_it_between_two_steps(engine: DiffusionEngine) -> None:
    [task] = [task for task in engine.tasks if task.name == "text-to-image"]
    prepared = task.prepare(task.body(**SMALL, steps=50))
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise AbandonedError

    with pytest.raises(AbandonedError):
        task.run(prepared.pieces, check)
    assert calls == 3
    # Nothing of it stays behind.
    assert difference(ask(engine, "text-to-image", **SMALL), ask(engine, "text-to-image", **SMALL)) == 0


def test_both_tasks_share_one_copy_of_the_weights(engine: DiffusionEngine) -> None:
    pipelines = engine._loaded
    assert pipelines._from_text.unet is pipelines._from_image.unet is pipelines._from_mask.unet
    assert pipelines._from_text.vae is pipelines._from_image.vae
    assert pipelines._from_text.scheduler is not pipelines._from_image.scheduler


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match="expected a diffusers pipeline"):
        load(DiffusionEngine(DiffusionSettings(model_dir=tmp_path)))

"""text-to-image and image-to-image as an engine, on one copy of the weights.

torch and diffusers are imported by import_libraries(), in the device thread: /health answers meanwhile.
"""

from __future__ import annotations

import base64
import gc
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from aiservice_diffusion import answers, bodies
from aiservice_diffusion.bodies import ImageToImage, Picture, Start, TextToImage
from aiservice_diffusion.parts import parameters_of
from aiservice_diffusion.settings import DiffusionSettings, Offload
from aiservice_runtime import Answer, Check, Facts, FatalError, Prepared, Raw, Task
from aiservice_runtime.precision import GIB, Model
from aiservice_runtime.quantized import bitsandbytes_hidden
from aiservice_runtime.torch_engine import TorchEngine
from aiservice_runtime.weight_files import Parameters

if TYPE_CHECKING:
    from aiservice_diffusion.pipelines import Pipelines, Pixels
    from aiservice_diffusion.safety import SafetyFilter

# On CPUs all but fp32 are there to be chosen: for their memory, at some cost in speed or in exactness.
PRECISIONS = {"cpu": ("fp32", "bf16", "int8", "int4"), "cuda": ("fp16", "bf16", "fp32", "int8", "int4")}
_BATCH = 4
_SMALL = 64
"""Pixels of a side, for warming up."""
# Of one image of a megapixel, beside the weights: 8 GiB are said to be enough for SDXL in fp16, of which its weights
# take 6.5 and CUDA itself a half.
_WORKING = GIB


@dataclass(frozen=True)
class Made:
    """One image; None where the safety filter refused it."""

    pixels: Pixels | None


class DiffusionEngine(TorchEngine):
    """A diffusers pipeline."""

    def __init__(self, settings: DiffusionSettings, *, read_free: Callable[[], int] | None = None) -> None:
        super().__init__(settings, PRECISIONS, read_free=read_free)
        if settings.offload in {"model", "sequential"} and settings.device == "cpu":
            raise FatalError("Offloading takes parts from a GPU, and the device is cpu: set offload to none.")
        if settings.offload == "sequential" and settings.precision in {"int8", "int4"}:
            raise FatalError(
                f"Sequential offloading cannot take {settings.precision} weights apart: set offload to model or none."
            )
        self._settings = settings
        self._offload: Offload = "none"
        self._pipelines: Pipelines | None = None
        self._filter: SafetyFilter | None = None

    @property
    def tasks(self) -> Sequence[Task[Any, Any, Any]]:
        """Both tasks."""
        return [
            Task(
                "text-to-image",
                "image",
                TextToImage,
                self._prepare_text,
                self._run,
                max_batch=_BATCH,
                answers=answers.SHAPES,
                files=answers.FILES,
                facts=answers.FACTS,
                examples=answers.FROM_TEXT,
            ),
            Task(
                "image-to-image",
                "image",
                ImageToImage,
                self._prepare_image,
                self._run,
                max_batch=_BATCH,
                answers=answers.SHAPES,
                files=answers.FILES,
                facts=answers.FACTS,
                examples=answers.FROM_IMAGE,
            ),
        ]

    def modules(self) -> Iterable[Any]:
        """The parts of the pipeline, and the safety filter; none where they move by themselves (offload)."""
        if self._pipelines is None or self._offload != "none":
            return []
        return [*self._pipelines.modules, *([] if self._filter is None else [self._filter.module])]

    def import_libraries(self) -> None:
        """Imports torch and diffusers."""
        super().import_libraries()

        with bitsandbytes_hidden():
            from aiservice_diffusion import pipelines  # noqa: F401, PLC0415 - see the module's docstring

    def load(self) -> None:
        """Reads the model folder."""
        from aiservice_diffusion.pipelines import Pipelines  # noqa: PLC0415 - imports torch

        folder = self._settings.model_dir
        self._offload = self._settle(self._settings.offload)
        self._pipelines = Pipelines(folder, self._settings, self._precision, self._offload)
        if self._settings.safety_filter:
            from aiservice_diffusion.safety import SafetyFilter  # noqa: PLC0415 - imports torch

            self._filter = SafetyFilter(folder / "safety_checker", device=self._device)

    def _settle(self, offload: Literal["auto"] | Offload) -> Offload:
        """Chooses the precision, and whether parts wait in the memory of the host where that is left open."""
        if offload == "sequential":  # one layer at a time fits everywhere
            self.settle_precision(None)
            return offload
        parts = parameters_of(self._settings.model_dir)
        if not parts:  # what is wrong with it, loading tells
            self.settle_precision(None)
            return "none" if offload == "auto" else offload
        largest = max(parts, key=lambda part: part.count)
        if offload == "model":
            self.settle_precision(Model(largest, _WORKING))
            return offload
        choice = self.settle_precision(Model(sum(parts, Parameters()), _WORKING, largest), offload=offload == "auto")
        return "model" if choice.offload else "none"

    def warm_up(self) -> None:
        """Makes a small image from a text, from an image and with a mask, in two steps each, and filters them."""
        if self._settings.compile:
            self._loaded.compile()
        image, mask = Image.new("RGB", (_SMALL, _SMALL)), Image.new("L", (_SMALL, _SMALL), 255)
        for start in (None, Start(image, None, 1), Start(image, mask, 1)):
            small = Picture("a cup", "", 0, _SMALL, _SMALL, 2, self._settings.default_guidance, (), start)
            self._run([small], lambda: None)

    def release(self) -> None:
        """Drops the model."""
        self._pipelines = self._filter = None
        gc.collect()

    @property
    def _loaded(self) -> Pipelines:
        if self._pipelines is None:
            raise RuntimeError("the model is not loaded")
        return self._pipelines

    def _prepare_text(self, body: TextToImage) -> Prepared[Picture, Made]:
        return self._prepared(body, bodies.from_text(body, self._settings, self._loaded.able))

    def _prepare_image(self, body: ImageToImage) -> Prepared[Picture, Made]:
        return self._prepared(body, bodies.from_image(body, self._settings, self._loaded.able))

    def _prepared(self, body: TextToImage | ImageToImage, wanted: list[Picture]) -> Prepared[Picture, Made]:
        def finish(results: Sequence[Made]) -> Answer:
            first, units, tokens = wanted[0], len(wanted), math.ceil(len(body.prompt) / 4)
            cost = round(sum(picture.megapixel_steps for picture in wanted), 3)
            # An image that the safety filter refused has no bytes: JSON says so.
            if body.file is not None and results[0].pixels is not None:
                content = _encoded(results[0].pixels, body.file, body.quality)
                facts: Facts = {
                    "Format": body.file,
                    "Size": f"{first.width}x{first.height}",
                    "Seed": first.seed,
                    "Steps": first.steps,
                    "Guidance": first.guidance,
                    "Megapixel-Steps": cost,
                }
                return Answer({}, units, tokens, Raw(content, answers.FILES[body.file], facts))
            images = [_image(made, picture, body) for made, picture in zip(results, wanted, strict=True)]
            shown = {"images": images, "steps": first.steps, "guidance": first.guidance, "megapixel_steps": cost}
            return Answer(shown, units, tokens)

        return Prepared(wanted, finish, wanted[0].together)

    def _run(self, batch: Sequence[Picture], check: Check) -> list[Made]:
        images = self._loaded.make(batch, check)
        refused = [False] * len(images) if self._filter is None else self._filter.refused(images)
        return [Made(None if no else image) for image, no in zip(images, refused, strict=True)]


def _image(made: Made, picture: Picture, body: TextToImage | ImageToImage) -> dict[str, Any]:
    """Returns one entry of the answer's `images`."""
    kind, encoded = body.file or body.format, None
    if made.pixels is not None:
        encoded = base64.b64encode(_encoded(made.pixels, kind, body.quality)).decode()
    return {
        "b64": encoded,
        "format": kind,
        "width": picture.width,
        "height": picture.height,
        "seed": picture.seed,
        "filtered": encoded is None,
    }


def _encoded(pixels: Pixels, kind: str, quality: int) -> bytes:
    image, buffer = Image.fromarray((pixels * 255).round().astype("uint8")), io.BytesIO()
    options: dict[str, Any] = {} if kind == "png" else {"quality": quality}
    image.save(buffer, kind, **options)
    return buffer.getvalue()

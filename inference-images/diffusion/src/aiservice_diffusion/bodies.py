"""What the two tasks take, and the checked form that the device is given."""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from aiservice_diffusion.settings import DiffusionSettings
from aiservice_diffusion.styles import STYLES, Style, styled
from aiservice_runtime import FileBody, FormList, InvalidRequestError, Media
from aiservice_runtime.pictures import decode, decode_mask

# Latents are this many times smaller than the picture in all published layouts.
SCALE = 8
_SEEDS = 2**32
MOST_GUIDANCE = 50.0
_FEW_STEPS = 2.0

Format = Literal["png", "jpeg", "webp"]


class Lora(BaseModel):
    """An adapter of the model folder, and how strongly it works."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1, max_length=100)
    """Its file in loras/, without the ending."""
    weight: float = Field(1.0, ge=-2, le=2)


class _Common(FileBody):
    prompt: str = Field(min_length=1, max_length=2000)
    """What to draw."""
    negative_prompt: str = Field("", max_length=2000)
    """What not to draw. Has no effect with a guidance of 1 or less."""
    style: str = Field("none", max_length=40)
    """One of the styles in docs/inference.md."""
    steps: int | None = Field(None, ge=1, le=1000)
    """Steps of denoising; null: the service's own number."""
    guidance: float | None = Field(None, ge=0, le=MOST_GUIDANCE)
    """How closely to follow the prompt; null: the service's own number, as the style shifts it."""
    seed: int | None = Field(None, ge=0, lt=_SEEDS)
    """Same seed, same image; null: one is drawn and told. The images of one request count up from it."""
    n: int = Field(1, ge=1, le=64)
    """How many images."""
    format: Format = "png"
    """Left out: as Accept chooses, where that asks for the image itself."""
    quality: int = Field(90, ge=1, le=100)
    """Of jpeg and webp."""
    loras: Annotated[list[Lora], FormList] = Field([], max_length=8)
    """Adapters of the model folder to use."""

    @property
    def no_file(self) -> str | None:
        """A file is one image."""
        if self.n == 1:
            return None
        return f"n is {self.n}, and an image by itself is one: set n to 1, or accept application/json."


class TextToImage(_Common):
    """Body of POST /api/text-to-image."""

    size: str = Field("1024x1024", pattern=r"^[0-9]{1,5}x[0-9]{1,5}$")
    """Width and height in pixels, multiples of 8."""


class ImageToImage(_Common):
    """Body of POST /api/image-to-image."""

    file_field: ClassVar[str] = "image"

    image: Media
    """What to start from. It is scaled to `size`, or to multiples of 8 of its own size."""
    mask: Media | None = None
    """Where the image may change: what is white, or, in a mask with transparency, what is transparent. Null: all."""
    strength: float = Field(0.6, gt=0, le=1)
    """How much to change: 1 forgets the image, and takes all the steps."""
    size: str | None = Field(None, pattern=r"^[0-9]{1,5}x[0-9]{1,5}$")


@dataclass(frozen=True)
class Start:
    """What image-to-image starts from."""

    image: Image.Image
    mask: Image.Image | None
    strength: float


@dataclass(frozen=True)
class Picture:
    """One image to make."""

    prompt: str
    negative_prompt: str
    seed: int
    width: int
    height: int
    steps: int
    guidance: float
    loras: tuple[tuple[str, float], ...]
    start: Start | None

    @property
    def together(self) -> Hashable:
        """Pictures with equal values can be made in one batch."""
        start = self.start and (self.start.strength, self.start.mask is not None)
        return (self.width, self.height, self.steps, self.guidance, self.loras, start)

    @property
    def megapixel_steps(self) -> float:
        """What it costs the device: megapixels times the steps that are taken."""
        taken = self.steps if self.start is None else int(self.steps * self.start.strength)
        return self.width * self.height / 1e6 * taken


@dataclass(frozen=True)
class Able:
    """What the loaded model can do."""

    loras: Collection[str] = ()
    most_steps: int | None = None
    """That its scheduler can take; None: as many as are asked for."""


def from_text(body: TextToImage, settings: DiffusionSettings, able: Able) -> list[Picture]:
    """Returns the images that a request asks for. Raises InvalidRequestError."""
    return _pictures(body, None, _checked(_parsed(body.size), settings), settings, able)


def from_image(body: ImageToImage, settings: DiffusionSettings, able: Able) -> list[Picture]:
    """Returns the images that a request asks for. Raises InvalidRequestError or PayloadTooLargeError."""
    limit = settings.max_upload_megapixels * 1e6
    image = decode(body.image, max_pixels=limit)
    size = _checked(_parsed(body.size) if body.size else _rounded(image.size, settings), settings)
    mask = None if body.mask is None else decode_mask(body.mask, max_pixels=limit).resize(size)
    start = Start(image.resize(size, Image.Resampling.LANCZOS), mask, body.strength)
    return _pictures(body, start, size, settings, able)


def _pictures(
    body: _Common, start: Start | None, size: tuple[int, int], settings: DiffusionSettings, able: Able
) -> list[Picture]:
    if body.style not in STYLES:
        raise InvalidRequestError(f"The style is not known; it can be {', '.join(STYLES)}.")
    if body.n > settings.max_images:
        raise InvalidRequestError(f"n is more than {settings.max_images}, the limit of this service.")
    style = STYLES[body.style]
    steps = _steps(body, settings, able)
    if steps > settings.max_steps:
        raise InvalidRequestError(f"steps are more than {settings.max_steps}, the limit of this service.")
    if able.most_steps is not None and steps > able.most_steps:
        raise InvalidRequestError(f"steps are more than {able.most_steps}, the most that the model's scheduler takes.")
    if start is not None and int(steps * start.strength) < 1:
        raise InvalidRequestError("strength times steps is less than one step: ask for more of either.")
    if len({lora.name for lora in body.loras}) < len(body.loras):
        raise InvalidRequestError("A LoRA is named twice: name it once, with the weight that it is to have.")
    for lora in body.loras:
        if lora.name not in able.loras:
            known = f"it has {', '.join(sorted(able.loras))}" if able.loras else "it has none"
            raise InvalidRequestError(f"The LoRA {lora.name[:40]!r} is not in this service's model; {known}.")
    prompt, negative = styled(body.prompt, body.negative_prompt, body.style)
    seed = secrets.randbelow(_SEEDS) if body.seed is None else body.seed
    guidance = _guidance(body, style, settings)
    chosen = tuple(sorted((lora.name, lora.weight) for lora in body.loras))
    return [
        Picture(prompt, negative, (seed + number) % _SEEDS, *size, steps, guidance, chosen, start)
        for number in range(body.n)
    ]


def _steps(body: _Common, settings: DiffusionSettings, able: Able) -> int:
    """Returns the request's own, else the service's as far as the scheduler takes so many."""
    if body.steps is not None:
        return body.steps
    return settings.default_steps if able.most_steps is None else min(settings.default_steps, able.most_steps)


def _guidance(body: _Common, style: Style, settings: DiffusionSettings) -> float:
    """Returns the request's own, else the service's as the style shifts it."""
    if body.guidance is not None:
        return body.guidance
    usual = settings.default_guidance
    # Few-step models are distilled to a guidance of 0 to 2; more of it spoils their pictures.
    return usual if usual <= _FEW_STEPS else min(round(usual * style.guidance, 2), MOST_GUIDANCE)


def _parsed(size: str) -> tuple[int, int]:
    width, _, height = size.partition("x")
    return int(width), int(height)


def _rounded(size: tuple[int, int], settings: DiffusionSettings) -> tuple[int, int]:
    """Returns the nearest size that can be made, with about the same proportions."""
    scale = min(1.0, math.sqrt(settings.max_megapixels * 1e6 / (size[0] * size[1])))
    width, height = (max(SCALE, int(side * scale) // SCALE * SCALE) for side in size)
    return width, height


def _checked(size: tuple[int, int], settings: DiffusionSettings) -> tuple[int, int]:
    width, height = size
    if not width or not height or width % SCALE or height % SCALE:
        raise InvalidRequestError(
            f"size must be WIDTHxHEIGHT in multiples of {SCALE} pixels, such as 1024x1024 or 1152x896."
        )
    if width * height > settings.max_megapixels * 1e6:
        raise InvalidRequestError(
            f"size is more than {settings.max_megapixels:g} megapixels, the limit of this service."
        )
    return size

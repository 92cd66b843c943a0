"""What the two tasks answer, as /openapi.json tells it, with examples."""

from __future__ import annotations

from aiservice_diffusion.bodies import Format
from aiservice_runtime import AnswerBody, Described, Example, Fact, Shape

# A red square of 64 x 64 pixels.
_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAATElEQVR42u3PQQ0AAAgEoNP+nTWCbzdoQE1+6wgICAgICAgICAgICAgICAgI"
    "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIHBZShQF/CY4YrwAAAABJRU5ErkJggg=="
)


class MadeImage(Described):
    """One of the images."""

    b64: str | None
    """The file, in base64; null where the safety filter refused it."""
    format: Format
    width: int
    height: int
    seed: int
    """Makes the same image again, with n 1."""
    filtered: bool
    """Whether the safety filter refused it."""


class Images(AnswerBody):
    """What was made."""

    images: list[MadeImage]
    steps: int
    guidance: float
    megapixel_steps: float
    """What they cost the device: megapixels times the steps that were taken."""


FILES: dict[str, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}

FACTS = (
    Fact("Format", "string", "As `images[0].format` in JSON."),
    Fact("Size", "string", "Width and height in pixels, such as 1024x768."),
    Fact("Seed", "integer", "As `images[0].seed` in JSON."),
    Fact("Steps", "integer", "As `steps` in JSON."),
    Fact("Guidance", "number", "As `guidance` in JSON."),
    Fact("Megapixel-Steps", "number", "As `megapixel_steps` in JSON."),
)

SHAPES = (
    Shape(
        "application/json",
        "Also the answer to an `Accept` without it where the safety filter refused the one image.",
        body=Images,
    ),
    *(Shape(media_type, f"With `Accept: {media_type}`: the image itself.") for media_type in FILES.values()),
)


def _made(width: int, height: int, **other: object) -> dict[str, object]:
    return {"b64": _PNG, "format": "png", "width": width, "height": height, "seed": 7, "filtered": False, **other}


_USAGE = {"units": 1.0, "unit": "image", "tokens": 5, "cost": None}

FROM_TEXT = (
    Example(
        "prompt",
        "One image",
        {"prompt": "A beautiful sunset", "style": "realistic", "size": "256x256", "steps": 8, "seed": 7},
        {
            "images": [_made(256, 256)],
            "steps": 8,
            "guidance": 4.0,
            "megapixel_steps": 0.524,
            "usage": _USAGE,
        },
    ),
    Example(
        "several",
        "Two small images as WebP",
        {
            "prompt": "A beautiful sunset",
            "negative_prompt": "people",
            "size": "128x192",
            "steps": 4,
            "guidance": 7.5,
            "seed": 7,
            "n": 2,
            "format": "webp",
            "quality": 80,
        },
        {
            "images": [_made(128, 192, format="webp"), _made(128, 192, format="webp", seed=8)],
            "steps": 4,
            "guidance": 7.5,
            "megapixel_steps": 0.197,
            "usage": {**_USAGE, "units": 2.0},
        },
    ),
    Example(
        "file",
        "The image itself, with `Accept: image/jpeg`",
        {"prompt": "A beautiful sunset", "size": "128x192", "steps": 4, "seed": 7},
        "(the bytes of the file)",
        "image/jpeg",
    ),
)

FROM_IMAGE = (
    Example(
        "sketch",
        "An image on the way from a sketch",
        {"image": _PNG, "prompt": "a castle on a hill", "strength": 0.6, "steps": 5, "seed": 7},
        {
            "images": [_made(64, 64)],
            "steps": 5,
            "guidance": 5.0,
            "megapixel_steps": 0.012,
            "usage": _USAGE,
        },
    ),
    Example(
        "mask",
        "A part of an image made anew",
        {"image": _PNG, "mask": _PNG, "prompt": "a door", "strength": 1, "steps": 4, "seed": 7},
        {
            "images": [_made(64, 64)],
            "steps": 4,
            "guidance": 5.0,
            "megapixel_steps": 0.016,
            "usage": {**_USAGE, "tokens": 2},
        },
    ),
    Example(
        "file",
        "The image itself, with `Accept: image/webp`",
        {"image": _PNG, "prompt": "a castle on a hill", "strength": 0.6, "steps": 5, "seed": 7},
        "(the bytes of the file)",
        "image/webp",
    ),
)

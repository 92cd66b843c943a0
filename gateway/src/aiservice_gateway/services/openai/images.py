"""`/v1/images/*`: images from text, and from an image and text."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import Field

from aiservice_api.tasks import Task
from aiservice_gateway.errors import ParameterError
from aiservice_gateway.services.openai.answers import JSON, Answered, Rewriter, broken
from aiservice_gateway.services.openai.json_strings import Piece, StringTaker
from aiservice_gateway.services.openai.parameters import Parameters, only, without_nothing

_SKELETON_BYTES = 256 * 1024
_PIXELS = "images are answered in the body (b64_json), nothing is stored under an address"


class Drawing(Parameters):
    """What both routes take."""

    impossible: ClassVar[dict[str, str]] = {
        "stream": "images come when they are finished; leave it out",
        "partial_images": "images come when they are finished; leave it out",
        "svg": "the services draw pixels",
        "complexity": "the services draw pixels; use steps",
        "frame_count": "the services draw single images",
        "frame_duration_ms": "the services draw single images",
    }

    prompt: str = Field(min_length=1)
    """What to draw."""
    n: int | None = Field(None, ge=1)
    """How many images."""
    size: str | None = Field(None, pattern=r"^(auto|[0-9]{1,5}x[0-9]{1,5})$", examples=["1024x1024"])
    """Width x height, in multiples of 8; `auto`: the service's usual, or the image's own."""
    quality: Annotated[
        str | None,
        only("auto", "standard", why="ask for more with steps"),
        Field(json_schema_extra={"enum": ["auto", "standard"]}),
    ] = None
    """How well to draw."""
    response_format: Annotated[
        str | None, only("b64_json", why=_PIXELS), Field(json_schema_extra={"enum": ["b64_json"]})
    ] = None
    """How images are answered."""
    output_format: Literal["png", "jpeg", "webp"] = "png"
    """What images are encoded as."""
    output_compression: int | None = Field(None, ge=0, le=100)
    """Quality of jpeg and webp, in percent."""
    background: Annotated[
        str | None,
        only("auto", "opaque", why="the services draw no transparency"),
        Field(json_schema_extra={"enum": ["auto", "opaque"]}),
    ] = None
    """What is behind."""
    negative_prompt: str | None = None
    """Not OpenAI's: what not to draw."""
    style: str | None = None
    """One of the service's, such as `photographic`. OpenAI's `vivid` and `natural` are not among them."""
    steps: int | None = Field(None, ge=1)
    """Not OpenAI's: steps of denoising."""
    guidance: float | None = Field(None, ge=0)
    """Not OpenAI's: how closely to follow the prompt."""
    seed: int | None = Field(None, ge=0)
    """Not OpenAI's: the same seed draws the same image."""

    def native(self) -> dict[str, Any]:
        """The service's fields."""
        if self.output_compression is not None and self.output_format == "png":
            raise ParameterError(
                "output_compression is for jpeg and webp: choose one as output_format.", "output_compression"
            )
        return without_nothing(
            prompt=self.prompt,
            n=self.n,
            size=None if self.size == "auto" else self.size,
            format=self.output_format,
            quality=None if self.output_compression is None else max(1, self.output_compression),
            negative_prompt=self.negative_prompt,
            style=self.style,
            steps=self.steps,
            guidance=self.guidance,
            seed=self.seed,
        )

    def rewriter(self, answered: Answered) -> Rewriter:
        """Translates while the images pass."""
        return ImagesAnswer(answered)


class ImageGeneration(Drawing):
    """Parameters of POST /v1/images/generations."""

    task: ClassVar[Task] = Task.TEXT_TO_IMAGE

    moderation: Annotated[
        str | None,
        only("auto", why="the service decides what it refuses"),
        Field(json_schema_extra={"enum": ["auto"]}),
    ] = None
    """How strictly to filter."""


class ImageEdit(Drawing):
    """Parameters of POST /v1/images/edits."""

    task: ClassVar[Task] = Task.IMAGE_TO_IMAGE
    files: ClassVar[dict[str, str]] = {"image": "file", "mask": "mask"}
    impossible: ClassVar[dict[str, str]] = {
        **Drawing.impossible,
        "markup": "send what may change as mask",
        "input_fidelity": "use strength",
    }

    strength: float | None = Field(None, gt=0, le=1)
    """Not OpenAI's: how much to change."""

    def native(self) -> dict[str, Any]:
        """The service's fields."""
        return super().native() | without_nothing(strength=self.strength)


class ImagesAnswer:
    """OpenAI's answer with images, written while the service's arrives: the images themselves are not kept."""

    def __init__(self, answered: Answered) -> None:
        self.media_type: str | None = JSON
        self._answered = answered
        self._taker = StringTaker({b"b64"})
        self._skeleton = bytearray()
        self._number = -1

    def feed(self, chunk: bytes) -> bytes:
        """Passes images on."""
        ready = bytearray()
        for part in self._taker.feed(chunk):
            if isinstance(part, Piece):
                ready += self._head(part.number) + part.data + (b'"}' if part.last else b"")
            else:
                self._skeleton += part.data
        if len(self._skeleton) > _SKELETON_BYTES:
            raise broken()
        return bytes(ready)

    def end(self) -> bytes:
        """Adds the facts, which come last in the service's answer too.

        Raises:
            ParameterError: the service's safety filter refused every image.
            UpstreamFailedError: the answer is not as promised.
        """
        try:
            document = orjson.loads(self._skeleton)
            return b"]," + orjson.dumps(self._facts(document))[1:]
        except (orjson.JSONDecodeError, KeyError, TypeError, IndexError) as error:
            raise broken() from error

    def _head(self, number: int) -> bytes:
        if number == self._number:
            return b""
        self._number = number
        first = b'{"created":%d,"data":[' % self._answered.created
        return (b"," if number else first) + b'{"b64_json":"'

    def _facts(self, document: dict[str, Any]) -> dict[str, Any]:
        images, tokens = document["images"], document["usage"]["tokens"]
        if not images:
            raise broken()
        kept = [image for image in images if image["b64"] is not None]
        if not kept:
            raise ParameterError("The service's safety filter refused every image.", "prompt", "moderation_blocked")
        return {
            "output_format": kept[0]["format"],
            "size": f"{kept[0]['width']}x{kept[0]['height']}",
            "background": "opaque",
            "seeds": [image["seed"] for image in kept],
            "filtered": len(images) - len(kept),
            "usage": {
                "input_tokens": tokens,
                "input_tokens_details": {"image_tokens": 0, "text_tokens": tokens},
                "output_tokens": 0,
                "total_tokens": tokens,
            },
        }

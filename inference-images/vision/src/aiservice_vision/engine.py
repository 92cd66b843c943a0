"""image-to-text as an engine: what a request holds, which half answers it, and how.

torch, transformers and paddleocr are imported by load(), in the device thread: /health answers meanwhile.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from PIL import Image, ImageDraw, ImageFont
from pydantic import Field

from aiservice_runtime import Answer, Check, FormList, InvalidRequestError, Media, Prepared, RequestBody, Task
from aiservice_runtime.pictures import decode
from aiservice_runtime.precision import GIB, Model
from aiservice_runtime.torch_engine import TorchEngine
from aiservice_vision import answers, languages, layout
from aiservice_vision.layout import parameters_of
from aiservice_vision.settings import VisionSettings

if TYPE_CHECKING:
    from aiservice_vision.caption import Caption, Captioner
    from aiservice_vision.reading import Reader

# On CPUs all but fp32 are there to be chosen: for their memory, at some cost in speed or in exactness.
PRECISIONS = {"cpu": ("fp32", "bf16", "int8", "int4"), "cuda": ("fp16", "bf16", "fp32", "int8", "int4")}
# Of a caption, beside the weights: keys and values of 2.7e9 parameters' layers take 0.3 MB a token.
_WORKING = GIB // 2


class ImageToText(RequestBody):
    """Body of POST /api/image-to-text."""

    file_field: ClassVar[str] = "image"

    image: Media
    """A picture: PNG, JPEG, WebP, GIF (first frame), BMP or TIFF."""
    prompt: str | None = Field(None, min_length=1, max_length=1000)
    """What the caption goes on from, for example "Question: what is in the box? Answer:"."""
    caption: bool | None = None
    """Whether to caption; null: if the service can."""
    ocr: bool | None = None
    """Whether to read text; null: if the service can."""
    languages: Annotated[list[Annotated[str, Field(max_length=20)]], FormList] = Field([], max_length=20)
    """Of the text, as codes of ISO 639-1: the model is taken that reads them all, and few others. Empty: the one that
    reads most."""


@dataclass(frozen=True)
class Job:
    """A request, decoded and checked."""

    picture: Image.Image
    prompt: str | None
    caption: bool
    recogniser: str | None
    """What is to read its text; None: nothing."""


class VisionEngine(TorchEngine):
    """BLIP-2 and PaddleOCR. The reader runs on the CPU, and stays there when the engine sleeps."""

    def __init__(self, settings: VisionSettings) -> None:
        super().__init__(settings, PRECISIONS)
        self._settings = settings
        self._found = layout.Layout(None, None)
        self._captioner: Captioner | None = None
        self._reader: Reader | None = None

    @property
    def tasks(self) -> Sequence[Task[Any, Any, Any]]:
        """The one task of this image; its examples are those that the model folder's halves answer."""
        captions, reads = layout.halves(self._settings.model_dir)
        return [
            Task(
                "image-to-text",
                "image",
                ImageToText,
                self._prepare,
                self._run,
                max_batch=8,
                answers=answers.SHAPES,
                examples=answers.examples(captions=captions, reads=reads),
            )
        ]

    def modules(self) -> Iterable[Any]:
        """BLIP-2, where it is loaded."""
        return [] if self._captioner is None else [self._captioner.model]

    def import_libraries(self) -> None:
        """Imports the libraries of the halves that the model folder holds."""
        self._found = layout.find(self._settings.model_dir)
        if self._found.caption is not None:
            super().import_libraries()

            from aiservice_vision import caption  # noqa: F401, PLC0415 - see the module's docstring
        if self._found.detector is not None:
            from aiservice_vision import reading  # noqa: F401, PLC0415 - as above

    def load(self) -> None:
        """Loads the halves that the model folder holds."""
        found = self._found
        if found.caption is not None:
            from aiservice_vision.caption import Captioner  # noqa: PLC0415 - imports torch

            parameters = parameters_of(found.caption)
            self.settle_precision(None if parameters is None else Model(parameters, _WORKING))
            self._captioner = Captioner(
                found.caption,
                precision=self._precision,
                device=self._settings.device,
                max_new_tokens=self._settings.max_new_tokens,
            )
        if found.detector is not None:
            from aiservice_vision.reading import Reader  # noqa: PLC0415 - imports paddleocr

            self._reader = Reader(
                found.detector,
                found.recognisers,
                threads=self._settings.threads,
                max_side=self._settings.ocr_max_side,
            )

    def warm_up(self) -> None:
        """Runs all models once on a picture of a word, so that the reader has something to read."""
        picture = Image.new("RGB", (320, 240), "white")
        ImageDraw.Draw(picture).text((40, 90), "ready", font=ImageFont.load_default(size=60), fill="black")
        if self._captioner is not None:
            self._run([Job(picture, None, caption=True, recogniser=None)], lambda: None)
        for model in self._found.recognisers:
            self._run([Job(picture, None, caption=False, recogniser=model.name)], lambda: None)

    def release(self) -> None:
        """Drops the models."""
        self._captioner = None
        self._reader = None
        gc.collect()

    def _prepare(self, body: ImageToText) -> Prepared[Job, Answer]:
        caption = _wanted(body.caption, self._captioner is not None, "caption", "captioning model; it reads text (ocr)")
        ocr = _wanted(body.ocr, self._reader is not None, "ocr", "OCR model; it captions (caption)")
        if not caption and not ocr:
            raise InvalidRequestError("Nothing to do: caption and ocr are both false.")
        if body.prompt is not None:
            if not caption or self._captioner is None:
                raise InvalidRequestError("A prompt is for captions, and none is made: leave prompt out.")
            self._captioner.check_prompt(body.prompt)
        recogniser = self._recogniser(body.languages, ocr=ocr)
        picture = decode(body.image, max_pixels=self._settings.max_megapixels * 1e6)
        job = Job(picture, body.prompt, caption, recogniser)
        # What is only read is computed one by one: a batch would keep the first waiting for the last.
        together = body.prompt is None if caption else None
        return Prepared([job], lambda told: told[0], together)

    def _recogniser(self, wanted: Sequence[str], *, ocr: bool) -> str | None:
        """Returns the name of the recogniser for these languages; None where nothing is read."""
        if ocr:
            return languages.choose(self._found.recognisers, {each.strip().lower() for each in wanted}).name
        if wanted:
            raise InvalidRequestError("languages are of text, and none is read: leave languages out.")
        return None

    def _run(self, batch: Sequence[Job], check: Check) -> list[Answer]:
        captions = self._captions(batch)
        told = []
        for job, caption in zip(batch, captions, strict=True):
            check()
            told.append(self._answer(job, caption))
        return told

    def _captions(self, batch: Sequence[Job]) -> Sequence[Caption | None]:
        if self._captioner is None or not batch[0].caption:
            return [None] * len(batch)
        prompts = [job.prompt for job in batch if job.prompt is not None]
        return self._captioner.describe([job.picture for job in batch], prompts or None)

    def _answer(self, job: Job, caption: Caption | None) -> Answer:
        lines = self._reader.read(job.picture, job.recogniser) if job.recogniser and self._reader else []
        text = "\n".join(line.text for line in lines)
        body = {
            "caption": caption.text if caption else None,
            "text": text,
            "lines": [asdict(line) for line in lines],
            "width": job.picture.width,
            "height": job.picture.height,
        }
        return Answer(body, units=1, tokens=(caption.tokens if caption else 0) + math.ceil(len(text) / 4))


def _wanted(asked: bool | None, loaded: bool, field: str, lacks: str) -> bool:
    """Returns whether to run a half. Raises InvalidRequestError when it is asked for and not there."""
    if asked and not loaded:
        raise InvalidRequestError(f"{field} cannot be true: this service has no {lacks} only.")
    return loaded if asked is None else asked

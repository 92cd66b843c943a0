"""speech-to-text as an engine: what a request holds, and how it becomes an answer.

torch and whisper are imported by load(), in the device thread: /health answers meanwhile, and --help at once.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aiservice_runtime import Answer, FatalError, Media, RequestBody, Task
from aiservice_runtime.precision import choose_precision
from aiservice_speech_recognition.audio import SAMPLE_RATE, Samples, decode
from aiservice_speech_recognition.settings import SpeechSettings

if TYPE_CHECKING:
    from aiservice_speech_recognition.model import Transcriber

# openai-whisper computes in fp16 or fp32, and in fp16 on GPUs only.
PRECISIONS = {"cpu": ("fp32",), "cuda": ("fp16", "fp32")}


class SpeechToText(RequestBody):
    """Body of POST /api/speech-to-text."""

    file_field: ClassVar[str] = "audio"

    audio: Media
    """A sound or video file in any usual format."""
    language: str | None = None
    """Code or English name; null: the model detects it."""
    translate: bool = False
    """Whether the text is to be English, whatever was spoken."""
    timestamps: Literal["segment", "word"] = "segment"
    """Whether the answer tells when each word was spoken, or only each segment."""


@dataclass(frozen=True)
class Recording:
    """A request, decoded."""

    samples: Samples
    language: str | None
    translate: bool
    words: bool


class SpeechEngine:
    """Whisper behind aiservice_runtime's Engine protocol."""

    def __init__(self, settings: SpeechSettings) -> None:
        self._settings = settings
        self._precision = choose_precision(settings, PRECISIONS)
        self._transcriber: Transcriber | None = None

    @property
    def tasks(self) -> Sequence[Task[Any, Any]]:
        """The one task of this image."""
        return [Task("speech-to-text", "audio-second", SpeechToText, self._prepare, self._run)]

    def load(self) -> None:
        """Imports torch and reads the model folder."""
        os.environ["NUMBA_NUM_THREADS"] = str(self._settings.threads)  # read when numba is imported

        import torch  # noqa: PLC0415 - see the module's docstring

        from aiservice_speech_recognition import model, weights  # noqa: PLC0415 - they import torch

        torch.set_num_threads(self._settings.threads)
        if self._settings.device == "cuda" and not torch.cuda.is_available():
            raise FatalError(
                "The device is cuda, but no GPU is to be seen: check spec.profile, the node and its driver."
            )
        found = weights.read_weights(self._settings.model_dir)
        built = model.build(found, precision=self._precision, device=self._settings.device)
        self._transcriber = model.Transcriber(built, half=self._precision == "fp16")

    def warm_up(self) -> None:
        """Runs the model once."""
        self._loaded.warm_up()

    def release(self) -> None:
        """Drops the model."""
        self._transcriber = None
        gc.collect()

    @property
    def _loaded(self) -> Transcriber:
        if self._transcriber is None:
            raise RuntimeError("the model is not loaded")
        return self._transcriber

    def _prepare(self, body: SpeechToText) -> Recording:
        language = self._loaded.language_code(body.language, translate=body.translate)
        samples = decode(
            body.audio, max_seconds=self._settings.max_audio_seconds, timeout=self._settings.decode_seconds
        )
        return Recording(samples, language, body.translate, body.timestamps == "word")

    def _run(self, batch: Sequence[Recording]) -> list[Answer]:
        return [self._transcribe(recording) for recording in batch]

    def _transcribe(self, recording: Recording) -> Answer:
        result = self._loaded.transcribe(
            recording.samples, language=recording.language, translate=recording.translate, words=recording.words
        )
        seconds = round(recording.samples.size / SAMPLE_RATE, 3)
        body = {
            "text": result["text"],
            "language": result["language"],
            "duration": seconds,
            "segments": result["segments"],
        }
        return Answer(body, units=seconds, tokens=result["tokens"])

"""speech-to-text as an engine: what a request holds, and how it becomes an answer.

torch, whisper and faster-whisper are imported by import_libraries(), in the device thread: /health answers meanwhile.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aiservice_runtime import Answer, Check, InvalidRequestError, Media, Prepared, Raw, RequestBody, Task
from aiservice_runtime.precision import GIB, Model
from aiservice_runtime.torch_engine import TorchEngine
from aiservice_speech_recognition import answers
from aiservice_speech_recognition.audio import SAMPLE_RATE, Samples, decode
from aiservice_speech_recognition.settings import SpeechSettings
from aiservice_speech_recognition.sizes import parameters_of
from aiservice_speech_recognition.transcript import SUBTITLES, Segment, Transcriber, shown, text_of

if TYPE_CHECKING:
    from aiservice_speech_recognition.openai_model import OpenAITranscriber

# openai-whisper computes in fp16 or fp32, and in fp16 on GPUs only.
PRECISIONS = {"cpu": ("fp32",), "cuda": ("fp16", "fp32")}
# Of half a minute of sound, five beams at once: faster-whisper's README measured 4.5 GB for large in fp16, of which its
# weights take 3.1.
_WORKING = 5 * GIB // 4
FASTER_PRECISIONS = {"cpu": ("fp32", "int8"), "cuda": ("fp16", "bf16", "int8", "fp32")}


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
    format: Literal["json", "verbose_json", "text", "srt", "vtt"] = "json"
    """What the answer is; verbose_json says of each segment how sure the model was."""
    stream: bool = False
    """Whether segments are to come as they are heard, as server-sent events; with json and verbose_json only."""


@dataclass(frozen=True)
class Recording:
    """A request, decoded."""

    samples: Samples
    language: str | None
    translate: bool
    words: bool

    @property
    def seconds(self) -> float:
        """Its length."""
        return round(self.samples.size / SAMPLE_RATE, 3)


@dataclass(frozen=True)
class Transcript:
    """What was heard in a recording."""

    language: str
    segments: Sequence[Segment]


class SpeechEngine(TorchEngine):
    """Whisper, by openai-whisper or faster-whisper, as the model folder is laid out."""

    def __init__(self, settings: SpeechSettings, *, read_free: Callable[[], int] | None = None) -> None:
        self._faster = settings.backend == "faster" or (
            settings.backend == "auto" and (settings.model_dir / "model.bin").is_file()
        )
        super().__init__(settings, FASTER_PRECISIONS if self._faster else PRECISIONS, read_free=read_free)
        self._settings = settings
        self._transcriber: Transcriber | None = None

    @property
    def tasks(self) -> Sequence[Task[Any, Any, Any]]:
        """The one task of this image."""
        return [
            Task(
                "speech-to-text",
                "audio-second",
                SpeechToText,
                self._prepare,
                self._run,
                self._stream,
                answers=answers.SHAPES,
                examples=(*answers.EXAMPLES, answers.STREAMED) if self._faster else answers.EXAMPLES,
            )
        ]

    def modules(self) -> Iterable[Any]:
        """None: the transcriber moves its weights itself."""
        return ()

    def import_libraries(self) -> None:
        """Imports torch and what transcribes."""
        os.environ["NUMBA_NUM_THREADS"] = str(self._settings.threads)  # read when numba is imported
        super().import_libraries()
        if self._faster:
            from aiservice_speech_recognition import faster_model  # noqa: F401, PLC0415 - see the module's docstring
        else:
            from aiservice_speech_recognition import openai_model  # noqa: F401, PLC0415 - as above

    def load(self) -> None:
        """Reads the model folder."""
        self._settle()
        self._transcriber = self._load_faster() if self._faster else self._load_openai()

    def _settle(self) -> None:
        parameters = parameters_of(self._settings.model_dir, faster=self._faster)
        self.settle_precision(None if parameters is None else Model(parameters, _WORKING))

    def _load_faster(self) -> Transcriber:
        from aiservice_speech_recognition.faster_model import FasterTranscriber  # noqa: PLC0415 - as above

        return FasterTranscriber(
            self._settings.model_dir,
            precision=self._precision,
            device=self._device,
            threads=self._threads,
            beam_size=self._settings.beam_size,
        )

    def _load_openai(self) -> OpenAITranscriber:
        from aiservice_speech_recognition import openai_model, weights  # noqa: PLC0415 - they import torch

        dtype = openai_model.DTYPES[self._precision]
        found = weights.read_weights(self._settings.model_dir, device=self._device, dtype=dtype)
        model = openai_model.build(found, precision=self._precision, device=self._device)
        return openai_model.OpenAITranscriber(
            model, half=self._precision == "fp16", device=self._device, beam_size=self._settings.beam_size
        )

    def warm_up(self) -> None:
        """Runs the model once."""
        self._loaded.warm_up()

    def sleep(self) -> None:
        """Moves the weights to the memory of the host. On a CPU they are there already, and nothing is freed."""
        if self._device != "cpu":
            self._loaded.sleep()
        self.recover()

    def wake(self) -> None:
        """Moves the weights back."""
        if self._device != "cpu":
            self._loaded.wake()

    def release(self) -> None:
        """Drops the model."""
        self._transcriber = None
        gc.collect()

    @property
    def _loaded(self) -> Transcriber:
        if self._transcriber is None:
            raise RuntimeError("the model is not loaded")
        return self._transcriber

    def _prepare(self, body: SpeechToText) -> Prepared[Recording, Transcript]:
        if body.stream and body.format in SUBTITLES:
            raise InvalidRequestError("stream goes with the formats json and verbose_json only.")
        if body.stream and not self._loaded.streams:
            raise InvalidRequestError(
                "This service cannot stream: its model folder is openai-whisper's, which computes a recording in one "
                "piece. One in faster-whisper's layout can."
            )
        language = self._loaded.language_code(body.language, translate=body.translate)
        samples = decode(
            body.audio, max_seconds=self._settings.max_audio_seconds, timeout=self._settings.decode_seconds
        )
        recording = Recording(samples, language, body.translate, body.timestamps == "word")

        def finish(results: Sequence[Transcript]) -> Answer:
            return _answer(recording, results[0], body.format)

        stream = Events(recording, verbose=body.format == "verbose_json") if body.stream else None
        return Prepared([recording], finish, stream=stream)

    def _run(self, batch: Sequence[Recording], check: Check) -> list[Transcript]:
        return [self._transcribe(recording, check) for recording in batch]

    def _transcribe(self, recording: Recording, check: Check) -> Transcript:
        heard = self._loaded.transcribe(
            recording.samples,
            language=recording.language,
            translate=recording.translate,
            words=recording.words,
            check=check,
        )
        return Transcript(heard.language, list(heard.segments))

    def _stream(self, recording: Recording, check: Check) -> Iterator[Segment | str]:
        """Gives the language, then each segment."""
        heard = self._loaded.transcribe(
            recording.samples,
            language=recording.language,
            translate=recording.translate,
            words=recording.words,
            check=check,
        )
        yield heard.language
        yield from heard.segments


def _answer(recording: Recording, transcript: Transcript, kind: str) -> Answer:
    segments, tokens = transcript.segments, sum(segment.tokens for segment in transcript.segments)
    if kind in SUBTITLES:
        media_type, write = SUBTITLES[kind]
        raw = Raw(write(segments).encode(), media_type)
        return Answer({}, units=recording.seconds, tokens=tokens, raw=raw)
    body = {
        "text": text_of(segments),
        "language": transcript.language,
        "duration": recording.seconds,
        "segments": [shown(segment, verbose=kind == "verbose_json") for segment in segments],
    }
    return Answer(body, units=recording.seconds, tokens=tokens)


@dataclass
class Events:
    """A streamed answer: server-sent events, one a segment, and a last one with the whole text and the usage."""

    recording: Recording
    verbose: bool
    media_type: str = "text/event-stream; charset=utf-8"
    tokens: int = 0
    _language: str = ""
    _segments: list[Segment] = field(default_factory=list)

    @property
    def units(self) -> float:
        """Seconds of audio."""
        return self.recording.seconds

    def encode(self, chunk: Segment | str) -> bytes:
        """Returns the event of a segment; the language, which comes first, is told at the end."""
        if isinstance(chunk, str):
            self._language = chunk
            return b""
        self._segments.append(chunk)
        self.tokens += chunk.tokens
        return _event({"type": "segment", **shown(chunk, verbose=self.verbose)})

    def end(self, usage: dict[str, Any]) -> bytes:
        """Returns the last event."""
        whole = {"text": text_of(self._segments), "language": self._language, "duration": self.recording.seconds}
        return _event({"type": "done", **whole, "usage": usage})

    def failed(self, sentence: str) -> bytes:
        """Returns the event of a failure."""
        return _event({"type": "error", "error": sentence})


def _event(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()

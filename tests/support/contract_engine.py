"""Speech in both directions and pictures without a model, served by the real runtime, with the real engines' fields.

`python -m support.contract_engine` serves it as a container would; it needs the runtime's environment.
"""

from __future__ import annotations

import json
import sys
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from aiservice_runtime import (
    Answer,
    Check,
    Engine,
    Facts,
    FileBody,
    InvalidRequestError,
    Media,
    Prepared,
    Raw,
    RequestBody,
    RuntimeSettings,
    Task,
    parse_settings,
    run_main,
    serve,
)

PIECES = 5


class SpeechToText(RequestBody):
    """As speech recognition has it."""

    file_field: ClassVar[str] = "audio"

    audio: Media
    language: str | None = None
    translate: bool = False
    timestamps: Literal["segment", "word"] = "segment"
    format: Literal["json", "verbose_json", "text", "srt", "vtt"] = "json"
    stream: bool = False


class TextToSpeech(FileBody):
    """As speech synthesis has it."""

    file_field: ClassVar[str] = "voice_clip"

    text: str = Field(min_length=1)
    language: str | None = Field(None, max_length=40)
    voice: str | None = Field(None, max_length=200)
    voice_clip: Media | None = None
    speed: float = Field(1.0, ge=0.25, le=4)
    format: Literal["wav", "mp3", "opus", "flac", "pcm"] = "wav"
    stream: bool = False
    seed: int | None = Field(None, ge=0)

    @property
    def file_asked_by(self) -> str | None:
        return "stream" if self.stream else None


class TextToImage(FileBody):
    """As diffusion has it, but for what it does not look at."""

    prompt: str = Field(min_length=1)
    seed: int = 7
    n: int = Field(1, ge=1)
    format: Literal["png", "jpeg", "webp"] = "png"

    @property
    def no_file(self) -> str | None:
        return None if self.n == 1 else "n is not 1: set it to 1, or accept application/json."


SOUNDS = {"wav": "audio/wav", "mp3": "audio/mpeg", "opus": "audio/ogg; codecs=opus", "pcm": "audio/pcm"}
PICTURES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
TOKENS = 7
"""Of whatever is spoken."""


@dataclass
class Events:
    """A transcription as it is heard."""

    units: float
    media_type: str = "text/event-stream; charset=utf-8"
    tokens: int = 0

    def encode(self, chunk: Any) -> bytes:
        self.tokens += 1
        return _event({"type": "segment", "start": 0.0, "end": 1.0, "text": chunk})

    def end(self, usage: dict[str, Any]) -> bytes:
        text = " ".join(map(str, range(PIECES)))
        return _event({"type": "done", "text": text, "language": "en", "duration": self.units, "usage": usage})

    def failed(self, sentence: str) -> bytes:
        return _event({"type": "error", "error": sentence})


@dataclass
class Sound:
    """Speech as it is spoken."""

    units: float
    media_type: str
    tokens: int = TOKENS

    def encode(self, chunk: Any) -> bytes:
        return str(chunk).encode() * 1000

    def end(self, usage: dict[str, Any]) -> bytes:
        return b"end"

    def failed(self, sentence: str) -> None:
        return None


class SpeechEngine(Engine):
    """Hears how many bytes a recording has, speaks digits, and draws what it is told in letters."""

    @property
    def tasks(self) -> Sequence[Task[Any, Any, Any]]:
        return [
            Task("speech-to-text", "audio-second", SpeechToText, self._hear, self._run, self._pieces),
            Task("text-to-speech", "character", TextToSpeech, self._speak, self._run, self._pieces, files=SOUNDS),
            Task("text-to-image", "image", TextToImage, self._draw, self._run, files=PICTURES),
        ]

    def load(self) -> None:
        """Nothing to load."""

    def warm_up(self) -> None:
        """Nothing to warm up."""

    def sleep(self) -> None:
        """Nothing to move."""

    def wake(self) -> None:
        """Nothing to move."""

    def release(self) -> None:
        """Nothing to let go of."""

    def _hear(self, body: SpeechToText) -> Prepared[str, str]:
        if not body.audio.startswith(b"RIFF"):
            raise InvalidRequestError("There is no sound in the file.")
        text = f"{len(body.audio)} bytes in {body.language}" + (" in English" if body.translate else "")

        def finish(_: Sequence[str]) -> Answer:
            if body.format in {"text", "srt", "vtt"}:
                return Answer({}, units=2.5, tokens=4, raw=Raw(f"{text}\n".encode(), "text/plain; charset=utf-8"))
            segment: dict[str, Any] = {"start": 0.0, "end": 2.5, "text": text}
            if body.timestamps == "word":
                segment["words"] = [{"word": "x", "start": 0.0, "end": 0.5, "probability": 0.5}]
            if body.format == "verbose_json":
                segment |= {"temperature": 0, "avg_logprob": -1, "compression_ratio": 1, "no_speech_prob": 0}
            heard = {"text": text, "language": "en", "duration": 2.5, "segments": [segment]}
            return Answer(heard, units=2.5, tokens=4)

        return Prepared([text], finish, stream=Events(2.5) if body.stream else None)

    def _speak(self, body: TextToSpeech) -> Prepared[str, str]:
        if body.voice not in (None, "Ana"):
            raise InvalidRequestError("This model has no such voice; it has Ana.")
        kind = body.file or body.format
        facts: Facts = {"Format": kind, "Voice": "Ana", "Seed": body.seed or 0}

        def finish(_: Sequence[str]) -> Answer:
            if body.file is not None:
                raw = Raw(body.text.encode(), SOUNDS[kind], {**facts, "Audio-Seconds": 1.5})
                return Answer({}, units=len(body.text), tokens=TOKENS, raw=raw)
            audio = {"b64": b64encode(body.text.encode()).decode(), "format": kind}
            return Answer({"audio": audio}, units=len(body.text), tokens=TOKENS)

        if not body.stream:
            return Prepared([body.text], finish)
        stream = Sound(len(body.text), SOUNDS[kind])
        return Prepared([body.text], finish, stream=stream, tokens=TOKENS, facts=facts)

    def _draw(self, body: TextToImage) -> Prepared[str, str]:
        kind = body.file or body.format

        def finish(_: Sequence[str]) -> Answer:
            content, tokens = body.prompt.encode() * 10_000, len(body.prompt)
            if body.file is not None:
                raw = Raw(content, PICTURES[kind], {"Format": kind, "Size": "64x64", "Seed": body.seed})
                return Answer({}, units=1, tokens=tokens, raw=raw)
            image = {"b64": b64encode(content).decode(), "format": kind, "seed": body.seed}
            return Answer({"images": [image] * body.n}, units=body.n, tokens=tokens)

        return Prepared([body.prompt] * body.n, finish)

    def _run(self, batch: Sequence[str], check: Check) -> list[str]:
        check()
        return list(batch)

    def _pieces(self, work: str, check: Check) -> Iterator[str]:
        for number in range(PIECES):
            check()
            yield str(number)
            time.sleep(0.1)


def _event(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content)}\n\n".encode()


def start() -> int:
    """Serves as an image would."""
    return serve(SpeechEngine(), parse_settings(RuntimeSettings, sys.argv[1:], description="Serves speech."))


if __name__ == "__main__":
    run_main(start)

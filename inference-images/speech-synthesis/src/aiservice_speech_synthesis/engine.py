"""text-to-speech as an engine: what a request holds, and how it becomes an answer.

torch and coqui-tts are imported by import_libraries(), in the device thread: /health answers meanwhile.
"""

from __future__ import annotations

import base64
import gc
import importlib
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from aiservice_runtime import (
    Answer,
    Check,
    Facts,
    FatalError,
    FileBody,
    InvalidRequestError,
    Media,
    PayloadTooLargeError,
    Prepared,
    Raw,
    Task,
)
from aiservice_runtime.torch_engine import TorchEngine
from aiservice_speech_synthesis import answers, coqui, folders
from aiservice_speech_synthesis.encoders import (
    FILES,
    FORMATS,
    Encoder,
    Format,
    Samples,
    encoded,
    media_type,
    rate_of,
    streamed,
)
from aiservice_speech_synthesis.settings import SynthesisSettings
from aiservice_speech_synthesis.speaker import Script, Speaker, language_of, voice_of
from aiservice_speech_synthesis.voices import Voice, decode_clip

# coqui-tts offers fp16 for XTTS through DeepSpeed only.
PRECISIONS = {"cpu": ("fp32",), "cuda": ("fp32",)}
_SEEDS = 2**32
_PAUSE = 0.25
"""Seconds of silence between two stretches."""


class TextToSpeech(FileBody):
    """Body of POST /api/text-to-speech."""

    file_field: ClassVar[str] = "voice_clip"

    text: str = Field(min_length=1)
    """What to say."""
    language: str | None = Field(None, max_length=40)
    """One that the model speaks, as code (`de`, `en-US`); null: the service's own."""
    voice: str | None = Field(None, max_length=200)
    """A voice of the model by its name; null: the service's own."""
    voice_clip: Media | None = None
    """A recording of a voice to speak with instead."""
    speed: float = Field(1.0, ge=0.25, le=4)
    """1 is the model's own; 2 is twice as fast."""
    format: Format = "wav"
    """What the sound is encoded as; pcm is 16-bit integers, little-endian, without a header. Left out: as Accept
    chooses, where that asks for the sound itself."""
    stream: bool = False
    """Whether the answer is to be the sound itself, sent while it is computed, instead of JSON. Accept may choose its
    format, and must take it."""
    seed: int | None = Field(None, ge=0, lt=_SEEDS)
    """Same seed, same speech; null: one is drawn and told."""

    @property
    def file_asked_by(self) -> str | None:
        """What is streamed is the sound itself."""
        return "stream" if self.stream else None

    @property
    def sound(self) -> Format:
        """What the sound is encoded as."""
        return next((kind for kind in FORMATS if kind == self.file), self.format)


@dataclass(frozen=True)
class Reading:
    """What the device is given at once: one stretch of a text, or all of them for a streamed answer."""

    scripts: Sequence[Script]


class SynthesisEngine(TorchEngine):
    """XTTS or another Coqui model, as the model folder says."""

    def __init__(self, settings: SynthesisSettings) -> None:
        super().__init__(settings, PRECISIONS)
        self._settings = settings
        self._speaker: Speaker | None = None

    @property
    def tasks(self) -> Sequence[Task[Any, Any, Any]]:
        """The one task of this image; its examples are those that the model in the folder answers."""
        folder = self._settings.model_dir
        examples = answers.examples(
            xtts=folders.kind_in(folder) == "xtts", voices=(folder / "speakers_xtts.pth").is_file()
        )
        return [
            Task(
                "text-to-speech",
                "character",
                TextToSpeech,
                self._prepare,
                self._run,
                self._stream,
                answers=answers.SHAPES,
                files=FILES,
                facts=answers.FACTS,
                examples=examples,
            )
        ]

    def modules(self) -> Iterable[Any]:
        """The model, and its vocoder if it has one."""
        return self._speaker.modules if self._speaker is not None else ()

    def import_libraries(self) -> None:
        """Imports torch and coqui-tts."""
        super().import_libraries()
        coqui.prepare()
        for name in ("xtts_model", "coqui_model"):
            importlib.import_module(f"{__package__}.{name}")

    def load(self) -> None:
        """Reads the model folder."""
        from aiservice_speech_synthesis import checkpoints  # noqa: PLC0415 - it imports torch, see the module's docstring

        with checkpoints.told(self._settings.model_dir):
            self._speaker = self._load()
        self._check_defaults()

    def _load(self) -> Speaker:
        from aiservice_speech_synthesis.coqui_model import CoquiSpeaker  # noqa: PLC0415 - as above
        from aiservice_speech_synthesis.xtts_model import XttsSpeaker  # noqa: PLC0415 - as above

        folder, cached = self._settings.model_dir, self._settings.cached_voices
        content = folders.read_config(folder / "config.json", folders.MODELS)
        if folders.kind_of(content) == "xtts":
            return XttsSpeaker(
                folder, content, device=self._device, cached=cached, stream_tokens=self._settings.stream_tokens
            )
        return CoquiSpeaker(folder, content, device=self._device, cached=cached)

    def warm_up(self) -> None:
        """Speaks, and listens to noise where it can clone."""
        self._loaded.warm_up()

    def release(self) -> None:
        """Drops the model."""
        self._speaker = None
        gc.collect()

    @property
    def _loaded(self) -> Speaker:
        if self._speaker is None:
            raise RuntimeError("the model is not loaded")
        return self._speaker

    def _check_defaults(self) -> None:
        """Raises FatalError when the settings name a voice or a language that the model does not have."""
        for name, known, wanted in (
            ("default-voice", self._loaded.voices, self._settings.default_voice),
            ("default-language", self._loaded.languages, self._settings.default_language),
        ):
            if wanted and wanted not in known:
                raise FatalError(f"The setting {name} is {wanted!r}, which this model does not have: {_few(known)}.")

    def _language(self, asked: str | None) -> str:
        known = self._loaded.languages
        own = self._settings.default_language or ("en" if "en" in known else known[0])
        return language_of(asked, known, own)

    def _voice(self, body: TextToSpeech) -> Voice:
        speaker, settings = self._loaded, self._settings
        if body.voice_clip is not None:
            if body.voice is not None:
                raise InvalidRequestError("Give voice or voice_clip, not both.")
            if not speaker.clones:
                raise InvalidRequestError("This model cannot clone a voice; leave voice_clip out.")
            return decode_clip(body.voice_clip, max_seconds=settings.max_clip_seconds, timeout=settings.decode_seconds)
        own = settings.default_voice or (speaker.voices[0] if speaker.voices else None)
        voice = voice_of(body.voice, speaker.voices, own)
        if voice is None and speaker.needs_voice:
            raise InvalidRequestError("This model has no voices of its own: send a recording of one as voice_clip.")
        return voice

    def _prepare(self, body: TextToSpeech) -> Prepared[Reading, Samples]:
        if len(body.text) > self._settings.max_characters:
            raise PayloadTooLargeError(
                f"The text is longer than {self._settings.max_characters} characters, the limit of this service."
            )
        if body.speed != 1 and not self._loaded.speeds:
            raise InvalidRequestError("This model speaks at its own speed only; leave speed out.")
        language, seed = self._language(body.language), secrets.randbelow(_SEEDS) if body.seed is None else body.seed
        voice = self._voice(body)
        scripts = self._loaded.scripts(body.text, language=language, voice=voice, speed=body.speed, seed=seed)
        if not scripts:
            raise InvalidRequestError("There is nothing in the text that can be spoken.")
        rate, tokens = self._loaded.rate, sum(script.tokens for script in scripts)
        kind, name = body.sound, voice if isinstance(voice, str) else None
        facts: Facts = {"Format": kind, "Sample-Rate": rate_of(kind, rate), "Language": language, "Seed": seed}
        facts = facts if name is None else {**facts, "Voice": name}

        def finish(results: Sequence[Samples]) -> Answer:
            samples = np.concatenate(list(_paused(results, rate)))
            content, seconds = encoded(samples, kind, rate), round(samples.size / rate, 3)
            if body.file is not None:
                raw = Raw(content, media_type(kind, rate), {**facts, "Audio-Seconds": seconds})
                return Answer({}, units=len(body.text), tokens=tokens, raw=raw)
            shown = {
                "audio": {
                    "b64": base64.b64encode(content).decode(),
                    "format": kind,
                    "sample_rate": rate_of(kind, rate),
                    "seconds": seconds,
                },
                "language": language,
                "voice": name,
                "seed": seed,
            }
            return Answer(shown, units=len(body.text), tokens=tokens)

        if not body.stream:
            return Prepared([Reading([script]) for script in scripts], finish)
        stream = SoundStream(kind, rate, len(body.text), tokens)
        return Prepared([Reading(scripts)], finish, stream=stream, tokens=tokens, facts=facts)

    def _run(self, batch: Sequence[Reading], check: Check) -> list[Samples]:
        return [np.concatenate([self._loaded.speak(script, check) for script in each.scripts]) for each in batch]

    def _stream(self, reading: Reading, check: Check) -> Iterator[Samples]:
        silence = np.zeros(round(_PAUSE * self._loaded.rate), np.float32)
        for number, script in enumerate(reading.scripts):
            if number:
                yield silence
            yield from self._loaded.stream(script, check)


class SoundStream:
    """A streamed answer: one audio file, sent while it is computed. It has no words for a failure."""

    def __init__(self, kind: Format, rate: int, characters: int, tokens: int) -> None:
        self.media_type = media_type(kind, rate)
        self.units = float(characters)
        self.tokens = tokens
        self._encoder: Encoder = streamed(kind, rate)

    def encode(self, chunk: Samples) -> bytes:
        """Returns what of the file is complete with these samples."""
        return self._encoder.add(chunk)

    def end(self, usage: dict[str, Any]) -> bytes:
        """Returns the rest of the file."""
        return self._encoder.end()

    def failed(self, sentence: str) -> None:
        """Has no words for it: the connection is cut."""


def _paused(stretches: Sequence[Samples], rate: int) -> Iterator[Samples]:
    for number, samples in enumerate(stretches):
        if number:
            yield np.zeros(round(_PAUSE * rate), np.float32)
        yield samples


def _few(names: Sequence[str]) -> str:
    return ", ".join(list(names)[:10]) or "it has none"

"""What text-to-speech answers, as /openapi.json tells it, with examples."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Sequence
from dataclasses import replace

from aiservice_runtime import AnswerBody, Described, Example, Fact, Shape
from aiservice_speech_synthesis.encoders import FILES, Format


class Sound(Described):
    """One audio file."""

    b64: str
    """Its bytes, in base64."""
    format: Format
    sample_rate: int
    """Samples a second."""
    seconds: float


class Speech(AnswerBody):
    """What was spoken."""

    audio: Sound
    language: str
    voice: str | None
    """Name of the voice; null for a cloned one, and where the model has one only."""
    seed: int
    """That of the request, or the one that was drawn."""


SHAPES = (
    Shape("application/json", body=Speech),
    *(
        Shape(
            media_type,
            f"With `Accept: {media_type}`, or with `stream` and `format` {name}: the file itself. "
            "With `stream` it is sent while it is computed.",
        )
        for name, media_type in FILES.items()
    ),
)

FACTS = (
    Fact("Format", "string", "As `audio.format` in JSON."),
    Fact("Sample-Rate", "integer", "As `audio.sample_rate` in JSON."),
    Fact("Audio-Seconds", "number", "As `audio.seconds` in JSON. Not of a streamed answer."),
    Fact("Language", "string", "As `language` in JSON."),
    Fact("Voice", "string", "As `voice` in JSON, where it has a name; what is not ASCII is percent-encoded UTF-8."),
    Fact("Seed", "integer", "As `seed` in JSON."),
)


def _tone() -> str:
    """Little more than a second of a buzz, as a WAV file in base64: short enough to be read in an example."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(1000)
        file.writeframes(bytes(128 + number % 8 * 8 for number in range(1100)))
    return base64.b64encode(buffer.getvalue()).decode()


_FILE = {"b64": "UklGRiQAAABXQVZFZm10IA==", "format": "wav", "sample_rate": 24000, "seconds": 1.7}
_SAID = {
    "audio": _FILE,
    "language": "en",
    "voice": "Ana Florence",
    "seed": 42,
    "usage": {"units": 21.0, "unit": "character", "tokens": 14, "cost": None},
}

_EXAMPLES = (
    Example("speech", "As JSON", {"text": "Hello, this is a test", "language": "en"}, _SAID),
    Example(
        "same-again",
        "As MP3, the same each time",
        {"text": "Hello, this is a test", "language": "en", "format": "mp3", "seed": 42},
        {**_SAID, "audio": {**_FILE, "b64": "SUQzBAAAAAAA", "format": "mp3"}},
    ),
    Example(
        "cloned-voice",
        "With the voice of a recording",
        {"text": "Hello, this is a test", "language": "en", "voice_clip": _tone()},
        {**_SAID, "voice": None},
    ),
    Example(
        "stream",
        "The sound as it is spoken",
        {"text": "Hello, this is a test", "language": "en", "format": "opus", "stream": True},
        "(the bytes of the file)",
        "audio/ogg",
    ),
    Example(
        "file",
        "The sound itself, with `Accept: audio/mpeg`",
        {"text": "Hello, this is a test", "language": "en", "seed": 42},
        "(the bytes of the file)",
        "audio/mpeg",
    ),
)
_CLONED = "cloned-voice"


def examples(*, xtts: bool, voices: bool) -> Sequence[Example]:
    """Returns those that a model answers: an XTTS, which has voices of its own or not, or another.

    Other models speak one language, which may be any; of them YourTTS alone can clone.
    """
    if xtts:
        return [example for example in _EXAMPLES if voices or example.name == _CLONED]
    return [_without_language(example) for example in _EXAMPLES if example.name != _CLONED]


def _without_language(example: Example) -> Example:
    return replace(example, request={name: value for name, value in example.request.items() if name != "language"})

"""What speech-to-text answers, as /openapi.json tells it, with examples."""

from __future__ import annotations

import base64
import io
import wave
from typing import Literal

from aiservice_runtime import AnswerBody, Described, Example, Shape, Usage
from aiservice_speech_recognition.transcript import SUBTITLES


class HeardWord(Described):
    """One word."""

    word: str
    start: float
    """Seconds from the start of the recording, as all times."""
    end: float
    probability: float


class HeardSegment(Described):
    """A stretch of speech."""

    start: float
    end: float
    text: str
    words: list[HeardWord] | None = None
    """With `timestamps` word."""
    temperature: float | None = None
    """With `format` verbose_json, as what follows."""
    avg_logprob: float | None = None
    compression_ratio: float | None = None
    no_speech_prob: float | None = None


class Transcription(AnswerBody):
    """What was heard."""

    text: str
    language: str
    """Code, such as en."""
    duration: float
    """Of the recording, in seconds."""
    segments: list[HeardSegment]


class SegmentEvent(HeardSegment):
    """A segment that was heard."""

    type: Literal["segment"]


class DoneEvent(Described):
    """The last event."""

    type: Literal["done"]
    text: str
    language: str
    duration: float
    usage: Usage


class ErrorEvent(Described):
    """The last event of an answer that failed in the middle."""

    type: Literal["error"]
    error: str
    """A sentence."""


SHAPES = (
    Shape("application/json", body=Transcription),
    Shape(
        "text/event-stream",
        "With `stream`: server-sent events, the data of each a JSON object.",
        events=(SegmentEvent, DoneEvent, ErrorEvent),
    ),
    *(Shape(media_type, f"With `format` {name}.") for name, (media_type, _) in SUBTITLES.items()),
)


def _silence() -> str:
    """A fifth of a second without a sound, as a WAV file in base64: short enough to be read in an example."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(2000)
        file.writeframes(bytes([128]) * 400)
    return base64.b64encode(buffer.getvalue()).decode()


_WAV = _silence()
_TEXT = "The quick brown fox."
_SEGMENT = {"start": 0.0, "end": 1.4, "text": _TEXT}
_USAGE = {"units": 1.4, "unit": "audio-second", "tokens": 5, "cost": None}
_HEARD = {"text": _TEXT, "language": "en", "duration": 1.4}

EXAMPLES = (
    Example("text-and-segments", "As JSON", {"audio": _WAV}, {**_HEARD, "segments": [_SEGMENT], "usage": _USAGE}),
    Example(
        "words",
        "With the times of words, and how sure the model was",
        {"audio": _WAV, "language": "en", "timestamps": "word", "format": "verbose_json"},
        {
            **_HEARD,
            "segments": [
                {
                    **_SEGMENT,
                    "words": [{"word": "The", "start": 0.0, "end": 0.3, "probability": 0.98}],
                    "temperature": 0.0,
                    "avg_logprob": -0.21,
                    "compression_ratio": 1.1,
                    "no_speech_prob": 0.01,
                }
            ],
            "usage": _USAGE,
        },
    ),
    Example("plain-text", "As text", {"audio": _WAV, "format": "text"}, f"{_TEXT}\n", "text/plain"),
    Example(
        "subtitles",
        "As SubRip subtitles",
        {"audio": _WAV, "format": "srt"},
        f"1\n00:00:00,000 --> 00:00:01,400\n{_TEXT}\n",
        "application/x-subrip",
    ),
    Example(
        "web-subtitles",
        "As WebVTT subtitles",
        {"audio": _WAV, "format": "vtt"},
        f"WEBVTT\n\n00:00:00.000 --> 00:00:01.400\n{_TEXT}\n",
        "text/vtt",
    ),
)
STREAMED = Example(
    "events",
    "Segments as they are heard",
    {"audio": _WAV, "stream": True},
    'data: {"type": "segment", "start": 0.0, "end": 1.4, "text": "The quick brown fox."}\n\n'
    'data: {"type": "done", "text": "The quick brown fox.", "language": "en", "duration": 1.4, "usage": '
    '{"units": 1.4, "unit": "audio-second", "tokens": 5, "cost": null}}\n\n',
    "text/event-stream",
)
"""Where the model can stream: in faster-whisper's layout."""

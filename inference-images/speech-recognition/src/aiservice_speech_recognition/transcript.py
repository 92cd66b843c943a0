"""What was heard, and the forms in which it is handed out. Nothing here knows a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiservice_runtime import Check
from aiservice_speech_recognition.audio import Samples


@dataclass(frozen=True)
class Word:
    """One word; times in seconds from the start of the recording."""

    word: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True)
class Segment:
    """A stretch of speech, with what OpenAI's `verbose_json` says of it."""

    start: float
    end: float
    text: str
    tokens: int
    """Text tokens that the model decoded for it."""
    words: Sequence[Word] | None
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


@dataclass(frozen=True)
class Heard:
    """A recording on its way to text."""

    language: str
    segments: Iterator[Segment]
    """Computed while it is read, by models that can."""


class Transcriber(Protocol):
    """A loaded model. Not for several threads at once, except language_code()."""

    streams: bool
    """Whether segments come while later ones are still to be computed."""

    def language_code(self, language: str | None, *, translate: bool) -> str | None:
        """Returns the model's code of a language given by code or English name; None means: detect it.

        Raises InvalidRequestError when the model does not know the language, or cannot translate.
        """

    def warm_up(self) -> None:
        """Runs every path that a request may take once."""

    def transcribe(
        self, samples: Samples, *, language: str | None, translate: bool, words: bool, check: Check
    ) -> Heard:
        """Computes, calling `check` as often as the model lets it."""

    def sleep(self) -> None:
        """Moves the weights to the memory of the host."""

    def wake(self) -> None:
        """Moves the weights back."""


def shown(segment: Segment, *, verbose: bool) -> dict[str, Any]:
    """Returns a segment as JSON answers hold it."""
    entry: dict[str, Any] = {"start": segment.start, "end": segment.end, "text": segment.text}
    if segment.words is not None:
        entry["words"] = [
            {"word": word.word, "start": word.start, "end": word.end, "probability": word.probability}
            for word in segment.words
        ]
    if verbose:
        entry |= {
            "temperature": segment.temperature,
            "avg_logprob": segment.avg_logprob,
            "compression_ratio": segment.compression_ratio,
            "no_speech_prob": segment.no_speech_prob,
        }
    return entry


def text_of(segments: Iterable[Segment]) -> str:
    """Returns the whole text."""
    return " ".join(segment.text for segment in segments if segment.text)


def srt(segments: Iterable[Segment]) -> str:
    """Returns SubRip subtitles."""
    cues = (
        f"{number}\n{_clock(segment.start, ',')} --> {_clock(segment.end, ',')}\n{_cue_text(segment)}\n"
        for number, segment in enumerate(segments, 1)
    )
    return "\n".join(cues)


def vtt(segments: Iterable[Segment]) -> str:
    """Returns WebVTT subtitles (https://www.w3.org/TR/webvtt1/)."""
    cues = (
        f"{_clock(segment.start, '.')} --> {_clock(segment.end, '.')}\n{_escaped(_cue_text(segment))}\n"
        for segment in segments
    )
    return "\n".join(["WEBVTT\n", *cues])


SUBTITLES: dict[str, tuple[str, Callable[[Iterable[Segment]], str]]] = {
    "text": ("text/plain; charset=utf-8", lambda segments: text_of(segments) + "\n"),
    "srt": ("application/x-subrip; charset=utf-8", srt),
    "vtt": ("text/vtt; charset=utf-8", vtt),
}
"""The formats that are no JSON: media type and writer."""


def _cue_text(segment: Segment) -> str:
    # An arrow would begin another cue, a blank line would end this one.
    return segment.text.replace("-->", "->").replace("\n", " ")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"

"""`/v1/audio/transcriptions` and `/v1/audio/translations`: text from speech."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import BeforeValidator, Field

from aiservice_api.tasks import Task
from aiservice_gateway.errors import ParameterError
from aiservice_gateway.openai_errors import error_body
from aiservice_gateway.services.openai.answers import Answered, Document, EventStream, Rewriter, Verbatim, event
from aiservice_gateway.services.openai.parameters import Parameters, only, without_nothing

_JSON_FORMATS = {"json", "verbose_json"}
_SERVER_ERROR = 500


def _listed(value: object) -> object:
    """A form may write a list of one as a text."""
    return [value] if isinstance(value, str) else value


class Hearing(Parameters):
    """What both routes take."""

    task: ClassVar[Task] = Task.SPEECH_TO_TEXT
    files: ClassVar[dict[str, str]] = {"file": "file"}
    impossible: ClassVar[dict[str, str]] = {"prompt": "the services take no text to go on from"}
    translates: ClassVar[bool] = False

    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = "json"
    """What the answer is."""
    temperature: Annotated[
        float | None, only(0, why="the services take the likeliest words"), Field(json_schema_extra={"enum": [0]})
    ] = None
    """How freely to choose words."""

    def native(self) -> dict[str, Any]:
        """The service's fields."""
        return without_nothing(format=self.response_format, translate=True if self.translates else None)

    def rewriter(self, answered: Answered) -> Rewriter:
        """Translates JSON; text and subtitles are what the service writes."""
        if self.response_format not in _JSON_FORMATS:
            return Verbatim()
        return Document(lambda document: orjson.dumps(self.document(document)))

    def document(self, heard: dict[str, Any]) -> dict[str, Any]:
        """OpenAI's JSON answer."""
        short = {"text": heard["text"], "usage": {"type": "duration", "seconds": heard["duration"]}}
        if self.response_format == "json":
            return short
        task = "translate" if self.translates else "transcribe"
        verbose = {"task": task, "language": heard["language"], "duration": heard["duration"], **short}
        return verbose | self.times(heard["segments"])

    def times(self, segments: list[dict[str, Any]]) -> dict[str, Any]:
        """Of a verbose answer, what tells when something was said."""
        return {"segments": [_segment(number, segment) for number, segment in enumerate(segments)]}


class Transcription(Hearing):
    """Parameters of POST /v1/audio/transcriptions."""

    impossible: ClassVar[dict[str, str]] = {
        **Hearing.impossible,
        "include": "the services tell no logprobs of tokens; verbose_json has those of segments",
        "keywords": "the services take no text to go on from",
        "languages": "name one language, or none",
        "known_speaker_names": "the services do not tell speakers apart",
        "known_speaker_references": "the services do not tell speakers apart",
    }

    language: str | None = None
    """Its code, such as `en`; found out when left out."""
    timestamp_granularities: Annotated[
        list[Literal["word", "segment"]] | None, BeforeValidator(_listed), Field(max_length=2)
    ] = None
    """Of a verbose answer: the times of what it tells; of segments when left out."""
    stream: bool | None = None
    """Whether to send the text as it is heard, as server-sent events. Models in faster-whisper's layout only."""
    chunking_strategy: Annotated[
        str | None,
        only("auto", why="the service cuts the recording itself"),
        Field(json_schema_extra={"enum": ["auto"]}),
    ] = None
    """How to cut the recording."""

    def native(self) -> dict[str, Any]:
        """The service's fields."""
        if self.timestamp_granularities and self.response_format != "verbose_json":
            raise ParameterError(
                "timestamp_granularities is for the response_format verbose_json.", "timestamp_granularities"
            )
        if self.stream and self.response_format not in {"json", "text"}:
            raise ParameterError("stream goes with the response_format json or text.", "stream")
        asked = super().native() | without_nothing(language=self.language)
        if "word" in (self.timestamp_granularities or ()):
            asked["timestamps"] = "word"
        return asked | {"format": "json", "stream": True} if self.stream else asked

    def rewriter(self, answered: Answered) -> Rewriter:
        """Translates event by event where it is streamed."""
        return EventStream(_Events()) if self.stream else super().rewriter(answered)

    def times(self, segments: list[dict[str, Any]]) -> dict[str, Any]:
        """As asked for."""
        asked = self.timestamp_granularities or ["segment"]
        told = super().times(segments) if "segment" in asked else {}
        if "word" not in asked:
            return told
        words = [word for segment in segments for word in segment.get("words") or []]
        return told | {"words": [{name: word[name] for name in ("word", "start", "end")} for word in words]}


class Translation(Hearing):
    """Parameters of POST /v1/audio/translations."""

    translates: ClassVar[bool] = True


def _segment(number: int, segment: dict[str, Any]) -> dict[str, Any]:
    told = ("start", "end", "text", "temperature", "avg_logprob", "compression_ratio", "no_speech_prob")
    # The services tell neither the model's position nor its tokens; OpenAI's clients expect both.
    return {"id": number, "seek": 0, "tokens": [], **{name: segment[name] for name in told}}


class _Events:
    """Makes OpenAI's events of the service's, one by one."""

    def __init__(self) -> None:
        self._between = ""

    def __call__(self, heard: dict[str, Any]) -> tuple[bytes, bool]:
        """The event for one of the service's (nothing where it heard nothing), and whether it is the last."""
        if heard["type"] == "segment":
            return self._delta(heard["text"]), False
        if heard["type"] == "error":
            return event(error_body(_SERVER_ERROR, str(heard["error"]), "upstream_failed")), True
        tokens = heard["usage"]["tokens"]
        usage = {"type": "tokens", "input_tokens": 0, "output_tokens": tokens, "total_tokens": tokens}
        return event({"type": "transcript.text.done", "text": heard["text"], "usage": usage}), True

    def _delta(self, text: str) -> bytes:
        if not text:
            return b""
        between, self._between = self._between, " "
        return event({"type": "transcript.text.delta", "delta": between + text})

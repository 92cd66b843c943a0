"""`/v1/audio/speech`: speech from text."""

from __future__ import annotations

import base64
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from aiservice_api.tasks import Task
from aiservice_gateway.services.openai.answers import EVENTS, Answered, Rewriter, Verbatim, event
from aiservice_gateway.services.openai.parameters import Parameters, without_nothing

DEFAULT_VOICE = "default"
"""OpenAI's clients must name a voice; this one leaves the choice to the service."""


def _voice_name(value: object) -> object:
    """OpenAI's own voices are names, and others objects with an id."""
    return value["id"] if isinstance(value, dict) and value.keys() == {"id"} else value


class Speech(Parameters):
    """Parameters of POST /v1/audio/speech."""

    task: ClassVar[Task] = Task.TEXT_TO_SPEECH
    impossible: ClassVar[dict[str, str]] = {"instructions": "choose a voice instead"}

    input: str = Field(min_length=1)
    """What to say."""
    voice: Annotated[str | None, BeforeValidator(_voice_name)] = None
    """A voice of the service by its name; `default` is the service's own choice."""
    response_format: Literal["mp3", "opus", "flac", "wav", "pcm"] = "mp3"
    """What the sound is encoded as; pcm is 16-bit integers, little-endian, in the model's rate."""
    speed: float | None = Field(None, ge=0.25, le=4)
    """2 is twice as fast."""
    stream_format: Literal["audio", "sse"] = "audio"
    """The sound itself, or server-sent events that hold it in base64; both while it is computed."""
    language: str | None = None
    """Not OpenAI's: a language that the service speaks, such as `de`."""
    seed: int | None = Field(None, ge=0)
    """Not OpenAI's: the same seed speaks the same way."""

    def native(self) -> dict[str, Any]:
        """The service's fields."""
        return without_nothing(
            text=self.input,
            voice=None if self.voice == DEFAULT_VOICE else self.voice,
            format=self.response_format,
            speed=self.speed,
            language=self.language,
            seed=self.seed,
            stream=True,
        )

    def rewriter(self, answered: Answered) -> Rewriter:
        """Leaves the sound as it is, or writes it into events."""
        return SpeechEvents(answered) if self.stream_format == "sse" else Verbatim()


class SpeechEvents:
    """The sound as server-sent events."""

    def __init__(self, answered: Answered) -> None:
        self.media_type: str | None = EVENTS
        self._tokens = answered.tokens

    def feed(self, chunk: bytes) -> bytes:
        """One event a piece of sound, as it comes."""
        if not chunk:
            return b""
        return event({"type": "speech.audio.delta", "audio": base64.b64encode(chunk).decode()})

    def end(self) -> bytes:
        """The last event."""
        usage = {"input_tokens": self._tokens, "output_tokens": 0, "total_tokens": self._tokens}
        return event({"type": "speech.audio.done", "usage": usage})

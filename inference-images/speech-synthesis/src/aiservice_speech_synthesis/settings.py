"""Settings of the speech-synthesis image."""

from __future__ import annotations

from pydantic import Field

from aiservice_runtime import RuntimeSettings


class SynthesisSettings(RuntimeSettings):
    """What this image can be told beyond what every image can."""

    default_voice: str = Field("", description="voice of a request that names none; the model's first when empty")
    default_language: str = Field(
        "", description="language of a request that names none; English when empty, or the model's first"
    )
    max_characters: int = Field(5000, ge=1, le=100_000, description="longest text; longer is answered 413")
    max_clip_seconds: float = Field(
        60, gt=0, description="longest recording of a voice to clone, in seconds; longer is answered 413"
    )
    decode_seconds: float = Field(30, gt=0, description="seconds in which an upload must be decoded to samples")
    cached_voices: int = Field(64, ge=0, le=10_000, description="cloned voices that are kept for the next request")
    stream_tokens: int = Field(
        20, ge=1, le=200, description="audio tokens of XTTS, 46 ms each, after which a streamed answer goes on"
    )

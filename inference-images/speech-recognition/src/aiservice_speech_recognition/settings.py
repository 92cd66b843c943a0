"""Settings of the speech-recognition image."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from aiservice_runtime import RuntimeSettings


class SpeechSettings(RuntimeSettings):
    """What this image can be told beyond what every image can."""

    backend: Literal["auto", "openai", "faster"] = Field(
        "auto", description="what transcribes: openai, faster, or auto: what the model folder is laid out for"
    )
    beam_size: int = Field(
        1, ge=1, le=32, description="texts that the decoder follows at once; 1 takes the likeliest token at every step"
    )
    max_audio_seconds: float = Field(3600, gt=0, description="longest audio in seconds; longer is answered 413")
    decode_seconds: float = Field(120, gt=0, description="seconds in which an upload must be decoded to samples")

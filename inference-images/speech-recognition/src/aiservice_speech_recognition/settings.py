"""Settings of the speech-recognition image."""

from __future__ import annotations

from pydantic import Field

from aiservice_runtime import RuntimeSettings


class SpeechSettings(RuntimeSettings):
    """What this image can be told beyond what every image can."""

    max_audio_seconds: float = Field(3600, gt=0, description="longest audio in seconds; longer is answered 413")
    decode_seconds: float = Field(120, gt=0, description="seconds in which an upload must be decoded to samples")

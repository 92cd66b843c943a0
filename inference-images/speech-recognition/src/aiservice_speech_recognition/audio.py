"""Uploads to the samples that Whisper takes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from aiservice_runtime import sounds

SAMPLE_RATE = 16_000

Samples = npt.NDArray[np.int16]


def decode(upload: bytes, *, max_seconds: float, timeout: float) -> Samples:
    """Returns the sound of an upload as mono samples at 16 kHz; raises what sounds.decode() does."""
    content = sounds.decode(upload, rate=SAMPLE_RATE, max_seconds=max_seconds, timeout=timeout)
    return np.frombuffer(content, dtype="<i2")

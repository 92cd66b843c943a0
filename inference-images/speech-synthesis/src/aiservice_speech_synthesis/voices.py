"""Voices: those of the model by name, and those that are cloned from a recording. Nothing here knows a model."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aiservice_runtime import InvalidRequestError, sounds

# XTTS listens at this rate; other models' encoders get it resampled.
CLIP_RATE = 22_050
_SHORTEST = 1.0
"""Seconds. XTTS leaves out stretches below 0.33 s, and no voice is to be heard in less than this."""
_SILENCE = 0.003
"""Of full scale, -50 dB: nobody speaks in a recording that is never louder."""


@dataclass(frozen=True)
class Clip:
    """A recording of a voice."""

    samples: npt.NDArray[np.float32]
    """Mono, CLIP_RATE a second."""
    key: str
    """The same for the same sound."""


Voice = str | Clip | None
"""A voice of the model by its name, one to clone, or None: the model has one voice only."""


def decode_clip(upload: bytes, *, max_seconds: float, timeout: float) -> Clip:
    """Returns the recording in an upload.

    Raises InvalidRequestError when there is no voice in it, and what sounds.decode() does.
    """
    content = sounds.decode(upload, rate=CLIP_RATE, max_seconds=max_seconds, timeout=timeout)
    samples = np.frombuffer(content, dtype="<i2").astype(np.float32) / np.float32(32768)
    if samples.size < _SHORTEST * CLIP_RATE:
        raise InvalidRequestError(
            f"The recording of the voice is too short: it must last {_SHORTEST:g} second or more; 6 to 30 work best."
        )
    if np.abs(samples).max() < _SILENCE:
        raise InvalidRequestError("The recording of the voice is silent.")
    return Clip(samples, hashlib.sha256(content).hexdigest())


class ClonedVoices:
    """What was computed from the last recordings, so that each is listened to once. Not for several threads at once."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._voices: OrderedDict[str, Any] = OrderedDict()

    def __len__(self) -> int:
        return len(self._voices)

    def get(self, clip: Clip, compute: Callable[[Clip], Any]) -> Any:
        """Returns what `compute` makes of a recording; the one that was not asked for longest makes room."""
        if clip.key not in self._voices:
            self._voices[clip.key] = compute(clip)
        voice = self._voices[clip.key]
        self._voices.move_to_end(clip.key)
        while len(self._voices) > self._size:
            self._voices.popitem(last=False)
        return voice

"""Tiny models with random weights in the layouts of published ones, each built and loaded once."""

from __future__ import annotations

import io
import math
import subprocess
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from aiservice_speech_synthesis import coqui
from aiservice_speech_synthesis.engine import SynthesisEngine
from support.synthesis import loaded
from weights import tiny_speech


@pytest.fixture(scope="session", autouse=True)
def _libraries() -> None:
    """As the device thread imports them: without torchcodec and torchaudio's compiled parts."""
    coqui.prepare()


@pytest.fixture(scope="session")
def xtts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An XTTS whose checkpoint holds its configuration as an object, as the published one does, and is read-only."""
    folder = tmp_path_factory.mktemp("xtts")
    tiny_speech.xtts(folder, old=True)
    return folder


@pytest.fixture(scope="session")
def vits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vits")
    tiny_speech.vits(folder)
    return folder


@pytest.fixture(scope="session")
def engine(xtts: Path) -> Iterator[SynthesisEngine]:
    """Serves the XTTS."""
    serving = loaded(xtts, stream_tokens=8, cached_voices=2, max_clip_seconds=10)
    yield serving
    serving.release()


@pytest.fixture(scope="session")
def small(vits: Path) -> Iterator[SynthesisEngine]:
    """Serves the VITS, which is much faster."""
    serving = loaded(vits)
    serving.warm_up()
    yield serving
    serving.release()


def _clip(seconds: float = 2.0, hertz: float = 150.0, loudness: float = 0.3) -> bytes:
    rate = 16_000
    time = np.arange(round(seconds * rate)) / rate
    tone = loudness * np.sin(2 * math.pi * hertz * time) * (0.6 + 0.4 * np.sin(2 * math.pi * 3 * time))
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((tone * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


@pytest.fixture(scope="session")
def clip() -> Callable[..., bytes]:
    """Makes a recording of something like a voice, as a WAV file."""
    return _clip


def _heard(content: bytes, *options: str) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    command = ["ffmpeg", "-v", "error", *options, "-i", "pipe:0", "-f", "s16le", "-ac", "1", "-ar", "24000", "pipe:1"]
    done = subprocess.run(command, input=content, capture_output=True, check=True)
    assert done.stderr == b"", done.stderr
    return np.frombuffer(done.stdout, dtype="<i2")


@pytest.fixture(scope="session")
def heard() -> Callable[..., np.ndarray[tuple[int], np.dtype[np.int16]]]:
    """Decodes an audio file with ffmpeg: samples at 24 kHz. Fails on the smallest complaint of its."""
    return _heard

"""Whisper tiny.en with its real weights, loaded once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aiservice_speech_recognition.engine import SpeechEngine
from aiservice_speech_recognition.settings import SpeechSettings
from support import models
from support.engines import load


@pytest.fixture(scope="session")
def weights() -> Path:
    return models.real_weights()


@pytest.fixture(scope="session")
def speech(weights: Path) -> bytes:
    """The spoken sample as a WAV file."""
    return (weights / "samples" / "speech.wav").read_bytes()


@pytest.fixture(scope="session")
def engine(weights: Path) -> Iterator[SpeechEngine]:
    loaded = SpeechEngine(SpeechSettings(model_dir=weights / "whisper"))
    load(loaded)
    loaded.warm_up()
    yield loaded
    loaded.release()

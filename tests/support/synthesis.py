"""Loads tiny models of speech synthesis."""

from __future__ import annotations

from pathlib import Path

from aiservice_speech_synthesis.engine import SynthesisEngine
from aiservice_speech_synthesis.settings import SynthesisSettings
from support.engines import load


def loaded(folder: Path, **settings: object) -> SynthesisEngine:
    """Returns a serving engine with one thread: these models are too small for more, and the machine may be busy."""
    engine = SynthesisEngine(SynthesisSettings.model_validate({"model_dir": folder, "threads": 1, **settings}))
    load(engine)
    return engine

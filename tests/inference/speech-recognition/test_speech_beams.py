"""One setting says how many texts both backends follow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from aiservice_speech_recognition.engine import SpeechEngine
from aiservice_speech_recognition.openai_model import OpenAITranscriber
from aiservice_speech_recognition.settings import SpeechSettings
from support import models
from support.engines import ask, load

GIVEN: list[dict[str, Any]] = [{}, {"beam_size": 3}]


@pytest.fixture(params=GIVEN, ids=["default", "three"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    given: dict[str, Any] = request.param
    return given


def loaded(folder: Path, settings: dict[str, Any]) -> SpeechEngine:
    engine = SpeechEngine(SpeechSettings(model_dir=folder, **settings))
    load(engine)
    return engine


@pytest.fixture
def openai(weights: Path, settings: dict[str, Any]) -> Iterator[SpeechEngine]:
    engine = loaded(weights / "whisper", settings)
    yield engine
    engine.release()


@pytest.fixture
def faster(settings: dict[str, Any]) -> Iterator[SpeechEngine]:
    engine = loaded(models.faster_whisper_weights(), settings)
    yield engine
    engine.release()


def test_openai_whisper_decodes_so_many_texts_at_once(
    openai: SpeechEngine, speech: bytes, settings: dict[str, Any]
) -> None:
    transcriber = openai._loaded
    assert isinstance(transcriber, OpenAITranscriber)
    widths: set[int] = set()
    transcriber.model.decoder.register_forward_pre_hook(lambda _, arguments: widths.add(arguments[0].shape[0]))
    answer = ask(openai, audio=speech, language="en")
    assert answer.body["text"] == models.expected("speech-to-text")["text"]
    assert max(widths) == settings.get("beam_size", SpeechSettings().beam_size)


def test_faster_whisper_is_told_the_same(
    faster: SpeechEngine, speech: bytes, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = faster._loaded._model  # type: ignore[attr-defined]  # of this backend only
    told: dict[str, Any] = {}
    transcribe = model.transcribe

    def spied(*arguments: Any, **options: Any) -> Any:
        told.update(options)
        return transcribe(*arguments, **options)

    monkeypatch.setattr(model, "transcribe", spied)
    answer = ask(faster, audio=speech, language="en")
    assert answer.body["text"] == models.expected("speech-to-text")["text"]
    assert told["beam_size"] == told["best_of"] == settings.get("beam_size", SpeechSettings().beam_size)


@pytest.mark.parametrize("wrong", [0, 33])
def test_other_numbers_are_refused(wrong: int) -> None:
    with pytest.raises(ValidationError, match="beam_size"):
        SpeechSettings(beam_size=wrong)

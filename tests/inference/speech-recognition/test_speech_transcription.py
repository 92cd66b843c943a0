"""What is spoken comes back word for word: real weights, the real model."""

from __future__ import annotations

import io
import re
import wave
from pathlib import Path

import pytest

from aiservice_runtime import FatalError, InvalidRequestError, PayloadTooLargeError
from aiservice_speech_recognition.engine import SpeechEngine
from aiservice_speech_recognition.settings import SpeechSettings
from support import models
from support.engines import ask, load


@pytest.fixture(scope="session")
def sentence() -> str:
    text: str = models.expected("speech-to-text")["text"]
    return text


def test_a_spoken_sentence_comes_back(engine: SpeechEngine, speech: bytes, sentence: str) -> None:
    answer = ask(engine, audio=speech)
    body = answer.body
    assert body["text"] == sentence
    assert body["language"] == "en"
    assert body["duration"] == answer.units == pytest.approx(6.95, abs=0.3)
    assert " ".join(segment["text"] for segment in body["segments"]) == sentence
    assert all(set(segment) == {"start", "end", "text"} for segment in body["segments"])
    assert body["segments"][-1]["end"] <= body["duration"]
    assert answer.tokens == pytest.approx(len(sentence.split()), rel=0.4)


def test_words_carry_their_times(engine: SpeechEngine, speech: bytes, sentence: str) -> None:
    segments = ask(engine, audio=speech, timestamps="word").body["segments"]
    words = [word for segment in segments for word in segment["words"]]
    assert [word["word"] for word in words] == sentence.split()
    times = [(word["start"], word["end"]) for word in words]
    assert all(start <= end for start, end in times)
    assert times == sorted(times)
    assert all(0 < word["probability"] <= 1 for word in words)
    # The voice pauses between the two sentences.
    dog, please = words[8], words[9]
    assert (dog["word"], please["word"]) == ("dog.", "Please")
    assert please["start"] - dog["end"] > 0.2


def test_silence_has_no_words(engine: SpeechEngine) -> None:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(32_000 * 3))
    answer = ask(engine, audio=buffer.getvalue())
    assert answer.body["duration"] == 3
    assert answer.body["text"] == ""


@pytest.mark.parametrize("language", ["en", "English", None])
def test_an_english_model_takes_english(engine: SpeechEngine, speech: bytes, language: str | None) -> None:
    [task] = engine.tasks
    [recording] = task.prepare(task.body(audio=speech, language=language)).pieces
    assert recording.language == "en"


@pytest.mark.parametrize(
    ("fields", "reason"), [({"language": "de"}, "English only"), ({"translate": True}, "cannot translate")]
)
def test_an_english_model_refuses_the_rest(
    engine: SpeechEngine, speech: bytes, fields: dict[str, object], reason: str
) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        ask(engine, audio=speech, **fields)


def test_the_limit_of_length_is_a_setting(weights: Path, speech: bytes) -> None:
    engine = SpeechEngine(SpeechSettings(model_dir=weights / "whisper", max_audio_seconds=3))
    load(engine)
    with pytest.raises(PayloadTooLargeError, match="3 seconds"):
        ask(engine, audio=speech)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_precisions_that_whisper_has_not_on_cpus(precision: str) -> None:
    settings = SpeechSettings.model_validate({"precision": precision})
    with pytest.raises(FatalError, match=re.escape(f"Precision {precision} is not possible here on cpu")):
        SpeechEngine(settings)


def test_no_gpu_is_told(weights: Path) -> None:
    with pytest.raises(FatalError, match="no GPU"):
        load(SpeechEngine(SpeechSettings(model_dir=weights / "whisper", device="cuda")))

"""What XTTS reads of numbers: coqui-tts alone fails on many, by language."""

from __future__ import annotations

import re
import time

import pytest

from aiservice_runtime import InvalidRequestError
from aiservice_speech_synthesis.engine import SynthesisEngine
from support.engines import ask

LANGUAGES = ("ar", "cs", "de", "en", "es", "fr", "hi", "hu", "it", "ko", "nl", "pl", "pt", "ru", "tr", "zh-cn")
NUMBERS = (
    "abc 3 abc",
    "abc 3.",
    "5%",
    "12:30",
    "$5",
    "£20",
    "20€",
    "€1,234.50",
    "$999999999999.99",
    "3.14",
    "1,5",
    "0.0000001",
    "0,0000001",
    "1st",
    "1. test",
    "1er 2º 3ª",
    "2. 4. 2024",
    "1/2",
    "-7",
    "007",
    "3..4",
    "1e40",
    "192.168.100.200",
    "123.456.789.012.345.678",
    "9" * 12,
    "9" * 13,
    "9" * 70,
    "9" * 250,
)


@pytest.mark.parametrize("language", LANGUAGES)
def test_ordinary_numbers_are_read_in_every_language(engine: SynthesisEngine, language: str) -> None:
    tokenizer = engine._loaded.model.tokenizer  # type: ignore[attr-defined]  # of XTTS only
    started = time.monotonic()
    for text in NUMBERS:
        cleaned = tokenizer.preprocess_text(text, language.partition("-")[0])
        assert cleaned.strip(), text
        assert not re.search("[0-9]{2}", cleaned), text
    assert time.monotonic() - started < 20, "long numbers took minutes"


@pytest.mark.parametrize(
    ("language", "text", "read"),
    [
        ("en", "In 12.5 seconds, the 1st of 50", "in twelve point five seconds, the first of fifty"),
        ("cs", "Za 12,5 a abc 3. test", "za dvanáct celá pět a abc tři . test"),
        ("hi", "abc 23 abc", "abc दो तीन abc"),
        ("ru", "0.0000001", "ноль . ноль ноль ноль ноль ноль ноль один"),
    ],
)
def test_only_what_cannot_be_read_is_spelled(engine: SynthesisEngine, language: str, text: str, read: str) -> None:
    tokenizer = engine._loaded.model.tokenizer  # type: ignore[attr-defined]  # of XTTS only
    assert tokenizer.preprocess_text(text, language).strip() == read


def test_a_number_that_coqui_cannot_read_is_spoken(engine: SynthesisEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine._loaded, "languages", [*engine._loaded.languages, "cs"])
    assert ask(engine, text="Kapitola 3.", language="cs", seed=1).body["audio"]["seconds"] > 0


def test_what_nothing_helps_against_is_refused(engine: SynthesisEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = engine._loaded.model.tokenizer  # type: ignore[attr-defined]  # of XTTS only
    monkeypatch.setattr(tokenizer, "_cleaned", lambda *_: None)
    with pytest.raises(InvalidRequestError, match="write it in words"):
        ask(engine, text="Number 3.", language="en")

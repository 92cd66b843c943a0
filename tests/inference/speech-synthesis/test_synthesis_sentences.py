"""Texts are cut where a speaker pauses."""

from __future__ import annotations

import time

import pytest

from aiservice_speech_synthesis.sentences import passages, sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello.", ["Hello."]),
        ("One two three. Four five six! Seven?", ["One two three.", "Four five six!", "Seven?"]),
        ("Dr. Smith paid 3.50 to J. Doe. He left.", ["Dr. Smith paid 3.50 to J. Doe.", "He left."]),
        ('"Stop." He ran... and fell. (Then.) End', ['"Stop."', "He ran... and fell.", "(Then.)", "End"]),
        ("first line\nstill first\n\nsecond", ["first line still first", "second"]),
        ("你好。今天天气很好！走吧", ["你好。", "今天天气很好！", "走吧"]),
        ("  \n ... !!! \t", []),
        ("…", []),
        ("Привет. Как дела?", ["Привет.", "Как дела?"]),
        ("مرحبا. كيف حالك؟ جيد", ["مرحبا.", "كيف حالك؟", "جيد"]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_short_sentences_are_spoken_with_their_neighbours() -> None:
    text = "Yes. No. This one is long enough to stand alone. And so is this one, as you can see."
    assert passages(text, fits=lambda _: True, limit=250) == [
        "Yes. No. This one is long enough to stand alone.",
        "And so is this one, as you can see.",
    ]


def test_nothing_is_longer_than_its_limit_and_nothing_is_lost() -> None:
    text = "We went, on that day, to the sea; it was cold: nobody swam, and the wind blew as it always does there. " * 5
    found = passages(text, fits=lambda _: True, limit=60)
    assert max(map(len, found)) <= 60
    assert " ".join(found).split() == text.split()
    assert all(part.endswith((".", ",", ";", ":")) for part in found)


def test_what_has_too_many_tokens_is_cut_further() -> None:
    found = passages("one two three four five six", fits=lambda part: len(part.split()) <= 2, limit=250)
    assert found == ["one", "two three", "four", "five six"] or " ".join(found) == "one two three four five six"
    assert all(len(part.split()) <= 2 for part in found)


def test_a_word_without_end_is_cut_anywhere() -> None:
    found = passages("x" * 1000, fits=lambda _: True, limit=100)
    assert "".join(found) == "x" * 1000
    assert max(map(len, found)) <= 100


@pytest.mark.parametrize(
    "unit", ["1. 2. 3. ", "a.b.c. ", '"', "(", ".....", "x", "A. ", "\n", "\n \n", ". ", "。", "Dr. "]
)
def test_no_text_takes_long(unit: str) -> None:
    text = (unit * 20_000)[:20_000]
    started = time.process_time()
    passages(text, fits=lambda _: True, limit=250)
    assert time.process_time() - started < 2

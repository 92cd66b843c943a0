"""Texts to the stretches that a model speaks at once: whole sentences, neither too short nor too long.

One pass with plain rules. pysbd, which knows more about abbreviations, takes seconds for a long list of numbers, and
its rules cover a part of the languages only. A sentence that ends too early costs a pause, no more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

# After one of these, and closing quotes or brackets, a blank ends the sentence; Chinese and Japanese need no blank.
# A match begins where a row of signs begins, and gives nothing back: else a long row would take quadratic time.
_END = re.compile(r"""(?:(?<![.!?…؟۔।])[.!?…؟۔।]++["'”’»)\]]*+(?=\s)|[。！？]+[”’」』）]*|\n\s*\n)""")
# What a full stop does not end. Single letters are initials.
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'„“«])(?:\w|mrs?|ms|dr|drs|prof|st|sr|sra|jr|vs|etc|e\.g|i\.e|z\.b|d\.h|bzw|nr|no|vol|fig|mme|mlle|dott|"
    r"sig|ing|np|ul|tj|tzv|van|т\.е|т\.д)\.$",
    re.IGNORECASE,
)
# Places to cut a sentence that is too long, the best first.
_CUTS = ("; ", ": ", ", ", "، ", "，", "、", " ")

_SHORTEST = 24
"""Characters. XTTS stutters on shorter texts, so they are spoken with the next sentence."""


def sentences(text: str) -> list[str]:
    """Returns the sentences of a text, in order, without blanks around them, and without those that have no letter."""
    return [sentence for sentence in map(_flat, _split(text)) if any(map(str.isalnum, sentence))]


def passages(text: str, *, fits: Callable[[str], bool], limit: int) -> list[str]:
    """Returns a text in stretches of at most `limit` characters that all fit: sentences, short ones joined.

    A sentence that does not fit is cut, at punctuation if there is any, else between words, else anywhere.
    """

    def can(passage: str) -> bool:
        return len(passage) <= limit and fits(passage)

    found: list[str] = []
    for sentence in sentences(text):
        joined = f"{found[-1]} {sentence}" if found else sentence
        if found and min(len(found[-1]), len(sentence)) < _SHORTEST and can(joined):
            found[-1] = joined
        else:
            found += _cut(sentence, can)
    return found


def _split(text: str) -> Iterator[str]:
    start = 0
    for end in _END.finditer(text):
        # The last word tells an abbreviation; looking at all of a long text each time would be quadratic.
        before = text[max(start, end.end() - 12) : end.end()]
        if end.group().startswith(".") and (_ABBREVIATION.search(before) or _goes_on(text, end.end())):
            continue
        yield text[start : end.end()]
        start = end.end()
    yield text[start:]


def _goes_on(text: str, position: int) -> bool:
    """Tells a full stop inside a sentence: what follows the blank begins in lower case."""
    rest = text[position : position + 8].lstrip()
    return bool(rest) and rest[0].islower()


def _flat(sentence: str) -> str:
    return " ".join(sentence.split())


def _cut(sentence: str, can: Callable[[str], bool]) -> list[str]:
    if len(sentence) < 2 or can(sentence):
        return [sentence]
    first = _middle(sentence)
    halves = sentence[:first].strip(), sentence[first:].strip()
    return [part for half in halves if any(map(str.isalnum, half)) for part in _cut(half, can)]


def _middle(sentence: str) -> int:
    """Returns where to cut a sentence in two: near its middle, at the best place that there is."""
    low, high = len(sentence) // 4, len(sentence) * 3 // 4
    for cut in _CUTS:
        places = [
            place
            for place in (sentence.rfind(cut, low, len(sentence) // 2), sentence.find(cut, len(sentence) // 2, high))
            if place > 0
        ]
        if places:
            return min(places, key=lambda place: abs(place - len(sentence) // 2)) + len(cut)
    return len(sentence) // 2

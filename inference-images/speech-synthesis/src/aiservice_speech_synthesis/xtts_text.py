"""Text to tokens for XTTS, with numbers that its cleaner cannot read written out before.

coqui-tts turns numbers into words with num2words, which raises for many of an ordinary text: any in Hindi, which it
does not know, "3." in Czech, decimals that Python writes with an exponent. Long numbers can take it minutes.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from TTS.tts.layers.xtts.tokenizer import VoiceBpeTokenizer, num2words  # the words that coqui-tts itself takes

from aiservice_runtime import InvalidRequestError

# Longer than what is read as one number, signs between digits included, since the cleaner drops them; and decimals
# so small that Python writes them with an exponent.
_UNREADABLE = re.compile(r"[0-9](?:[.,]?[0-9]){12,}|\b0[.,]0000[0-9]*")
_WORD = re.compile(r"\S*[0-9]\S*")
_DIGITS = re.compile(r"[0-9]+")
# Of languages that num2words does not know. It answers Chinese numbers neither, but there coqui-tts has its own way.
_NAMES = {"hi": ("शून्य", "एक", "दो", "तीन", "चार", "पाँच", "छह", "सात", "आठ", "नौ")}


class XttsTokenizer(VoiceBpeTokenizer):  # type: ignore[misc]  # coqui-tts has no types
    """Reads ordinary text in every language. Used by the model itself too, so that it reads what was counted."""

    def preprocess_text(self, txt: str, lang: str) -> str:
        """Returns the text as its tokens are of. Raises InvalidRequestError where nothing helps."""
        text = _UNREADABLE.sub(lambda number: f" {' '.join(number.group())} ", txt)
        # As it is; else with the words at fault spelled; else, where they fail together only, with all of digits.
        for change in (None, self._failing, _spelled):
            changed = text if change is None else _word_by_word(text, lang, change)
            cleaned = self._cleaned(changed, lang)
            if cleaned is not None:
                return cleaned
        raise InvalidRequestError("The text has a number that cannot be spoken in this language; write it in words.")

    def _cleaned(self, text: str, language: str) -> str | None:
        try:
            cleaned: str = super().preprocess_text(text, language)
        except (ArithmeticError, LookupError, NotImplementedError, TypeError, ValueError):
            return None  # what num2words raises for numbers, by language
        return cleaned

    def _failing(self, word: str, language: str) -> str:
        return word if self._cleaned(word, language) is not None else _spelled(word, language)


def _word_by_word(text: str, language: str, change: Callable[[str, str], str]) -> str:
    return _WORD.sub(lambda word: change(word.group(), language), text)


def _spelled(word: str, language: str) -> str:
    """Returns a word of a text with its numbers in words."""
    return _DIGITS.sub(lambda digits: f" {_in_words(digits.group(), language)} ", word).strip()


def _in_words(digits: str, language: str) -> str:
    """Returns a number in words, or its digits one by one, in words where the language has them."""
    if len(digits) > 1 and digits.startswith("0"):
        return " ".join(_in_words(digit, language) for digit in digits)
    try:
        words: str = num2words(int(digits), lang=language)
    except (ArithmeticError, LookupError, NotImplementedError, TypeError, ValueError):
        if len(digits) > 1:
            return " ".join(_in_words(digit, language) for digit in digits)
        return _NAMES[language][int(digits)] if language in _NAMES else digits
    return words

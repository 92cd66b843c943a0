"""What a loaded model can do, whichever it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiservice_runtime import Check, InvalidRequestError
from aiservice_speech_synthesis.encoders import Samples
from aiservice_speech_synthesis.voices import Voice


@dataclass(frozen=True)
class Script:
    """One stretch of speech, checked and ready for the model."""

    text: str
    language: str
    tokens: int
    """What the model reads of the text."""
    ids: Sequence[int]
    """The tokens themselves, where the model takes them instead of the text."""
    voice: Voice
    speed: float
    seed: int


class Speaker(Protocol):
    """A loaded model. speak() and stream() are for one thread; scripts() may be called from several."""

    rate: int
    """Samples a second."""
    languages: Sequence[str]
    voices: Sequence[str]
    """Names; none: the model has one voice, or can only clone."""
    clones: bool
    """Whether a voice can be cloned from a recording."""
    needs_voice: bool
    """Whether it cannot speak without a voice that is named or cloned."""
    speeds: bool
    """Whether it can speak faster and slower."""
    modules: Sequence[Any]
    """torch modules that hold weights."""

    def scripts(self, text: str, *, language: str, voice: Voice, speed: float, seed: int) -> list[Script]:
        """Returns what is to be spoken, in order; none when there is nothing to speak in the text."""

    def warm_up(self) -> None:
        """Runs every path that a request may take once."""

    def speak(self, script: Script, check: Check) -> Samples:
        """Returns the sound of a script, calling `check` as often as the model lets it."""

    def stream(self, script: Script, check: Check) -> Iterator[Samples]:
        """Gives the sound while it is computed, in one piece where the model cannot."""


def language_of(asked: str | None, known: Sequence[str], default: str) -> str:
    """Returns the model's name of a language; `en-US` is `en`, and `zh` is `zh-cn` where only that is known.

    Raises InvalidRequestError, naming the known ones, when the model does not speak it.
    """
    if asked is None:
        return default
    wanted = asked.strip().lower().replace("_", "-")
    primary = wanted.partition("-")[0]
    for matches in (
        [name for name in known if name.lower() == wanted],
        [name for name in known if name.lower() == primary],
        [name for name in known if name.lower().partition("-")[0] == wanted],
    ):
        if matches:
            return matches[0]
    raise InvalidRequestError(f"This model does not speak that language; it knows {_listed(known)}.")


def voice_of(asked: str | None, known: Sequence[str], default: str | None) -> str | None:
    """Returns the model's voice of that name. Raises InvalidRequestError when it has none."""
    if asked is None or asked in known:
        return asked or default
    if not known:
        raise InvalidRequestError("This model has no voices by name.")
    folded = [name for name in known if name.strip().casefold() == asked.strip().casefold()]
    if folded:
        return folded[0]
    raise InvalidRequestError(f"This model has no such voice; it has {_listed(known)}.")


def _listed(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(name.strip() for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"

"""Text for terminals: tables that align, colours where somebody looks, times and sizes for people."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Messages quote what containers printed: nothing of it may reach the terminal as a command."""
_GAP = "   "


class Colour(StrEnum):
    """Colours by what they mean."""

    GOOD = "32"
    BAD = "31"
    WAIT = "33"
    STRONG = "1"
    FAINT = "2"


@dataclass(frozen=True, slots=True)
class Paint:
    """Colours text, or leaves it as it is."""

    on: bool

    def __call__(self, text: str, colour: Colour | None) -> str:
        """Returns the text in this colour."""
        return f"\x1b[{colour}m{text}\x1b[0m" if self.on and colour is not None and text else text

    def state(self, status: str) -> str:
        """Returns the status of a condition: green, red, or yellow while it is being worked on."""
        return self(status, {"True": Colour.GOOD, "False": Colour.BAD}.get(status, Colour.WAIT))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns an aligned table; what is empty shows as a dash."""
    lines = [list(heads), *([cell or "-" for cell in row] for row in rows)]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        _GAP.join(cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _width(text: str) -> int:
    return len(_ESCAPE.sub("", text))


def plain(text: str) -> str:
    """Returns text of others without what a terminal would obey."""
    return _CONTROL.sub("", _ESCAPE.sub("", text))


def paragraph(text: str, width: int, indent: str = "") -> str:
    """Returns text wrapped to a width; lines that are there stay."""
    return "\n".join(
        textwrap.fill(
            line,
            width,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in text.splitlines()
    )


def age(span: timedelta) -> str:
    """Returns how long ago something was, as kubectl says it: 45s, 12m, 3h, 5d."""
    seconds = max(0, int(span.total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def since(now: datetime, then: datetime) -> str:
    """Returns how long something has been so, in words: for 12 minutes."""
    seconds = max(0, int((now - then).total_seconds()))
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * size:
            return f"for {seconds // size} {unit}s"
    return f"for {seconds} seconds" if seconds != 1 else "for a second"


def count(number: int, what: str) -> str:
    """Returns `1 pod`, `2 pods`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def sentence(text: str) -> str:
    """Returns text with a capital at its start and a stop at its end."""
    text = plain(text).strip()
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?", ":")) else ".")

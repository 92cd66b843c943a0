"""Renders the table of values between the two marks of a chart's README."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from chartdocs.values import Entry, ValuesError

_BEGIN = "<!-- values: generated from values.yaml by `make generate` -->"
_END = "<!-- /values -->"
_LONGEST_DEFAULT = 100


def with_values(readme: str, entries: Iterable[Entry]) -> str:
    """Returns the README with the table put between its marks.

    Raises:
        ValuesError: the README has not exactly one pair of marks.
    """
    parts = re.split(f"({re.escape(_BEGIN)}\n|{re.escape(_END)}\n)", readme)
    if parts[1::2] != [f"{_BEGIN}\n", f"{_END}\n"]:
        raise ValuesError(f"the README needs one line `{_BEGIN}` and after it one line `{_END}`")
    parts[2] = table(entries)
    return "".join(parts)


def table(entries: Iterable[Entry]) -> str:
    """Returns one Markdown row a value."""
    rows = [f"| `{path}` | {_default(entry)} | {_cell(entry.description)} |" for path, entry in _leaves(entries)]
    return "\n".join(["| Value | Default | What it does |", "|---|---|---|", *rows, ""])


def _leaves(entries: Iterable[Entry], above: str = "") -> Iterator[tuple[str, Entry]]:
    for entry in entries:
        path = above + entry.name
        if entry.children:
            yield from _leaves(entry.children, f"{path}.")
        else:
            yield path, entry


def _default(entry: Entry) -> str:
    text = json.dumps(entry.default, ensure_ascii=False)
    return "see `values.yaml`" if len(text) > _LONGEST_DEFAULT else f"`{_cell(text)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")

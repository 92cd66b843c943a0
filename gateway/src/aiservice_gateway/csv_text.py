"""Lines of CSV (RFC 4180) that a spreadsheet shows and does not run."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

MEDIA_TYPE = "text/csv; charset=utf-8; header=present"

_RUN_BY_SPREADSHEETS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""First characters of a cell that make spreadsheets take it for a formula (OWASP, "CSV Injection")."""


def line(cells: Iterable[str | float | None]) -> str:
    """One record with its line break. Texts are quoted, numbers are not; None is an empty cell."""
    return ",".join(map(_cell, cells)) + "\r\n"


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f")  # never in exponent form, which spreadsheets show rounded
    if value.startswith(_RUN_BY_SPREADSHEETS):
        value = f"'{value}"
    return '"' + value.replace('"', '""') + '"'

"""Quantities (`500m`, `8Gi`), whose spelling the API server rewrites, and durations (`30m`): parsing and comparing."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal

_SUFFIXES: dict[str, Decimal] = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)},
}
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)")


def parse(text: str) -> Decimal:
    """Returns the number that a quantity stands for.

    Raises:
        ValueError: it is no quantity.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no quantity such as 500m, 2 or 8Gi")
    number, exponent, suffix = match.groups()
    return Decimal(number + (exponent or "")) * _SUFFIXES[suffix or ""]


def same(one: object, other: object) -> bool:
    """Whether two values, as found in JSON, are the same quantity."""
    try:
        return parse(str(one)) == parse(str(other))
    except ValueError:
        return one == other


def larger(one: str, other: str) -> str:
    """Returns the larger of two quantities, in its own spelling."""
    return one if parse(one) >= parse(other) else other


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> timedelta:
    """Returns the time that a number and a unit stand for: `90s`, `30m`, `24h`, `7d`."""
    return timedelta(seconds=int(text[:-1]) * _SECONDS[text[-1]])


def human_bytes(count: int) -> str:
    """Returns a number of bytes for people, in powers of 1000: `6.9 GB`."""
    number, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 999.5 or unit == "TB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" or number >= 99.95 else f"{number:.1f} {unit}"

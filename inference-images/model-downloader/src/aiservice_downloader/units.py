"""Numbers as people read them."""

from __future__ import annotations

_STEP = 1000.0


def human_bytes(count: int) -> str:
    """Writes a number of bytes in decimal units, as disk sizes and network speeds are told: 6.9 GB."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < _STEP:
            return f"{count} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= _STEP
    return f"{value:.1f} TB"

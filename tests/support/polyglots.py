"""Files of two formats at once."""

from __future__ import annotations

import io
import zipfile


def with_archive(first: bytes) -> bytes:
    """Returns a file with a ZIP archive behind it, whose offsets are those in the whole file."""
    buffer = io.BytesIO(first)
    with zipfile.ZipFile(buffer, "a") as file:
        file.writestr("inside.txt", "inside")
    return buffer.getvalue()

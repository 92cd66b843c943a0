"""What the commands here fail with: a sentence for the terminal."""

from __future__ import annotations


class ImagesError(Exception):
    """A failure that a person can do something about; its text says what."""

"""Takes long strings out of a JSON text while it passes, so that files in base64 are never whole in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from dataclasses import dataclass

_STOP = re.compile(rb'["\\]')
_KEY_BYTES = 64
_COLON = b":"


@dataclass(frozen=True, slots=True)
class Skeleton:
    """Bytes of the text without what is taken out: of those strings only the quotes are left."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a string that is taken out, escaped as they came."""

    number: int
    data: bytes
    last: bool = False
    """Whether the string ends with them."""


class StringTaker:
    """Takes out the strings that are the values of some keys. It checks nothing: whoever reads the skeleton does."""

    def __init__(self, keys: Set[bytes]) -> None:
        """Begins a text.

        Args:
            keys: Whose values are taken out where they are strings. A key that is written with escapes is not one.
        """
        self._keys = keys
        self._string = bytearray()
        """The beginning of the string that is being read, or was last."""
        self._between = b""
        """The beginning of what came since that string but space: a colon, where it was a key."""
        self._inside = False
        self._escaped = False
        """Whether the next byte of the string is escaped."""
        self._taking = False
        self._taken = 0

    def feed(self, chunk: bytes) -> Iterator[Skeleton | Piece]:
        """Splits the next bytes."""
        at = 0
        while at < len(chunk):
            if self._inside:
                yield from self._read_string(chunk, at)
            else:
                yield self._read_outside(chunk, at)
            at = self._at

    def _read_outside(self, chunk: bytes, at: int) -> Skeleton:
        quote = chunk.find(b'"', at)
        end = len(chunk) if quote < 0 else quote
        # One more byte than a colon is enough to see that it is not only a colon.
        self._between = (self._between + chunk[at:end].strip())[:2]
        self._at = end
        if quote < 0:
            return Skeleton(chunk[at:])
        self._at = quote + 1
        self._taking = self._between == _COLON and bytes(self._string) in self._keys
        self._inside, self._between = True, b""
        self._string.clear()
        return Skeleton(chunk[at : quote + 1])

    def _read_string(self, chunk: bytes, at: int) -> Iterator[Skeleton | Piece]:
        end = self._end_of_string(chunk, at)
        closed = end < len(chunk)
        self._at = end + 1 if closed else end
        self._inside = not closed
        if self._taking:
            yield Piece(self._taken, chunk[at:end], closed)
            self._taken += closed
            yield Skeleton(chunk[end : self._at])
            return
        self._string += chunk[at : min(end, at + _KEY_BYTES)]
        yield Skeleton(chunk[at : self._at])

    def _end_of_string(self, chunk: bytes, at: int) -> int:
        """Where the closing quote is; the length of the chunk if it is not in it."""
        if self._escaped:
            at += 1
            self._escaped = False
        while (stop := _STOP.search(chunk, at)) is not None:
            if stop.group() == b'"':
                return stop.start()
            at = stop.end() + 1
        self._escaped = at > len(chunk)
        return len(chunk)

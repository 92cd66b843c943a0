"""Digests of files: computed while bytes pass, or from what is on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_READ_BYTES = 4 << 20


@dataclass(frozen=True)
class Digest:
    """What the content of a file must hash to.

    `git-sha1` is Git's name of a blob, SHA-1 over a header with the size and the content. The Hub publishes it for
    files that are kept in Git itself, and SHA-256 for the large ones.
    """

    algorithm: Literal["sha256", "git-sha1"]
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


class Hasher:
    """Feeds one stream of bytes to the expected digest's algorithm and to SHA-256, which the manifest records."""

    def __init__(self, expected: Digest, size: int | None) -> None:
        """Starts at the first byte.

        Args:
            expected: What the whole content must hash to.
            size: Bytes in all; a git-sha1 cannot be computed without it.
        """
        self._expected = expected
        self._sha256 = hashlib.sha256()
        self._git = None
        if expected.algorithm == "git-sha1":
            if size is None:
                raise ValueError("a git-sha1 digest needs the size of the file")
            self._git = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        self.size = 0

    def update(self, chunk: bytes) -> None:
        """Takes the next bytes."""
        self._sha256.update(chunk)
        if self._git is not None:
            self._git.update(chunk)
        self.size += len(chunk)

    @property
    def sha256(self) -> str:
        """SHA-256 of all bytes so far, in hex."""
        return self._sha256.hexdigest()

    @property
    def found(self) -> str:
        """The digest of all bytes so far, by the expected digest's algorithm, in hex."""
        return self.sha256 if self._git is None else self._git.hexdigest()

    def matches(self) -> bool:
        """Whether the bytes so far are the expected content."""
        return self.found == self._expected.hex


def hash_file(path: Path, hasher: Hasher, check: Callable[[], None]) -> None:
    """Feeds a file's content to `hasher`, calling `check` (which may raise) between reads."""
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_READ_BYTES):
            check()
            hasher.update(chunk)

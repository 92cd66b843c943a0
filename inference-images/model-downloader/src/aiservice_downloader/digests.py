"""Digests of files: computed while bytes pass, or from what is on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

_READ_BYTES = 4 << 20


@dataclass(frozen=True)
class Digest:
    """What the content of a file must hash to.

    `git-sha1` is Git's name of a blob, SHA-1 over a header with the size and the content. The Hub publishes it for
    files that are kept in Git itself, and SHA-256 for the large ones. `md5` and the `crc...` are what S3 has for
    objects without a SHA-256. `etag` names content without being computed from it, so that only the size is checked.
    """

    algorithm: Literal["sha256", "git-sha1", "md5", "crc64nvme", "crc32c", "crc32", "etag"]
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


class _Sum(Protocol):
    def update(self, chunk: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


class _Crc:
    """A cyclic redundancy check in the manner of hashlib."""

    def __init__(self, algorithm: str, digits: int) -> None:
        # Imported when needed: it takes a while to load, and few sources need it.
        from awscrt import checksums  # type: ignore[import-untyped]  # it has no types  # noqa: PLC0415

        self._add: Callable[[bytes, int], int] = getattr(checksums, algorithm)
        self._digits = digits
        self._value = 0

    def update(self, chunk: bytes) -> None:
        self._value = self._add(chunk, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:0{self._digits}x}"


class Hasher:
    """Feeds one stream of bytes to the expected digest's algorithm and to SHA-256, which the manifest records."""

    def __init__(self, expected: Digest, size: int | None) -> None:
        """Starts at the first byte.

        Args:
            expected: What the whole content must hash to.
            size: Bytes in all; a git-sha1 cannot be computed, nor an etag be checked, without it.
        """
        if size is None and expected.algorithm in {"git-sha1", "etag"}:
            raise ValueError(f"a {expected.algorithm} digest needs the size of the file")
        self._expected = expected
        self._wanted_size = size
        self._sha256 = hashlib.sha256()
        self._other = _other_sum(expected, size)
        self.size = 0

    def update(self, chunk: bytes) -> None:
        """Takes the next bytes."""
        self._sha256.update(chunk)
        if self._other is not None:
            self._other.update(chunk)
        self.size += len(chunk)

    @property
    def sha256(self) -> str:
        """SHA-256 of all bytes so far, in hex."""
        return self._sha256.hexdigest()

    @property
    def found(self) -> str:
        """The digest of all bytes so far, by the expected digest's algorithm if it has one, in hex."""
        return self.sha256 if self._other is None else self._other.hexdigest()

    def matches(self) -> bool:
        """Whether the bytes so far are the expected content."""
        if self._expected.algorithm == "etag":
            return self.size == self._wanted_size
        return self.found == self._expected.hex


def _other_sum(expected: Digest, size: int | None) -> _Sum | None:
    """What has to be computed beside SHA-256."""
    if expected.algorithm == "git-sha1":
        return hashlib.sha1(b"blob %d\0" % (size or 0), usedforsecurity=False)
    if expected.algorithm == "md5":
        return hashlib.md5(usedforsecurity=False)
    if expected.algorithm in {"crc64nvme", "crc32c", "crc32"}:
        return _Crc(expected.algorithm, digits=16 if expected.algorithm == "crc64nvme" else 8)
    return None


def hash_file(path: Path, hasher: Hasher, check: Callable[[], None]) -> None:
    """Feeds a file's content to `hasher`, calling `check` (which may raise) between reads."""
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_READ_BYTES):
            check()
            hasher.update(chunk)

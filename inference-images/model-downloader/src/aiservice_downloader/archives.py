"""Opens archives by what is in them, whatever their name: tar (plain, gzip, bzip2, xz, zstd) and zip."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO, cast

from backports import zstd

from aiservice_downloader.tree import Entry, Kind

BROKEN = (
    EOFError,
    NotImplementedError,  # a way of compression that zipfile does not know
    gzip.BadGzipFile,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    zstd.ZstdError,
)
"""What the libraries raise for archives that cannot be read; some of it is an OSError, see `is_about_archive`."""

_HEAD_BYTES = 512
_SKIP_BYTES = 1 << 20
_MAX_READ_BYTES = 4 << 20
_MAX_LINK_BYTES = 4096
_TAR_MARK = slice(257, 262)


@dataclass(frozen=True)
class Member:
    """An entry and a way to its bytes, which can be read until the next one is asked for."""

    entry: Entry
    open: Callable[[], IO[bytes]]


def is_about_archive(error: OSError) -> bool:
    """Whether an error tells of an archive that cannot be read, and not of the volume that it lies on.

    The decompressors' own errors have no number (bz2 raises plain ones). EINVAL is a place before the beginning of
    the file, where the directory of a zip file leads to.
    """
    return error.errno in {None, errno.EINVAL}


@contextmanager
def open_archive(path: Path) -> Iterator[Iterator[Member]]:
    """Opens an archive and gives its entries in their order.

    Raises:
        ValueError: If the file is no archive of a kind that is known, or is encrypted.
        One of BROKEN, or OSError: If it cannot be read, now or later.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(0)
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            with zipfile.ZipFile(file) as archive:
                yield _zip_members(archive)
            return
        with _decompressed(file, head) as plain, tarfile.TarFile(fileobj=cast(BinaryIO, _Forward(plain))) as tar:
            yield _tar_members(tar)


def _decompressed(file: BinaryIO, head: bytes) -> BinaryIO:
    for magic, opener in _COMPRESSIONS.items():
        if head.startswith(magic):
            return opener(file)
    if head[_TAR_MARK] == b"ustar" or head == bytes(_HEAD_BYTES):
        return file
    raise ValueError("it is neither a tar file (plain, gzip, bzip2, xz or zstd) nor a zip file")


_COMPRESSIONS: dict[bytes, Callable[[BinaryIO], BinaryIO]] = {
    b"\x1f\x8b": lambda file: cast(BinaryIO, gzip.GzipFile(fileobj=file)),
    b"BZh": lambda file: cast(BinaryIO, bz2.BZ2File(file)),
    b"\xfd7zXZ\0": lambda file: cast(BinaryIO, lzma.LZMAFile(file)),  # noqa: SIM115  the caller closes it
    b"\x28\xb5\x2f\xfd": lambda file: cast(BinaryIO, zstd.ZstdFile(file)),
}


class _Forward(io.RawIOBase):
    """Keeps tarfile from reading backwards, which would decompress all anew, and from huge headers in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MAX_READ_BYTES:
            raise tarfile.ReadError("a header is too large")
        data = self._file.read(size)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence != io.SEEK_SET or offset < self._position:
            raise tarfile.ReadError("the entries are not in order")
        while self._position < offset:
            if not self.read(min(offset - self._position, _SKIP_BYTES)):
                break
        return self._position


def _tar_members(tar: tarfile.TarFile) -> Iterator[Member]:
    while (info := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # unknown to the types; all entries would stay in memory
        yield Member(_tar_entry(info), partial(_tar_content, tar, info))


def _tar_content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(info)
    if content is None:
        raise tarfile.ReadError(f"{info.name} has no content")
    return content


def _tar_entry(info: tarfile.TarInfo) -> Entry:
    if info.isreg():
        return Entry(info.name, Kind.FILE, info.size)
    if info.isdir():
        return Entry(info.name, Kind.FOLDER)
    if info.issym():
        return Entry(info.name, Kind.SYMLINK, target=info.linkname)
    return Entry(info.name, Kind.HARDLINK, target=info.linkname) if info.islnk() else Entry(info.name, Kind.SPECIAL)


def _zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in archive.infolist():
        if info.flag_bits & 1:
            raise ValueError(f"{info.filename!r} in it is encrypted")
        yield Member(_zip_entry(archive, info), partial(archive.open, info))


def _zip_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Entry:
    mode = info.external_attr >> 16
    if info.is_dir():
        return Entry(info.filename, Kind.FOLDER)
    if stat.S_ISLNK(mode):
        with archive.open(info) as content:
            target = content.read(_MAX_LINK_BYTES)
        return Entry(info.filename, Kind.SYMLINK, target=target.decode(errors="replace"))
    if stat.S_IFMT(mode) in {0, stat.S_IFREG}:
        return Entry(info.filename, Kind.FILE, info.file_size)
    return Entry(info.filename, Kind.SPECIAL)

"""Whether the model fits on its volume, told before the disk is full and with the numbers."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from aiservice_downloader.advice import FOR_MANIFESTS, Advice
from aiservice_downloader.errors import DownloadError, Reason
from aiservice_downloader.units import human_bytes

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers by which a file system says that no more fits."""

FreeBytes = Callable[[Path], int]

_RESERVE_BYTES = 1 << 20  # the manifest, folders and the states of unfinished files


def free_bytes(path: Path) -> int:
    """Bytes that this process may still write below `path`."""
    return shutil.disk_usage(path).free


def used_bytes(root: Path) -> int:
    """Bytes of all files below a folder; files that vanish meanwhile do not count."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118  paths in bulk
            except FileNotFoundError:
                continue
    return total


@dataclass(frozen=True)
class Space:
    """The room on the volume."""

    root: Path
    capacity: int | None
    """Size of the volume as it was asked for, if this is known."""
    free: FreeBytes = free_bytes
    advice: Advice = FOR_MANIFESTS

    def check(self, *, missing: int, later: int = 0) -> None:
        """Raises OutOfSpace if the bytes that are still missing cannot all be written.

        Args:
            missing: Bytes still to be written, as far as known.
            later: Bytes that will come on top, by a guess that must not stop the work: they only count for how large
                the volume should be.
        """
        used = used_bytes(self.root)
        required = used + missing + later + _RESERVE_BYTES
        if self.capacity is not None and used + missing > self.capacity:
            raise DownloadError(
                Reason.OUT_OF_SPACE,
                f"The files have {human_bytes(used + missing)} ({used + missing} bytes) or more and their volume was "
                f"asked for with {human_bytes(self.capacity)} ({self.capacity} bytes): raise storage.size of the "
                "model.",
                required_bytes=required,
            )
        if missing + _RESERVE_BYTES > self.free(self.root):
            raise self.failure(missing, required=required)

    @property
    def room(self) -> int:
        """Bytes that may still be written."""
        free = self.free(self.root)
        return free if self.capacity is None else min(free, self.capacity - used_bytes(self.root))

    def write(self, output: BinaryIO, chunk: bytes, missing: Callable[[], int | None]) -> None:
        """Writes bytes to an unbuffered file; `missing` tells, if need be, how many bytes more are to come."""
        view = memoryview(chunk)
        try:
            while view:
                view = view[output.write(view) :]
        except OSError as error:
            if error.errno in FULL:
                raise self.full(missing()) from error
            raise

    def full(self, missing: int | None) -> DownloadError:
        """What it means that the file system took no more, with so many bytes missing, if this is known."""
        used = used_bytes(self.root)
        # Of a size that nobody tells, only this is known: it is more. Twice as much is found in few tries.
        return self.failure(missing, required=(2 * used if missing is None else used + missing) + _RESERVE_BYTES)

    def failure(self, missing: int | None, *, required: int) -> DownloadError:
        """OutOfSpace, with what is needed and what there is."""
        needed = "More bytes" if missing is None else f"{human_bytes(missing)} ({missing} bytes)"
        available = self.free(self.root)
        return DownloadError(
            Reason.OUT_OF_SPACE,
            f"{needed} are still to be written and the volume has {human_bytes(available)} ({available} bytes) free: "
            f"{self.advice.space}.",
            required_bytes=required,
        )

    def explain(self, error: OSError) -> DownloadError:
        """What an error of the file system means."""
        if error.errno in FULL:
            return self.full(None)
        return DownloadError(
            Reason.VOLUME_ERROR,
            f"The volume cannot be used: {error}. {self.advice.volume}.",
        )

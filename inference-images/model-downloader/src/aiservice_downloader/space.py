"""Whether the model fits on its volume, told before the disk is full and with the numbers."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from aiservice_downloader.errors import DownloadError, Reason
from aiservice_downloader.units import human_bytes

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers by which a file system says that no more fits."""

FreeBytes = Callable[[Path], int]

_RESERVE_BYTES = 1 << 20  # the manifest, folders and the states of unfinished files


def free_bytes(path: Path) -> int:
    """Bytes that this process may still write below `path`."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def check_fits(root: Path, *, missing: int, size: int, capacity: int | None, free: FreeBytes) -> None:
    """Raises OutOfSpace if the bytes that are still missing cannot all be written.

    Args:
        root: A folder on the volume.
        missing: Bytes still to be written, as far as known.
        size: Bytes of the whole model, as far as known.
        capacity: Size of the volume as it was asked for, if this is known.
        free: Tells the bytes free on the volume.
    """
    if capacity is not None and size > capacity:
        raise DownloadError(
            Reason.OUT_OF_SPACE,
            f"The model has {human_bytes(size)} ({size} bytes) or more and its volume was asked for with "
            f"{human_bytes(capacity)} ({capacity} bytes): raise storage.size of the model.",
        )
    available = free(root)
    if missing + _RESERVE_BYTES > available:
        raise out_of_space(missing, available)


def volume_failure(root: Path, error: OSError, free: FreeBytes) -> DownloadError:
    """What an error of the file system means."""
    if error.errno in FULL:
        return out_of_space(None, free(root))
    return DownloadError(
        Reason.VOLUME_ERROR,
        f"The volume cannot be used: {error}. Check that it is mounted writable for this pod's user, and healthy.",
    )


def out_of_space(missing: int | None, available: int) -> DownloadError:
    """The failure, with what is needed and what there is."""
    needed = "More bytes" if missing is None else f"{human_bytes(missing)} ({missing} bytes)"
    return DownloadError(
        Reason.OUT_OF_SPACE,
        f"{needed} are still to be written and the volume has {human_bytes(available)} ({available} bytes) free: "
        "raise storage.size of the model, or free space on the volume's disk.",
    )

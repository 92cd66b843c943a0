"""Removing what a cluster left on disk."""

import shutil
from pathlib import Path

from localcluster.errors import ClusterError


def remove_tree(folder: Path, *, keep: str = "") -> None:
    """Remove a folder, or all in it but the entries whose names start with `keep`.

    Raises:
        ClusterError: something cannot be removed.
    """
    if not folder.exists():
        return
    try:
        for entry in folder.iterdir():
            if keep and entry.name.startswith(keep):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise ClusterError(f"cannot remove {error.filename}: {error.strerror}") from error


def rotate(folder: Path, kept: int = 3) -> None:
    """Move a folder of logs aside, to NAME.1, the one that was there to NAME.2, and forget all but `kept` of them."""
    if not folder.exists():
        return
    numbered = [folder, *(folder.with_name(f"{folder.name}.{number}") for number in range(1, kept + 1))]
    shutil.rmtree(numbered[-1], ignore_errors=True)
    for newer, older in reversed(list(zip(numbered, numbered[1:], strict=False))):
        if newer.exists():
            newer.rename(older)

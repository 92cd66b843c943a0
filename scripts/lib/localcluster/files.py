"""Writing and removing files."""

import itertools
import shutil
from pathlib import Path

from localcluster.errors import ClusterError


def write_file(path: Path, content: str) -> None:
    """Write a file that only its owner may read: whole, and only if it says something else.

    kube-proxy, for one, ends when its configuration is touched.
    """
    if path.exists() and path.read_text() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.touch(mode=0o600)
    draft.write_text(content)
    draft.replace(path)


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
    for newer, older in reversed(list(itertools.pairwise(numbered))):
        if newer.exists():
            newer.rename(older)


def check_filesystem(folder: Path) -> None:
    """Refuse a folder in which containerd could keep no images.

    Raises:
        ClusterError: the folder is on an overlay itself (a container's own file system), which cannot carry another.
    """
    mounts = [line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    points = [(Path(fields.split()[4]), kind.split()[0]) for fields, kind in mounts]
    below = [(point, kind) for point, kind in points if folder.is_relative_to(point)]
    point, kind = max(below, key=lambda mount: len(mount[0].parts))
    if kind == "overlay":
        raise ClusterError(
            f"{folder} is on an overlay, mounted at {point}: set AISERVICE_CACHE to a folder of a real disk"
        )

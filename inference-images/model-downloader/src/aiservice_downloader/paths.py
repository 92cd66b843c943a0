"""Places below the model folder: which may be written, and which of a source's files are wanted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

MANIFEST_NAME = ".aiservice-manifest.json"
"""File that lists the published files; no file of a model may take its name."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_PATH_BYTES = 512
_MAX_PART_BYTES = 255


def check_relative_path(path: str) -> str:
    """Returns `path` if it names a file below a folder, else raises ValueError saying what is wrong with it."""
    parts = path.split("/")
    if path.startswith("/") or any(part in {"", ".", ".."} for part in parts):
        raise ValueError(f"{path!r} must be a relative path without '.', '..' or empty parts")
    if _CONTROL.search(path) or "\\" in path:
        raise ValueError(f"{path!r} must not contain control characters or backslashes")
    if any("\ud800" <= character <= "\udfff" for character in path):
        raise ValueError(f"{path!r} is not UTF-8")
    if len(path.encode()) > _MAX_PATH_BYTES or any(len(part.encode()) > _MAX_PART_BYTES for part in parts):
        raise ValueError(f"{path!r} is too long: {_MAX_PATH_BYTES} bytes in all, {_MAX_PART_BYTES} a part")
    if parts[0] == MANIFEST_NAME:
        raise ValueError(f"{path!r} is the name of the manifest that this program writes")
    return path


def check_distinct(paths: Iterable[str]) -> None:
    """Raises ValueError if two files would need the same place, or one the place of another's folder."""
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            raise ValueError(f"{path!r} occurs twice")
        seen.add(path)
    for path in seen:
        parts = path.split("/")
        for end in range(1, len(parts)):
            if (folder := "/".join(parts[:end])) in seen:
                raise ValueError(f"{folder!r} is both a file and the folder of {path!r}")


def wanted(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether globs choose a file, by the Hub's rules: `*` matches slashes too, and `folder/` all below it."""
    return (not include or _matches(path, include)) and not _matches(path, exclude)


def _matches(path: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(path, glob + "*" if glob.endswith("/") else glob) for glob in globs)

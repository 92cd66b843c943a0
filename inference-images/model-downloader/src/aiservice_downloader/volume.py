"""The volume: what lies where, and how files get from fetched to published.

    <root>/.lock                    held by the one process that works on the volume
    <root>/.partial/<key>.data      bytes of a file so far;  <key>.json: which content they are of (see Partial)
    <root>/.archives/<key>          archives that are complete and verified, until their content is published
    <root>/.staging/<path>          files that are complete and verified
    <root>/model/<path>             the published model, renamed from .staging in one step, its manifest included

The model may be published elsewhere on the same file system, where a person wants it.

A process may be killed at any moment. What it leaves is either used by the next one or removed by it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from aiservice_downloader.files import FetchedFile, RemoteFile
from aiservice_downloader.paths import MANIFEST_NAME
from aiservice_downloader.source import Source

MANIFEST_VERSION = 1

_POLL_SECONDS = 0.05  # between two looks whether another process has let go of the volume


class ManifestFile(BaseModel):
    """One published file."""

    model_config = ConfigDict(extra="ignore")

    path: str
    size: int
    sha256: str


class Manifest(BaseModel):
    """What a published model consists of."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    version: int
    source: Source
    revision: str | None
    files: tuple[ManifestFile, ...]

    @property
    def total_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Partial:
    """An unfinished file on the volume."""

    data: Path
    state: Path

    def size(self) -> int:
        """Bytes that are there."""
        return self.data.stat().st_size if self.data.exists() else 0

    def validator(self) -> str | None:
        """The strong ETag that the bytes came with, if the server gave one."""
        try:
            state = json.loads(self.state.read_text())
        except (FileNotFoundError, ValueError):
            return None
        etag = state.get("etag") if isinstance(state, dict) else None
        return etag if isinstance(etag, str) else None

    def open(self, *, start_over: bool, validator: str | None) -> BinaryIO:
        """Opens the bytes for appending, unbuffered: what was written survives a kill of the process."""
        self.data.parent.mkdir(parents=True, exist_ok=True)
        if start_over:
            # In this order, for a kill in between: bytes must never lie beside the ETag of other content.
            self.data.unlink(missing_ok=True)
            self.state.write_text(json.dumps({"etag": validator}))
        return self.data.open("ab", buffering=0)

    def remove(self) -> None:
        """Forgets the bytes."""
        self.data.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)


class Volume:
    """A model volume, mounted at `root`."""

    def __init__(self, root: Path, model: Path | None = None) -> None:
        """Touches nothing yet.

        Args:
            root: The volume.
            model: Where the model is published, on the same file system; None: `model` on the volume.
        """
        self.root = root
        self.partials = root / ".partial"
        self.archives = root / ".archives"
        self.staging = root / ".staging"
        self.model = root / "model" if model is None else model
        self._replaced = root / ".replaced"

    @contextmanager
    def locked(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """Keeps other processes off the volume; calls `on_wait`, then waits, while another one works on it."""
        self.root.mkdir(parents=True, exist_ok=True)
        # On systems without flock the lock must fail: a lock by a file's existence would outlive a killed process.
        lock = FileLock(self.root / ".lock", fallback_to_soft=False, poll_interval=_POLL_SECONDS)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            on_wait()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def manifest(self, source: Source, revision: str | None) -> Manifest | None:
        """The manifest, if the published model came from `source`, and is of `revision` if there is one."""
        try:
            manifest = Manifest.model_validate_json((self.model / MANIFEST_NAME).read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValidationError):
            return None
        if manifest.version != MANIFEST_VERSION or manifest.source != source:
            return None
        return manifest if revision in {None, manifest.revision} else None

    def published(self, source: Source, revision: str | None = None) -> Manifest | None:
        """The same, if all its files are there in full size."""
        manifest = self.manifest(source, revision)
        if manifest is None or any(file_size(self.model / file.path) != file.size for file in manifest.files):
            return None
        return manifest

    def partial(self, file: RemoteFile) -> Partial:
        """Where the bytes of an unfinished file are kept."""
        return Partial(self.partials / f"{file.key}.data", self.partials / f"{file.key}.json")

    def staged(self, file: RemoteFile) -> Path:
        """Where a complete file is kept until all are."""
        return self.archives / file.key if file.packed else self.staging / file.path

    def bytes_present(self, file: RemoteFile) -> int:
        """Bytes of a file that need no fetching, as far as sizes can tell."""
        staged = file_size(self.staged(file))
        return self.partial(file).size() if staged is None else staged

    def stage(self, file: RemoteFile, partial: Partial) -> None:
        """Moves a complete, verified file to the others. It is on disk, not just in memory, when this returns."""
        target = self.staged(file)
        target.parent.mkdir(parents=True, exist_ok=True)
        sync(partial.data)
        partial.data.replace(target)
        partial.remove()

    def sweep(self, files: Iterable[RemoteFile]) -> None:
        """Removes what earlier attempts left of files that are no longer wanted."""
        files = list(files)
        keys = {file.key for file in files}
        staged = {self.staged(file) for file in files}
        for path in _files_below(self.partials):
            if path.stem not in keys:
                path.unlink()
        for path in [*_files_below(self.archives), *_files_below(self.staging)]:
            if path not in staged:
                path.unlink()
        for folder in _folders_below(self.staging):
            # Left by another list of files: empty ones are not part of the model, and may stand where a file goes.
            if not any(folder.iterdir()):
                folder.rmdir()
        _remove_tree(self._replaced)

    def publish(self, source: Source, revision: str | None, files: Iterable[FetchedFile]) -> None:
        """Makes the staged files the model, all at once: readers see the old model, none, or the whole new one."""
        listed = sorted(files, key=lambda file: file.path)
        manifest = {
            "version": MANIFEST_VERSION,
            "source": source.to_wire(),
            "revision": revision,
            "files": [asdict(file) for file in listed],
            "totalBytes": sum(file.size for file in listed),
        }
        path = self.staging / MANIFEST_NAME
        path.write_text(json.dumps(manifest, indent=1) + "\n")
        sync(path)
        for folder in [*_folders_below(self.staging), self.staging]:
            sync(folder)
        if self.model.exists():
            # A rename cannot replace a folder that is not empty. Pods keep the old files through their mounts.
            _remove_tree(self._replaced)
            self.model.rename(self._replaced)
        self.model.parent.mkdir(parents=True, exist_ok=True)
        self.staging.rename(self.model)
        sync(self.model.parent)
        _remove_tree(self._replaced)
        self._clear()

    def mend(self, paths: Iterable[str]) -> None:
        """Puts staged files in the place of published ones, each in one step. Pods see the old or the new content."""
        for path in paths:
            target = self.model / path
            target.parent.mkdir(parents=True, exist_ok=True)
            (self.staging / path).replace(target)
            sync(target.parent)
        _remove_tree(self.staging)
        self._clear()

    def _clear(self) -> None:
        _remove_tree(self.partials)
        _remove_tree(self.archives)


def file_size(path: Path) -> int | None:
    """Size of a regular file; None if there is none."""
    return path.stat().st_size if path.is_file() and not path.is_symlink() else None


def _files_below(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if not path.is_dir() or path.is_symlink()]


def _folders_below(folder: Path) -> list[Path]:
    """All folders below, the deepest first."""
    return [path for path in sorted(folder.rglob("*"), reverse=True) if path.is_dir() and not path.is_symlink()]


def _remove_tree(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def sync(path: Path) -> None:
    """Has a file or a folder written to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders, and needs no call to keep what is in them
    # Windows syncs only what is open for writing.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

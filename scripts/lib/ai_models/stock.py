"""What of the wanted models is there already, and what is still to come."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ai_models.catalog import Model, Part
from aiservice_downloader.errors import DownloadError, Reason
from aiservice_downloader.files import Plan
from aiservice_downloader.paths import MANIFEST_NAME
from aiservice_downloader.source import HuggingFaceSource, Source
from aiservice_downloader.units import human_bytes
from aiservice_downloader.volume import Manifest, ManifestFile, Volume, file_size

STATE_FOLDER = ".downloads"
"""Below the folder of all models: unfinished files and locks. It may be deleted when nothing is downloaded."""

_RESERVE_BYTES = 64 << 20  # manifests, folders, and what a file system needs for large files


class State(Enum):
    """How a part is found."""

    ABSENT = "to fetch"
    DAMAGED = "to mend"
    PRESENT = "there"


@dataclass(frozen=True)
class Place:
    """One part of a model and where it goes."""

    model: Model
    part: Part
    root: Path
    """The folder of all models."""

    @property
    def folder(self) -> Path:
        """The folder of the part."""
        return self.root / self.part.folder

    @property
    def volume(self) -> Volume:
        """The part's files, finished and not."""
        return Volume(self.state_folder, self.folder)

    @property
    def state_folder(self) -> Path:
        """What is kept of the part until it is finished."""
        return self.root / STATE_FOLDER / self.part.folder

    @property
    def source(self) -> Source:
        """Where it comes from. The endpoint is left to the environment: a mirror gives the same files."""
        hub = HuggingFaceSource(repo=self.part.repo, include=self.part.include, exclude=self.part.exclude)
        return Source(hugging_face=hub)


def places(models: Sequence[Model], root: Path) -> list[Place]:
    """The parts of some models."""
    return [Place(model, part, root) for model in models for part in model.parts]


@dataclass(frozen=True)
class Line:
    """One file, for the list that people see."""

    path: str
    """Relative to the folder of all models."""
    size: int
    missing: int
    """Bytes of it still to come."""


@dataclass(frozen=True)
class Item:
    """A part with what is known of it."""

    place: Place
    state: State
    lines: tuple[Line, ...]
    revision: str | None
    """The commit that is there, or that is to be fetched."""

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(line.size for line in self.lines)

    @property
    def missing(self) -> int:
        """Bytes still to come."""
        return sum(line.missing for line in self.lines)


def find(place: Place) -> Item | None:
    """A part that is there, whole or damaged as far as sizes tell; None if it is to be fetched.

    Raises:
        DownloadError: VolumeError, if something else is in its folder, which a download would replace.
    """
    manifest = place.volume.manifest(place.source, None)
    if manifest is None:
        _check_replaceable(place.folder)
        return None
    lines = tuple(
        Line(f"{place.part.folder}/{file.path}", file.size, 0 if _is_there(place, file.path, file.size) else file.size)
        for file in manifest.files
    )
    state = State.DAMAGED if any(line.missing for line in lines) else State.PRESENT
    return Item(place, state, lines, manifest.revision)


def _is_there(place: Place, path: str, size: int) -> bool:
    return file_size(place.folder / path) == size


def to_fetch(place: Place, plan: Plan) -> Item:
    """A part that is to be fetched, with what an earlier run left of it taken into account."""
    lines = tuple(
        Line(f"{place.part.folder}/{file.path}", size, max(0, size - place.volume.bytes_present(file)))
        for file in plan.files
        for size in (file.size or 0,)  # the Hub tells every size, or the list would have failed
    )
    return Item(place, State.ABSENT, lines, plan.revision)


def _check_replaceable(folder: Path) -> None:
    """Raises VolumeError unless a folder may be replaced: it holds nothing, or only what this program put there."""
    if not folder.exists():
        return
    known = {MANIFEST_NAME, *(file.path for file in _any_manifest(folder))}
    found = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not path.is_dir())
    strange = [path for path in found if path not in known]
    if strange or not folder.is_dir():
        what = strange[0] if strange else folder.name
        raise DownloadError(
            Reason.VOLUME_ERROR,
            f"{folder} holds what this program did not put there ({what}), and would be replaced: move it away, or "
            "choose another folder with --folder.",
            retryable=False,
        )


def _any_manifest(folder: Path) -> Sequence[ManifestFile]:
    """The files that the manifest of a folder lists, wherever they came from."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST_NAME).read_bytes())
    except (OSError, ValueError):
        return ()
    return manifest.files


def free_bytes(folder: Path) -> int:
    """Bytes that may still be written below a folder, which need not exist yet."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def check_room(items: Sequence[Item], root: Path, free: int) -> None:
    """Raises OutOfSpace, with the sizes by model, unless all that is missing fits."""
    missing = sum(item.missing for item in items)
    if missing == 0 or missing + _RESERVE_BYTES <= free:
        return
    sizes: dict[str, int] = {}
    for item in items:
        sizes[item.place.model.name] = sizes.get(item.place.model.name, 0) + item.missing
    parts = ", ".join(f"{name} {human_bytes(size)}" for name, size in sizes.items() if size)
    raise DownloadError(
        Reason.OUT_OF_SPACE,
        f"{human_bytes(missing)} are still to be fetched ({parts}), and the disk of {root} has {human_bytes(free)} "
        "free. Free space there, choose a folder on another disk with --folder, or name fewer models. Nothing was "
        "fetched in this run.",
    )

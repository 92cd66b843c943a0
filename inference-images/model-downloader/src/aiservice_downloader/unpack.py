"""Unpacks archives whose digests were found right into the staged files of the model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, BinaryIO

from aiservice_downloader.archives import BROKEN, Member, is_about_archive, open_archive
from aiservice_downloader.errors import DownloadError, Reason
from aiservice_downloader.files import FetchedFile, RemoteFile, Unpack
from aiservice_downloader.paths import check_distinct, check_relative_path
from aiservice_downloader.progress import Progress, Stop
from aiservice_downloader.space import Space
from aiservice_downloader.tree import Content, Entry, Tree
from aiservice_downloader.volume import Volume, sync

_READ_BYTES = 1 << 20
_MAX_ENTRIES = 500_000

Wanted = dict[int, list[str]]
"""Places below the model folder, by the number of the entry whose content goes there."""


@dataclass(frozen=True)
class Unpacker:
    """Unpacks onto a volume."""

    volume: Volume
    progress: Progress
    stop: Stop
    space: Space

    def unpack_all(self, works: Sequence[Unpack], taken: frozenset[str]) -> list[FetchedFile]:
        """Stages the files that several sets of archives hold, beside those whose places are taken already.

        Raises:
            DownloadError: BadSource for archives that must not or cannot be unpacked, or if two files would need the
                same place; OutOfSpace, before a byte is written where sizes are told; NotFound if there is no file in
                all of them, and none beside them.
            StopRequested: If the download is to end.
        """
        done: list[FetchedFile] = []
        for work in works:
            done += self._unpack(work, frozenset(file.path for file in done) | taken)
        if not done and not taken:
            below = works[0].below
            where = f" below {below!r}" if below else ""
            raise DownloadError(
                Reason.NOT_FOUND,
                f"{_names(works)} no files{where}: correct the path, or the source, in the model's spec.",
            )
        return done

    def _unpack(self, work: Unpack, taken: frozenset[str]) -> list[FetchedFile]:
        placed = self._plan(work, taken)
        self.space.check(missing=sum(content.size for content in placed.values()))
        done: list[FetchedFile] = []
        by_archive = sorted(placed.items(), key=lambda item: item[1].archive)
        for number, items in groupby(by_archive, key=lambda item: item[1].archive):
            wanted: Wanted = {}
            for path, content in items:
                wanted.setdefault(content.entry, []).append(path)
            done += self._extract(work.archives[number], wanted)
        return done

    def _plan(self, work: Unpack, taken: frozenset[str]) -> dict[str, Content]:
        """Where the content of which entry goes."""
        tree = Tree(layers=work.layers)
        size, room = 0, self.space.room
        for archive in work.archives:
            self.progress.note(f"looking into {archive.path}")
            entries: list[Entry] = []
            with self._opened(archive) as members:
                for member in members:
                    self.stop.check()
                    entries.append(member.entry)
                    size += member.entry.size
                    if len(entries) > _MAX_ENTRIES:
                        raise ValueError(f"it has more than {_MAX_ENTRIES} entries")
                    if size > room and not work.layers and work.only is None:
                        # All of an archive is wanted, and what claims to be endless is not read to its end.
                        self.space.check(missing=size)
                tree.add(entries)
        with self._explained(work.archives[-1]):
            placed = tree.files(work.below)
            prefix = f"{work.into}/" if work.into else ""
            result = {check_relative_path(prefix + path): content for path, content in placed.items()}
            check_distinct([*result, *taken])
        return {path: content for path, content in result.items() if work.only is None or path in work.only}

    def _extract(self, archive: RemoteFile, wanted: Wanted) -> Iterator[FetchedFile]:
        self.progress.note(f"unpacking {archive.path}")
        with self._opened(archive) as members:
            for number, member in enumerate(members):
                if number in wanted:
                    yield from self._write(member, wanted[number])

    def _write(self, member: Member, places: list[str]) -> Iterator[FetchedFile]:
        """Writes one content to all its places, one after the other: a process may not have many files open."""
        targets = [self.volume.staging / place for place in places]
        digest, size = hashlib.sha256(), 0
        with member.open() as content:
            for chunk in self._written(content, targets[0]):
                digest.update(chunk)
                size += len(chunk)
        if size != member.entry.size:
            raise ValueError(
                f"{member.entry.name!r} has {size} bytes instead of the {member.entry.size} it is said to have"
            )
        for target in targets[1:]:
            with targets[0].open("rb") as content:
                for _ in self._written(content, target):
                    pass
        for place, target in zip(places, targets, strict=True):
            sync(target)
            yield FetchedFile(place, size, digest.hexdigest())

    def _written(self, content: IO[bytes], target: Path) -> Iterator[bytes]:
        """Writes a content to a place; yields what has been written."""
        with _create(target) as output:
            while chunk := content.read(_READ_BYTES):
                self.stop.check()
                self.space.write(output, chunk, lambda: None)
                yield chunk

    @contextmanager
    def _opened(self, archive: RemoteFile) -> Iterator[Iterator[Member]]:
        with self._explained(archive), open_archive(self.volume.staged(archive)) as members:
            yield members

    @contextmanager
    def _explained(self, archive: RemoteFile) -> Iterator[None]:
        try:
            yield
        except (ValueError, OSError, *BROKEN) as error:
            if isinstance(error, OSError) and not is_about_archive(error):
                raise
            detail = str(error) or type(error).__name__
            raise DownloadError(
                Reason.BAD_SOURCE,
                f"{archive.path} cannot be unpacked: {detail.rstrip('.')}. Make the archive anew, and correct the "
                "model's spec.",
            ) from error


def _create(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb", buffering=0)


def _names(works: Sequence[Unpack]) -> str:
    archives = [archive.path for work in works for archive in work.archives]
    return f"{archives[0]} holds" if len(archives) == 1 else f"{archives[0]} and {len(archives) - 1} more hold"

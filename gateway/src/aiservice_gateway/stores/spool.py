"""The spool: usage records on local disk, synced before the answer ends, until the database has them.

Records are appended to the process' own `active-*.jsonl`, on which it holds a lock. A file to be written to the
database is first renamed to `ready-*.jsonl`. A process that starts adopts the active files of dead ones: theirs are
not locked any more. Handing a file out twice does no harm, because a record is written to the database only once.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from aiservice_gateway.errors import SettingsError, StoreUnavailableError
from aiservice_gateway.models import UsageRecord
from aiservice_gateway.stores.base import Batch

_log = logging.getLogger(__name__)

_SEGMENT_RECORDS = 1000


@dataclass(slots=True)
class _Segment:
    """The file that is being written."""

    path: Path
    file: IO[bytes]
    records: int = 0


class Spool:
    """A waiting room in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._active: _Segment | None = None
        self._unwritten: list[tuple[bytes, asyncio.Future[None]]] = []
        self._lock = asyncio.Lock()

    def open(self) -> Self:
        """Makes the folder and adopts what earlier processes left in it.

        Raises:
            SettingsError: the folder cannot be used.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.folder.stat().st_uid != os.geteuid():
                raise SettingsError(
                    f"The folder {self.folder} belongs to another user: set GATEWAY_SPOOL_DIR to one that is the "
                    "gateway's own."
                )
            for path in self.folder.glob("active-*.jsonl"):
                _adopt(path)
            self._start_segment()
        except OSError as error:
            raise SettingsError(
                f"Usage records cannot be kept in {self.folder}: {error.strerror}. Set GATEWAY_SPOOL_DIR to a folder "
                "that can be written."
            ) from error
        return self

    async def add(self, record: UsageRecord) -> None:
        """Returns when the record is on disk. Records that arrive meanwhile share one write.

        Raises:
            StoreUnavailableError: the disk cannot take it.
        """
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unwritten.append((record.to_wire() + b"\n", written))
        async with self._lock:
            if not written.done():
                await self._write_all()
        await written

    async def take(self, limit: int) -> Batch:
        """Hands out the oldest file's records, up to a file's length more than `limit`."""
        async with self._lock:
            try:
                return await asyncio.to_thread(self._read, limit)
            except OSError as error:
                raise StoreUnavailableError(f"the spool {self.folder}: {error}") from error

    async def done(self, receipts: Sequence[str]) -> None:
        """Deletes files whose records the database has."""
        for name in receipts:
            (self.folder / name).unlink(missing_ok=True)

    def files(self) -> frozenset[str]:
        """What tells the files that hold records now, whatever they are called later."""
        active = [self._active.path] if self._active is not None and self._active.records else []
        return frozenset(_identity(path) for path in (*active, *self._ready()))

    @property
    def empty(self) -> bool:
        """Whether no record waits here."""
        written = self._active is not None and self._active.records > 0
        return not written and not self._unwritten and not self._ready()

    async def waiting(self) -> int:
        """How many records are here."""
        return await asyncio.to_thread(self._count)

    def close(self) -> None:
        """Lets go of the active file; what it holds is adopted at the next start."""
        if self._active is not None:
            self._active.file.close()
            if not self._active.records:
                self._active.path.unlink(missing_ok=True)
            self._active = None

    async def _write_all(self) -> None:
        lines, self._unwritten = self._unwritten, []
        try:
            await asyncio.to_thread(self._write, b"".join(line for line, _ in lines), len(lines))
        except OSError as error:
            for _, written in lines:
                written.set_exception(StoreUnavailableError(f"the spool {self.folder}: {error}"))
            return
        for _, written in lines:
            written.set_result(None)

    def _write(self, lines: bytes, count: int) -> None:
        segment = self._active or self._start_segment()
        segment.file.write(lines)
        segment.file.flush()
        os.fsync(segment.file.fileno())
        segment.records += count
        if segment.records >= _SEGMENT_RECORDS:
            self._finish_segment(segment)

    def _read(self, limit: int) -> Batch:
        ready = self._ready()
        if not ready and self._active is not None and self._active.records:
            self._finish_segment(self._active)
            ready = self._ready()
        records: list[UsageRecord] = []
        receipts: list[str] = []
        for path in ready:
            if len(records) >= limit:
                break
            records.extend(_records(path))
            receipts.append(path.name)
        return Batch(records, receipts)

    def _count(self) -> int:
        active = self._active.records if self._active is not None else 0
        return active + sum(_lines(path) for path in self._ready())

    def _ready(self) -> list[Path]:
        return sorted(self.folder.glob("ready-*.jsonl"))

    def _start_segment(self) -> _Segment:
        path = self.folder / f"active-{uuid.uuid4().hex}.jsonl"
        segment = _Segment(path, path.open("ab"))
        fcntl.flock(segment.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # a synced file is lost all the same while its name is not
        finally:
            os.close(folder)
        self._active = segment
        return segment

    def _finish_segment(self, segment: _Segment) -> None:
        _make_ready(segment.path)
        segment.file.close()
        self._active = None  # the next write opens a new one, also after a start that failed
        self._start_segment()


def _make_ready(path: Path) -> None:
    path.rename(path.with_name(f"ready-{path.stat().st_mtime_ns:020}-{path.name.removeprefix('active-')}"))


def _identity(path: Path) -> str:
    """The part of a file's name that stays."""
    return path.stem.rpartition("-")[2]


def _adopt(path: Path) -> None:
    """Makes a file ready whose process has died; one that is still locked is another gateway's."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_size:
                _make_ready(path)
            else:
                path.unlink()
    except (BlockingIOError, FileNotFoundError):
        return


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0  # its records have just reached the database


def _records(path: Path) -> list[UsageRecord]:
    """The records of a file. Its last line may be cut, where a process died while it wrote it."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []  # another gateway on this folder was faster
    records = []
    for line in lines:
        try:
            records.append(UsageRecord.from_wire(line))
        except ValueError as error:
            _log.error("A line of the spool file %s cannot be read and is dropped: %s", path.name, error)
    return records

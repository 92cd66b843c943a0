"""What every mode does with a source: list it, find sizes, fetch, unpack. Nothing here is published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from aiservice_downloader.client import HttpClient
from aiservice_downloader.fetch_http import Fetcher
from aiservice_downloader.files import FetchedFile, Plan, RemoteFile
from aiservice_downloader.guard import Guard
from aiservice_downloader.plan import plan_source
from aiservice_downloader.progress import Progress, Stop
from aiservice_downloader.retry import Patience
from aiservice_downloader.settings import Settings
from aiservice_downloader.space import Space
from aiservice_downloader.unpack import Unpacker
from aiservice_downloader.volume import Volume
from aiservice_downloader.workers import Workers

Report = Callable[[dict[str, object]], None]
"""Takes the fields of a progress line."""


@dataclass(frozen=True)
class Work:
    """One run on one source and one volume."""

    settings: Settings
    guard: Guard
    client: HttpClient
    volume: Volume
    space: Space
    progress: Progress
    patience: Patience
    stop: Stop
    workers: Workers
    report: Report

    def tell(self) -> None:
        """Writes a progress line."""
        self.report(self.progress.snapshot())

    def plan(self, pinned: str | None) -> Plan:
        """Lists the source; progress tells when that takes patience."""
        listing = partial(plan_source, self.settings, pinned, self.client, self.patience, self.guard)
        return self.workers.run([listing])[0]

    def sizes(self, plan: Plan) -> dict[str, int]:
        """The sizes of the files to fetch, by their keys, as far as source or servers tell them."""
        unknown = [file for file in plan.files if file.size is None]
        asked = self.workers.run(partial(self.client.size_of, file.url) for file in unknown)
        told = {file.key: size for file, size in zip(unknown, asked, strict=True) if size is not None}
        return {**told, **{file.key: file.size for file in plan.files if file.size is not None}}

    def obtain(self, plan: Plan) -> list[FetchedFile]:
        """Stages all files of a plan, complete and verified.

        Raises:
            DownloadError: With the reason why they cannot be had.
            StopRequested: If the download is to end.
        """
        self.volume.sweep(plan.files)
        self.progress.plan(plan.files, self.volume.bytes_present)
        sizes = self.sizes(plan)
        for file in plan.files:
            if file.key in sizes:
                self.progress.set_size(file.path, sizes[file.key])
        # What is packed takes room once more when it is unpacked: at least about as much, where nobody tells how much.
        packed = sum(sizes.get(file.key, 0) for file in plan.files if file.packed)
        later = packed if plan.unpacked_bytes is None else plan.unpacked_bytes
        self.space.check(missing=self.progress.missing_bytes, later=later)
        self.tell()
        fetcher = Fetcher(
            self.client, self.volume, self.progress, self.patience, self.stop, self.space, self.settings.advice
        )
        # The large ones first: the last file alone keeps one connection busy.
        files = sorted(plan.files, key=lambda file: -sizes.get(file.key, 0))
        fetched = self.workers.run(partial(_obtain, fetcher, file) for file in files)
        plain = [result for file, result in zip(files, fetched, strict=True) if not file.packed]
        if not plan.unpacks:
            return plain
        unpacker = Unpacker(self.volume, self.progress, self.stop, self.space)
        unpacked = self.workers.run(
            [partial(unpacker.unpack_all, plan.unpacks, frozenset(file.path for file in plain))]
        )
        return plain + unpacked[0]


def _obtain(fetcher: Fetcher, file: RemoteFile) -> FetchedFile:
    return fetcher.obtain(file)

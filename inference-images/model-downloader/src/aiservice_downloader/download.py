"""The download from end to end: plan, check the space, fetch in parallel, publish."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from time import monotonic

from aiservice_downloader.client import HttpClient
from aiservice_downloader.digests import Digest
from aiservice_downloader.errors import StopRequested
from aiservice_downloader.fetch_http import Fetcher
from aiservice_downloader.files import FetchedFile, Plan, RemoteFile
from aiservice_downloader.progress import Clock, Progress, Stop
from aiservice_downloader.retry import Backoff, Patience
from aiservice_downloader.settings import Settings
from aiservice_downloader.source import HttpSource, Source
from aiservice_downloader.space import FreeBytes, check_fits, free_bytes
from aiservice_downloader.volume import Volume

PARALLEL_FILES = 4

Report = Callable[[dict[str, object]], None]
"""Takes the fields of a progress line."""


@dataclass(frozen=True)
class Result:
    """A published model."""

    total_bytes: int
    files: int
    revision: str | None


@dataclass(frozen=True)
class Downloader:
    """One download. What it takes from its surroundings can be replaced."""

    settings: Settings
    report: Report
    stop: Stop
    clock: Clock = monotonic
    free: FreeBytes = free_bytes
    backoff: Backoff = field(default_factory=Backoff)
    report_seconds: float = 2.0
    """Time between two progress lines, and between two looks at the free space."""

    def run(self) -> Result:
        """Makes sure that the model is published on the volume.

        Raises:
            DownloadError: With the reason why it cannot be.
            StopRequested: If another thread asked for the end.
        """
        volume = Volume(self.settings.cache_dir)
        progress = Progress(self.clock)

        def wait_for_other() -> None:
            progress.note("waiting for another download on this volume")
            self.report(progress.snapshot())

        with volume.locked(wait_for_other):
            progress.note("")
            manifest = volume.published(self.settings.source)
            if manifest is not None:
                return Result(manifest.total_bytes, len(manifest.files), manifest.revision)
            patience = Patience(self.backoff, self.stop, progress)
            plan = plan_source(self.settings.source, self.settings.token, patience)
            fetched = self._fetch(plan, volume, progress, patience)
            volume.publish(self.settings.source, plan.revision, fetched)
        return Result(sum(file.size for file in fetched), len(fetched), plan.revision)

    def _fetch(self, plan: Plan, volume: Volume, progress: Progress, patience: Patience) -> list[FetchedFile]:
        client = HttpClient()
        pool = ThreadPoolExecutor(PARALLEL_FILES, thread_name_prefix="fetch")
        try:
            volume.sweep(plan.files)
            progress.plan(plan.files, volume.bytes_present)
            unknown = [file for file in plan.files if file.size is None]
            for file, size in zip(unknown, pool.map(lambda file: client.size_of(file.url), unknown), strict=True):
                if size is not None:
                    progress.set_size(file.path, size)
            fetcher = Fetcher(client, volume, progress, patience, self.stop, self.free)
            self._check_space(progress)
            self.report(progress.snapshot())
            # The large ones first: the last file alone keeps one connection busy.
            files = sorted(plan.files, key=lambda file: -(file.size or 0))
            return self._await([pool.submit(fetcher.obtain, file) for file in files], progress)
        finally:
            # Threads end at their next chunk. One that waits for a server is not waited for.
            self.stop.request()
            pool.shutdown(wait=False, cancel_futures=True)

    def _await(self, pending: list[Future[FetchedFile]], progress: Progress) -> list[FetchedFile]:
        while True:
            done, running = wait(pending, timeout=self.report_seconds, return_when=FIRST_EXCEPTION)
            errors = [error for future in done if (error := future.exception()) is not None]
            # The cause, rather than a thread that ended because of it.
            for error in sorted(errors, key=lambda error: isinstance(error, StopRequested)):
                raise error
            if not running:
                return [future.result() for future in pending]
            self.report(progress.snapshot())
            self._check_space(progress)

    def _check_space(self, progress: Progress) -> None:
        check_fits(
            self.settings.cache_dir,
            missing=progress.missing_bytes,
            size=max(progress.total_bytes or 0, progress.done_bytes),
            capacity=self.settings.capacity_bytes,
            free=self.free,
        )


def plan_source(source: Source, token: str | None, patience: Patience) -> Plan:
    """The files of a source.

    Raises:
        DownloadError: If the source cannot be listed.
    """
    if source.http is not None:
        return plan_http(source.http)
    assert source.hugging_face is not None  # noqa: S101  Source holds exactly one
    # Imported when needed: the library takes a second to load, which files over HTTP need not pay.
    from aiservice_downloader.fetch_hub import plan_repository  # noqa: PLC0415

    return plan_repository(source.hugging_face, token, patience)


def plan_http(source: HttpSource) -> Plan:
    """The files of an HTTP source; their sizes are known to the servers only."""
    hint = (
        "the file needs credentials that a ModelCache cannot give; use an address that holds them (a signed URL), or "
        "one that is open to the cluster"
    )
    return Plan(
        tuple(RemoteFile(file.path, file.url, Digest("sha256", file.sha256), access_hint=hint) for file in source.files)
    )

"""One run from start to end: measure a source, publish it on a volume, or verify what is published."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from aiservice_downloader.client import HttpClient
from aiservice_downloader.errors import DownloadError
from aiservice_downloader.files import Plan
from aiservice_downloader.guard import Guard
from aiservice_downloader.progress import Clock, Progress, Stop
from aiservice_downloader.retry import Backoff, Patience
from aiservice_downloader.settings import Mode, Settings
from aiservice_downloader.space import FreeBytes, Space, free_bytes
from aiservice_downloader.verify import mend
from aiservice_downloader.volume import Volume
from aiservice_downloader.work import Report, Work
from aiservice_downloader.workers import Workers


@dataclass(frozen=True)
class Measured:
    """What a source would come to."""

    total_bytes: int | None
    """Bytes of the model's files; None if servers do not tell, or what is packed in archives."""
    download_bytes: int | None
    """Bytes to fetch; None if servers do not tell."""
    files: int
    """Files to fetch; an archive counts as one."""
    revision: str | None


@dataclass(frozen=True)
class Published:
    """A model on the volume."""

    total_bytes: int
    files: int
    revision: str | None
    fetched_bytes: int
    """Bytes that came over the network in this run."""
    repaired: tuple[str, ...] = ()
    """With verify mode: the files that were missing or changed, and are right again."""


@dataclass(frozen=True)
class Downloader:
    """One run. What it takes from its surroundings can be replaced."""

    settings: Settings
    guard: Guard
    report: Report
    stop: Stop
    clock: Clock = monotonic
    free: FreeBytes = free_bytes
    backoff: Backoff = field(default_factory=Backoff)
    report_seconds: float = 2.0
    """Time between two progress lines, and between two looks at the free space."""

    def run(self) -> Measured | Published:
        """Does what the settings say.

        Raises:
            DownloadError: With the reason why it cannot be done.
            StopRequested: If another thread asked for the end.
        """
        with self._work() as work:
            return measure(work) if self.settings.mode is Mode.MEASURE else publish(work)

    def plan(self) -> Plan:
        """Lists the source. Nothing is fetched, and no volume is needed.

        Raises:
            DownloadError: With the reason why it cannot be listed.
            StopRequested: If another thread asked for the end.
        """
        with self._work() as work:
            return work.plan(self.settings.revision)

    @contextmanager
    def _work(self) -> Iterator[Work]:
        progress = Progress(self.clock)
        space = Space(self.settings.cache_dir, self.settings.capacity_bytes, self.free, self.settings.advice)
        measuring = self.settings.mode is Mode.MEASURE

        def tick() -> None:
            self.report(progress.snapshot())
            # Until something is to be written, a full volume is as good as any.
            if progress.planned and not measuring:
                space.check(missing=progress.missing_bytes)

        with Workers(self.stop, tick, self.report_seconds) as workers:
            yield Work(
                settings=self.settings,
                guard=self.guard,
                client=HttpClient(self.guard),
                volume=Volume(self.settings.cache_dir, self.settings.model_dir),
                space=space,
                progress=progress,
                patience=Patience(self.backoff, self.stop, progress, self.settings.advice),
                stop=self.stop,
                workers=workers,
                report=self.report,
            )


def measure(work: Work) -> Measured:
    """Adds up what a source tells of its sizes."""
    plan = work.plan(work.settings.revision)
    sizes = work.sizes(plan)
    known = all(file.key in sizes for file in plan.files)
    download_bytes = sum(sizes.values()) if known else None
    return Measured(None if plan.unpacks else download_bytes, download_bytes, len(plan.files), plan.revision)


def publish(work: Work) -> Published:
    """Makes sure that the model is published; in verify mode, that it is whole."""

    def wait_for_other() -> None:
        work.progress.note("waiting for another download on this volume")
        work.tell()

    source, revision = work.settings.source, work.settings.revision
    with work.volume.locked(wait_for_other):
        work.progress.note("")
        verifying = work.settings.mode is Mode.VERIFY
        manifest = work.volume.manifest(source, revision) if verifying else work.volume.published(source, revision)
        if manifest is not None:
            repaired = mend(work, manifest) if verifying else ()
            received = work.progress.received_bytes
            return Published(manifest.total_bytes, len(manifest.files), manifest.revision, received, repaired)
        plan = work.plan(revision)
        try:
            fetched = work.obtain(plan)
        except DownloadError as error:
            error.revision = plan.revision
            raise
        work.volume.publish(source, plan.revision, fetched)
    return Published(
        sum(file.size for file in fetched),
        len(fetched),
        plan.revision,
        work.progress.received_bytes,
        tuple(sorted(file.path for file in fetched)) if verifying else (),
    )

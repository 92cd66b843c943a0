"""`python -m ai_models`: what scripts/download-ai-models.sh and .ps1 start."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from ai_models import catalog, licences, listing, stock
from ai_models.arguments import Options, parse, program_name, spelled
from ai_models.display import TERMINAL_SECONDS, Display, progress_line
from ai_models.stock import Item, Place, State
from aiservice_downloader.advice import Advice
from aiservice_downloader.download import Downloader, Published
from aiservice_downloader.errors import DownloadError, Reason
from aiservice_downloader.guard import AllowedHosts, Guard
from aiservice_downloader.progress import Stop
from aiservice_downloader.settings import Mode, Settings
from aiservice_downloader.space import FULL, FreeBytes
from aiservice_downloader.units import human_bytes
from aiservice_downloader.work import Report

EXIT_RETRYABLE = 1
EXIT_FINAL = 2
EXIT_LICENCE = 3

_ENDPOINT = re.compile(r"https?://[^/?#\s]+(/[^?#\s]*)?")
_ON = frozenset({"1", "true", "yes", "on"})

ADVICE = Advice(
    anonymous="check that it still exists, and set HF_TOKEN to an access token of an account that may read it",
    credential="in HF_TOKEN",
    network="Check that this machine may reach it (HTTPS_PROXY, HF_ENDPOINT), and start this program again",
    digest="run this program again; if it happens twice, the file was changed or damaged",
    space="free space there, or choose a folder on another disk with --folder",
    volume="Check that you may write there, and that the disk is healthy",
)


class Stopped(BaseException):
    """SIGTERM or Ctrl+C. Not an Exception, so that no handler of failures takes it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@dataclass(frozen=True)
class Program:
    """One run. What it takes from its surroundings can be replaced."""

    options: Options
    environ: Mapping[str, str]
    stdin: TextIO
    stdout: TextIO
    display: Display
    free: FreeBytes = stock.free_bytes

    def run(self) -> int:
        """Does what the options say; returns the exit status.

        Raises:
            DownloadError: With the reason why it cannot be done.
            LicenceRefusedError: If a licence must be accepted and was not.
        """
        models = catalog.choose(self.options.names)
        self.display.say("Licences, in short:\n" + licences.notices(models))
        if shared := catalog.shared_weights(self.options.names):
            self.display.say(f"\n{shared}")
        root = self.options.folder.absolute()
        if root.exists() and not root.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(root))
        found = {place.part: stock.find(place) for place in stock.places(models, root)}
        absent = [model for model in models if any(found[part] is None for part in model.parts)]
        if not self.options.dry_run:
            # Before the Hub is asked for anything.
            ask = licences.asker(self.stdin, self.stdout)
            licences.accept(absent, accepted=self.options.accept_licences, ask=ask)
        if absent:
            self._check_environment()
        items = [found[place.part] or self._list(place) for place in stock.places(models, root)]
        if self.options.dry_run:
            self.display.say(f"\n{listing.table(items)}\n\nInto {root}. {self._room(root, items)}")
            return 0
        self.display.say(f"\n{listing.summary(items)}\n")
        stock.check_room(items, root, self.free(root))
        self._fetch(items)
        self._tell_end(models, root)
        return 0

    def _check_environment(self) -> None:
        endpoint = self.environ.get("HF_ENDPOINT", "")
        if endpoint and not _ENDPOINT.fullmatch(endpoint):
            raise DownloadError(
                Reason.BAD_SOURCE, f"HF_ENDPOINT is {endpoint!r}: give an address such as https://hub.corp.example."
            )
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            if self.environ.get(name, "").lower() in _ON:
                raise DownloadError(
                    Reason.BAD_SOURCE, f"{name} is set, so that the Hub must not be asked: unset it to download models."
                )

    def _list(self, place: Place) -> Item:
        def report(fields: dict[str, object]) -> None:
            if note := fields.get("note"):
                self.display.progress(f"{place.model.name}: {note}")

        self.display.progress(f"{place.model.name}: asking for the list of files")
        return stock.to_fetch(place, self._downloader(place, Mode.DOWNLOAD, None, report).plan())

    def _room(self, root: Path, items: Sequence[Item]) -> str:
        try:
            stock.check_room(items, root, self.free(root))
        except DownloadError as error:
            return error.message
        return f"The disk has {human_bytes(self.free(root))} free."

    def _fetch(self, items: Sequence[Item]) -> None:
        for number, item in enumerate(items):
            if item.state is State.PRESENT and not self.options.verify:
                self.display.say(f"{item.place.part.folder}: there already, {human_bytes(item.total)}")
                continue
            title = f"{item.place.part.folder} ({number + 1} of {len(items)})"
            later = sum(other.missing for other in items[number + 1 :])
            self._fetch_one(item, title, later)

    def _fetch_one(self, item: Item, title: str, later: int) -> None:
        def report(fields: dict[str, object]) -> None:
            self.display.progress(progress_line(title, fields, later))

        mode = Mode.DOWNLOAD if item.state is State.ABSENT else Mode.VERIFY
        started = time.monotonic()
        result = self._downloader(item.place, mode, item.revision, report).run()
        assert isinstance(result, Published)  # noqa: S101  nothing is measured here
        self.display.say(_done(item, result, time.monotonic() - started))

    def _downloader(self, place: Place, mode: Mode, revision: str | None, report: Report) -> Downloader:
        settings = Settings(
            source=place.source,
            cache_dir=place.state_folder,
            model_dir=place.folder,
            mode=mode,
            revision=revision,
            token=self.environ.get("HF_TOKEN", "").strip() or None,
            advice=ADVICE,
        )
        # Who starts this program chooses where it connects to: nothing is refused, so the guard is not installed.
        guard = Guard(AllowedHosts())
        return Downloader(settings, guard, report, Stop(), report_seconds=TERMINAL_SECONDS)

    def _tell_end(self, models: Sequence[catalog.Model], root: Path) -> None:
        lines = ["", "All is there. Mount as /models of the container, read-only:"]
        for mount in dict.fromkeys(model.mount for model in models):
            tasks = dict.fromkeys(task for model in models if model.mount == mount for task in model.tasks)
            lines.append(f"  {', '.join(tasks)}: {root / mount}")
        self.display.say("\n".join(lines))


def _done(item: Item, result: Published, seconds: float) -> str:
    folder, size = item.place.part.folder, human_bytes(result.total_bytes)
    if item.state is State.ABSENT:
        return f"{folder}: {result.files} files, {size}, fetched and verified in {seconds:.0f} s"
    if not result.repaired:
        return f"{folder}: {result.files} files, {size}, verified in {seconds:.0f} s"
    return f"{folder}: {len(result.repaired)} of {result.files} files were damaged, and are right again"


def main(argv: list[str], environ: Mapping[str, str], stdin: TextIO, stdout: TextIO, stderr: TextIO) -> int:
    """Runs the program; returns the exit status."""
    display = Display(stdout, time.monotonic)
    options = parse(argv)
    try:
        return Program(options, environ, stdin, stdout, display).run()
    except licences.LicenceRefusedError as refused:
        message, status = str(refused), EXIT_LICENCE
    except DownloadError as error:
        message, status = error.message, EXIT_RETRYABLE if error.retryable else EXIT_FINAL
    except OSError as error:
        explained = explain(error)
        message, status = explained.message, EXIT_RETRYABLE if explained.retryable else EXIT_FINAL
    except Stopped as stopped:
        message = "Stopped. What was fetched is kept, and the next run goes on from there."
        status = stopped.exit_code
    display.end()
    stderr.write(f"error: {spelled(message, program_name(environ))}\n")
    return status


def explain(error: OSError) -> DownloadError:
    """What an error of the file system means for a person's folder."""
    if error.errno in FULL:
        return DownloadError(Reason.OUT_OF_SPACE, f"The disk is full ({error}): {ADVICE.space}.")
    return DownloadError(Reason.VOLUME_ERROR, f"The folder cannot be used: {error}. {ADVICE.volume}.")


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    raise Stopped(number)


def _run() -> NoReturn:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    status = main(sys.argv[1:], os.environ, sys.stdin, sys.stdout, sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    if threading.active_count() > 1:
        # A thread may wait a minute for a server. All that it wrote is on the disk: nothing is lost by not waiting.
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    _run()

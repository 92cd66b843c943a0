"""`python -m aiservice_downloader`: the download Job's container."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from aiservice_downloader.download import Downloader, Measured, Published
from aiservice_downloader.errors import DownloadError, Reason
from aiservice_downloader.guard import Guard
from aiservice_downloader.progress import Stop, write_event
from aiservice_downloader.settings import Mode, read_settings, termination_log
from aiservice_downloader.space import Space
from aiservice_downloader.units import human_bytes
from aiservice_downloader.usage import DESCRIPTION, EPILOG

EXIT_RETRYABLE = 1
EXIT_FINAL = 2

_MAX_MESSAGE_BYTES = 4000  # Kubernetes cuts termination messages at 4096 bytes, which would break the JSON


class Terminated(BaseException):
    """SIGTERM or SIGINT arrived. Not an Exception, so that no handler of failures takes it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def main(argv: list[str], environ: Mapping[str, str], stdout: TextIO) -> int:
    """Runs the download and tells its result.

    Returns:
        The exit status.
    """
    parse_arguments(argv)
    message_file = termination_log(environ)
    stop = Stop()
    try:
        settings = read_settings(environ)
        guard = Guard(settings.allowed_hosts, settings.proxies, settings.denied)
        guard.install()
        downloader = Downloader(settings, guard, lambda fields: write_event(stdout, "progress", **fields), stop)
        return succeed(downloader.run(), settings.mode, message_file, stdout)
    except DownloadError as error:
        return fail(error, message_file, stdout)
    except OSError as error:
        return fail(Space(settings.cache_dir, settings.capacity_bytes).explain(error), message_file, stdout)
    except Terminated as stopped:
        wrapped = DownloadError(
            Reason.INTERRUPTED,
            "The download was stopped. What it fetched is kept, and the next attempt goes on from there.",
        )
        fail(wrapped, message_file, stdout)
        return stopped.exit_code
    finally:
        stop.request()


def parse_arguments(argv: list[str]) -> None:
    """Takes --help; everything else comes from the environment."""
    argparse.ArgumentParser(
        prog="python -m aiservice_downloader",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(argv)


def succeed(result: Measured | Published, mode: Mode, message_file: Path, stdout: TextIO) -> int:
    """Tells a success; returns the exit status."""
    fields: dict[str, object] = {"bytes": result.total_bytes, "files": result.files, "revision": result.revision}
    if isinstance(result, Measured):
        fields["downloadBytes"] = result.download_bytes
        size = "an unknown size" if result.download_bytes is None else human_bytes(result.download_bytes)
        text = f"{result.files} files, {size}, are to be fetched."
    else:
        fields["fetchedBytes"] = result.fetched_bytes
        text = f"{result.files} files, {human_bytes(result.total_bytes)}, are published."
        if mode is Mode.VERIFY:
            fields |= {"repaired": list(result.repaired), "repairedFiles": len(result.repaired)}
            text += f" {len(result.repaired)} of them had to be mended."
    write_event(stdout, "done", **fields, message=text)
    write_termination_message(message_file, {"status": "ok", **fields})
    return 0


def fail(error: DownloadError, message_file: Path, stdout: TextIO) -> int:
    """Tells a failure; returns the exit status."""
    fields: dict[str, object] = {
        "reason": str(error.reason),
        "message": error.message,
        "retryable": error.retryable,
    }
    if error.required_bytes is not None:
        fields["requiredBytes"] = error.required_bytes
    if error.revision is not None:
        fields["revision"] = error.revision
    write_event(stdout, "failed", **fields)
    write_termination_message(message_file, {"status": "failed", **fields})
    return EXIT_RETRYABLE if error.retryable else EXIT_FINAL


def write_termination_message(path: Path, message: dict[str, object]) -> None:
    """Leaves the result where Kubernetes looks for it; says so if it cannot, since the exit status counts too."""
    try:
        path.write_text(short_json(message))
    except OSError as error:
        sys.stderr.write(f"cannot write the termination message: {error}\n")


def short_json(message: dict[str, object]) -> str:
    """The message as JSON that Kubernetes does not cut: of the text, the end is left out, of paths, the last ones."""
    message = dict(message)
    while len(text := json.dumps(message, ensure_ascii=False).encode()) > _MAX_MESSAGE_BYTES:
        if paths := message.get("repaired"):
            assert isinstance(paths, list)  # noqa: S101  it is made above
            message["repaired"] = paths[: len(paths) // 2]
        else:
            words = str(message["message"])
            message["message"] = words[: len(words) * 3 // 4]
    return text.decode()


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated(number)


def _run() -> NoReturn:
    # As process 1 of a container, signals without a handler would be ignored.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _terminate)
    status = main(sys.argv[1:], os.environ, sys.stdout)
    sys.stdout.flush()
    if threading.active_count() > 1:
        # A thread may wait a minute for a server. All that it wrote is on the volume: nothing is lost by not waiting.
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    _run()

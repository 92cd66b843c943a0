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

from aiservice_downloader.download import Downloader, Result
from aiservice_downloader.errors import DownloadError, Reason
from aiservice_downloader.progress import Stop, write_event
from aiservice_downloader.settings import read_settings, termination_log
from aiservice_downloader.space import free_bytes, volume_failure
from aiservice_downloader.units import human_bytes

EXIT_RETRYABLE = 1
EXIT_FINAL = 2

_MAX_MESSAGE_CHARACTERS = 2000  # Kubernetes cuts termination messages at 4096 bytes, which would break the JSON

_DESCRIPTION = """\
Fetches the files of a model, verifies each against its digest, and publishes them at once as CACHE_DIR/model.
What is there already is not fetched again; what an interrupted download left is gone on with.
"""

_EPILOG = """\
environment:
  AISERVICE_SOURCE          the source, as JSON in the form of a ModelCache's spec. One of
                              {"http": {"files": [{"url": ..., "path": ..., "sha256": ...}]}}
                              {"huggingFace": {"repo": "OWNER/NAME", "revision": "main", "include": [...],
                                               "exclude": [...], "endpoint": ...}}
  AISERVICE_CACHE_DIR       the volume to fill, for example /cache
  AISERVICE_CAPACITY_BYTES  size of the volume, where the file system below it is larger (optional)
  HF_TOKEN                  access token for the Hugging Face Hub (optional)
  TERMINATION_LOG           where to write the result for Kubernetes (default: /dev/termination-log)
  HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE ... as usual

output:
  standard output           one JSON object a line: progress every two seconds, then done or failed
  termination message       {"status": "ok", "bytes", "files", "revision"}
                            {"status": "failed", "reason", "message", "retryable"}

exit status: 0 published, 1 failed and may succeed later, 2 failed and needs a change, 143 stopped by SIGTERM
"""


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
        downloader = Downloader(settings, lambda fields: write_event(stdout, "progress", **fields), stop)
        return succeed(downloader.run(), message_file, stdout)
    except DownloadError as error:
        return fail(error, message_file, stdout)
    except OSError as error:
        return fail(volume_failure(Path(environ["AISERVICE_CACHE_DIR"]), error, free_bytes), message_file, stdout)
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
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(argv)


def succeed(result: Result, message_file: Path, stdout: TextIO) -> int:
    """Tells a success; returns the exit status."""
    fields = {"bytes": result.total_bytes, "files": result.files, "revision": result.revision}
    write_event(
        stdout, "done", **fields, message=f"{result.files} files, {human_bytes(result.total_bytes)}, are published."
    )
    write_termination_message(message_file, {"status": "ok", **fields})
    return 0


def fail(error: DownloadError, message_file: Path, stdout: TextIO) -> int:
    """Tells a failure; returns the exit status."""
    fields = {
        "reason": str(error.reason),
        "message": error.message[:_MAX_MESSAGE_CHARACTERS],
        "retryable": error.retryable,
    }
    write_event(stdout, "failed", **fields)
    write_termination_message(message_file, {"status": "failed", **fields})
    return EXIT_RETRYABLE if error.retryable else EXIT_FINAL


def write_termination_message(path: Path, message: dict[str, object]) -> None:
    """Leaves the result where Kubernetes looks for it; says so if it cannot, since the exit status counts too."""
    try:
        path.write_text(json.dumps(message))
    except OSError as error:
        sys.stderr.write(f"cannot write the termination message: {error}\n")


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

"""Patience with servers and networks: what may pass is tried again, ever more slowly."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from aiservice_downloader.advice import FOR_MANIFESTS, Advice
from aiservice_downloader.errors import DownloadError, Reason
from aiservice_downloader.progress import Progress, Stop

T = TypeVar("T")

_LONGEST_RETRY_AFTER_SECONDS = 120.0


class TransientError(Exception):
    """A failure that may pass: the connection broke, the server is busy."""

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        """Describes the failure.

        Args:
            message: What happened, as the beginning of a sentence.
            retry_after: Seconds that the server asks to wait.
        """
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


def parse_retry_after(value: str | None, now: datetime) -> float:
    """Seconds to wait by a Retry-After header (a number, or a date), bounded; 0 if there is none to be read."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return 0.0
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_SECONDS)


@dataclass(frozen=True)
class Backoff:
    """How often and how long apart; seconds double from `first` to `longest`, less up to a half of chance."""

    attempts: int = 7
    first: float = 1.0
    longest: float = 30.0
    chance: Callable[[], float] = random.random

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        whole = min(self.longest, self.first * 2.0 ** min(failures - 1, 30))
        return whole * (1.0 - 0.5 * self.chance())


@dataclass(frozen=True)
class Patience:
    """Runs attempts until one succeeds, or too many in a row got no further."""

    backoff: Backoff
    stop: Stop
    progress: Progress
    advice: Advice = FOR_MANIFESTS

    def run(self, attempt: Callable[[], T], position: Callable[[], int] = lambda: 0) -> T:
        """Returns what `attempt` returns.

        Args:
            attempt: Raises TransientError where it makes sense to try again.
            position: How far the work is. An attempt that got further than any before it starts the count anew, so
                that a long download survives any number of broken connections.

        Raises:
            DownloadError: Unreachable, if the attempts are used up; or what `attempt` raises.
            StopRequested: If the download is to end.
        """
        failures, best = 0, position()
        while True:
            self.stop.check()
            try:
                return attempt()
            except TransientError as problem:
                furthest = position()
                failures = 1 if furthest > best else failures + 1
                best = max(best, furthest)
                if failures >= self.backoff.attempts:
                    raise DownloadError(
                        Reason.UNREACHABLE,
                        f"{problem.message}, {failures} times in a row. {self.advice.network}; the download goes on "
                        "where it was.",
                    ) from problem
                wait = max(self.backoff.delay(failures), problem.retry_after)
                self.progress.note(f"{problem.message}; trying again in {wait:.0f} s")
            self.stop.sleep(wait)

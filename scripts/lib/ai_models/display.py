"""Progress as people read it: one line that changes at a terminal, a line now and then in a log."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from aiservice_downloader.units import human_bytes

TERMINAL_SECONDS = 0.5
"""Time between two progress lines that the downloader gives."""
_LOG_SECONDS = 10.0
_SECONDS_A_MINUTE = 60
_SECONDS_AN_HOUR = 3600

Clock = Callable[[], float]


def duration(seconds: int) -> str:
    """A number of seconds as a clock shows it: 0:42, 12:10, 1:02:10."""
    hours, rest = divmod(seconds, _SECONDS_AN_HOUR)
    minutes, rest = divmod(rest, _SECONDS_A_MINUTE)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def progress_line(title: str, fields: Mapping[str, Any], later: int) -> str:
    """One line about a download.

    Args:
        title: What is downloaded.
        fields: A progress line of the downloader.
        later: Bytes of other downloads that come after this one.
    """
    done, total = int(fields["bytesDone"]), fields["bytesTotal"]
    if note := fields.get("note"):
        return f"{title}: {note}"
    if total is None:
        return f"{title}: asking for the list of files"
    speed = int(fields["bytesPerSecond"])
    percent = 100 * done // total if total else 100
    text = f"{title}: {percent:3} %, {human_bytes(done)} of {human_bytes(total)}"
    if speed <= 0:
        return text
    left = duration(-(-(total - done) // speed))
    text += f", {human_bytes(speed)}/s, {left} left"
    return text + (f", {duration(-(-(total - done + later) // speed))} for all" if later else "")


class Display:
    """Writes what happens."""

    def __init__(self, stream: TextIO, clock: Clock) -> None:
        """Writes nothing yet.

        Args:
            stream: Where to write.
            clock: Seconds that only grow.
        """
        self._stream = stream
        self._clock = clock
        self._is_terminal = stream.isatty()
        self._shown = 0
        """Width of the line that will be written over."""
        self._next = 0.0

    def say(self, text: str) -> None:
        """Writes lines that stay."""
        self._wipe()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def progress(self, text: str) -> None:
        """Shows a line that is true for a moment."""
        if self._is_terminal:
            width = max(20, shutil.get_terminal_size().columns - 1)
            line = text[:width]
            self._stream.write(f"\r{line.ljust(self._shown)}")
            self._stream.flush()
            self._shown = len(line)
        elif self._clock() >= self._next:
            self._next = self._clock() + _LOG_SECONDS
            self.say(text)

    def end(self) -> None:
        """Leaves a clean line for what others write."""
        self._wipe()
        self._stream.flush()

    def _wipe(self) -> None:
        if self._shown:
            self._stream.write(f"\r{' ' * self._shown}\r")
            self._shown = 0

"""How far the download is, for the operator and for people who read the pod's log."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from aiservice_downloader.errors import StopRequested
from aiservice_downloader.files import RemoteFile

Clock = Callable[[], float]

_WINDOW_SECONDS = 10.0


def write_event(stream: TextIO, event: str, **fields: Any) -> None:
    """Writes one JSON line."""
    stream.write(json.dumps({"event": event, **fields}, ensure_ascii=False) + "\n")
    stream.flush()


class Progress:
    """Counts bytes that are on the volume, from several threads."""

    def __init__(self, clock: Clock) -> None:
        """Starts with nothing known.

        Args:
            clock: Seconds that only grow, for the speed.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._done: dict[str, int] = {}
        self._total: dict[str, int | None] = {}
        self._received = 0
        self._samples: deque[tuple[float, int]] = deque([(clock(), 0)])
        self._current = ""
        self._note = ""

    def note(self, text: str) -> None:
        """Tells why nothing moves at the moment. It is shown until bytes come again."""
        with self._lock:
            self._note = text

    def plan(self, files: Iterable[RemoteFile], present: Callable[[RemoteFile], int]) -> None:
        """Takes the list of files, and how many bytes of each are already there."""
        with self._lock:
            for file in files:
                self._total[file.path] = file.size
                self._done[file.path] = present(file)

    def set_size(self, path: str, size: int) -> None:
        """Takes the size of a file, when the server tells it."""
        with self._lock:
            self._total[path] = size

    def at(self, path: str, done: int) -> None:
        """Sets how many bytes of a file are there: some were found on disk, or had to be thrown away."""
        with self._lock:
            self._done[path] = done
            self._current = path

    def received(self, path: str, count: int) -> None:
        """Adds bytes that came over the network."""
        with self._lock:
            self._done[path] += count
            self._received += count
            self._current = path
            self._note = ""

    @property
    def planned(self) -> bool:
        """Whether it is known what to fetch."""
        with self._lock:
            return bool(self._total)

    @property
    def received_bytes(self) -> int:
        """Bytes that came over the network, those included that had to be thrown away."""
        with self._lock:
            return self._received

    @property
    def done_bytes(self) -> int:
        """Bytes on the volume."""
        with self._lock:
            return sum(self._done.values())

    @property
    def total_bytes(self) -> int | None:
        """Size of the model, or None as long as the size of any file is unknown."""
        with self._lock:
            return self._total_bytes()

    @property
    def missing_bytes(self) -> int:
        """Bytes still to come, of the files whose size is known."""
        with self._lock:
            return sum(max(0, size - self._done[path]) for path, size in self._total.items() if size is not None)

    def _total_bytes(self) -> int | None:
        if not self._total:
            return None  # the list of files is not known yet
        total = 0
        for size in self._total.values():
            if size is None:
                return None
            total += size
        return total

    def snapshot(self) -> dict[str, Any]:
        """The fields of a progress line. The speed is that of the last seconds."""
        now = self._clock()
        with self._lock:
            self._samples.append((now, self._received))
            # The oldest sample kept is the youngest that is at least a window old.
            while len(self._samples) > 2 and now - self._samples[1][0] >= _WINDOW_SECONDS:
                self._samples.popleft()
            since, before = self._samples[0]
            elapsed = now - since
            speed = int((self._received - before) / elapsed) if elapsed > 0 else 0
            done, total = sum(self._done.values()), self._total_bytes()
            eta = None
            if total is not None and (speed > 0 or done >= total):
                eta = 0 if done >= total else -(-(total - done) // speed)
            fields = {
                "bytesDone": done,
                "bytesTotal": total,
                "bytesFetched": self._received,
                "bytesPerSecond": speed,
                "etaSeconds": eta,
                "file": self._current,
            }
            return {**fields, "note": self._note} if self._note else fields


class Stop:
    """Tells all threads to end, and lets those that wait wake up for it."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def request(self) -> None:
        """Asks all threads to end."""
        self._event.set()

    def check(self) -> None:
        """Raises StopRequested once the end was asked for."""
        if self._event.is_set():
            raise StopRequested

    def sleep(self, seconds: float) -> None:
        """Waits, but raises StopRequested as soon as the end is asked for."""
        if self._event.wait(seconds):
            raise StopRequested

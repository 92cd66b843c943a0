"""Runs calls in parallel, with progress told meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self, TypeVar

from aiservice_downloader.errors import StopRequested
from aiservice_downloader.progress import Stop

T = TypeVar("T")

PARALLEL_CALLS = 4


class Workers:
    """A few threads. They end with the block that they are made for, without being waited for."""

    def __init__(self, stop: Stop, tick: Callable[[], None], seconds: float) -> None:
        """Starts nothing yet.

        Args:
            stop: Told at the end of the block, so that calls that still run end at their next look at it.
            tick: Called in the waiting thread while calls run, and may raise to end them.
            seconds: Time between two ticks.
        """
        self._stop = stop
        self._tick = tick
        self._seconds = seconds
        self._pool = ThreadPoolExecutor(PARALLEL_CALLS, thread_name_prefix="work")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Threads end at their next chunk. One that waits for a server is not waited for.
        self._stop.request()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def run(self, calls: Iterable[Callable[[], T]]) -> list[T]:
        """Makes all calls, in this order where not all fit at once; gives their results in this order.

        Raises:
            Exception: The first failure of a call.
        """
        pending = [self._pool.submit(call) for call in calls]
        while True:
            done, running = wait(pending, timeout=self._seconds, return_when=FIRST_EXCEPTION)
            errors = [error for future in done if (error := future.exception()) is not None]
            # The cause, rather than a thread that ended because of it.
            for error in sorted(errors, key=lambda error: isinstance(error, StopRequested)):
                raise error
            if not running:
                return [future.result() for future in pending]
            self._tick()

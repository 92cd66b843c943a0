"""The device thread: it alone touches the engine, one batch after the other, off the event loop.

    submit() -> waiting jobs (deque) -> device thread -> Job.future

The number of jobs is bounded by admission (app.py), so the deque itself is not.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from aiservice_runtime.engine import Answer, Engine, Task
from aiservice_runtime.errors import FatalError, OverloadedError
from aiservice_runtime.metrics import Metrics

log = logging.getLogger(__name__)

# Weight of the newest job in the running mean of seconds a job takes.
_NEWEST = 0.2


class Phase(Enum):
    """What the device thread is doing; the value is what /ready says."""

    LOADING = "loading"
    WARMING_UP = "warming up"
    SERVING = "serving"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class Done:
    """An answer and what it took."""

    answer: Answer
    queue_seconds: float
    device_seconds: float


@dataclass(eq=False)
class Job:
    """One prepared request on its way through the device thread."""

    task: Task[Any, Any]
    work: Any
    future: Future[Done] = field(default_factory=Future)
    submitted: float = field(default_factory=time.monotonic)


class Device:
    """Runs an engine in a thread of its own."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self.phase = Phase.LOADING
        self.failure = ""
        """Why loading failed, as a sentence; empty otherwise."""
        self.seconds_per_job = 0.0
        """Running mean of the device seconds of a job; 0 before the first."""
        self._engine = engine
        self._metrics = metrics
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        # A daemon: a computation cannot be interrupted, and the process must be able to end without it.
        self._thread = threading.Thread(target=self._main, name="device", daemon=True)
        self._on_started: Callable[[], object] = lambda: None

    def start(self, on_started: Callable[[], object]) -> None:
        """Starts loading. Calls on_started, in the device thread, once phase is SERVING or FAILED."""
        self._on_started = on_started
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs. It ends only when closed or when loading failed."""
        return self._thread.is_alive()

    @property
    def queue_depth(self) -> int:
        """Jobs that wait for the device."""
        return len(self._waiting)

    def submit(self, job: Job) -> None:
        """Queues a job; its future gets the result."""
        with self._changed:
            if not self._closed:
                self._waiting.append(job)
                self._changed.notify()
                return
        job.future.set_exception(_stopping())

    def discard(self, job: Job) -> None:
        """Takes a job back that still waits, with its memory; one that runs goes on to its end."""
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
        job.future.cancel()

    def close(self) -> None:
        """Fails what waits and ends the thread after the job that runs. Returns at once; see join()."""
        with self._changed:
            self._closed = True
            left = list(self._waiting)
            self._waiting.clear()
            self._changed.notify()
        for job in left:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(_stopping())

    def join(self, seconds: float) -> bool:
        """Waits for the thread to end; returns whether it did."""
        self._thread.join(max(0.0, seconds))
        return not self._thread.is_alive()

    def _main(self) -> None:
        try:
            self._start_engine()
            self._on_started()
            if self.phase is Phase.SERVING:
                while batch := self._next_batch():
                    self._run(batch)
                self.phase = Phase.STOPPED
        finally:
            self._release()

    def _start_engine(self) -> None:
        try:
            self._timed("load", self._engine.load)
            self.phase = Phase.WARMING_UP
            self._timed("warm_up", self._engine.warm_up)
            self.phase = Phase.SERVING
        except FatalError as error:
            self._fail(str(error))
        except Exception as error:
            log.exception("the engine did not start")
            doing = "Loading" if self.phase is Phase.LOADING else "Warming up"
            first_line = (str(error).splitlines() or [""])[0]
            self._fail(f"{doing} the model failed: {type(error).__name__}: {first_line[:500]}")

    def _fail(self, sentence: str) -> None:
        self.failure = sentence
        self.phase = Phase.FAILED

    def _timed(self, phase: str, step: Callable[[], None]) -> None:
        started = time.monotonic()
        step()
        seconds = time.monotonic() - started
        self._metrics.start_seconds.labels(phase).set(seconds)
        log.info("engine: %s done", phase, extra={"fields": {"seconds": round(seconds, 3)}})

    def _next_batch(self) -> list[Job]:
        """Waits for work; returns an empty list when closed."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            return [self._waiting.popleft()] if self._waiting else []

    def _run(self, batch: list[Job]) -> None:
        """Runs jobs of one task together and gives each its result. No error of theirs ends the thread."""
        batch = [job for job in batch if job.future.set_running_or_notify_cancel()]
        if not batch:
            return
        task = batch[0].task
        started = time.monotonic()
        try:
            answers = task.run([job.work for job in batch])
            seconds = time.monotonic() - started
            for job, answer in zip(batch, answers, strict=True):
                job.future.set_result(Done(answer, started - job.submitted, seconds))
        except Exception as error:  # noqa: BLE001 - one request fails with it, the process goes on
            seconds = time.monotonic() - started
            for job in batch:
                if not job.future.done():
                    job.future.set_exception(error)
        self._metrics.device_seconds.labels(task.name).inc(seconds)
        weight = _NEWEST if self.seconds_per_job else 1.0
        self.seconds_per_job += weight * (seconds - self.seconds_per_job)

    def _release(self) -> None:
        try:
            self._engine.release()
        except Exception:
            log.exception("the engine did not let go of the device")


def _stopping() -> OverloadedError:
    return OverloadedError("This replica is stopping; send the request again.", retry_after=1)

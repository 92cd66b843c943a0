"""The device thread: it alone touches the engine, one batch after the other, off the event loop.

    submit() -> Waiting -> device thread -> Job.future, Job.on_chunk

The number of jobs is bounded by admission (service.py), so the queue itself is not.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from enum import Enum
from typing import Any

from aiservice_runtime.batching import Batch, Done, Job, Rooms, Waiting
from aiservice_runtime.engine import Check, Engine, Fault
from aiservice_runtime.errors import AbandonedError, FatalError, OutOfMemoryError, OverloadedError
from aiservice_runtime.metrics import Metrics

log = logging.getLogger(__name__)

# Weight of the newest batch in the running mean of seconds a batch takes.
_NEWEST = 0.2


class Phase(Enum):
    """What the device thread is doing; the value is what /ready says."""

    LOADING = "loading"
    WARMING_UP = "warming up"
    SERVING = "serving"
    ASLEEP = "asleep"
    STOPPED = "stopped"
    FAILED = "failed"


class Device:
    """Runs an engine in a thread of its own."""

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        *,
        window: float = 0.0,
        max_batch: int | None = None,
        company: Callable[[], bool] = lambda: False,
    ) -> None:
        """Collects batches of up to `max_batch` pieces (None: what the task says) for up to `window` seconds.

        `company` tells whether requests are on their way that may join a batch.
        """
        self.phase = Phase.LOADING
        self.failure = ""
        """Why it does not serve, as a sentence; empty otherwise."""
        self._engine = engine
        self._metrics = metrics
        self._max_batch = max_batch
        self._company = company
        self._waiting = Waiting(window, self._room)
        self._rooms = Rooms()
        self._orders: list[tuple[Callable[[], None], Future[None]]] = []
        self._changed = threading.Condition()
        self._closed = False
        self._batch_seconds = 0.0
        self._batch_started: float | None = None
        self._running: Batch | None = None
        # A daemon: a computation cannot be interrupted, and the process must be able to end without it.
        self._thread = threading.Thread(target=self._main, name="device", daemon=True)
        self._on_change: Callable[[], object] = lambda: None

    def start(self, on_change: Callable[[], object]) -> None:
        """Starts loading. Calls on_change, in the device thread, whenever phase has become SERVING or FAILED."""
        self._on_change = on_change
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether the thread has run and is over: it was closed, or the engine cannot serve."""
        return self._thread.ident is not None and not self._thread.is_alive()

    @property
    def queue_depth(self) -> int:
        """Jobs that wait for the device."""
        return len(self._waiting)

    def seconds_to_next(self) -> float:
        """Returns about how long it takes until a request is complete: its batches at the mean; 0 when none has run."""
        with self._changed:
            started, running = self._batch_started, self._running
            more = self._waiting.turns_to_done()
            if running is None:
                more -= 1  # the next one counts below
            elif any(not job.left for job in running.jobs()):
                more = 0
        now = self._batch_seconds - (time.monotonic() - started if started is not None else 0)
        return max(0.0, now) + max(0, more) * self._batch_seconds

    def submit(self, job: Job) -> None:
        """Queues a job; its future gets the result."""
        with self._changed:
            if not self._closed:
                self._waiting.put(job)
                self._changed.notify()
                return
        job.future.set_exception(self._stopping())

    def discard(self, job: Job) -> None:
        """Takes a job back with its memory; if it runs, it ends at the engine's next check."""
        with self._changed:
            self._waiting.discard(job)
            job.abandon()
        job.future.cancel()

    def nudge(self) -> None:
        """Has the thread look again whether to wait for a fuller batch. After `company` has become false."""
        with self._changed:
            self._changed.notify()

    def sleep(self) -> Future[None]:
        """Has the engine give the device's memory back, after what waits; its phase is ASLEEP then."""
        return self._order(self._fall_asleep)

    def wake(self) -> Future[None]:
        """Has the engine take the device again; its phase is SERVING then."""
        return self._order(self._wake_up)

    def close(self) -> None:
        """Fails what waits and ends the thread after the batch that runs. Returns at once; see join()."""
        with self._changed:
            self._closed = True
            left, orders = self._waiting.clear(), self._orders
            self._orders = []
            self._changed.notify()
        for job in left:
            _fail(job, self._stopping())
        for _, done in orders:
            if done.set_running_or_notify_cancel():
                done.set_exception(self._stopping())

    def join(self, seconds: float) -> bool:
        """Waits for the thread to end; returns whether it did."""
        self._thread.join(max(0.0, seconds))
        return not self._thread.is_alive()

    # What follows runs in the device thread.

    def _main(self) -> None:
        try:
            self._start_engine()
            self._on_change()
            if self.phase is Phase.SERVING:
                while self._turn():
                    pass
        except _DeviceLostError as error:
            # After such an error nothing on the device works any more in this process.
            log.critical("the device is lost", exc_info=error)
            self._end(f"The device stopped working: {error}.")
        except BaseException as error:  # whatever it is: requests would wait for a thread that is gone
            log.critical("the device thread failed", exc_info=error)
            self._end(f"The device thread failed: {_named(error)}.")
        finally:
            self._release()

    def _start_engine(self) -> None:
        doing = "Importing the libraries of"
        try:
            self._timed("import", self._engine.import_libraries)
            doing = "Loading"
            self._timed("load", self._engine.load)
            self._metrics.loads.inc()
            self.phase, doing = Phase.WARMING_UP, "Warming up"
            self._timed("warm_up", self._engine.warm_up)
            self.phase = Phase.SERVING
        except FatalError as error:
            self._give_up(str(error))
        except Exception as error:
            log.exception("the engine did not start")
            self._give_up(f"{doing} the model failed: {_named(error)}")

    def _give_up(self, sentence: str) -> None:
        self.failure = sentence
        self.phase = Phase.FAILED

    def _timed(self, phase: str, step: Callable[[], None]) -> None:
        started = time.monotonic()
        step()
        seconds = time.monotonic() - started
        self._metrics.start_seconds.labels(phase).set(seconds)
        log.info("engine: %s done", phase, extra={"fields": {"seconds": round(seconds, 3)}})

    def _turn(self) -> bool:
        """Waits for work and does one piece of it; returns whether there may be more."""
        with self._changed:
            batch = self._next()
            order = self._orders.pop(0) if batch is None and self._orders else None
        if batch is not None:
            self._run(batch)
        elif order is not None:
            self._carry_out(*order)
        elif self.phase is not Phase.FAILED:
            self.phase = Phase.STOPPED
        return self.phase in {Phase.SERVING, Phase.ASLEEP}

    def _next(self) -> Batch | None:
        """Waits for a batch; None when there is none but an order, or when closed."""
        while True:
            found = self._waiting.take(time.monotonic(), company=self._company())
            if isinstance(found, Batch):
                return found
            if found is None and (self._orders or self._closed):
                return None
            self._changed.wait(found)

    def _room(self, job: Job) -> int:
        room = self._max_batch or job.task.max_batch
        found = self._rooms.of(job.group, time.monotonic())
        return room if found is None else min(room, found)

    def _run(self, batch: Batch) -> None:
        """Computes a batch and gives each job that is complete its result."""
        self._running = batch
        started = self._batch_started = time.monotonic()
        for job in batch.jobs():
            if job.started is None:
                job.started = started
        name = batch.task.name
        self._metrics.batch_size.labels(name).observe(len(batch.pieces))
        try:
            outcomes = self._streamed(batch) if batch.pieces[0][0].prepared.stream else self._outcomes(batch)
        finally:
            seconds = time.monotonic() - started
            self._batch_started = None
            self._metrics.device_seconds.labels(name).inc(seconds)
            weight = _NEWEST if self._batch_seconds else 1.0
            self._batch_seconds += weight * (seconds - self._batch_seconds)
        for (job, index), outcome in zip(batch.pieces, outcomes, strict=True):
            job.device_seconds += seconds / len(batch.pieces)
            if isinstance(outcome, Exception):
                self._drop(job, outcome)
            else:
                job.results[index] = outcome
        with self._changed:
            self._waiting.answered(time.monotonic(), requests=len(list(batch.jobs())), seconds=seconds)
        for job in batch.jobs():
            if len(job.results) == len(job.prepared.pieces):
                _finish(job)
        self._running = None

    def _outcomes(self, batch: Batch) -> list[Any]:
        """Returns a result or an exception for each piece; what fails together is computed again in halves."""

        def compute() -> list[Any]:
            results = list(batch.task.run(batch.works, _check(batch)))
            if len(results) != len(batch.pieces):
                raise ValueError(f"the engine gave {len(results)} results for {len(batch.pieces)} pieces of work")
            return results

        got = self._attempt(batch, compute)
        alone = len(batch.pieces) == 1
        if alone and isinstance(got, OutOfMemoryError):
            got = self._attempt(batch, compute)  # what was freed may be enough
        if isinstance(got, list):
            return got
        if alone or isinstance(got, AbandonedError):
            return [got] * len(batch.pieces)
        if isinstance(got, OutOfMemoryError):
            self._remember_room(batch)
        return [outcome for half in batch.halves() for outcome in self._outcomes(half)]

    def _streamed(self, batch: Batch) -> list[Any]:
        """Gives the chunks of the one piece to its job; returns None for it, or an exception."""
        [(job, _)], [work] = batch.pieces, batch.works
        check, stream = _check(batch), batch.task.stream
        begun = False

        def compute() -> list[Any]:
            nonlocal begun
            if stream is None:
                raise TypeError(f"the engine does not stream {batch.task.name}")
            for chunk in stream(work, check):
                check()
                begun = True
                job.on_chunk(chunk)
            return [None]

        got = self._attempt(batch, compute)
        if isinstance(got, OutOfMemoryError) and not begun:
            got = self._attempt(batch, compute)  # what was freed may be enough
        return got if isinstance(got, list) else [got]

    def _attempt(self, batch: Batch, compute: Callable[[], list[Any]]) -> list[Any] | Exception:
        """Returns what was computed, or the error that it ended with, after the memory that it left was freed.

        Raises _DeviceLostError when nothing more can be computed.
        """
        failure: Exception | None = None
        try:
            return compute()
        except AbandonedError as error:
            return error
        except Exception as error:  # noqa: BLE001 - whatever it is, only the request that causes it fails
            fault = self._engine.fault(error)
            if fault is not Fault.OUT_OF_MEMORY:
                failure = error
            # The frames of an exception hold what was allocated in them.
            traceback.clear_frames(error.__traceback__)
        if failure is None:
            self._metrics.out_of_memory.labels(batch.task.name).inc()
            log.warning("out of memory", extra={"fields": {"task": batch.task.name, "pieces": len(batch.pieces)}})
            self._engine.recover()
            return OutOfMemoryError()
        if fault is Fault.DEVICE:
            raise _DeviceLostError(_named(failure)) from failure
        return failure

    def _remember_room(self, batch: Batch) -> None:
        group = batch.pieces[0][0].group
        if group is not None:
            with self._changed:
                self._rooms.ran_out(group, len(batch.pieces), time.monotonic())

    def _drop(self, job: Job, error: Exception) -> None:
        """Fails a job, and forgets its other pieces."""
        with self._changed:
            self._waiting.discard(job)
            job.left.clear()
        _fail(job, error)

    def _end(self, sentence: str) -> None:
        """Ends serving: fails what runs and what waits, and has the process end with the sentence."""
        self._give_up(f"{sentence} The process ends, so that a new one starts afresh.")
        for job in self._running.jobs() if self._running is not None else ():
            self._drop(job, self._stopping())
        self.close()
        self._on_change()

    def _order(self, step: Callable[[], None]) -> Future[None]:
        done: Future[None] = Future()
        with self._changed:
            if not self._closed:
                self._orders.append((step, done))
                self._changed.notify()
                return done
        done.set_exception(self._stopping())
        return done

    def _carry_out(self, step: Callable[[], None], done: Future[None]) -> None:
        if not done.set_running_or_notify_cancel():
            return
        try:
            step()
            done.set_result(None)
        except OverloadedError as error:
            done.set_exception(error)
        except BaseException as error:  # whatever it is: somebody waits for the order
            log.critical("the engine could not change its state", exc_info=error)
            self._give_up(f"The model could not be put to sleep or woken: {_named(error)}")
            done.set_exception(self._stopping())
            self.close()
            self._on_change()

    def _fall_asleep(self) -> None:
        if self.phase is Phase.SERVING:
            self._timed("sleep", self._engine.sleep)
            self.phase = Phase.ASLEEP

    def _wake_up(self) -> None:
        if self.phase is not Phase.ASLEEP:
            return
        try:
            self._timed("wake", self._engine.wake)
        except Exception as error:
            if self._engine.fault(error) is not Fault.OUT_OF_MEMORY:
                raise
            self._engine.sleep()  # what came onto the device so far goes back
            raise OverloadedError(
                "The device has no room for the model now: free it, then wake it again.", retry_after=30
            ) from None
        self._metrics.loads.inc()
        self.phase = Phase.SERVING

    def _release(self) -> None:
        try:
            self._engine.release()
        except Exception:
            log.exception("the engine did not let go of the device")

    def _stopping(self) -> OverloadedError:
        return OverloadedError("This replica is stopping; send the request again.", retry_after=1)


class _DeviceLostError(Exception):
    """The device does not answer this process any more."""


def _check(batch: Batch) -> Check:
    def check() -> None:
        if all(job.abandoned for job in batch.jobs()):
            raise AbandonedError

    return check


def _finish(job: Job) -> None:
    streamed = job.prepared.stream is not None
    results = [] if streamed else [job.results[index] for index in range(len(job.prepared.pieces))]
    with contextlib.suppress(InvalidStateError):  # cancelled meanwhile
        job.future.set_result(Done(results, job.queue_seconds, job.device_seconds))


def _fail(job: Job, error: Exception) -> None:
    with contextlib.suppress(InvalidStateError):  # cancelled or failed before
        job.future.set_exception(error)


def _named(error: BaseException) -> str:
    first_line = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first_line[:500]}"

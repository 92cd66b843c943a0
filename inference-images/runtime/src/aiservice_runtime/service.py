"""One request from its headers to its answer: admitted, received, prepared, computed, finished."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from aiservice_runtime.admission import Admission
from aiservice_runtime.batching import Done, Job
from aiservice_runtime.body import Incoming, RawBody, parse
from aiservice_runtime.device import Device, Phase
from aiservice_runtime.engine import Answer, Engine, FileBody, Prepared, Stream, Task
from aiservice_runtime.errors import (
    ClientGoneError,
    ConflictError,
    InternalError,
    NotReadyError,
    OverloadedError,
    RequestError,
)
from aiservice_runtime.metrics import Metrics
from aiservice_runtime.negotiation import check_accept, choose_form
from aiservice_runtime.settings import RuntimeSettings
from aiservice_runtime.tracing import Tracing

log = logging.getLogger(__name__)

# Decoding and encoding run beside the device, each in its own pool: a slow upload keeps no finished answer waiting.
# Two threads keep the next request ready without taking the CPUs from the model.
_POOL_THREADS = 2
_LOADING_RETRY = 5

ResultT = TypeVar("ResultT")


class Sink(Protocol):
    """Where a streamed answer goes."""

    async def start(self, stream: Stream, prepared: Prepared[Any, Any], queue_seconds: float) -> None:
        """Sends the headers; the request was in the queue for so long."""

    async def send(self, data: bytes) -> None:
        """Sends some of the body."""

    def usage(self, units: float, tokens: int) -> dict[str, Any]:
        """Returns what the answer says of its cost."""


@dataclass(frozen=True)
class Served:
    """A request that was answered."""

    answer: Answer | None
    """None: it was streamed."""
    units: float
    tokens: int
    queue_seconds: float
    device_seconds: float


class Service:
    """Everything between the HTTP app and the engine. Lives on one event loop."""

    def __init__(
        self,
        engine: Engine,
        settings: RuntimeSettings,
        tasks: dict[str, Task[Any, Any, Any]],
        tracing: Tracing | None = None,
    ) -> None:
        self.settings = settings
        self.tasks = tasks
        self.tracing = tracing or Tracing()
        self.metrics = Metrics()
        self.draining = False
        self._dozing = False
        self._coming: set[Incoming] = set()
        """Requests that have a place and are not in the device's queue yet."""
        self.device = Device(
            engine,
            self.metrics,
            window=settings.batch_window_ms / 1000,
            max_batch=settings.max_batch,
            company=lambda: bool(self._coming),
        )
        running = settings.max_batch or max((task.max_batch for task in tasks.values()), default=1)
        self.admission = Admission(settings.queue_size + running, self.device.seconds_to_next)
        self._before = _Pool("prepare")
        self._after = _Pool("finish")
        self._sleeping = asyncio.Lock()
        self.metrics.watch(queue_depth=lambda: self.device.queue_depth, ready=lambda: self.ready, memory=engine.memory)
        for task in tasks.values():
            self.metrics.add_task(task.name, task.unit)

    @property
    def ready(self) -> bool:
        """Whether requests are accepted."""
        return self.device.phase is Phase.SERVING and not self.draining and not self._dozing

    @property
    def state(self) -> str:
        """What the process is doing, in a word or two."""
        if self.draining:
            return "draining"
        return "falling asleep" if self._dozing else self.device.phase.value

    async def infer(self, task: Task[Any, Any, Any], incoming: Incoming, sink: Sink) -> Served:
        """Answers one request. Raises RequestError or ClientGoneError; any other error has become InternalError."""
        if not self.ready:
            raise NotReadyError(f"This replica is {self.state}.", retry_after=1 if self.draining else _LOADING_RETRY)
        incoming.check()
        check_accept(incoming.accept, task.files)
        with self.admission.slot(), self.metrics.in_flight.labels(task.name).track_inprogress():
            limit = self.settings.request_seconds
            try:
                async with asyncio.timeout(limit) as clock:
                    return await self._answer(task, incoming, sink)
            except (RequestError, ClientGoneError):
                raise
            except Exception as error:
                if isinstance(error, TimeoutError) and clock.expired():
                    raise OverloadedError(
                        f"There was no answer within {limit:g} seconds.", retry_after=self.admission.retry_after()
                    ) from None
                log.exception("a request failed", extra={"fields": {"task": task.name}})
                raise InternalError("The model failed on this request; the service's log has the details.") from error

    async def sleep(self) -> None:
        """Answers what is in flight, then gives the device's memory back. Raises ConflictError when it cannot."""
        async with self._sleeping:
            if self.device.phase is Phase.ASLEEP:
                return
            self._check_state("sleep", Phase.SERVING)
            self._dozing = True
            try:
                await self.admission.wait_until_empty(self.settings.request_seconds)
                await asyncio.wrap_future(self.device.sleep())
            finally:
                self._dozing = False

    async def wake(self) -> None:
        """Takes the device again. Raises ConflictError when there is nothing to wake."""
        async with self._sleeping:
            if self.device.phase is Phase.SERVING:
                return
            self._check_state("wake", Phase.ASLEEP)
            await asyncio.wrap_future(self.device.wake())

    def close(self) -> None:
        """Starts no more work; see Device.close()."""
        self.device.close()
        self._before.close()  # the other one is for what has been computed

    def _check_state(self, verb: str, needed: Phase) -> None:
        if self.draining or self.device.phase is not needed:
            raise ConflictError(f"This replica is {self.state}; it can {verb} when it is {needed.value}.")

    async def _answer(self, task: Task[Any, Any, Any], incoming: Incoming, sink: Sink) -> Served:
        self._coming.add(incoming)
        try:
            # No name for the body here: it is let go of once it is prepared, not when it is answered.
            return await _unless_gone(incoming, self._compute(task, incoming, await self._body(task, incoming), sink))
        finally:
            self._arrived(incoming)

    async def _body(self, task: Task[Any, Any, Any], incoming: Incoming) -> RawBody:
        with self.tracing.step("receive"):
            return await incoming.read(self.settings.receive_seconds, files=len(task.body.media_fields()))

    async def _compute(self, task: Task[Any, Any, Any], incoming: Incoming, raw: RawBody, sink: Sink) -> Served:
        with self.tracing.step("prepare"):
            prepared: Prepared[Any, Any] = await self._before.run(partial(_prepared, task, raw, incoming.accept))
        del raw
        job = Job(task, prepared)
        chunks = _Chunks(job) if prepared.stream is not None else None
        self.device.submit(job)
        self._arrived(incoming)
        try:
            if prepared.stream is not None and chunks is not None:
                return await self._stream(job, prepared.stream, chunks, sink)
            done = await asyncio.wrap_future(job.future)
            self._trace(job)
            with self.tracing.step("finish"):
                answer: Answer = await self._after.run(lambda: prepared.finish(done.results))
            return _served(done, answer, answer.units, answer.tokens)
        finally:
            self.device.discard(job)

    async def _stream(self, job: Job, stream: Stream, chunks: _Chunks, sink: Sink) -> Served:
        started = False
        async for chunk in chunks:
            data = await self._after.run(partial(stream.encode, chunk))
            if data and not started:
                await sink.start(stream, job.prepared, job.queue_seconds)
                started = True
            if data:
                await sink.send(data)
        done = job.future.result()
        self._trace(job)
        last = await self._after.run(lambda: stream.end(sink.usage(stream.units, stream.tokens)))
        if not started:
            await sink.start(stream, job.prepared, job.queue_seconds)
        await sink.send(last)
        return _served(done, None, stream.units, stream.tokens)

    def _trace(self, job: Job) -> None:
        began = job.started or job.submitted
        self.tracing.past("queue", job.submitted, began)
        self.tracing.past("device", began, time.monotonic(), **{"aiservice.device_seconds": job.device_seconds})

    def _arrived(self, incoming: Incoming) -> None:
        """The request is in the queue, or will never be: nobody needs to wait for it with a batch."""
        if incoming in self._coming:
            self._coming.discard(incoming)
            self.device.nudge()


class _Pool:
    """Threads beside the device. What is given up before a thread takes it is let go of at once.

    An executor's own queue would keep it, with a request's body in it, until a thread has looked at it; so nothing is
    given to the executor before a thread is free.
    """

    def __init__(self, name: str) -> None:
        self._threads = ThreadPoolExecutor(_POOL_THREADS, thread_name_prefix=name)
        self._free = asyncio.Semaphore(_POOL_THREADS)
        self._closed = False

    async def run(self, work: Callable[[], ResultT]) -> ResultT:
        """Returns what the work returns, in a thread. Raises OverloadedError once the pool is closed."""
        await self._free.acquire()
        try:
            if self._closed:
                raise OverloadedError("This replica is stopping; send the request again.", retry_after=1)
            done = self._threads.submit(work)
        except BaseException:
            self._free.release()
            raise
        # Not when this coroutine ends: the thread goes on with what was given up, and holds it.
        loop = asyncio.get_running_loop()
        done.add_done_callback(lambda _: self._release(loop))
        return await asyncio.wrap_future(done)

    def close(self) -> None:
        """Starts no more work; what runs goes on."""
        self._closed = True
        self._threads.shutdown(wait=False)

    def _release(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends, and nobody waits for a thread
            loop.call_soon_threadsafe(self._free.release)


class _Chunks:
    """The chunks of a job, from the device thread to the event loop; they end when the job does."""

    _END = object()

    def __init__(self, job: Job) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        job.on_chunk = self._put
        job.future.add_done_callback(lambda _: self._put(self._END))

    def _put(self, chunk: Any) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, chunk)

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Gives each chunk as it comes."""
        while (chunk := await self._queue.get()) is not self._END:
            yield chunk


def _prepared(task: Task[Any, Any, Any], raw: RawBody, accept: Sequence[str]) -> Prepared[Any, Any]:
    body = parse(task.body, raw)
    if isinstance(body, FileBody):
        choose_form(body, accept, task.files)
    return task.prepare(body)


def _served(done: Done, answer: Answer | None, units: float, tokens: int) -> Served:
    return Served(answer, units, tokens, done.queue_seconds, done.device_seconds)


async def _unless_gone(incoming: Incoming, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Returns the result of the work, or cancels it and raises ClientGoneError once the client has gone."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(incoming.gone())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGoneError
    finally:
        for future in (working, watching):
            future.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)

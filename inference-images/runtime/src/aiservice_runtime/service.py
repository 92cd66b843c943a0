"""One request from its headers to its answer: admitted, received, prepared, run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from aiservice_runtime.admission import Admission
from aiservice_runtime.body import Incoming, RawBody, parse
from aiservice_runtime.device import Device, Done, Job, Phase
from aiservice_runtime.engine import Engine, Task
from aiservice_runtime.errors import ClientGoneError, InternalError, NotReadyError, OverloadedError, RequestError
from aiservice_runtime.metrics import Metrics
from aiservice_runtime.settings import RuntimeSettings

log = logging.getLogger(__name__)

# Decoding runs beside the device; two keep the next request ready without taking the CPUs from the model.
_PREPARE_THREADS = 2
_LOADING_RETRY = 5

ResultT = TypeVar("ResultT")


class Service:
    """Everything between the HTTP app and the engine. Lives on one event loop."""

    def __init__(self, engine: Engine, settings: RuntimeSettings, tasks: dict[str, Task[Any, Any]]) -> None:
        self.settings = settings
        self.tasks = tasks
        self.metrics = Metrics()
        self.device = Device(engine, self.metrics)
        self.draining = False
        # One runs, queue_size wait.
        self.admission = Admission(settings.queue_size + 1, lambda: self.device.seconds_per_job)
        self._pool = ThreadPoolExecutor(_PREPARE_THREADS, thread_name_prefix="prepare")
        self.metrics.watch(queue_depth=lambda: self.device.queue_depth, ready=lambda: self.ready)
        for task in tasks.values():
            self.metrics.add_task(task.name, task.unit)

    @property
    def ready(self) -> bool:
        """Whether requests are accepted."""
        return self.device.phase is Phase.SERVING and not self.draining

    @property
    def state(self) -> str:
        """What the process is doing, in a word or two."""
        return "draining" if self.draining else self.device.phase.value

    async def infer(self, task: Task[Any, Any], incoming: Incoming) -> Done:
        """Answers one request. Raises RequestError or ClientGoneError; any other error has become InternalError."""
        if not self.ready:
            raise NotReadyError(f"This replica is {self.state}.", retry_after=1 if self.draining else _LOADING_RETRY)
        incoming.check()
        with self.admission.slot(), self.metrics.in_flight.labels(task.name).track_inprogress():
            limit = self.settings.request_seconds
            try:
                async with asyncio.timeout(limit) as clock:
                    # No name for the body here: it is let go of once it is prepared, not when it is answered.
                    return await _unless_gone(
                        incoming, self._compute(task, await incoming.read(self.settings.receive_seconds))
                    )
            except (RequestError, ClientGoneError):
                raise
            except Exception as error:
                if isinstance(error, TimeoutError) and clock.expired():
                    raise OverloadedError(
                        f"There was no answer within {limit:g} seconds.", retry_after=self.admission.retry_after()
                    ) from None
                log.exception("a request failed", extra={"fields": {"task": task.name}})
                raise InternalError("The model failed on this request; the service's log has the details.") from error

    async def _compute(self, task: Task[Any, Any], raw: RawBody) -> Done:
        work = await asyncio.get_running_loop().run_in_executor(self._pool, _prepared, task, raw)
        del raw
        job = Job(task, work)
        del work
        self.device.submit(job)
        try:
            return await asyncio.wrap_future(job.future)
        finally:
            self.device.discard(job)

    def close(self) -> None:
        """Starts no more work; see Device.close()."""
        self.device.close()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _prepared(task: Task[Any, Any], raw: RawBody) -> Any:
    prepare: Callable[[Any], Any] = task.prepare
    return prepare(parse(task.body, raw))


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

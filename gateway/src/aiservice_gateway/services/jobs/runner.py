"""Works on jobs: takes those that are due, runs each as the proxy's own call, and decides what follows from its end.

The call reads the job's input where a client's body would be, and its answer is kept before it is charged. What is
asked to end (cancelled, out of time, taken over) sees its client go away, as any other call would.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from opentelemetry.trace import Span
from starlette.datastructures import Headers
from starlette.types import Message

from aiservice_api.tasks import Task
from aiservice_gateway.context import RequestContext
from aiservice_gateway.errors import (
    BudgetSpentError,
    ConflictError,
    GatewayError,
    RateLimitedError,
    StoreUnavailableError,
    UnavailableError,
)
from aiservice_gateway.ids import new_request_id
from aiservice_gateway.logs import FIELDS
from aiservice_gateway.metrics import Metrics
from aiservice_gateway.models import Identity, Service, UsageRecord
from aiservice_gateway.services.proxy import Call, Exchange, Proxy
from aiservice_gateway.stores.jobs import Job, Jobs, Problem, State
from aiservice_gateway.stores.pieces import Pieces, read
from aiservice_gateway.telemetry import Tracing, note_service, trace_id

_log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0
"""How often the queue is looked at, and leases are renewed, without a reason of this process' own."""
_AWAY_SECONDS: Final = 2.0
_KEEP_SECONDS: Final = 60.0
"""How long the database may be away while an answer that is complete is to be kept."""
_PAUSE_SECONDS: Final = 0.5
_SLACK_SECONDS: Final = 3600.0
_CLIENT_ERRORS: Final = 400


class Stop(StrEnum):
    """Why a call is ended before its answer is complete."""

    CANCELLED = "cancelled"
    EXPIRED = "expired"
    LOST = "lost"
    """Another worker has the job."""
    LARGE = "large"
    """Its answer is larger than what is kept."""
    CLOSING = "closing"
    """The gateway stops."""


_UNANSWERED: Final = frozenset({State.CANCELLED, State.EXPIRED})
_FAILURES: Final = frozenset({State.FAILED, State.EXPIRED})
_DONE_AGAIN: Final = frozenset({Stop.LOST, Stop.CLOSING})


@dataclass(frozen=True, slots=True)
class Rules:
    """What a runner holds to."""

    concurrency: int
    """Jobs at once in this process."""
    output_bytes: int
    """Of the largest answer."""
    drain_seconds: float
    """How long jobs may go on when the gateway stops."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a try at a job ended, as far as this process knows."""

    state: State | None
    """The job's; None: another worker's to say, or the database's."""
    code: str | None = None
    """Of what went wrong, or of what the job waits for."""
    failed: bool = False
    """Whether that is a failure."""


_UNSETTLED: Final = Ending(None, "unsettled", failed=True)


class Work:
    """One try at a job: the channels of its call, and the keeper of its answer."""

    def __init__(self, jobs: Jobs, job: Job, most_bytes: int) -> None:
        self.job = job
        self.kept_status: int | None = None
        """Of the answer, once it is kept."""
        self.stopped: Stop | None = None
        self.span: Span | None = None
        """Where traces are recorded."""
        self.ending = _UNSETTLED
        self._jobs = jobs
        self._most_bytes = most_bytes
        self._stop = asyncio.Event()
        self.calling: asyncio.Task[None] | None = None
        self._input: AsyncIterator[bytes] | None = None
        self._sent_all = False
        left = job.deadline - time.time()
        self._pieces = Pieces(jobs.database, _attempt(job), max(0.0, left) + jobs.terms.kept_seconds + _SLACK_SECONDS)
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []

    def stop(self, why: Stop) -> None:
        """Ends the call: as a client's going away does; or, where the work will be done again, such that it is free."""
        self.stopped = self.stopped or why
        self._stop.set()
        if self.calling is not None and self.stopped in _DONE_AGAIN:
            self.calling.cancel()

    async def receive(self) -> Message:
        """The channel that the input is read from.

        Raises:
            UnavailableError: the database does not answer.
        """
        if self._sent_all:
            await self._stop.wait()
        if self._stop.is_set():
            return {"type": "http.disconnect"}
        self._input = self._input or read(self._jobs.database, self.job.id)
        try:
            piece = await anext(self._input, None)
        except StoreUnavailableError as error:
            raise _away(error) from error
        self._sent_all = piece is None
        return {"type": "http.request", "body": piece or b"", "more_body": not self._sent_all}

    async def send(self, message: Message) -> None:
        """The channel for the answer. Its last bytes were kept before.

        Raises:
            UnavailableError: the database does not answer.
        """
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], list(message["headers"])
        elif self.kept_status is None:
            try:
                await self._pieces.add(message.get("body", b""))
            except StoreUnavailableError as error:
                raise _away(error) from error
            self._check_size()

    async def keep(self, record: UsageRecord, last: bytes) -> None:
        """Keeps the answer; see `Keeper`. The database may be away for a while."""
        self._pieces.put(last)
        self._check_size()
        if self.stopped is Stop.LARGE:
            raise ConflictError("The answer is too large.")
        deadline = time.monotonic() + _KEEP_SECONDS
        while True:
            try:
                await self._pieces.flush()
                kept = await self._jobs.keep(
                    self.job,
                    record,
                    status=self._status,
                    headers=self._headers,
                    size=self._pieces.size,
                    rest=self._pieces.rest(),
                )
            except StoreUnavailableError as error:
                if time.monotonic() >= deadline:
                    raise _away(error) from error
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                break
        if not kept:
            self.stop(Stop.LOST)
            raise ConflictError("Another worker has the job.")
        self.kept_status = self._status

    async def drop(self) -> None:
        """Takes back what was written of an answer that does not count.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        await self._pieces.drop()

    def _check_size(self) -> None:
        if self._pieces.size > self._most_bytes:
            self.stop(Stop.LARGE)


class JobRunner:
    """Takes jobs and works on them until it is closed."""

    def __init__(
        self,
        jobs: Jobs,
        proxy: Proxy,
        *,
        resolve: Callable[[Task, str | None, Identity], Service],
        check: Callable[[str], None],
        rules: Rules,
        metrics: Metrics,
        tracing: Tracing | None,
    ) -> None:
        """Wires it up.

        Args:
            jobs: The queue.
            proxy: What calls need.
            resolve: The service of a call, as routes find it.
            check: Lets a tenant pass, or raises.
            rules: What it holds to.
            metrics: Counts.
            tracing: Makes spans.
        """
        self._jobs = jobs
        self._proxy = proxy
        self._resolve = resolve
        self._check = check
        self._rules = rules
        self._metrics = metrics
        self._tracing = tracing
        self._works: dict[asyncio.Task[None], Work] = {}
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._draining_since: float | None = None

    def start(self) -> None:
        """Begins to take jobs."""
        self._tasks = [
            asyncio.create_task(self._take(), name="jobs"),
            asyncio.create_task(self._renew(), name="job-leases"),
        ]

    def wake(self) -> None:
        """There may be something to do."""
        self._wake.set()

    def drain(self) -> None:
        """Takes no more jobs."""
        if self._draining_since is None:
            self._draining_since = time.monotonic()
        self._wake.set()

    def cancel(self, attempt: str) -> None:
        """Ends a try at once, if it is this process'."""
        for work in self._works.values():
            if work.job.attempt == attempt:
                work.stop(Stop.CANCELLED)

    async def close(self) -> None:
        """Waits for the jobs at work, as long as stopping may take; those that do not end wait for another."""
        self.drain()
        since = self._draining_since or 0.0
        if self._works:
            left = since + self._rules.drain_seconds - time.monotonic()
            await asyncio.wait(self._works, timeout=max(0.0, left))
        for work in self._works.values():
            work.stop(Stop.CLOSING)
        if self._works:
            await asyncio.wait(self._works, timeout=_AWAY_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self) -> None:
        while True:
            self._wake.clear()
            seconds = _LOOK_SECONDS
            try:
                await self._jobs.expire()
                while self._draining_since is None and len(self._works) < self._rules.concurrency:
                    job = await self._jobs.claim(new_request_id())
                    if job is None:
                        break
                    self._begin(job)
            except StoreUnavailableError as error:
                _log.warning("No job can be taken while the database does not answer: %s", error)
                seconds = _AWAY_SECONDS
            except Exception:  # noqa: BLE001 - jobs would wait for ever
                _log.exception("Taking jobs met something unexpected and goes on")
                seconds = _AWAY_SECONDS
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _begin(self, job: Job) -> None:
        work = Work(self._jobs, job, self._rules.output_bytes)
        task = asyncio.create_task(self._work(work), name=f"job-{job.id}")
        self._works[task] = work
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._works[task]
        self._wake.set()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, self._jobs.terms.lease_seconds / 3))
            for work in list(self._works.values()):
                try:
                    cancelled = await self._jobs.renew(work.job)
                except StoreUnavailableError:
                    break  # a lease that runs out is another's only when that other takes the job
                if cancelled is None:
                    if work.kept_status is None:
                        work.stop(Stop.LOST)
                elif cancelled:
                    work.stop(Stop.CANCELLED)

    async def _work(self, work: Work) -> None:
        if self._tracing is None:
            await self._try(work)
            return
        job = work.job
        span = work.span = self._tracing.job(job.id, job.task, job.attempts, job.trace)
        try:
            await self._try(work)
        finally:
            self._tracing.end_job(span, work.ending.state, work.ending.code, failed=work.ending.failed)

    async def _try(self, work: Work) -> None:
        job = work.job
        try:
            await self._settle(work, await self._run(work))
        except StoreUnavailableError as error:
            _log.warning("The job %s is taken up again when the database answers: %s", job.id, error)
        except Exception:  # noqa: BLE001 - the job is taken up again when its lease ends
            _log.exception("A job met something unexpected", extra={FIELDS: {"job": job.id}})

    async def _run(self, work: Work) -> Exception | None:
        """Runs the call of a job, unless it has its answer already or may not be run; what it raised."""
        job = work.job
        if job.record is not None:  # the worker that kept this answer died before it was charged, or soon after
            await self._proxy.ledger.restore(job.record)
            work.kept_status = job.status
            return None
        left = job.deadline - time.time()
        if left <= 0:
            work.stop(Stop.EXPIRED)
            return None
        if job.attempts > self._jobs.terms.most_attempts:
            return LostError()
        if await self._jobs.renew(job):
            work.stop(Stop.CANCELLED)  # while nobody worked on it
            return None
        timer = asyncio.get_running_loop().call_later(left, work.stop, Stop.EXPIRED)
        calling = work.calling = asyncio.create_task(self._call(work), name=f"job-call-{job.id}")
        await asyncio.wait({calling})
        timer.cancel()
        error = None if calling.cancelled() else calling.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        return error

    async def _call(self, work: Work) -> None:
        job = work.job
        self._check(job.tenant)
        identity = Identity(job.tenant, job.user)
        service = self._resolve(job.task, job.service, identity)
        note_service(work.span, service.key)
        context = RequestContext(_attempt(job), tenant=job.tenant, service=service.key, keeper=work, span=work.span)
        headers = Headers({"content-type": job.content_type, "content-length": str(job.input_bytes)})
        await Exchange(self._proxy, Call(context, headers, identity, job.task, service))({}, work.receive, work.send)

    async def _settle(self, work: Work, error: Exception | None) -> None:
        """Decides what follows from the end of a call.

        Raises:
            StoreUnavailableError: the database does not answer; the job is taken up again when its lease ends.
        """
        job = work.job
        if work.kept_status is not None:
            refused = work.kept_status >= _CLIENT_ERRORS
            state = State.FAILED if refused else State.SUCCEEDED
            problem = Problem("refused", f"The service refused it ({work.kept_status}); the result says why.")
            await self._finish(work, state, problem if refused else None)
            return
        await work.drop()
        if work.stopped is Stop.LOST:
            work.ending = Ending(None, Stop.LOST, failed=True)
            return
        if work.stopped is Stop.CANCELLED:
            await self._finish(work, State.CANCELLED)
        elif work.stopped is Stop.EXPIRED:
            await self._finish(work, State.EXPIRED)
        elif work.stopped is Stop.LARGE:
            most = self._rules.output_bytes
            await self._finish(work, State.FAILED, Problem("payload_too_large", f"The answer is over {most} bytes."))
        elif work.stopped is Stop.CLOSING:
            await self._put_off(work, 0, Ending(State.QUEUED, Stop.CLOSING), counted=False)
        elif isinstance(error, UnavailableError) or (
            isinstance(error, RateLimitedError) and not isinstance(error, BudgetSpentError)
        ):
            await self._put_off(work, error.retry_after, Ending(State.QUEUED, error.code), counted=False)
        elif isinstance(error, GatewayError):
            await self._finish(work, State.FAILED, Problem(error.code, _sentence(error)))
        elif error is None:
            await self._finish(work, State.FAILED, Problem("upstream_failed", "The service broke off in its answer."))
        else:
            _log.error("A job failed unexpectedly", exc_info=error, extra={FIELDS: {"job": job.id}})
            if job.attempts < self._jobs.terms.most_attempts:
                ending = Ending(State.QUEUED, GatewayError.code, failed=True)
                await self._put_off(work, _AWAY_SECONDS, ending, counted=True)
            else:
                await self._finish(work, State.FAILED, Problem("internal", "Something went wrong inside the gateway."))

    async def _finish(self, work: Work, state: State, problem: Problem | None = None) -> None:
        if not await self._jobs.finish(work.job, state, problem):
            work.ending = Ending(None, Stop.LOST, failed=True)
            return
        code = problem.code if problem is not None else (state if state in _UNANSWERED else None)
        work.ending = Ending(state, code, failed=state in _FAILURES)
        self._metrics.jobs.labels(work.job.task, state).inc()
        fields = {"job": work.job.id, "state": state, "attempts": work.job.attempts, "tenant": work.job.tenant}
        traced = trace_id(work.span)
        _log.info("job", extra={FIELDS: fields if traced is None else fields | {"trace_id": traced}})

    async def _put_off(self, work: Work, seconds: float, ending: Ending, *, counted: bool) -> None:
        await self._jobs.requeue(work.job, seconds, counted=counted)
        work.ending = ending


class LostError(GatewayError):
    """Every gateway that worked on the job died."""

    code = "interrupted"

    def __init__(self) -> None:
        super().__init__("Every gateway that worked on it died or stood still; it is not tried again.")


def _attempt(job: Job) -> str:
    if job.attempt is None:
        raise RuntimeError("a job is worked on that nobody claimed")
    return job.attempt


def _away(error: StoreUnavailableError) -> UnavailableError:
    _log.warning("A job waits for the database: %s", error)
    return UnavailableError("The database does not answer.")


def _sentence(error: GatewayError) -> str:
    return "The tenant's budget for this month is spent." if isinstance(error, BudgetSpentError) else error.message

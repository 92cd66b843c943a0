"""The proxy: streams a request to a service and its answer back, and settles what it used.

One call goes: admit (limits, and an open entry in the ledger), forward, relay, settle (what it used, its record) and
only then the answer's last bytes. A call that no engine worked on is refunded instead of settled: it costs nothing and
does not count.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from aiservice_api.tasks import Task
from aiservice_gateway.context import RequestContext
from aiservice_gateway.errors import (
    BudgetSpentError,
    GatewayError,
    RateLimitedError,
    RequestTimeoutError,
    UnavailableError,
    UpstreamFailedError,
    UpstreamTimeoutError,
)
from aiservice_gateway.logs import FIELDS
from aiservice_gateway.metrics import Metrics
from aiservice_gateway.models import MODEL_CHARACTERS, Identity, Measure, Measured, Outcome, Service, UsageRecord
from aiservice_gateway.plans import Reservation
from aiservice_gateway.services.backends import Backends
from aiservice_gateway.services.connection import WireError
from aiservice_gateway.services.delivery import Delivered, Delivery, Errand
from aiservice_gateway.services.ledger import Ledger
from aiservice_gateway.services.limits import Admission, Limits
from aiservice_gateway.services.pricing import cost, price_header, read_measured
from aiservice_gateway.services.streams import Follower
from aiservice_gateway.services.upload import ClientGoneError, Upload
from aiservice_gateway.services.upstream import note_failure, request_headers, response_headers

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Proxy:
    """What every call needs."""

    delivery: Delivery
    backends: Backends
    limits: Limits
    ledger: Ledger
    prices: Mapping[Task, Decimal]
    metrics: Metrics
    timeout_seconds: float
    active: set[asyncio.Future[None]] = field(default_factory=set)
    """One for each call that is not settled. The server may cancel calls when it stops; they settle all the same."""

    async def finished(self, within_seconds: float) -> None:
        """Waits until every call is settled."""
        if self.active:
            await asyncio.wait(self.active, timeout=within_seconds)


@dataclass(frozen=True, slots=True)
class Call:
    """Who asks for what, and where it goes."""

    context: RequestContext
    headers: Headers
    identity: Identity
    task: Task
    service: Service


_NOTHING = Measured()
_SMALL_BYTES = 32 * 1024
"""An answer up to this size is handed on whole."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a call went."""

    outcome: Outcome | None
    """None: no engine worked on it."""
    measured: Measured = _NOTHING
    error: GatewayError | None = None
    """What to answer, where nothing was answered yet."""
    last: tuple[Message, ...] = ()
    """The end of a complete answer, or all of a small one: it is held back until the call is settled."""


class Exchange:
    """One call, in the form of an ASGI application: it runs when the server wants the answer."""

    def __init__(self, proxy: Proxy, call: Call) -> None:
        self._proxy = proxy
        self._call = call
        self._follower: Follower | None = None
        """Set once the client got the beginning of an answer."""
        self._sent = False
        """Whether it was its turn, so that an engine may have begun."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers.

        Raises:
            GatewayError: what to answer instead, while nothing was.
        """
        call = self._call
        price = price_header(self._proxy.prices, call.task)
        headers = request_headers(call.headers, call.context.request_id, price)
        admission = await self._admit()
        started = time.perf_counter()
        ending = Ending(Outcome.FAILED)  # if it is cancelled: the server stops what did not finish while it drained
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._proxy.active.add(settled)
        try:
            ending = await self._run(headers, receive, send)
        finally:
            try:
                if ending.outcome is None:
                    await self._refund(admission)
                else:
                    reservation = admission.reservation
                    record = self._record(reservation, ending.outcome, ending.measured, started)
                    if (error := await self._keep(record, ending)) is not None:
                        ending = Ending(Outcome.CANCELLED, error=error)
                        record = self._record(reservation, Outcome.CANCELLED, _NOTHING, started)
                    await self._proxy.ledger.settle(reservation, record)
            finally:
                self._proxy.active.discard(settled)
                settled.set_result(None)
        if ending.error is not None and self._follower is None:
            raise ending.error
        for message in ending.last:
            await send(message)
        # Else the answer was cut in the middle: the server closes the connection when this returns.

    async def _admit(self) -> Admission:
        call = self._call
        model = call.service.model and call.service.model[:MODEL_CHARACTERS]
        admission = await self._proxy.limits.admit(call.identity, call.task, model, call.context.request_id)
        call.context.headers |= admission.response_headers()
        if not admission.allowed:
            self._proxy.metrics.limited.labels(call.task, admission.refused_by.measure).inc()
            spent = admission.refused_by.measure is Measure.SPEND
            raise (BudgetSpentError if spent else RateLimitedError)(admission.retry_after)
        return admission

    async def _keep(self, record: UsageRecord, ending: Ending) -> GatewayError | None:
        """Hands a complete answer to whoever keeps it; what that says against it means that it costs nothing."""
        keeper = self._call.context.keeper
        if keeper is None or not ending.last:
            return None
        keeping = asyncio.create_task(keeper.keep(record, ending.last[-1]["body"]))
        while not keeping.done():
            with contextlib.suppress(asyncio.CancelledError):  # whether it is kept decides what is charged
                await asyncio.wait({keeping})
        try:
            keeping.result()
        except GatewayError as error:
            return error
        return None

    async def _refund(self, admission: Admission) -> None:
        await self._proxy.ledger.refund(admission.reservation)
        self._call.context.headers |= admission.refunded_headers()

    async def _run(self, headers: Mapping[str, str], receive: Receive, send: Send) -> Ending:
        """Forwards and relays within the time limit. A client that goes away ends the time at once."""
        loop = asyncio.get_running_loop()

        def expire() -> None:
            if not deadline.expired():
                deadline.reschedule(loop.time())

        upload = Upload(receive, expire)
        try:
            async with asyncio.timeout(self._seconds) as deadline:
                try:
                    return await self._forward(headers, upload, send)
                finally:
                    upload.close()
        except TimeoutError:
            return self._out_of_time(upload)

    async def _forward(self, headers: Mapping[str, str], upload: Upload, send: Send) -> Ending:
        call = self._call
        try:
            body = await upload.start()
            backend = self._proxy.backends.of(call.service)
            await backend.gate.enter(call.identity.tenant)
            self._sent, entered = True, time.perf_counter()
            try:
                errand = Errand(backend, call.task, body, headers, upload, call.context)
                async with await self._proxy.delivery.send(errand) as delivered:
                    return await self._relay(delivered, send)
            finally:
                backend.gate.leave(time.perf_counter() - entered)
        except ClientGoneError:
            return Ending(None)  # before the end of its body: no engine can have begun
        except GatewayError as error:
            return Ending(Outcome.FAILED if isinstance(error, UpstreamFailedError) else None, error=error)

    async def _relay(self, delivered: Delivered, send: Send) -> Ending:
        """Passes an answer on as it comes, but for its end."""
        call, response = self._call, delivered.response
        if response.status >= 500 or 300 <= response.status < 400:
            await note_failure(response, call.service.name, call.context.request_id)
            raise UpstreamFailedError(f"The service {call.service.name} failed. The gateway's log has the request id.")
        outcome = Outcome.SUCCEEDED if response.status < 300 else Outcome.FAILED
        measured = self._measured(response.headers) if outcome is Outcome.SUCCEEDED else _NOTHING
        headers = response_headers(response.headers)
        start = {"type": "http.response.start", "status": response.status, "headers": headers}
        left, last = response.length, b""
        follower = Follower(measured, response.content_type)
        # A keeper is told of an answer's beginning before its end.
        if call.context.keeper is None and left is not None and left <= _SMALL_BYTES:
            body = await self._small(delivered)
            follower.follow(body)
            return Ending(outcome, follower.whole, last=(start, {"type": "http.response.body", "body": body}))
        self._follower = follower
        await send(start)
        try:
            async for chunk in response.pieces():
                left = None if left is None else left - len(chunk)
                if left == 0:
                    last = chunk
                else:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    follower.follow(chunk)
        except WireError as error:
            delivered.broke_off()
            _log.warning("The service %s broke off in its answer: %s", call.service.key, error)
            return Ending(Outcome.FAILED)
        return Ending(outcome, follower.whole, last=({"type": "http.response.body", "body": last},))

    async def _small(self, delivered: Delivered) -> bytes:
        """All of a small answer, of which nothing is sent before its end: that saves a write, an eighth of the time.

        Raises:
            UpstreamFailedError: the service broke off.
        """
        name = self._call.service.name
        try:
            return await delivered.response.read()
        except WireError as error:
            delivered.broke_off()
            _log.warning("The service %s broke off in its answer: %s", self._call.service.key, error)
            message = f"The service {name} broke off in its answer. The gateway's log has the request id."
            raise UpstreamFailedError(message) from error

    def _out_of_time(self, upload: Upload) -> Ending:
        if upload.gone:
            if not self._sent:
                return Ending(None)
            return Ending(Outcome.CANCELLED, self._follower.delivered if self._follower is not None else _NOTHING)
        if self._follower is not None:
            _log.warning("The service %s did not end its answer in time", self._call.service.key)
            return Ending(Outcome.FAILED)
        name, seconds = self._call.service.name, f"{self._seconds:g}"
        if not upload.complete:
            return Ending(None, error=RequestTimeoutError(f"The request's body did not arrive within {seconds} s."))
        if not self._sent:
            return Ending(
                None, error=UnavailableError(f"The service {name} had no room within {seconds} s: try again.")
            )
        return Ending(
            Outcome.FAILED, error=UpstreamTimeoutError(f"The service {name} did not answer within {seconds} s.")
        )

    @property
    def _seconds(self) -> float:
        """The longest time for this call."""
        return self._call.service.timeout_seconds or self._proxy.timeout_seconds

    def _measured(self, headers: Mapping[str, str]) -> Measured:
        try:
            return read_measured(headers)
        except ValueError as error:
            fields = {"request_id": self._call.context.request_id, "service": self._call.service.key}
            _log.error("A service measures nonsense; nothing is charged: %s", error, extra={FIELDS: fields})
            return _NOTHING

    def _record(self, reservation: Reservation, outcome: Outcome, measured: Measured, started: float) -> UsageRecord:
        return UsageRecord(
            id=reservation.request_id,
            tenant=reservation.tenant,
            user=reservation.user,
            service=reservation.task,
            model=reservation.model,
            tokens=measured.tokens,
            units=measured.units,
            unit=measured.unit,
            cost=cost(measured.units, self._proxy.prices[reservation.task]),
            duration_ms=round((time.perf_counter() - started) * 1000),
            status=outcome,
            created_at=reservation.created_at,
        )

"""The ledger: every request that an engine worked on becomes one row of `"AIUsage"`.

A record is safe before its answer ends: in a Redis stream, in one step with the day's counters and the tenant's limits,
or, without Redis, in a synced file on local disk. From there one task per place moves the records to the database in
batches, off the path of requests. The database takes a record only once however often it is written, so nothing needs
to be exactly once before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

from aiservice_api.tasks import Task
from aiservice_gateway.errors import RecordRefusedError, StoreUnavailableError
from aiservice_gateway.logs import FIELDS
from aiservice_gateway.metrics import Metrics
from aiservice_gateway.models import Totals, UsageRecord
from aiservice_gateway.plans import NOTHING_USED, Reservation, moment, used_amounts
from aiservice_gateway.selection import Dimension, Filter, Period, Want
from aiservice_gateway.services.backlog import Backlog
from aiservice_gateway.stores.base import UsageStore, WaitingRoom
from aiservice_gateway.stores.memory import MemoryCounters, MemoryLimiter
from aiservice_gateway.stores.redis import RedisStore
from aiservice_gateway.stores.spool import Spool

_log = logging.getLogger(__name__)

_BATCH_RECORDS = 500
_REST_SECONDS = 0.2
_FIRST_BACKOFF_SECONDS = 0.25
_LONGEST_BACKOFF_SECONDS = 5.0
_POLL_SECONDS = 0.02
_FLUSH_SECONDS = 1.0


class Ledger:
    """Keeps records safe, and moves them to the database."""

    def __init__(
        self,
        store: UsageStore,
        shared: RedisStore | None,
        spool: Spool,
        counters: MemoryCounters,
        metrics: Metrics,
        *,
        local: MemoryLimiter,
        backlog: Backlog,
    ) -> None:
        self._store = store
        self._shared = shared
        self._spool = spool
        self._counters = counters
        self._metrics = metrics
        self._local = local
        self._backlog = backlog
        self._stuck: set[str] = set()
        """Places of whose records the database did not take the last batch."""
        self._closing = False
        self._wakes: list[asyncio.Event] = []
        """One of each writer: set, it looks for records at once."""
        self._writers: list[asyncio.Task[None]] = []
        self._settling: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Starts to move records."""
        places: list[tuple[str, WaitingRoom]] = [("spool", self._spool)]
        if self._shared is not None:
            places.append(("redis", self._shared))
        self._wakes = [asyncio.Event() for _ in places]
        self._writers = [
            asyncio.create_task(self._write_from(name, room, wake), name=f"ledger-{name}")
            for (name, room), wake in zip(places, self._wakes, strict=True)
        ]

    @property
    def database_up(self) -> bool:
        """Whether the database takes the records that there are, as far as this gateway has tried."""
        return not self._stuck

    async def settle(self, reservation: Reservation, record: UsageRecord) -> None:
        """Ends a request that an engine worked on; returns when its record is safe, cancelled or not."""
        self._counters.add(record)
        self._local.end(reservation, used_amounts(record.units, record.cost))
        await self._surely(partial(self._settle, reservation, record))

    async def restore(self, record: UsageRecord) -> None:
        """Makes sure of the record of a request whose gateway may have died before it was safe; returns when it is."""
        try:
            await self._spool.add(record)
        except StoreUnavailableError as error:
            await self._last_resort(record, error)

    async def refund(self, reservation: Reservation) -> None:
        """Ends a request that no engine worked on: it takes nothing, and leaves no record."""
        self._local.end(reservation, NOTHING_USED)
        await self._surely(partial(self._refund, reservation))

    async def spent(self, tenant: str, task: Task | None, start: int, end: int) -> Decimal:
        """Dollars that a tenant spent on a task (None: on all), by the database.

        Args:
            tenant: Whose.
            task: On what.
            start: From when (inclusive), in microseconds since the epoch.
            end: Until when (exclusive).

        Raises:
            StoreUnavailableError: the database does not answer, or not all records have reached it.
        """
        complete = await self.flushed(_FLUSH_SECONDS)
        if not complete and (self._shared is None or self._shared.available):
            raise StoreUnavailableError("records still wait for the database")
        period = Period(moment(start), moment(end))
        found = await self._store.groups(Want(Filter(tenant, task), period, 1, dimensions=(Dimension.TENANT,)))
        return round(Decimal(sum(group.totals.cost for group in found)), 6)

    async def flushed(self, within_seconds: float) -> bool:
        """Waits until the database has what was settled before; False when it takes longer than that."""
        deadline, files = time.monotonic() + within_seconds, self._spool.files()
        try:
            newest = await self._shared.newest_waiting() if self._shared is not None else None
            while files & self._spool.files() or await self._waits_until(newest):
                if time.monotonic() >= deadline:
                    return False
                for wake in self._wakes:
                    wake.set()
                # Another gateway may be the one that writes: no event of this process tells.
                await asyncio.sleep(_POLL_SECONDS)
        except StoreUnavailableError:
            return False
        return True

    async def close(self, within_seconds: float) -> None:
        """Writes what waits, as far as the database takes it; what it does not take stays in Redis or on disk."""
        if self._settling:
            await asyncio.wait(self._settling, timeout=within_seconds)
        await self.flushed(within_seconds)
        # A library that swallows a cancellation must not keep a writer, and with it the gateway, from its end.
        self._closing = True
        for writer in self._writers:
            writer.cancel()
        await asyncio.gather(*self._writers, return_exceptions=True)
        if not self._spool.empty:
            await self._hand_over()
        self._spool.close()

    async def today(self, tenant: str, now: datetime) -> Mapping[Task, Totals]:
        """What a tenant used on this day (UTC); while Redis is away, as far as this process knows."""
        day = now.date().isoformat()
        if self._shared is not None:
            with contextlib.suppress(StoreUnavailableError):
                return await self._shared.counters(tenant, day)
        return self._counters.counters(tenant, day)

    async def waiting(self) -> Mapping[str, int]:
        """How many records wait for the database, by place; a place that does not answer is left out."""
        places = {"spool": await self._spool.waiting()}
        if self._shared is not None:
            with contextlib.suppress(StoreUnavailableError):
                places["redis"] = await self._shared.waiting()
        return places

    async def _waits_until(self, newest: str | None) -> bool:
        """Whether Redis still has records up to this one."""
        return self._shared is not None and newest is not None and await self._shared.waits_until(newest)

    async def _surely(self, ending: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs it to its end. If the caller is cancelled meanwhile, once more and beside it: twice does no harm.

        A task for each request, which nobody cancels, would do as well; it costs a twentieth of the processor time.
        """
        try:
            await ending()
        except asyncio.CancelledError:
            self._beside(ending())
            raise

    def _beside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs it in a task of its own, which nobody cancels and `close` waits for."""
        task = asyncio.create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task

    async def _settle(self, reservation: Reservation, record: UsageRecord) -> None:
        if self._shared is not None and self._shared.available:
            with contextlib.suppress(StoreUnavailableError):
                await self._shared.settle(reservation, record)
                return
        await asyncio.shield(self._beside(self._keep_here(reservation, record)))

    async def _keep_here(self, reservation: Reservation, record: UsageRecord) -> None:
        self._backlog.ended(reservation, record)
        await self.restore(record)

    async def _refund(self, reservation: Reservation) -> None:
        if self._shared is not None and self._shared.available:
            with contextlib.suppress(StoreUnavailableError):
                await self._shared.refund(reservation)
                return
        self._backlog.ended(reservation, None)

    async def _last_resort(self, record: UsageRecord, why: StoreUnavailableError) -> None:
        """Neither Redis nor the disk takes the record: the database itself may, and else the log keeps it."""
        try:
            await self._store.insert([record])
        except (StoreUnavailableError, RecordRefusedError) as error:
            self._lose(record, f"{why}; {error}")

    async def _write_from(self, place: str, room: WaitingRoom, wake: asyncio.Event) -> None:
        """Moves batches until the end; waits longer and longer while the database is away."""
        backoff = _FIRST_BACKOFF_SECONDS
        while not self._closing:
            wake.clear()
            try:
                full = await self._move_batch(room)
            except StoreUnavailableError as error:
                self._note(place, error)
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, _LONGEST_BACKOFF_SECONDS)
            except Exception:  # noqa: BLE001 - a writer that died would let records pile up unseen
                _log.exception("The ledger met something unexpected and tries again")
                await asyncio.sleep(_LONGEST_BACKOFF_SECONDS)
            else:
                self._note(place, None)
                backoff = _FIRST_BACKOFF_SECONDS
                if not full:  # records come together until somebody waits for them: few large batches cost the least
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_REST_SECONDS):
                            await wake.wait()

    async def _move_batch(self, room: WaitingRoom) -> bool:
        """Moves the oldest records of a place; False when there were fewer than a batch may have.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        try:
            batch = await room.take(_BATCH_RECORDS)
        except StoreUnavailableError:
            return False  # the place itself is away, and with it what waits there
        if not batch.receipts:
            return False
        await self._insert(batch.records)
        with contextlib.suppress(StoreUnavailableError):
            await room.done(batch.receipts)  # what is not forgotten is written again, which changes nothing
        return max(len(batch.receipts), len(batch.records)) >= _BATCH_RECORDS  # a receipt may be of many records

    async def _insert(self, records: Sequence[UsageRecord]) -> None:
        """Writes records; finds the one among them that the database refuses by halving."""
        if not records:
            return
        try:
            await self._store.insert(records)
        except RecordRefusedError as error:
            if len(records) == 1:
                self._lose(records[0], str(error))
                return
            middle = len(records) // 2
            await self._insert(records[:middle])
            await self._insert(records[middle:])
        else:
            self._metrics.usage_written.inc(len(records))

    async def _hand_over(self) -> None:
        """At the end, gives Redis what the database did not take: this machine's disk may go with the gateway."""
        try:
            while self._shared is not None and not self._spool.empty:
                batch = await self._spool.take(_BATCH_RECORDS)
                await self._shared.enqueue(batch.records)
                await self._spool.done(batch.receipts)
        except StoreUnavailableError as error:
            _log.warning("Usage records could not be handed to Redis: %s", error)
        if not self._spool.empty:
            _log.warning(
                "Usage records wait on disk in %s: a gateway that starts with the same GATEWAY_SPOOL_DIR writes them",
                self._spool.folder,
            )

    def _lose(self, record: UsageRecord, why: str) -> None:
        self._metrics.usage_lost.inc()
        _log.error("A usage record is kept nowhere but here: %s", why, extra={FIELDS: {"record": str(record)}})

    def _note(self, place: str, error: StoreUnavailableError | None) -> None:
        """A place that is empty, or whose records another gateway writes, gives no reason to complain any more."""
        before = self.database_up
        if error is None:
            self._stuck.discard(place)
        else:
            self._stuck.add(place)
        if before and error is not None:
            _log.warning("The database does not take usage records; they wait: %s", error)
        elif not before and self.database_up:
            _log.warning("The database takes usage records again")

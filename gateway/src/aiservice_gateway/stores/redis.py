"""Redis: the shared limits, the open entries of the ledger, today's counters, and the stream of records that wait."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib import resources
from typing import Any, Final

import orjson

from aiservice_api.tasks import Task
from aiservice_gateway.errors import StoreUnavailableError
from aiservice_gateway.models import Outcome, Totals, UsageRecord
from aiservice_gateway.plans import (
    MICROSECONDS,
    NOTHING_USED,
    Code,
    Hold,
    Plan,
    Reservation,
    Verdict,
    used_amounts,
)
from aiservice_gateway.stores.base import Batch
from aiservice_gateway.stores.link import Link, ReplyError, Word, open_link, parse_address

_log = logging.getLogger(__name__)

_PREFIX: Final = "aiservice"
_WAITING: Final = f"{_PREFIX}:usage:waiting"
_WRITER: Final = f"{_PREFIX}:usage:writer"
_LEASES: Final = f"{_PREFIX}:leases"
_COUNTERS_KEPT_SECONDS: Final = 40 * 86400
_SWEPT_KEPT_SECONDS: Final = 86400
_WRITER_LEASE_MILLISECONDS: Final = 5000
_REVIVE_SECONDS: Final = 0.5
_FORGOTTEN_AT_ONCE: Final = 1000

_SCRIPTS: Final = ("admit", "settle", "peek", "renew", "bury", "take")


@dataclass(frozen=True, slots=True)
class _Script:
    source: str
    digest: str


def _read_scripts() -> dict[str, _Script]:
    folder = resources.files(__package__).joinpath("lua")
    sources = {name: folder.joinpath(f"{name}.lua").read_text() for name in _SCRIPTS}
    return {
        name: _Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())
        for name, source in sources.items()
    }


class RedisStore:
    """One Redis server, over two connections: one for requests, one for all that would hold them up.

    While it is away every call fails at once, and an attempt now and then finds it again.
    """

    def __init__(self, url: str, worker: str, lease_seconds: float = 15.0) -> None:
        """Connects to nothing yet.

        Args:
            url: As redis://[[user]:password@]host:port[/database], rediss:// for TLS, or unix://.
            worker: Name of this gateway process among all that use the server.
            lease_seconds: After which others may take this process for dead, unless it renews its lease.

        Raises:
            SettingsError: the URL is none.
        """
        self._address = parse_address(url)
        self._scripts = _read_scripts()
        self._worker = worker
        self._entries = _entries_key(worker)
        self._lease = int(lease_seconds * MICROSECONDS)
        self._lease_seconds = lease_seconds
        self._renewed = 0.0
        self._requests: Link | None = None
        self._others: Link | None = None
        self._available = False
        self._available_since = 0.0
        self._closed = False
        self._reviving: asyncio.Task[None] | None = None
        self._ended: list[str] = []
        self.on_return: Callable[[], Awaitable[None]] | None = None
        """Called when the server can be used again, before `available` says so. It raises StoreUnavailableError when
        the server is gone already."""

    @property
    def available(self) -> bool:
        """Whether limits and the ledger may rely on it."""
        return self._available

    @property
    def settled_in(self) -> bool:
        """Whether it has answered for as long as a lease: every worker that lives has renewed its own."""
        return self._available and time.monotonic() - self._available_since >= self._lease_seconds

    async def connect(self) -> bool:
        """Tries to connect; False when the server is away, which is then tried again until it is not."""
        try:
            await self._open()
        except StoreUnavailableError as error:
            self._mark_away(str(error))
        return self._available

    async def admit(self, plan: Plan, reservation: Reservation, bases: Sequence[str]) -> Verdict:
        """Asks whether a request may pass, and if so holds what it takes and opens its entry.

        Args:
            plan: The limits.
            reservation: The request.
            bases: For each limit nothing, or what is known of a month's spend: "VERSION AMOUNT" to keep that,
                "? AMOUNT" to assume it this once.

        Raises:
            StoreUnavailableError: Redis does not answer. It may have admitted the request all the same.
        """
        due = time.monotonic() - self._renewed > self._lease_seconds / 2
        answer: list[int] = await self._admit(plan, reservation, bases, "ask", self._lease if due else 0)
        if due and answer[0] == Code.ADMITTED:
            self._renewed = time.monotonic()
        return Verdict(Code(answer[0]), answer[1], answer[2], answer[3], answer[4], answer[5:])

    async def tell(self, plan: Plan, reservation: Reservation, age: int) -> None:
        """Tells of a request that was admitted without Redis, so that it counts. Telling it twice does no harm.

        Args:
            plan: The limits that it was admitted under.
            reservation: The request. Gets the time at which Redis counts it.
            age: Microseconds since it was admitted.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        answer = await self._admit(plan, reservation, [""] * len(plan.holds), age, 0)
        reservation.admitted = answer[1]

    async def settle(self, reservation: Reservation, record: UsageRecord) -> None:
        """Ends a request that an engine worked on: what it held is replaced by what it used, and its record is safe.

        Raises:
            StoreUnavailableError: Redis does not answer. It may have done it all the same; doing it again is harmless.
        """
        await self._end(self._worker, reservation, "settle", record)
        self._ended.append(reservation.request_id)

    async def refund(self, reservation: Reservation) -> None:
        """Ends a request that no engine worked on: it takes nothing.

        Raises:
            StoreUnavailableError: as `settle`.
        """
        await self._end(self._worker, reservation, "refund", None)
        self._ended.append(reservation.request_id)

    async def standings(self, holds: Sequence[Hold]) -> tuple[int, Sequence[int]]:
        """Redis' time, and for each limit the amount in use (-1: not known) and the time until some of it is free.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        words: list[Word] = [hold.key for hold in holds]
        for hold in holds:
            words += (hold.measure, hold.window)
        answer: list[int] = await self._run(self._others, "peek", len(holds), words)
        return answer[0], answer[1:]

    async def renew(self) -> Sequence[str]:
        """Renews this worker's lease, and forgets its requests that have ended; the names of dead workers.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        begun = time.monotonic()
        dead: list[bytes] = await self._run(
            self._requests, "renew", 2, [_LEASES, self._entries, self._worker, self._lease]
        )
        self._renewed = begun
        ended, self._ended = self._ended, []
        for first in range(0, len(ended), _FORGOTTEN_AT_ONCE):
            await self._call("HDEL", self._entries, *ended[first : first + _FORGOTTEN_AT_ONCE])
        return [name.decode() for name in dead]

    async def sweep(self, worker: str) -> int:
        """Closes what a dead worker left open, as interrupted; how many requests that were.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        left: list[bytes] = await self._call("HGETALL", _entries_key(worker))
        swept = 0
        for name, entry in zip(left[::2], left[1::2], strict=True):
            if b" " in entry:  # else it is closed
                try:
                    reservation = _read_entry(name.decode(), entry)
                except (ValueError, KeyError, TypeError):
                    _log.exception("An entry of the dead worker %s cannot be read and stays open: %s", worker, entry)
                    continue
                swept += await self._end(worker, reservation, "sweep", _interrupted(reservation))
        await self._run(self._others, "bury", 2, [_LEASES, _entries_key(worker), worker, _SWEPT_KEPT_SECONDS])
        return swept

    async def enqueue(self, records: Sequence[UsageRecord]) -> None:
        """Adds records to those that wait for the database, and to no counter.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        await asyncio.gather(*(self._call("XADD", _WAITING, "*", "record", one.to_wire()) for one in records))

    async def counters(self, tenant: str, day: str) -> Mapping[Task, Totals]:
        """What a tenant used on one day (YYYY-MM-DD, UTC), by service.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        answer: list[bytes] = await self._call("HGETALL", _counters_key(tenant, day))
        fields = {name.decode(): value.decode() for name, value in zip(answer[::2], answer[1::2], strict=True)}
        return {
            task: Totals(
                count=int(fields[f"{task}:count"]),
                tokens=int(fields[f"{task}:tokens"]),
                units=float(fields[f"{task}:units"]),
                unit=None,
                cost=float(fields[f"{task}:cost"]),
            )
            for task in Task
            if f"{task}:count" in fields
        }

    async def take(self, limit: int) -> Batch:
        """Hands out the oldest waiting records; nothing while another gateway writes them."""
        entries: list[tuple[bytes, list[bytes]]] = await self._run(
            self._others, "take", 2, [_WAITING, _WRITER, self._worker, _WRITER_LEASE_MILLISECONDS, limit]
        )
        records = []
        for _, (_, wire) in entries:
            try:
                records.append(UsageRecord.from_wire(wire))
            except ValueError as error:
                _log.error("A waiting usage record cannot be read and is dropped: %s", error)
        return Batch(records, [entry_id.decode() for entry_id, _ in entries])

    async def done(self, receipts: Sequence[str]) -> None:
        """Forgets records that the database has."""
        await self._call("XDEL", _WAITING, *receipts)

    async def waiting(self) -> int:
        """How many records wait for the database.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        length: int = await self._call("XLEN", _WAITING)
        return length

    async def newest_waiting(self) -> str | None:
        """Name of the newest waiting record.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        entries: list[tuple[bytes, Any]] = await self._call("XREVRANGE", _WAITING, "+", "-", "COUNT", 1)
        return entries[0][0].decode() if entries else None

    async def waits_until(self, receipt: str) -> bool:
        """Whether a record up to this one still waits.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        return bool(await self._call("XRANGE", _WAITING, "-", receipt, "COUNT", 1))

    async def close(self) -> None:
        """Closes the connections, lets another gateway write at once, and close what is still open here."""
        self._closed = True
        if self._reviving is not None:
            self._reviving.cancel()
        try:
            if self._available:
                await self.renew()
                if await self._call("EXISTS", self._entries):
                    await self._run(self._others, "renew", 2, [_LEASES, self._entries, self._worker, 0])
                else:
                    await self._call("ZREM", _LEASES, self._worker)
                if await self._call("GET", _WRITER) == self._worker.encode():
                    await self._call("DEL", _WRITER)
        except StoreUnavailableError:
            pass  # the leases end by themselves
        self._available = False
        self._drop_links("closed")

    async def _admit(
        self, plan: Plan, reservation: Reservation, bases: Sequence[str], how: str | int, lease: int
    ) -> list[int]:
        words: list[Word] = [self._entries, _LEASES]
        words += [hold.key for hold in plan.holds]
        words += (
            reservation.request_id,
            _entry(reservation),
            self._worker,
            lease,
            how,
            plan.month.start,
            plan.month.end,
        )
        for hold, maximum, base in zip(plan.holds, plan.maxima, bases, strict=True):
            words += (hold.measure, maximum, hold.window, hold.amount, base)
        answer: list[int] = await self._run(self._requests, "admit", 2 + len(plan.holds), words)
        return answer

    async def _end(self, worker: str, reservation: Reservation, how: str, record: UsageRecord | None) -> int:
        holds = reservation.holds
        day = reservation.created_at.date().isoformat()
        words: list[Word] = [_entries_key(worker), _LEASES, _counters_key(reservation.tenant, day), _WAITING]
        words += [hold.key for hold in holds]
        words += (reservation.request_id, how, worker, reservation.admitted, reservation.task.value)
        used = NOTHING_USED
        if record is None:
            words += (0, 0, 0, 0, b"")
        else:
            used = used_amounts(record.units, record.cost)
            words += (record.tokens, str(record.units), str(record.cost), _COUNTERS_KEPT_SECONDS, record.to_wire())
        for measure, _, window, amount in holds:
            words += (measure, window, amount, used[measure])
        answer: int = await self._run(self._requests, "settle", 4 + len(holds), words)
        return answer

    async def _run(self, link: Link | None, name: str, keys: int, words: Sequence[Word]) -> Any:
        """Runs a script by its digest; a server that has forgotten it, and so did nothing, is handed it anew."""
        if link is None:
            raise StoreUnavailableError("Redis is away")
        script = self._scripts[name]
        try:
            return await link.send("EVALSHA", script.digest, keys, *words)
        except ReplyError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise self._refused(error) from error
        try:
            return await link.send("EVAL", script.source, keys, *words)
        except ReplyError as error:
            raise self._refused(error) from error

    async def _call(self, *words: Word) -> Any:
        if self._others is None:
            raise StoreUnavailableError("Redis is away")
        try:
            return await self._others.send(*words)
        except ReplyError as error:
            raise self._refused(error) from error

    def _refused(self, error: ReplyError) -> StoreUnavailableError:
        """A server that cannot do its work (full, loading, a replica) is as good as away."""
        self._mark_away(str(error))
        return StoreUnavailableError(f"Redis: {error}")

    async def _open(self) -> None:
        """Connects, and tells the server what it has missed.

        Raises:
            StoreUnavailableError: it is away.
        """
        self._requests = requests = await open_link(self._address, self._mark_away)
        self._others = await open_link(self._address, self._mark_away)
        try:
            for script in self._scripts.values():
                await requests.send("SCRIPT", "LOAD", script.source)
        except ReplyError as error:
            raise StoreUnavailableError(f"Redis: {error}") from error
        await self.renew()
        if self.on_return is not None:
            await self.on_return()
        if self._requests is not requests:
            raise StoreUnavailableError("Redis is away again")
        # Nothing was awaited since on_return had told all: what is admitted from now on, the server admits.
        self._available, self._available_since = True, time.monotonic()

    def _mark_away(self, reason: str) -> None:
        self._drop_links(reason)
        if self._closed:
            return
        if self._available or self._reviving is None:
            _log.warning("Redis does not answer: limits are counted in this process until it does: %s", reason)
        self._available = False
        if self._reviving is None or self._reviving.done():
            self._reviving = asyncio.create_task(self._revive(), name="redis-revive")

    def _drop_links(self, reason: str) -> None:
        for link in (self._requests, self._others):
            if link is not None:
                link.close(reason)
        self._requests = self._others = None

    async def _revive(self) -> None:
        while not self._closed:
            await asyncio.sleep(_REVIVE_SECONDS)
            try:
                await self._open()
            except StoreUnavailableError as error:
                self._drop_links(str(error))
            else:
                _log.warning("Redis answers again: limits are shared again")
                return


def _entry(reservation: Reservation) -> bytes:
    """What a sweeper needs to end a request. `admit.lua` puts the time before it."""
    return orjson.dumps(
        [
            reservation.tenant,
            reservation.user,
            reservation.task.value,
            reservation.model,
            [tuple(hold) for hold in reservation.holds],
        ]
    )


def _read_entry(request_id: str, entry: bytes) -> Reservation:
    """Reads what `_entry` wrote.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    admitted, _, document = entry.partition(b" ")
    tenant, user, task, model, holds = orjson.loads(document)
    return Reservation(request_id, tenant, user, Task(task), model, tuple(Hold(*hold) for hold in holds), int(admitted))


def _interrupted(reservation: Reservation) -> UsageRecord:
    """The record of a request whose gateway died: nobody knows what the engine had done, and no answer has ended."""
    return UsageRecord(
        id=reservation.request_id,
        tenant=reservation.tenant,
        user=reservation.user,
        service=reservation.task,
        model=reservation.model,
        tokens=0,
        units=Decimal(0),
        unit=None,
        cost=Decimal(0),
        duration_ms=0,
        status=Outcome.INTERRUPTED,
        created_at=reservation.created_at,
    )


def _entries_key(worker: str) -> str:
    return f"{_PREFIX}:open:{worker}"


def _counters_key(tenant: str, day: str) -> str:
    return f"{_PREFIX}:usage:{day}:{tenant}"

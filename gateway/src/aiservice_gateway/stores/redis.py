"""Redis: the shared limits, today's counters, and the stream in which usage records wait for the database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, Protocol, TypeVar, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from aiservice_api.tasks import Task
from aiservice_gateway.errors import StoreUnavailableError
from aiservice_gateway.models import Admission, Quota, Totals, UsageRecord
from aiservice_gateway.stores.base import Batch

_log = logging.getLogger(__name__)

_PREFIX: Final = "aiservice"
_WAITING: Final = f"{_PREFIX}:usage:waiting"
_WRITER: Final = f"{_PREFIX}:usage:writer"
_MICROSECONDS: Final = 1_000_000
_COUNTERS_KEPT_SECONDS: Final = 40 * 86400
_LEASE_MILLISECONDS: Final = 5000
_TIMEOUT_SECONDS: Final = 1.0
_CONNECTIONS: Final = 32
_REVIVE_SECONDS: Final = 0.5

T = TypeVar("T")


class _Script(Protocol):
    """A Lua script that redis-py loads on first use and again after a restart of the server."""

    async def __call__(self, keys: Sequence[str], args: Sequence[str | int | bytes]) -> Any:
        """Runs it."""


@dataclass(frozen=True, slots=True)
class _Scripts:
    admit: _Script
    peek: _Script
    settle: _Script
    take: _Script


class RedisStore:
    """One Redis server. While it is away every call fails at once, and a ping now and then finds it again."""

    def __init__(self, url: str, instance: str) -> None:
        """Connects to nothing yet.

        Args:
            url: As redis://[:password@]host:port[/database], or rediss:// for TLS.
            instance: Name of this gateway process among all that use the server.
        """
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=_TIMEOUT_SECONDS,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            health_check_interval=0,
        )
        self._client: Redis = Redis.from_pool(pool)
        self._scripts = _Scripts(*(self._load(name) for name in _Scripts.__slots__))
        self._instance = instance
        self._away = False
        self._closed = False
        self._reviving: asyncio.Task[None] | None = None

    def _load(self, name: str) -> _Script:
        source = resources.files(__package__).joinpath("lua", f"{name}.lua").read_text()
        return cast(_Script, self._client.register_script(source))

    @property
    def available(self) -> bool:
        """Whether the last thing heard of the server was good."""
        return not self._away

    async def admit(self, tenant: str, task: Task, request_id: str, limit: int, window_seconds: float) -> Admission:
        """Counts a request, unless the window is full.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        window = int(window_seconds * _MICROSECONDS)
        allowed, count, left = await self._try(
            lambda: self._scripts.admit([_window_key(tenant, task)], [limit, window, request_id])
        )
        return Admission(bool(allowed), Quota(limit, max(0, limit - count), left / _MICROSECONDS))

    async def refund(self, tenant: str, task: Task, request_id: str) -> None:
        """Uncounts a request that no engine saw.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        await self._try(lambda: self._client.zrem(_window_key(tenant, task), request_id))

    async def quotas(self, tenant: str, limit: int, window_seconds: float) -> Mapping[Task, Quota]:
        """Where a tenant stands with every task.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        tasks = list(Task)
        window = int(window_seconds * _MICROSECONDS)
        answer: list[int] = await self._try(
            lambda: self._scripts.peek([_window_key(tenant, task) for task in tasks], [window])
        )
        pairs = zip(tasks, answer[::2], answer[1::2], strict=True)
        return {task: Quota(limit, max(0, limit - count), left / _MICROSECONDS) for task, count, left in pairs}

    async def settle(self, record: UsageRecord) -> None:
        """Adds a record to its day's counters and to the records that wait for the database.

        Raises:
            StoreUnavailableError: Redis does not answer. It may have done it all the same.
        """
        await self._try(
            lambda: self._scripts.settle(
                [_counters_key(record.tenant, record.created_at.date().isoformat()), _WAITING],
                [
                    record.service.value,
                    record.tokens,
                    str(record.units),
                    str(record.cost),
                    _COUNTERS_KEPT_SECONDS,
                    record.to_wire(),
                ],
            )
        )

    async def enqueue(self, records: Sequence[UsageRecord]) -> None:
        """Adds records to those that wait for the database, and to no counter.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        pipeline = self._client.pipeline(transaction=True)
        for record in records:
            pipeline.xadd(_WAITING, {"record": record.to_wire()})
        await self._try(pipeline.execute)

    async def counters(self, tenant: str, day: str) -> Mapping[Task, Totals]:
        """What a tenant used on one day (YYYY-MM-DD, UTC), by service.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        key = _counters_key(tenant, day)
        answer = await self._try(lambda: cast(Awaitable[dict[bytes, bytes]], self._client.hgetall(key)))
        fields = {name.decode(): value.decode() for name, value in answer.items()}
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
        entries: list[tuple[bytes, list[bytes]]] = await self._try(
            lambda: self._scripts.take([_WAITING, _WRITER], [self._instance, _LEASE_MILLISECONDS, limit])
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
        await self._try(lambda: self._client.xdel(_WAITING, *receipts))

    async def waiting(self) -> int:
        """How many records wait for the database.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        return await self._try(lambda: self._client.xlen(_WAITING))

    async def newest_waiting(self) -> str | None:
        """Name of the newest waiting record.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        entries = await self._try(lambda: self._client.xrevrange(_WAITING, count=1))
        return entries[0][0].decode() if entries else None

    async def waits_until(self, receipt: str) -> bool:
        """Whether a record up to this one still waits.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        entries = await self._try(lambda: self._client.xrange(_WAITING, max=receipt, count=1))
        return bool(entries)

    async def ping(self) -> bool:
        """Whether the server answers now."""
        try:
            await self._try(self._ping)
        except StoreUnavailableError:
            return False
        return True

    async def close(self) -> None:
        """Closes the connections, and lets another gateway write at once."""
        self._closed = True
        if self._reviving is not None:
            self._reviving.cancel()
        if self.available:
            try:
                if await cast(Awaitable[bytes | None], self._client.get(_WRITER)) == self._instance.encode():
                    await cast(Awaitable[int], self._client.delete(_WRITER))
            except (RedisError, OSError):
                pass  # the lease ends by itself within seconds
        await self._client.aclose()

    async def _ping(self) -> None:
        await cast(Awaitable[bool], self._client.ping())

    async def _try(self, call: Callable[[], Awaitable[T]]) -> T:
        """Makes a call; a failure makes the server count as away until a ping succeeds."""
        if self._away:
            raise StoreUnavailableError("Redis is away")
        try:
            return await call()
        except (RedisError, OSError, TimeoutError) as error:
            self._mark_away(error)
            raise StoreUnavailableError(f"Redis: {error}") from error

    def _mark_away(self, error: Exception) -> None:
        if not self._away:
            _log.warning("Redis does not answer: limits are counted in this process until it does: %s", error)
            self._away = True
            self._reviving = asyncio.create_task(self._revive(), name="redis-revive")

    async def _revive(self) -> None:
        while self._away and not self._closed:
            await asyncio.sleep(_REVIVE_SECONDS)
            try:
                await self._ping()
            except (RedisError, OSError, TimeoutError):
                continue
            self._away = False
            _log.warning("Redis answers again: limits are shared again")


def _window_key(tenant: str, task: Task) -> str:
    return f"{_PREFIX}:limit:{task}:{tenant}"


def _counters_key(tenant: str, day: str) -> str:
    return f"{_PREFIX}:usage:{day}:{tenant}"

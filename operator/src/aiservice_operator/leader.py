"""Leader election on a Lease, by the official client, with its gaps closed.

The client's election watches only its renewal, so this ends it when the work ends, and the other way round. Its lock
cannot create the Lease (`pretty=True` fails its own validation), dies of an unreachable API server, and waits five
minutes for an answer: `_Lock` does without. And a process that was frozen wakes up believing that it leads: so before
every write `held` compares the time of the last renewal with a clock that goes on while the process does not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, V1Lease, V1ObjectMeta
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection as Election
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from aiservice_operator.errors import OperatorError
from aiservice_operator.settings import Identity, LeaderElection

log = logging.getLogger(__name__)

_FINISH_SECONDS = 5.0
"""How long work under way may take to end when the process is told to stop."""

Work = Callable[[], Coroutine[Any, Any, None]]


class LostLeadershipError(OperatorError):
    """The Lease could not be renewed in time: another replica may act now."""


class _Lock(LeaseLock):
    """The Lease.

    Args:
        timeout: Seconds for one request.
        renewed: Told, after each success, when the request had begun.
        clock: Seconds that go on while the process is frozen.
    """

    def __init__(
        self,
        name: str,
        identity: Identity,
        client: ApiClient,
        *,
        timeout: float,
        renewed: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        super().__init__(name, identity.namespace, identity.name, client)
        self._timeout = timeout
        self._renewed = renewed
        self._clock = clock

    async def get(
        self, name: str, namespace: str
    ) -> tuple[bool, LeaderElectionRecord] | tuple[bool, Exception] | tuple[bool, None]:
        try:
            async with asyncio.timeout(self._timeout):
                return await super().get(name, namespace)
        except (aiohttp.ClientError, OSError) as error:
            return False, ApiException(status=0, reason=repr(error))

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        lease = V1Lease(metadata=V1ObjectMeta(name=name), spec=self.update_lease(election_record))
        return await self._try(self.api_instance.create_namespaced_lease(namespace, lease))

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        lease = self.lease_reference
        if lease is None:
            return False
        lease.spec = self.update_lease(updated_record, lease.spec)
        return await self._try(self.api_instance.replace_namespaced_lease(name, namespace, lease))

    async def release(self) -> None:
        """Gives the Lease back, so that another replica need not wait for it to run out."""
        found, record = await self.get(self.name, self.namespace)
        if not found or not isinstance(record, LeaderElectionRecord) or self.lease_reference is None:
            return
        spec = self.lease_reference.spec
        if spec is None or record.holder_identity != self.identity:
            return
        spec.holder_identity, spec.lease_duration_seconds = "", 1
        await self._try(self.api_instance.replace_namespaced_lease(self.name, self.namespace, self.lease_reference))

    async def _try(self, request: Coroutine[Any, Any, V1Lease]) -> bool:
        begun = self._clock()
        try:
            async with asyncio.timeout(self._timeout):
                await request
        except (ApiException, aiohttp.ClientError, OSError) as error:
            log.warning("the Lease %s was not written: %s", self.name, _brief(error))
            return False
        self._renewed(begun)
        return True


class Leadership:
    """Runs work while this process holds the Lease.

    Args:
        client: The official client.
        identity: Who this replica is.
        settings: The Lease's name and times.
        clock: Seconds that go on while the process is frozen.
    """

    def __init__(
        self,
        client: ApiClient,
        identity: Identity,
        settings: LeaderElection,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._held_until = 0.0
        timeout = min(settings.retry_seconds * 2, settings.renew_seconds)
        self._lock = _Lock(settings.name, identity, client, timeout=timeout, renewed=self._note, clock=clock)
        self._running: asyncio.Task[None] | None = None

    def _note(self, begun: float) -> None:
        self._held_until = begun + self._settings.lease_seconds

    def held(self) -> bool:
        """Whether this process may act now."""
        return self._clock() < self._held_until

    async def run(self, work: Work, stop: asyncio.Event) -> None:
        """Waits for the Lease, runs the work, and gives the Lease back when told to stop.

        Args:
            work: What only one replica may do. It ends by itself soon after `stop` is set.
            stop: Set when the process is told to end.

        Raises:
            LostLeadershipError: the Lease was lost. Nothing may go on.
        """
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def begin() -> None:
            log.info("leading")
            self._running = asyncio.create_task(work(), name="work")
            self._running.add_done_callback(lambda task: _hand_on(task, ended))

        async def nothing() -> None: ...

        config = Config(
            self._lock,
            lease_duration=self._settings.lease_seconds,
            renew_deadline=self._settings.renew_seconds,
            retry_period=self._settings.retry_seconds,
            onstarted_leading=begin,
            onstopped_leading=nothing,
        )
        election = asyncio.create_task(Election(config).run(), name="election")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        deciding: set[asyncio.Future[Any]] = {election, stopping, ended}
        try:
            await asyncio.wait(deciding, return_when=asyncio.FIRST_COMPLETED)
            if election.done():
                election.result()
                raise LostLeadershipError("the Lease was lost: exiting, so that two replicas never act")
            await self._finish(ended)
        finally:
            await _cancel(election, stopping, self._running)
        if self.held():
            self._held_until = 0.0
            await self._lock.release()

    async def _finish(self, ended: asyncio.Future[None]) -> None:
        """Lets work under way end; raises what it failed of."""
        if self._running is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_FINISH_SECONDS):
                await ended


def _hand_on(task: asyncio.Task[None], ended: asyncio.Future[None]) -> None:
    if ended.done():
        return
    if not task.cancelled() and (error := task.exception()) is not None:
        ended.set_exception(error)
    else:
        ended.set_result(None)


async def _cancel(*tasks: asyncio.Task[Any] | None) -> None:
    for task in tasks:
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


def _brief(error: Exception) -> str:
    return f"{error.status} {error.reason}" if isinstance(error, ApiException) else repr(error)

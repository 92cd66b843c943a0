"""Where jobs are handed in, looked at, cancelled and fetched."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from starlette.datastructures import Headers
from starlette.types import Receive

from aiservice_api.tasks import Task
from aiservice_gateway.errors import (
    BadRequestError,
    ConflictError,
    ForbiddenError,
    GoneError,
    NotFoundError,
    ParameterError,
    RateLimitedError,
    StoreUnavailableError,
    UnavailableError,
)
from aiservice_gateway.ids import ID_PATTERN
from aiservice_gateway.models import Identity, Service
from aiservice_gateway.services.jobs.orders import Intake, Order
from aiservice_gateway.services.jobs.webhooks import Webhooks
from aiservice_gateway.services.openai.held import Room
from aiservice_gateway.stores.jobs import Job, Jobs, NewJob, State
from aiservice_gateway.stores.pieces import Pieces, drop, read

T = TypeVar("T")

_FULL_RETRY_SECONDS = 10


class TooManyJobsError(RateLimitedError):
    """The tenant has as many jobs as it may have that are not over."""

    def __init__(self, most: int) -> None:
        super().__init__(_FULL_RETRY_SECONDS)
        self.message = f"{most} jobs of the tenant are not over, which is the most: wait for some of them."


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an order may ask for."""

    input_bytes: int
    deadline_seconds: float
    """The longest, and the one of orders that ask for none."""
    arrival_seconds: float
    """How long an order may take to arrive."""


class JobDesk:
    """Takes orders and answers questions."""

    def __init__(self, jobs: Jobs, webhooks: Webhooks, room: Room, bounds: Bounds) -> None:
        """Wires it up.

        Args:
            jobs: The queue.
            webhooks: Say whether one can be ordered.
            room: For orders that must be held to be read.
            bounds: What they may ask for.
        """
        self.jobs = jobs
        self.webhooks = webhooks
        self._room = room
        self._bounds = bounds
        self.on_submit: Callable[[], None] = lambda: None
        """Called when a job was queued here."""
        self.on_cancel: Callable[[str], None] = lambda _: None
        """Called with the attempt of a job that is to be cancelled."""
        self.on_drain: Callable[[], None] = lambda: None
        """Called when the gateway begins to stop."""

    async def submit(
        self,
        name: str,
        first_name: str | None,
        caller: Identity,
        headers: Headers,
        receive: Receive,
        *,
        trace: str | None,
        resolve: Callable[[Task, str | None, Identity], Service],
    ) -> Job:
        """Queues a job.

        Args:
            name: Its id, unless:
            first_name: Its id where this may have been asked before. A job that is there already is not queued again.
            caller: Whose it is.
            headers: The request's.
            receive: The request's channel.
            trace: The request's place in its trace.
            resolve: The service of a call; one that is not ready yet will do.

        Raises:
            ClientGoneError: the client went away.
            GatewayError: the order is refused.
        """
        if first_name is not None:
            name = first_name
            if (known := await _asked(self.jobs.get(name))) is not None:
                return known
            await _asked(self.jobs.database.run(drop(name)))
        seconds = self._bounds.deadline_seconds
        pieces = Pieces(self.jobs.database, name, seconds + self.jobs.terms.kept_seconds)
        intake = Intake(headers, receive, pieces, self._room, self._bounds.input_bytes)
        try:
            order = await intake.read(self._bounds.arrival_seconds)
            self._check(order)
            with contextlib.suppress(UnavailableError):
                resolve(order.task, order.service, caller)
            job = NewJob(
                id=name,
                tenant=caller.tenant,
                user=caller.user,
                task=order.task,
                service=order.service,
                webhook=None if order.webhook is None else order.webhook.url,
                content_type=intake.content_type,
                input_bytes=pieces.size,
                deadline_seconds=order.deadline_seconds or seconds,
                trace=trace,
            )
            if not await self.jobs.add(job, pieces.rest()):
                raise TooManyJobsError(self.jobs.terms.most_open)
        except StoreUnavailableError as error:
            raise _away() from error
        except BaseException:
            with contextlib.suppress(StoreUnavailableError):
                await pieces.drop()
            raise
        self.on_submit()
        return await self.get(name, caller)

    async def get(self, name: str, caller: Identity) -> Job:
        """A job of the caller's tenant, or for administrators of any.

        Raises:
            NotFoundError: there is none that the caller may see.
            UnavailableError: the database does not answer.
        """
        job = await _asked(self.jobs.get(name)) if re.fullmatch(ID_PATTERN, name) else None
        if job is None or (job.tenant != caller.tenant and not caller.admin):
            raise NotFoundError("There is no such job: it never was, or its time is over.")
        return job

    async def position(self, job: Job) -> int | None:
        """How many jobs of its tenant are queued before one that is queued.

        Raises:
            UnavailableError: the database does not answer.
        """
        return await _asked(self.jobs.ahead(job)) if job.state is State.QUEUED else None

    async def list(
        self, caller: Identity, tenant: str | None, after: str | None, state: State | None, limit: int
    ) -> Sequence[Job]:
        """The newest jobs of the caller's tenant; administrators may ask for another's, or with `*` for all.

        Raises:
            ForbiddenError: another tenant's, and the caller is no administrator.
            UnavailableError: the database does not answer.
        """
        if tenant is not None and tenant != caller.tenant and not caller.admin:
            raise ForbiddenError("Another tenant's jobs are for administrators.")
        wanted = None if tenant == "*" else tenant or caller.tenant
        return await _asked(self.jobs.list(wanted, after, state, limit))

    async def cancel(self, name: str, caller: Identity) -> Job:
        """Cancels a job; one that is over stays as it is.

        Raises:
            GatewayError: as `get`.
        """
        await self.get(name, caller)
        attempt = await _asked(self.jobs.cancel(name))
        if attempt is not None:
            self.on_cancel(attempt)
        return await self.get(name, caller)

    async def result(self, name: str, caller: Identity) -> tuple[Job, bytes, AsyncIterator[bytes]]:
        """A job whose answer is there, with the first piece of it and the others.

        Raises:
            ConflictError: it is not over.
            GoneError: it ended without an answer.
            GatewayError: as `get`.
        """
        job = await self.get(name, caller)
        if not job.over:
            raise ConflictError(f"The job is {job.state}: ask again.")
        if job.status is None or job.attempt is None:
            why = job.problem.message if job.problem is not None else "It has no answer."
            raise GoneError(f"The job is over: {job.state}. {why}")
        pieces = read(self.jobs.database, job.attempt)
        return job, await _asked(anext(pieces, b"")), pieces

    def _check(self, order: Order) -> None:
        """Refuses what cannot be promised.

        Raises:
            ParameterError: it says why.
        """
        most = self._bounds.deadline_seconds
        if order.deadline_seconds is not None and order.deadline_seconds > most:
            raise ParameterError(f"deadline_seconds may be {most:g} at most.", "deadline_seconds")
        if order.webhook is not None:
            try:
                self.webhooks.check(order.webhook.url)
            except ValueError as error:
                raise ParameterError(f"webhook.url {error}", "webhook.url") from None

    def secret(self, caller: Identity) -> str:
        """What the tenant checks its webhooks with.

        Raises:
            BadRequestError: there are no webhooks here.
        """
        secret = self.webhooks.secret(caller.tenant)
        if secret is None:
            raise BadRequestError("There are no webhooks here: GATEWAY_WEBHOOK_SECRET is not set.")
        return secret


async def _asked(question: Awaitable[T]) -> T:
    try:
        return await question
    except StoreUnavailableError as error:
        raise _away() from error


def _away() -> UnavailableError:
    return UnavailableError("The database, which has the jobs, does not answer at the moment: try again.")

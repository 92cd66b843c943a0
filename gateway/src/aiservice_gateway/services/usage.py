"""Usage as it is asked for: a tenant's report, sums by what is wanted, the records themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

from aiservice_api.tasks import Task
from aiservice_gateway.cursors import Cursor, decode
from aiservice_gateway.errors import (
    BadRequestError,
    ForbiddenError,
    RecordRefusedError,
    StoreUnavailableError,
    TooFineError,
    UnavailableError,
)
from aiservice_gateway.models import Identity, Quota, Totals
from aiservice_gateway.selection import Dimension, Filter, Group, Page, Period, StoredRecord, Want
from aiservice_gateway.services.ledger import Ledger
from aiservice_gateway.services.limits import Limits
from aiservice_gateway.stores.base import UsageStore

ALL_TENANTS = "*"
"""What an administrator names to mean every tenant."""

MOST_ITEMS = 1000
"""In one page."""

_STREAMED_ITEMS = 10_000
"""At once, where the whole is streamed: each time the database sums anew, so these are many."""
_FLUSH_SECONDS = 1.0
_RECORD_PLACES = 2

_TOO_FINE: Mapping[str, str] = {
    "day": "Of a part of this period only sums of whole days are left: begin and end it at midnight (UTC), and "
    "group by day instead of hour.",
    "month": "Of a part of this period only sums of whole months are left: begin and end it on the first of a month "
    "at midnight (UTC), and group by month instead of day or hour.",
}

T = TypeVar("T")


class _Placed(Protocol):
    @property
    def place(self) -> tuple[str, ...]:
        """Where it stands in the order of all."""


Placed = TypeVar("Placed", bound=_Placed)


@dataclass(frozen=True, slots=True)
class Question:
    """Whose usage is asked for, of when, and which part of it."""

    which: Filter
    start: datetime | None = None
    """None: the first of the end's month."""
    end: datetime | None = None
    """None: now."""

    def period(self, now: datetime) -> Period:
        """The period that is meant.

        Raises:
            BadRequestError: it ends before it starts, or lies outside of the calendar.
        """
        end = _utc(self.end if self.end is not None else now)
        start = _utc(self.start) if self.start is not None else _first_of_month(end)
        if start > end:
            raise BadRequestError("The period ends before it starts: 'from' must not be after 'to'.")
        return Period(start, end)


@dataclass(frozen=True, slots=True)
class Report:
    """What was used in a period, what today, and what a tenant may still use."""

    which: Filter
    period: Period
    services: Mapping[Task, Totals]
    today: Mapping[Task, Totals]
    quotas: Mapping[Task, Quota]
    """Nothing where all tenants are meant: each has its own."""


def tenant_asked(caller: Identity, tenant: str | None) -> str | None:
    """Whose usage or limits are read: the caller's own unless it names another; None stands for all tenants.

    Raises:
        ForbiddenError: it names another and is no administrator.
    """
    if tenant is None or tenant == caller.tenant:
        return caller.tenant
    if not caller.admin:
        raise ForbiddenError("The token is for its own tenant only: leave 'tenant' out.")
    return None if tenant == ALL_TENANTS else tenant


@dataclass(frozen=True, slots=True)
class Usage:
    """Reads usage."""

    store: UsageStore
    ledger: Ledger
    limits: Limits

    async def report(self, question: Question, now: datetime) -> Report:
        """By service, with today's usage and the limits.

        Args:
            question: What is asked.
            now: The time, in UTC.

        Raises:
            BadRequestError: the period is none, or not to be told any more.
            UnavailableError: the database does not answer.
        """
        period = question.period(now)
        # What was answered before this request is in its report, even if it was a moment ago.
        await self.ledger.flushed(_FLUSH_SECONDS)
        services, today, quotas = await asyncio.gather(
            self._by_service(question.which, period),
            self._today(question.which, now),
            self._quotas(question.which),
        )
        return Report(question.which, period, services, today, quotas)

    async def groups(
        self, question: Question, dimensions: Sequence[Dimension], cursor: str | None, limit: int, now: datetime
    ) -> Page[Group]:
        """Sums by one or several dimensions, a page of them.

        Raises:
            BadRequestError, UnavailableError: as `report`; or the cursor is of another question.
        """
        period, after = await self._begin(question, (question.which, *dimensions), len(dimensions), cursor, now)
        found = await _ask(self.store.groups(Want(question.which, period, limit + 1, after, tuple(dimensions))))
        return _page(period, found, limit, (question.which, *dimensions))

    async def records(self, question: Question, cursor: str | None, limit: int, now: datetime) -> Page[StoredRecord]:
        """The records, the newest first, a page of them.

        Raises:
            BadRequestError, UnavailableError: as `groups`.
        """
        period, after = await self._begin(question, question.which, _RECORD_PLACES, cursor, now)
        found = await _ask(self.store.records(Want(question.which, period, limit + 1, after)))
        return _page(period, found, limit, question.which)

    async def _begin(
        self, question: Question, identity: object, places: int, text: str | None, now: datetime
    ) -> tuple[Period, tuple[str, ...] | None]:
        """The period, and after what to go on: both are the cursor's where there is one."""
        if text is None:
            await self.ledger.flushed(_FLUSH_SECONDS)
            return question.period(now), None
        cursor = decode(text, identity, places)
        stated = replace(question, end=question.end or cursor.period.end).period(now)
        if (question.start is not None or question.end is not None) and stated != cursor.period:
            raise BadRequestError(
                "cursor: it is of another period: repeat 'from' and 'to' as they were, or leave them out."
            )
        return cursor.period, cursor.after

    async def _by_service(self, which: Filter, period: Period) -> Mapping[Task, Totals]:
        found = await _ask(self.store.groups(Want(which, period, len(Task), dimensions=(Dimension.SERVICE,))))
        return {Task(service): group.totals for group in found if (service := group.key[0]) is not None}

    async def _today(self, which: Filter, now: datetime) -> Mapping[Task, Totals]:
        """From the real-time counters, as far as they tell such things apart."""
        if which.tenant is None or which.model is not None or which.user is not None:
            midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
            return await self._by_service(which, Period(midnight, _utc(now)))
        return _only(which.service, await self.ledger.today(which.tenant, now))

    async def _quotas(self, which: Filter) -> Mapping[Task, Quota]:
        if which.tenant is None:
            return {}
        return _only(which.service, await self.limits.quotas(which.tenant))


async def whole(ask: Callable[[str | None, int], Awaitable[Page[T]]]) -> AsyncIterator[Sequence[T]]:
    """Everything that a question has for an answer, page after page.

    Args:
        ask: Asks for one page: its cursor, and the most items.
    """
    cursor = None
    while True:
        page = await ask(cursor, _STREAMED_ITEMS)
        yield page.items
        if (cursor := page.next) is None:
            return


def _page(period: Period, found: Sequence[Placed], limit: int, question: object) -> Page[Placed]:
    """A page of what was found, one more than it may hold."""
    items = found[:limit]
    more = Cursor(period, items[-1].place).encode(question) if len(found) > limit else None
    return Page(period, items, more)


async def _ask(answer: Awaitable[T]) -> T:
    """Waits for the database's answer, and says in words for clients why there is none."""
    try:
        return await answer
    except StoreUnavailableError as error:
        raise UnavailableError("Usage cannot be read at the moment; none is lost. Try again.") from error
    except RecordRefusedError as error:
        raise BadRequestError("The database cannot compare with a value of the filter.") from error
    except TooFineError as error:
        raise BadRequestError(_TOO_FINE[error.left]) from error


def _only(service: Task | None, found: Mapping[Task, T]) -> Mapping[Task, T]:
    return found if service is None else {task: value for task, value in found.items() if task is service}


def _first_of_month(moment: datetime) -> datetime:
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _utc(moment: datetime) -> datetime:
    """A moment in UTC; one that names no time zone is taken for UTC.

    Rounded up to milliseconds, which divides records the same, because they have no smaller part.
    """
    try:
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        return moment + timedelta(microseconds=-moment.microsecond % 1000)
    except OverflowError as error:
        raise BadRequestError("The period begins or ends outside the years 1 to 9999.") from error

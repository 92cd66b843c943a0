"""A tenant's own usage, limits and today's counters in one report."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from aiservice_api.tasks import Task
from aiservice_gateway.errors import BadRequestError, StoreUnavailableError, UnavailableError
from aiservice_gateway.models import Quota, Totals
from aiservice_gateway.services.ledger import Ledger
from aiservice_gateway.services.limits import Limits
from aiservice_gateway.stores.base import UsageStore

_FLUSH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Report:
    """What a tenant used from `start` (inclusive) to `end` (exclusive), today, and may still use."""

    start: datetime
    end: datetime
    services: Mapping[Task, Totals]
    today: Mapping[Task, Totals]
    quotas: Mapping[Task, Quota]


@dataclass(frozen=True, slots=True)
class Usage:
    """Reads usage."""

    store: UsageStore
    ledger: Ledger
    limits: Limits

    async def report(self, tenant: str, start: datetime | None, end: datetime | None, now: datetime) -> Report:
        """A tenant's report.

        Args:
            tenant: Whose.
            start: Beginning of the period; None for the first of the end's month.
            end: End of the period; None for now.
            now: The time, in UTC.

        Raises:
            BadRequestError: the period ends before it starts.
            UnavailableError: the database does not answer.
        """
        end = _utc(end) if end is not None else now
        start = _utc(start) if start is not None else end.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        if start > end:
            raise BadRequestError("The period ends before it starts: 'from' must not be after 'to'.")
        # What was answered before this request is in its report, even if it was a moment ago.
        await self.ledger.flushed(_FLUSH_SECONDS)
        try:
            services, today, quotas = await asyncio.gather(
                self.store.totals(tenant, start, end),
                self.ledger.today(tenant, now),
                self.limits.quotas(tenant),
            )
        except StoreUnavailableError as error:
            raise UnavailableError("Usage cannot be read at the moment; none is lost. Try again.") from error
        return Report(start, end, services, today, quotas)


def _utc(moment: datetime) -> datetime:
    """A moment in UTC; one that names no time zone is taken for UTC."""
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise BadRequestError("The period begins or ends outside the years 1 to 9999.") from error

"""What the services ask of a backend, whichever it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from aiservice_api.tasks import Task
from aiservice_gateway.models import Outcome, Totals, UsageRecord


@dataclass(frozen=True, slots=True)
class Batch:
    """Records taken from a waiting room, which keeps them until `done` is called with their receipts."""

    records: Sequence[UsageRecord]
    receipts: Sequence[str]
    """The waiting room's own names for what it handed out; more than records where some could not be read."""


class WaitingRoom(Protocol):
    """Where records are safe until the database has them."""

    async def take(self, limit: int) -> Batch:
        """Hands out about `limit` of the oldest records, without forgetting them.

        Raises:
            StoreUnavailableError: it does not answer.
        """

    async def done(self, receipts: Sequence[str]) -> None:
        """Forgets what was handed out.

        Raises:
            StoreUnavailableError: it does not answer.
        """


class UsageStore(Protocol):
    """The table `"AIUsage"`."""

    async def insert(self, records: Sequence[UsageRecord]) -> None:
        """Writes records in one transaction, each only once.

        A row whose id is there already is left as it is, unless its status is INTERRUPTED and the record's is not: then
        it becomes the record.

        Raises:
            StoreUnavailableError: the database does not answer, or its table is not as expected; none was written.
            RecordRefusedError: it answers and will not take a value of one of the records; none was written.
        """

    async def totals(self, tenant: str, start: datetime, end: datetime) -> Mapping[Task, Totals]:
        """What a tenant used from `start` (inclusive) to `end` (exclusive), by service.

        Raises:
            StoreUnavailableError: the database does not answer.
        """

    async def close(self) -> None:
        """Closes its connections."""


def distinct(records: Sequence[UsageRecord]) -> list[UsageRecord]:
    """One record an id: the first that knows how its request ended."""
    chosen: dict[str, UsageRecord] = {}
    for record in records:
        known = chosen.get(record.id)
        if known is None or known.status is Outcome.INTERRUPTED:
            chosen[record.id] = record
    return list(chosen.values())

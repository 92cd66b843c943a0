"""What the services ask of a backend, whichever it is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Protocol

from aiservice_gateway.ids import first_id
from aiservice_gateway.models import Outcome, UsageRecord
from aiservice_gateway.selection import Group, StoredRecord, Want

_log = logging.getLogger(__name__)

_IDS_KEPT_SECONDS = 62 * 86400.0
"""For longer than their records' month: an id tells when a request came, and a job's record may be of a month later."""


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
    """The table `"AIUsage"`, and the sums of what it no longer holds."""

    async def insert(self, records: Sequence[UsageRecord]) -> None:
        """Writes records in one transaction, each only once.

        One that is there already, or was rolled up, is left as it is, unless its row's status is INTERRUPTED and the
        record's is not: then the row becomes the record. One of a time that is summed up by month is not written
        but logged: nobody knows any more whether it was counted.

        Raises:
            StoreUnavailableError: the database does not answer, or its table is not as expected; none was written.
            RecordRefusedError: it answers and will not take a value of one of the records; none was written.
        """

    async def groups(self, want: Want) -> Sequence[Group]:
        """What was used, summed up by one or several dimensions, in the order of their values.

        Raises:
            StoreUnavailableError: the database does not answer.
            RecordRefusedError: it cannot compare with a value of the filter.
            TooFineError: an hour or a part of a day of which only the day's sums are left, or a day or a part of a
                month of which only the month's are.
        """

    async def records(self, want: Want) -> Sequence[StoredRecord]:
        """The rows themselves, the newest first. Those that were rolled up are gone.

        Raises:
            StoreUnavailableError, RecordRefusedError: as `groups`.
        """

    async def roll_up(self, before: datetime, limit: int) -> int | None:
        """Moves the oldest of the gateway's own rows into the days' sums, in one transaction.

        Args:
            before: Only rows that are older than this.
            limit: Most rows.

        Returns:
            How many rows were moved; None while another gateway does it.

        Raises:
            StoreUnavailableError: the database does not answer; nothing was moved.
            RecordRefusedError: something in the database holds on to a row; nothing was moved.
        """

    async def ask(self, within_seconds: float) -> None:
        """Has the database answer, with the least work that takes the way of records.

        Raises:
            StoreUnavailableError: it does not within that time.
        """

    async def sum_months(self, before: datetime, limit: int) -> int | None:
        """Merges sums of days into their months', and forgets the ids of those months' records, in one transaction.

        Nothing of a month is merged while rows of it, or of earlier ones, are left: `roll_up` comes first.

        Args:
            before: The first of a month: only what is older.
            limit: Most sums, and most ids.

        Returns:
            How many sums and ids went; None while another gateway works.

        Raises:
            StoreUnavailableError: the database does not answer; nothing was merged.
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


def oldest_id(horizon: date) -> str:
    """The ids before this one are of records that `insert` refuses.

    Args:
        horizon: The first day that is not part of its month's sum.
    """
    return first_id(datetime.combine(horizon, time(), UTC).timestamp() - _IDS_KEPT_SECONDS)


def log_late(ids: Sequence[str]) -> None:
    """Says which records came too late to be counted."""
    if ids:
        _log.error(
            "%d usage records are of months that are summed up already, and were not counted, because nobody knows "
            "whether they were before: %s",
            len(ids),
            ", ".join(ids),
        )

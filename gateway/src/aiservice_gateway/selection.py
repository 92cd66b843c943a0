"""What may be asked of usage, and what is answered: which records, summed up by what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Generic, TypeVar

from aiservice_api.tasks import Task
from aiservice_gateway.models import Totals

T = TypeVar("T")


class Dimension(StrEnum):
    """What usage is summed up by. Times are UTC."""

    TENANT = "tenant"
    SERVICE = "service"
    MODEL = "model"
    USER = "user"
    MONTH = "month"
    DAY = "day"
    HOUR = "hour"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are meant, of whatever time. None stands for all of them."""

    tenant: str | None
    service: Task | None = None
    model: str | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` (inclusive) to `end` (exclusive), both in UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Want:
    """What is asked of a store: records, or sums over them where there are dimensions."""

    which: Filter
    period: Period
    limit: int
    """Most items of the answer."""
    after: tuple[str, ...] | None = None
    """The `place` of the item to go on after; None to begin."""
    dimensions: tuple[Dimension, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """What was used under one key."""

    key: tuple[str | None, ...]
    """One value a dimension, in their order: 2025-12, 2025-12-01 or 2025-12-01T10:00:00.000Z for times."""
    totals: Totals
    """`unit` is None where units of several kinds were used."""
    place: tuple[str, ...]
    """Where the group stands in the order of all groups."""


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One row of `"AIUsage"`, whoever wrote it."""

    id: str
    tenant: str
    user: str | None
    service: str
    model: str | None
    tokens: int
    units: float
    unit: str | None
    cost: float
    duration_ms: int
    status: str
    created_at: datetime

    @property
    def place(self) -> tuple[str, ...]:
        """Where the record stands in the order of all records."""
        return self.created_at.isoformat(), self.id


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of an answer."""

    period: Period
    items: Sequence[T]
    next: str | None
    """Cursor for what follows; None at the end."""

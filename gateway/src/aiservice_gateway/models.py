"""The values that the layers hand to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

import orjson

from aiservice_api.tasks import Task

MODEL_CHARACTERS = 255
"""Longest model name in a record."""

DEFAULT_MAX_QUEUE = 100
DEFAULT_QUEUE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, as a verified token or API key says."""

    tenant: str
    user: str | None
    admin: bool = False
    """Whether it may see every tenant's usage."""


class Measure(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    """Requests, over a sliding window."""
    UNITS = "units"
    """What the engines measure (images, characters, seconds of audio), over a sliding window."""
    CONCURRENCY = "concurrency"
    """Requests at the same time."""
    SPEND = "spend"
    """Dollars, within a calendar month in UTC."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that one tenant may have of something."""

    measure: Measure
    maximum: Decimal
    task: Task | None = None
    """The service that it is for; None: all of them together."""
    window_seconds: int | None = None
    """Of REQUESTS and UNITS only."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What one tenant may do."""

    limits: tuple[Limit, ...] = ()
    services: frozenset[str] | None = None
    """Names of the services that it may use; None: every one that admits it."""
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """One AI service, as discovery sees it."""

    name: str
    namespace: str
    tasks: tuple[Task, ...]
    endpoints: Mapping[Task, str]
    """Base URL by task, without a trailing slash. A task may lack one while the service is not ready."""
    aliases: tuple[str, ...] = ()
    default: bool = False
    ready: bool = True
    reason: str = ""
    """Why it is not ready, for the log: clients of the gateway are not told what happens inside the cluster."""
    model: str | None = None
    replicas: Mapping[Task, tuple[str, ...]] = field(default_factory=dict)
    """Base URLs of several pods by task, where they are stated; else `endpoints` has the one there is."""
    weight: int | None = None
    """Its part of the requests for a name that it shares with others of its namespace; None: it shares none."""
    timeout_seconds: float | None = None
    """For one request; None: the gateway's own."""
    max_concurrency: int | None = None
    """Requests that one gateway process sends to it at once; None: any number."""
    max_queue: int = DEFAULT_MAX_QUEUE
    """Requests that may wait for that, in one gateway process."""
    queue_seconds: float = DEFAULT_QUEUE_SECONDS
    """How long they may."""
    created: datetime = field(default=datetime(1970, 1, 1, tzinfo=UTC))
    tenants: frozenset[str] | None = None
    """The tenants that it admits; None: all."""

    @property
    def key(self) -> str:
        """What tells it from every other service."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class Quota:
    """Where a tenant stands with the requests to one service."""

    limit: int
    remaining: int
    reset_seconds: int
    """Until the oldest counted request leaves the window, and `remaining` grows. 0 when none is counted."""
    window_seconds: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a tenant stands with one limit."""

    limit: Limit
    remaining: Decimal
    reset_seconds: int
    """Until `remaining` grows by itself; 0 when nothing is counted, and for concurrency."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What an engine says that it did, from its answer's headers."""

    units: Decimal = Decimal(0)
    unit: str | None = None
    tokens: int = 0


class Outcome(StrEnum):
    """How an admitted request ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The engine refused it (4xx), failed (5xx) or did not answer in time."""
    CANCELLED = "cancelled"
    """The client went away before the answer's end."""
    INTERRUPTED = "interrupted"
    """The gateway died before the answer's end; what the engine had done is not known."""


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One row of `"AIUsage"`. The id is the gateway's own request id, so that writing it twice is writing it once."""

    id: str
    tenant: str
    user: str | None
    service: Task
    model: str | None
    tokens: int
    units: Decimal
    unit: str | None
    cost: Decimal
    duration_ms: int
    status: Outcome
    created_at: datetime

    def to_wire(self) -> bytes:
        """JSON with the table's column names as keys; numbers that must stay exact are strings."""
        return orjson.dumps(
            {
                "id": self.id,
                "tenantId": self.tenant,
                "userId": self.user,
                "service": self.service.value,
                "model": self.model,
                "requestId": self.id,
                "tokens": self.tokens,
                "units": str(self.units),
                "unit": self.unit,
                "cost": str(self.cost),
                "durationMs": self.duration_ms,
                "status": self.status.value,
                "createdAt": timestamp(self.created_at)[:-1],  # a column without time zone
            }
        )

    @classmethod
    def from_wire(cls, wire: bytes | str) -> UsageRecord:
        """Reads what `to_wire` wrote.

        Raises:
            ValueError: it is no such record.
        """
        try:
            value: dict[str, Any] = orjson.loads(wire)
            return cls(
                id=value["id"],
                tenant=value["tenantId"],
                user=value["userId"],
                service=Task(value["service"]),
                model=value["model"],
                tokens=value["tokens"],
                units=Decimal(value["units"]),
                unit=value["unit"],
                cost=Decimal(value["cost"]),
                duration_ms=value["durationMs"],
                status=Outcome(value["status"]),
                created_at=datetime.fromisoformat(value["createdAt"]).replace(tzinfo=UTC),
            )
        except (ValueError, KeyError, TypeError, ArithmeticError) as error:
            raise ValueError(f"not a usage record: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Totals:
    """What a tenant used of one service within a period."""

    count: int
    tokens: int
    units: float
    unit: str | None
    cost: float


def timestamp(moment: datetime) -> str:
    """UTC with milliseconds and `Z`, for example 2025-12-12T10:00:00.000Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""Questions about usage, made-up records to ask about, and what plain arithmetic answers."""

from __future__ import annotations

import csv
import io
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp

from aiservice_api.tasks import Task
from aiservice_gateway.ids import new_request_id
from aiservice_gateway.models import Identity, Outcome, UsageRecord
from aiservice_gateway.selection import Dimension, Filter, Group, Period, StoredRecord, Want
from aiservice_gateway.stores.base import UsageStore
from support.gateway import environment, gateway_here, token

START = datetime(2026, 9, 1, tzinfo=UTC)
END = datetime(2026, 11, 1, tzinfo=UTC)
PERIOD = Period(START, END)
ALL = Filter(None)
TENANTS = ["acme", "Bolt", "=cmd|'/C calc'!A0", "ünï"]
MODELS = [None, "sdxl", "whisper, large"]
USERS = [None, "ann", 'b"ob', "Zoe"]
UNITS = {
    Task.TEXT_TO_IMAGE: "image",
    Task.IMAGE_TO_IMAGE: "image",
    Task.IMAGE_TO_TEXT: "image",
    Task.TEXT_TO_SPEECH: "character",
    Task.SPEECH_TO_TEXT: "audio-second",
}


def made(count: int, seed: int = 7) -> list[UsageRecord]:
    """Records of two months, the same each time but for their ids."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        task = chance.choice(list(Task))
        failed = chance.random() < 0.2
        found.append(
            UsageRecord(
                id=new_request_id(),
                tenant=chance.choice(TENANTS),
                user=chance.choice(USERS),
                service=task,
                model=chance.choice(MODELS),
                tokens=0 if failed else chance.randrange(1000),
                units=Decimal(0) if failed else Decimal(chance.randrange(1, 100_000)) / 1000,
                unit=None if failed else UNITS[task],
                cost=Decimal(0) if failed else Decimal(chance.randrange(1, 1_000_000)) / 1_000_000,
                duration_ms=chance.randrange(10_000),
                status=Outcome.FAILED if failed else Outcome.SUCCEEDED,
                created_at=START + timedelta(milliseconds=chance.randrange(61 * 86_400_000)),
            )
        )
    return found


async def sums(
    store: UsageStore,
    which: Filter,
    period: Period,
    dimensions: Sequence[Dimension],
    *,
    after: tuple[str, ...] | None = None,
    limit: int = 1000,
) -> Sequence[Group]:
    return await store.groups(Want(which, period, limit, after, tuple(dimensions)))


async def rows_of(
    store: UsageStore, which: Filter, period: Period, after: tuple[str, ...] | None = None, limit: int = 1000
) -> Sequence[StoredRecord]:
    return await store.records(Want(which, period, limit, after))


_KEYS: dict[Dimension, Callable[[UsageRecord], str | None]] = {
    Dimension.TENANT: lambda one: one.tenant,
    Dimension.SERVICE: lambda one: one.service.value,
    Dimension.MODEL: lambda one: one.model,
    Dimension.USER: lambda one: one.user,
    Dimension.MONTH: lambda one: f"{one.created_at:%Y-%m}",
    Dimension.DAY: lambda one: f"{one.created_at:%Y-%m-%d}",
    Dimension.HOUR: lambda one: f"{one.created_at:%Y-%m-%dT%H}:00:00.000Z",
}


def expected(some: Iterable[UsageRecord], dimensions: Sequence[Dimension]) -> list[tuple[Any, ...]]:
    """The same sums, done plainly, in the order that is promised: by the values' bytes, missing ones first."""
    sums: dict[tuple[str | None, ...], list[UsageRecord]] = defaultdict(list)
    for one in some:
        sums[tuple(_KEYS[dimension](one) for dimension in dimensions)].append(one)
    rows = []
    for key, members in sums.items():
        units = {one.unit for one in members if one.unit is not None}
        rows.append(
            (
                key,
                len(members),
                sum(one.tokens for one in members),
                float(sum(one.units for one in members)),
                units.pop() if len(units) == 1 else None,
                float(sum(one.cost for one in members)),
            )
        )
    return sorted(rows, key=lambda row: [(part is not None, (part or "").encode()) for part in row[0]])


def flat(groups: Iterable[Group]) -> list[tuple[Any, ...]]:
    return [
        (one.key, one.totals.count, one.totals.tokens, one.totals.units, one.totals.unit, one.totals.cost)
        for one in groups
    ]


async def all_pages(
    store: UsageStore, which: Filter, period: Period, dimensions: Sequence[Dimension], size: int
) -> list[Group]:
    found: list[Group] = []
    while page := await sums(store, which, period, dimensions, after=found[-1].place if found else None, limit=size):
        assert len(page) <= size
        found += page
    return found


QUESTIONS = [
    [Dimension.SERVICE],
    [Dimension.USER],
    [Dimension.TENANT],
    [Dimension.MONTH],
    [Dimension.HOUR],
    [Dimension.SERVICE, Dimension.DAY],
    [Dimension.MODEL, Dimension.USER],
    [Dimension.TENANT, Dimension.SERVICE, Dimension.MODEL, Dimension.USER, Dimension.DAY],
]

BY_DAY = [question for question in QUESTIONS if Dimension.HOUR not in question]

ADMIN = Identity("ops", "root", admin=True)
BETWEEN = "from=2026-09-01&to=2026-11-01"
ADMIN_ROLE = "platform"


async def rolled(store: UsageStore, before: datetime, batch: int = 50) -> int:
    moved = 0
    while some := await store.roll_up(before, batch):
        moved += some
    return moved


@dataclass
class Api:
    """A gateway, and who asks it."""

    client: aiohttp.ClientSession
    store: UsageStore
    caller: Identity

    def headers(self, **more: str) -> dict[str, str]:
        role = ADMIN_ROLE if self.caller.admin else "member"
        return {"Authorization": f"Bearer {token(self.caller.tenant, sub=self.caller.user, role=role)}", **more}

    async def get(self, path: str, status: int = 200, **headers: str) -> Any:
        async with self.client.get(path, headers=self.headers(**headers)) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    async def rows(self, path: str, **headers: str) -> list[list[str]]:
        async with self.client.get(path, headers=self.headers(**headers)) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
            assert answer.headers["Content-Disposition"] == 'attachment; filename="usage.csv"'
            text = (await answer.read()).decode()
        assert text.endswith("\r\n")
        return list(csv.reader(io.StringIO(text, newline=""), strict=True))


@asynccontextmanager
async def api_of(folder: Path, store: UsageStore, **variables: str) -> AsyncIterator[Api]:
    async with gateway_here(environment(folder, GATEWAY_ADMIN_ROLE=ADMIN_ROLE, **variables)) as client:
        yield Api(client, store, Identity("acme", "ann"))

"""The spool: nothing that was added is lost, however a process ends."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from aiservice_api.tasks import Task
from aiservice_gateway.errors import SettingsError, StoreUnavailableError
from aiservice_gateway.models import Outcome, UsageRecord
from aiservice_gateway.stores.spool import Spool

RECORD = UsageRecord(
    "0", "acme", None, Task.SPEECH_TO_TEXT, None, 7, Decimal("2.5"), "s", Decimal("0.1"), 1, Outcome.SUCCEEDED,
    datetime(2026, 11, 23, tzinfo=UTC),
)  # fmt: skip


def record(number: int) -> UsageRecord:
    return replace(RECORD, id=str(number))


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool").open()
    yield made
    made.close()


async def ids(spool: Spool, limit: int = 10_000) -> list[str]:
    return [one.id for one in (await spool.take(limit)).records]


async def test_records_come_out_in_order_and_stay_until_done(spool: Spool) -> None:
    for number in range(5):
        await spool.add(record(number))
    assert await spool.waiting() == 5
    assert await ids(spool) == ["0", "1", "2", "3", "4"]
    await spool.add(record(5))
    batch = await spool.take(1)
    assert [one.id for one in batch.records] == ["0", "1", "2", "3", "4"]
    await spool.done(batch.receipts)
    assert await ids(spool) == ["5"]
    await spool.done((await spool.take(1)).receipts)
    assert spool.empty
    assert await spool.waiting() == 0


async def test_records_added_together_share_writes_and_all_arrive(spool: Spool) -> None:
    await asyncio.gather(*(spool.add(record(number)) for number in range(2500)))
    taken: list[str] = []
    while not spool.empty:
        batch = await spool.take(1)
        taken += [one.id for one in batch.records]
        await spool.done(batch.receipts)
    assert sorted(map(int, taken)) == list(range(2500))


async def test_a_new_process_adopts_what_a_dead_one_left(tmp_path: Path) -> None:
    dead = Spool(tmp_path).open()
    await dead.add(record(1))
    dead.close()  # what the kernel does for a killed process: the lock goes, the file stays
    heir = Spool(tmp_path).open()
    assert await ids(heir) == ["1"]
    heir.close()


async def test_a_living_process_keeps_its_file(tmp_path: Path) -> None:
    living, other = Spool(tmp_path).open(), Spool(tmp_path)
    await living.add(record(1))
    other.open()
    assert other.empty
    assert await ids(living) == ["1"]
    living.close()
    other.close()


async def test_a_line_that_was_cut_is_dropped_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = record(1).to_wire()
    (tmp_path / "active-dead.jsonl").write_bytes(whole + b"\n" + whole[:20])
    spool = Spool(tmp_path).open()
    assert await ids(spool) == ["1"]
    assert "cannot be read and is dropped" in caplog.text
    spool.close()


def test_an_unused_spool_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "active-empty.jsonl").touch()
    Spool(tmp_path).open().close()
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_private(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "a" / "b").open()
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    spool.close()


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="GATEWAY_SPOOL_DIR"):
        Spool(tmp_path / "file").open()


async def test_a_full_disk_is_told_to_everyone_who_waits(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    results = await asyncio.gather(*(spool.add(record(number)) for number in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailableError] * 3

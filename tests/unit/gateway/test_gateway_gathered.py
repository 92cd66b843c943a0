"""What is written within one turn of the event loop goes out in one write, in order, and before a close."""

from __future__ import annotations

import asyncio

from aiservice_gateway.gathered import Gathered


class Written(asyncio.Transport):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[bytes | str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.told.append(bytes(data))

    def close(self) -> None:
        self.told.append("close")

    def abort(self) -> None:
        self.told.append("abort")

    def is_closing(self) -> bool:
        return bool(self.told) and self.told[-1] in {"close", "abort"}


def gathered() -> tuple[Gathered, list[bytes | str]]:
    """One, and what reaches the transport behind it."""
    behind = Written()
    return Gathered(behind, asyncio.get_running_loop().call_soon), behind.told


async def test_one_write_a_turn() -> None:
    transport, told = gathered()
    transport.write(b"head")
    transport.writelines([b" and", b" body"])
    assert told == []
    await asyncio.sleep(0)
    assert told == [b"head and body"]
    transport.write(b"next")
    await asyncio.sleep(0)
    assert told == [b"head and body", b"next"]


async def test_much_does_not_wait() -> None:
    transport, told = gathered()
    transport.write(b"a")
    transport.write(b"b" * 20_000)
    assert told == [b"a" + b"b" * 20_000]
    await asyncio.sleep(0)
    assert len(told) == 1


async def test_closing_comes_after_what_was_written() -> None:
    transport, told = gathered()
    transport.write(b"last")
    transport.close()
    transport.write(b"too late")
    await asyncio.sleep(0)
    assert told == [b"last", "close"]


async def test_aborting_does_not() -> None:
    transport, told = gathered()
    transport.write(b"last")
    transport.abort()
    await asyncio.sleep(0)
    assert told == ["abort"]

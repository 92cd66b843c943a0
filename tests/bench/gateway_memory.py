"""What memory the gateway takes for a large upload, and for many slow streams at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.http_load import WrongAnswerError
from bench.report import memory_mib, peak_memory_mib, table
from support.gateway import bearer, gateway_process

STREAMS: Final = 1000
_UPLOAD_BYTES: Final = 100 * 1024 * 1024 - 1024
_PIECE: Final = b"x" * 65536
_STREAM_SECONDS: Final = 10.0
_OPENING: Final = 50
"""Streams that are opened at once."""


@dataclass(frozen=True)
class Memory:
    """Of one gateway process with one worker, in MiB resident."""

    idle: float
    upload_peak: float
    """The most while one body of 100 MiB went through."""
    streams: float
    """While STREAMS answers, of 1 kB every second, are being passed on."""

    def table(self) -> str:
        """For people."""
        return table(
            ["memory, one worker", "RSS MiB"],
            [
                ["just started", f"{self.idle:.0f}"],
                ["peak after one upload of 100 MiB", f"{self.upload_peak:.0f}"],
                [f"with {STREAMS} slow streams at once", f"{self.streams:.0f}"],
                ["- KiB a stream", f"{(self.streams - self.upload_peak) * 1024 / STREAMS:.0f}"],
            ],
        )


async def measure_memory(folder: Path, settings: Mapping[str, str]) -> Memory:
    """Starts a gateway of its own for it.

    Raises:
        WrongAnswerError: an answer is not 200, or a stream breaks off.
    """
    async with gateway_process(folder, settings) as gateway:
        idle = memory_mib(gateway.pid)
        await _upload(gateway.port)
        peak = peak_memory_mib(gateway.pid)
        return Memory(idle, peak, await _streams(gateway.port, gateway.pid))


def _head(path: str, length: int) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: gateway", "Content-Type: application/json", f"Content-Length: {length}"]
    lines += [f"Authorization: {bearer()['Authorization']}", "", ""]
    return "\r\n".join(lines).encode()


async def _answered(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise WrongAnswerError(repr(head))


async def _upload(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_head("/api/text-to-image", _UPLOAD_BYTES))
    for begin in range(0, _UPLOAD_BYTES, len(_PIECE)):
        writer.write(_PIECE[: _UPLOAD_BYTES - begin])
        await writer.drain()
    await _answered(reader)
    writer.close()


async def _streams(port: int, pid: int) -> float:
    opening = asyncio.Semaphore(_OPENING)

    async def open_one() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with opening:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(_head("/api/text-to-speech", 2) + b"{}")
            await _answered(reader)
            return reader, writer

    several = await asyncio.gather(*(open_one() for _ in range(STREAMS)))
    begun = asyncio.get_running_loop().time()
    received = [0] * STREAMS

    async def read(number: int, reader: asyncio.StreamReader) -> None:
        while asyncio.get_running_loop().time() < begun + _STREAM_SECONDS:
            piece = await reader.read(65536)
            if not piece:
                raise WrongAnswerError("a stream broke off")
            received[number] += len(piece)

    await asyncio.gather(*(read(number, reader) for number, (reader, _) in enumerate(several)))
    if min(received) < 2048:
        raise WrongAnswerError("a stream does not flow")
    found = memory_mib(pid)
    for _, writer in several:
        writer.close()
    return found

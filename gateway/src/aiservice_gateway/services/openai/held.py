"""What has to be held back before it can be sent on: files that come before the name of the service that they are for.

Held bytes are in memory while they are few and then in an unnamed file in the temporary folder; how many all requests
of the process may hold together is bounded.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from typing import IO

from aiservice_gateway.errors import UnavailableError

_MEMORY_BYTES = 64 * 1024
_READ_BYTES = 256 * 1024


class Room:
    """The bytes that may be held at one time."""

    def __init__(self, maximum: int) -> None:
        self._left = maximum

    def take(self, size: int) -> None:
        """Takes room.

        Raises:
            UnavailableError: there is not enough.
        """
        if size > self._left:
            raise UnavailableError(
                "The gateway holds too many uploads whose model it does not know yet: send the model and the other "
                "fields before the files, or try again later."
            )
        self._left -= size

    def give(self, size: int) -> None:
        """Gives it back."""
        self._left += size


class Held:
    """Bytes that are written once, and then read once."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self.size = 0

    async def add(self, data: bytes) -> None:
        """Appends.

        Raises:
            UnavailableError: there is no room, in the bound or on the disk.
        """
        self._room.take(len(data))
        self.size += len(data)
        self._memory += data
        if len(self._memory) > _MEMORY_BYTES:
            await self._flush()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Everything, from the beginning."""
        if self._file is not None:
            await asyncio.to_thread(self._file.seek, 0)
            while chunk := await asyncio.to_thread(self._file.read, _READ_BYTES):
                yield chunk
        if self._memory:
            yield bytes(self._memory)

    def close(self) -> None:
        """Lets go of everything."""
        self._room.give(self.size)
        self.size = 0
        self._memory.clear()
        if self._file is not None:
            self._file.close()

    async def _flush(self) -> None:
        data = bytes(self._memory)
        self._memory.clear()
        try:
            if self._file is None:
                self._file = await asyncio.to_thread(tempfile.TemporaryFile)
            await asyncio.to_thread(_write, self._file, data)
        except OSError as error:
            raise UnavailableError(
                "The gateway has no room on its disk to hold the upload: send the model and the other fields before "
                "the files, or try again later."
            ) from error


def _write(file: IO[bytes], data: bytes) -> None:
    file.write(data)
    file.flush()  # so that a full disk is told here

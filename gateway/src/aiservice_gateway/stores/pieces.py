"""Bodies of requests and answers, in pieces, so that none is ever whole in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from aiservice_gateway.stores.database import Database, Statement, fetch

PIECE_BYTES: Final = 512 * 1024

_ADD: Final = """
INSERT INTO {pieces} (holder, number, data, expires_at) VALUES ($1, $2, $3, {now} + $4) RETURNING number
"""
_READ: Final = "SELECT data FROM {pieces} WHERE holder = $1 AND number = $2"
_DROP: Final = "DELETE FROM {pieces} WHERE holder = $1"


class Pieces:
    """One body that is being written."""

    def __init__(self, database: Database, holder: str, seconds: float) -> None:
        """Writes nothing yet.

        Args:
            database: Where to.
            holder: What the body belongs to.
            seconds: How long it is kept at least.
        """
        self._database = database
        self._holder = holder
        self._seconds = seconds
        self._buffer = bytearray()
        self._number = 0
        self.size = 0

    async def add(self, data: bytes) -> None:
        """Appends.

        Raises:
            StoreUnavailableError: the database does not take it.
        """
        self.put(data)
        await self.flush()

    def put(self, data: bytes) -> None:
        """Appends what the next `flush` writes, or `rest`."""
        self._buffer += data
        self.size += len(data)

    async def flush(self) -> None:
        """Writes the pieces that are full. What failed may be tried again.

        Raises:
            StoreUnavailableError: the database does not take them.
        """
        while len(self._buffer) >= PIECE_BYTES:
            await self._database.run(self._statement(bytes(self._buffer[:PIECE_BYTES])))
            self._number += 1
            del self._buffer[:PIECE_BYTES]

    def rest(self) -> Statement:
        """What writes the last piece, for a transaction of the caller's: `add` may not follow."""
        return self._statement(bytes(self._buffer))

    async def drop(self) -> None:
        """Takes back what was written.

        Raises:
            StoreUnavailableError: the database does not answer; then it goes when its time is over.
        """
        self._buffer.clear()
        if self._number:
            await self._database.run(drop(self._holder))

    def _statement(self, data: bytes) -> Statement:
        return _ADD, (self._holder, self._number, data, self._seconds)


async def read(database: Database, holder: str) -> AsyncIterator[bytes]:
    """A body, piece by piece.

    Raises:
        StoreUnavailableError: the database does not answer.
    """
    number = 0
    while rows := await fetch(database, _READ, holder, number):
        yield bytes(rows[0][0])
        number += 1


def drop(holder: str) -> Statement:
    """What deletes a body."""
    return _DROP, (holder,)

"""A transport for which what is written within one turn of the event loop goes out in one write.

uvicorn writes an answer's head and its body apart, and uvloop sends each at once. A write to a socket is the dearest
thing that the gateway asks of the kernel (docs/benchmarks.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

_AT_ONCE_BYTES: Final = 16 * 1024
"""So much does not wait for more."""

Data = bytes | bytearray | memoryview


class Gathered(asyncio.Transport):
    """Passes everything on to another transport; writes at the end of the turn."""

    def __init__(self, transport: asyncio.Transport, call_soon: Callable[[Callable[[], None]], object]) -> None:
        """Wraps it.

        Args:
            transport: What writes.
            call_soon: The event loop's.
        """
        super().__init__()
        self._transport = transport
        self._call_soon = call_soon
        self._unsent: list[Data] = []
        self._bytes = 0

    def write(self, data: Data) -> None:
        """Sends it, with what comes before the end of the turn."""
        if not self._unsent:
            self._call_soon(self._flush)
        self._unsent.append(data)
        self._bytes += len(data)
        if self._bytes >= _AT_ONCE_BYTES:
            self._flush()

    def writelines(self, list_of_data: Iterable[Data]) -> None:
        """As `write`, one after the other."""
        for data in list_of_data:
            self.write(data)

    def close(self) -> None:
        """Closes it after what was written."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Closes it at once."""
        self._unsent.clear()
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether it closes or is closed."""
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        """Reads no more for now."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Reads again."""
        self._transport.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hands it to another protocol."""
        self._transport.set_protocol(protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What is known of the connection."""
        return self._transport.get_extra_info(name, default)

    def _flush(self) -> None:
        unsent, self._unsent, self._bytes = self._unsent, [], 0
        if unsent and not self._transport.is_closing():
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

"""Request ids: the gateway's own, never the client's."""

from __future__ import annotations

import os
import time
import uuid

ID_PATTERN = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
"""What ids look like."""


def first_id(seconds: float) -> str:
    """What the ids that are made from this time on are greater than, and those made before it are less than.

    Args:
        seconds: Since the epoch.
    """
    return str(uuid.UUID(int=max(0, int(seconds * 1000)) << 80))


def new_request_id() -> str:
    """A UUID of version 7: it starts with the time, so rows with it are inserted at one end of the index."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return str(uuid.UUID(int=value))

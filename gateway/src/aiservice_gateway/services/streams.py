"""What of a streamed answer was delivered: the contract (docs/inference.md) lets some of it be known.

Its headers tell the units of the whole answer, before the first byte. Sound says no more while it streams. A transcript
as server-sent events does: each segment tells up to where it reaches, and the last event tells the tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

import orjson

from aiservice_gateway.models import Measured
from aiservice_gateway.services.pricing import read_measured

_EVENTS: Final = "text/event-stream"
_LONGEST_EVENT: Final = 256 * 1024
"""Longer ones are not looked into."""


class Follower:
    """Reads along while an answer is relayed."""

    def __init__(self, measured: Measured, content_type: str) -> None:
        """Reads nothing yet.

        Args:
            measured: Of the whole answer, by its headers.
            content_type: Of the answer.
        """
        self._whole = measured
        self._is_events = content_type.startswith(_EVENTS)
        self._unfinished = b""
        self._reached: Decimal | None = None
        self._done: Measured | None = None

    def follow(self, chunk: bytes) -> None:
        """Looks at the next bytes that were passed on."""
        if not self._is_events:
            return
        *lines, rest = (self._unfinished + chunk).split(b"\n")
        self._unfinished = rest if len(rest) <= _LONGEST_EVENT else b""
        for line in lines:
            if line.startswith(b"data:"):
                self._read(line[5:])

    @property
    def whole(self) -> Measured:
        """What is charged for the answer when all of it was passed on."""
        return self._done or self._whole

    @property
    def delivered(self) -> Measured:
        """What is charged for the answer when it was cut here.

        Of a transcript that is what its segments reach; else all of it, because nothing tells how much of the sound is
        how much of the text.
        """
        if not self._is_events or self._done is not None:
            return self.whole
        return replace(self._whole, units=min(self._whole.units, self._reached or Decimal(0)))

    def _read(self, data: bytes) -> None:
        try:
            event = orjson.loads(data)
        except orjson.JSONDecodeError:
            return
        if not isinstance(event, dict):
            return
        try:
            if event.get("type") == "segment":
                self._reached = read_measured({"X-AIService-Units": str(event["end"])}).units
            elif event.get("type") == "done":
                self._done = _usage(event["usage"], self._whole)
        except (ValueError, KeyError, TypeError):
            return  # a service's mistake in a stream costs nobody the stream


def _usage(usage: Mapping[str, Any], whole: Measured) -> Measured:
    """What the last event tells: the tokens, which the headers cannot."""
    told = read_measured({"X-AIService-Tokens": str(usage["tokens"])})
    return replace(whole, tokens=told.tokens)

"""Cursors: where a listing goes on. Opaque to clients, and of no use with another question than their own.

A cursor holds the period and the last item that was given, not a count of items: what is written or deleted meanwhile
shifts nothing. It grants nothing, because whose usage is read is decided from the token each time.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime

import orjson

from aiservice_gateway.errors import BadRequestError
from aiservice_gateway.selection import Period

_FINGERPRINT_BYTES = 9
_MOST_CHARACTERS = 8192


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a listing goes on."""

    period: Period
    after: tuple[str, ...]
    """The `place` of the last item that was given."""

    def encode(self, question: object) -> str:
        """The cursor as clients get it.

        Args:
            question: What was asked, besides the period; its repr tells it from every other question.
        """
        period = [self.period.start.isoformat(), self.period.end.isoformat()]
        wire = orjson.dumps([_fingerprint(question), *period, *self.after])
        return base64.urlsafe_b64encode(wire).decode().rstrip("=")


def decode(text: str, question: object, places: int) -> Cursor:
    """Reads a cursor.

    Args:
        text: As a client sent it.
        question: What is asked now.
        places: How many values tell where an item stands.

    Raises:
        BadRequestError: it is no cursor, or one of another question.
    """
    try:
        if len(text) > _MOST_CHARACTERS:
            raise ValueError("too long")
        wire = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        fingerprint, start, end, *after = _texts(orjson.loads(wire))
        period = Period(_moment(start), _moment(end))
    except ValueError as error:
        raise BadRequestError("cursor: it is none that this gateway gave: take it from 'next' as it is.") from error
    if fingerprint != _fingerprint(question) or len(after) != places:
        raise BadRequestError("cursor: it belongs to another question: repeat the other parameters with it.")
    return Cursor(period, tuple(after))


def _fingerprint(question: object) -> str:
    digest = hashlib.sha256(repr(question).encode()).digest()
    return base64.urlsafe_b64encode(digest[:_FINGERPRINT_BYTES]).decode()


def _texts(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("not a list of texts")
    return value


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment

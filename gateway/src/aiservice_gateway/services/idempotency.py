"""Idempotency keys (draft-ietf-httpapi-idempotency-key-header): a repeated request gets the first one's answer.

Kept is what an engine answered, and what was made (2xx); whatever did no work is not, so that trying again helps. An
answer is marked before it is charged, and only one attempt can mark it: whatever dies when, nothing is charged twice.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from aiservice_gateway.errors import (
    BadRequestError,
    ConflictError,
    GoneError,
    KeyReusedError,
    StoreUnavailableError,
    UnavailableError,
)
from aiservice_gateway.models import UsageRecord
from aiservice_gateway.services.fingerprint import Fingerprint
from aiservice_gateway.stores.keys import Keys, Known, holder
from aiservice_gateway.stores.keys import Scope as KeyScope
from aiservice_gateway.stores.pieces import Pieces

_log = logging.getLogger(__name__)

_KEY: Final = re.compile(r'"?([\x21\x23-\x7e]{1,255})"?')
_SERVER_ERRORS: Final = 500
_TRY_SECONDS: Final = 5.0
"""How long the database may be away while an answer that is complete is marked."""
_PAUSE_SECONDS: Final = 0.25


def parse_key(values: Sequence[str]) -> str:
    """The key of a request: a string of Structured Fields as the draft has it, or without its quotes as many send it.

    Raises:
        BadRequestError: it is none.
    """
    match = _KEY.fullmatch(values[0]) if len(values) == 1 else None
    if match is None:
        raise BadRequestError(
            "The header Idempotency-Key must be there once, with 1 to 255 visible ASCII characters, such as a UUID."
        )
    return match[1]


def unavailable(error: StoreUnavailableError) -> UnavailableError:
    """What to answer while the database is away: a promise that cannot be kept is not made."""
    _log.warning("An idempotency key cannot be looked up: %s", error)
    return UnavailableError("Idempotency keys cannot be looked up at the moment: try again, or without the header.")


class Idempotency:
    """What the requests with keys of this process share."""

    def __init__(self, keys: Keys, *, most_bytes: int, renew_seconds: float) -> None:
        """Wires it up.

        Args:
            keys: Where they are kept.
            most_bytes: Of the largest answer that is kept.
            renew_seconds: How often leases are renewed while there are requests.
        """
        self.keys = keys
        self.most_bytes = most_bytes
        self._renew_seconds = renew_seconds
        self._running = 0
        self._renewing: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """While a request is at work, leases are renewed."""
        self._running += 1
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew(), name="idempotency-leases")
        try:
            yield
        finally:
            self._running -= 1
            if not self._running and self._renewing is not None:
                self._renewing.cancel()
                self._renewing = None

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._renew_seconds)
            try:
                await self.keys.renew()
            except StoreUnavailableError as error:
                _log.warning("The leases of idempotency keys were not renewed: %s", error)


class Recorder:
    """The first request with a key: reads along with its body, and keeps its answer."""

    def __init__(self, shared: Idempotency, attempt: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Knows nothing yet.

        Args:
            shared: What all share.
            attempt: The request's id.
            scope: The request.
            receive: Its channel.
            send: Its answer's.
        """
        self._shared = shared
        self._attempt = attempt
        self._receive = receive
        self._send = send
        self._fingerprint = Fingerprint(scope["query_string"], Headers(scope=scope))
        self._complete = False
        self._pieces = Pieces(shared.keys.database, holder(attempt), shared.keys.kept_seconds)
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._charged = False
        self._wanted = True
        """Whether the answer is to be kept, as far as is known."""
        self._ended = False
        self._kept = False
        self._closed = False

    async def receive(self) -> Message:
        """The channel for the application. A client that goes away after its body's end will be back."""
        if self._complete:
            await asyncio.Event().wait()
        message = await self._receive()
        if message["type"] == "http.request":
            self._fingerprint.add(message.get("body", b""))
            self._complete = not message.get("more_body", False)
        return message

    async def keep(self, record: UsageRecord, last: bytes) -> None:
        """Marks the key before the answer is charged; see `Keeper`."""
        del record, last
        deadline = time.monotonic() + _TRY_SECONDS
        while True:
            try:
                marked = await self._shared.keys.charge(self._attempt, self._digest())
            except StoreUnavailableError as error:
                if time.monotonic() >= deadline:
                    raise unavailable(error) from error
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                break
        if not marked:
            raise ConflictError("Another request with this Idempotency-Key has taken over: try again.")
        self._charged = True

    async def send(self, message: Message) -> None:
        """The channel for the answer. Its end is sent when it is kept, or the key let go."""
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], list(message["headers"])
            self._wanted = self._status < _SERVER_ERRORS
        else:
            self._ended = not message.get("more_body", False)
            if self._wanted:
                await self._take(message)
            if self._ended:
                await self.close()  # whoever has an answer's end and asks again finds that it has ended
        await self._send(message)

    async def close(self) -> None:
        """Lets go of the key, if nothing was done."""
        if self._kept or self._closed:
            return
        self._closed = True
        try:
            await self._pieces.drop()
            if self._charged or not self._made:  # else its lease ends by itself, and `first_id` lives on
                await self._shared.keys.release(self._attempt)
        except StoreUnavailableError as error:
            _log.warning("An idempotency key is released when its lease ends: %s", error)

    async def _take(self, message: Message) -> None:
        try:
            await self._pieces.add(message.get("body", b""))
            if self._pieces.size > self._shared.most_bytes:
                self._wanted = False
                await self._pieces.drop()
            elif self._ended:
                await self._finish()
        except StoreUnavailableError as error:
            self._wanted = False
            _log.warning("An answer is not kept for its idempotency key: %s", error)

    async def _finish(self) -> None:
        digest = self._digest()
        if digest is not None and (self._charged or self._made):
            rest = self._pieces.rest()
            await self._shared.keys.keep(self._attempt, digest, self._status, self._headers, rest)
            self._kept = True

    @property
    def _made(self) -> bool:
        """Whether the whole answer says that something was made."""
        return self._ended and 200 <= self._status < 300

    def _digest(self) -> str | None:
        return self._fingerprint.digest() if self._complete else None


async def check_repeat(known: Known, scope: Scope, receive: Receive) -> bool:
    """Whether the answer that is known is this request's; reads its body, and returns False if the client goes away.

    Raises:
        ConflictError: the first request is still at work.
        GoneError: its answer was not kept.
        KeyReusedError: it was another request.
    """
    if known.working:
        raise ConflictError("The first request with this Idempotency-Key is still being worked on: try again.")
    fingerprint = Fingerprint(scope["query_string"], Headers(scope=scope))
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return False
        fingerprint.add(message.get("body", b""))
        more = message.get("more_body", False)
    if known.fingerprint is not None and known.fingerprint != fingerprint.digest():
        raise KeyReusedError(
            "This Idempotency-Key was sent before with another body, query or Accept: draw a new key for a new request."
        )
    if not known.kept:
        raise GoneError(
            "The first request with this Idempotency-Key was answered and charged, and its answer is not kept: it was "
            "too large, or its gateway died. Draw a new key to do it again."
        )
    return True


async def first_attempt(shared: Idempotency, scope: KeyScope, attempt: str) -> str | Known:
    """Claims a key; see `Keys.claim`.

    Raises:
        UnavailableError: the database does not answer.
    """
    try:
        return await shared.keys.claim(scope, attempt)
    except StoreUnavailableError as error:
        raise unavailable(error) from error

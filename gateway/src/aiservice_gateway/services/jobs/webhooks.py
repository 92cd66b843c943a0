"""Tells of jobs that are over: signed messages (Standard Webhooks), tried again for hours, from whichever gateway.

Where a message goes is said by tenants, so the gateway looks at each address in the moment in which it connects: a name
that leads elsewhere by then, or a number written in another way, changes nothing about what is refused.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import orjson

from aiservice_gateway import __version__
from aiservice_gateway.errors import StoreUnavailableError
from aiservice_gateway.logs import FIELDS
from aiservice_gateway.metrics import Metrics
from aiservice_gateway.services.addresses import is_public
from aiservice_gateway.services.jobs.render import location, render
from aiservice_gateway.stores.jobs import Job, Jobs, WebhookState
from aiservice_gateway.telemetry import Tracing
from aiservice_gateway.webhook_signing import signature_headers, tenant_key, write_secret

_log = logging.getLogger(__name__)

_SENDERS: Final = 4
_LOOK_SECONDS: Final = 1.0
_AWAY_SECONDS: Final = 5.0
_SEND_SECONDS: Final = 15.0
_CONNECT_SECONDS: Final = 5.0
_CLAIMED_SECONDS: Final = 60.0
"""How long nobody else sends a message that one gateway is sending."""
_GONE: Final = 410
_PROBLEM_CHARACTERS: Final = 200


class RefusedAddressError(OSError):
    """A webhook leads to an address that is not public."""


@dataclass(frozen=True, slots=True)
class WebhookRules:
    """What is sent where."""

    key: bytes | None
    """What signatures are made from; None: there are no webhooks."""
    allow_http: bool
    allow_private: bool
    retry_seconds: Sequence[float]
    """Before the second try, the third and so on."""


class Webhooks:
    """Sends the messages that are due."""

    def __init__(self, jobs: Jobs, rules: WebhookRules, metrics: Metrics, tracing: Tracing | None) -> None:
        """Wires it up.

        Args:
            jobs: Have the messages.
            rules: What is sent where.
            metrics: Counts.
            tracing: Makes spans.
        """
        self._jobs = jobs
        self._rules = rules
        self._metrics = metrics
        self._tracing = tracing
        self._senders: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None

    def start(self) -> None:
        """Begins to send."""
        if self._rules.key is None:
            return
        connector = aiohttp.TCPConnector(
            force_close=True, use_dns_cache=False, socket_factory=None if self._rules.allow_private else _guarded
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=_SEND_SECONDS, sock_connect=_CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"User-Agent": f"aiservice-gateway/{__version__}", "Content-Type": "application/json"},
        )
        self._senders = [
            asyncio.create_task(self._send_all(self._rules.key, self._session), name=f"webhooks-{number}")
            for number in range(_SENDERS)
        ]

    async def close(self) -> None:
        """Ends; a message that is being sent is sent again."""
        for sender in self._senders:
            sender.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def check(self, url: str) -> None:
        """Lets an address pass that messages may be sent to.

        Raises:
            ValueError: it may not; the rest of a sentence that says why.
        """
        if self._rules.key is None:
            raise ValueError("cannot be told anything: GATEWAY_WEBHOOK_SECRET is not set here.")
        parts = urlsplit(url)
        schemes = {"https", "http"} if self._rules.allow_http else {"https"}
        if parts.scheme not in schemes or not parts.hostname or not url.isprintable() or " " in url:
            raise ValueError(f"must be an address that begins with {' or '.join(sorted(schemes))}://.")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must hold no user and password: check the signature instead.")
        try:
            _ = parts.port
            literal = ipaddress.ip_address(parts.hostname)
        except ValueError as error:
            if "port" in str(error).lower():
                raise ValueError("has a port that is none.") from None
            return  # a name, which is looked up and looked at when the message is sent
        if not self._rules.allow_private and not is_public(literal):
            raise ValueError("is not a public address.")

    def secret(self, tenant: str) -> str | None:
        """What a tenant checks its messages with; None where there are no webhooks."""
        return None if self._rules.key is None else write_secret(tenant_key(self._rules.key, tenant))

    async def _send_all(self, key: bytes, session: aiohttp.ClientSession) -> None:
        while True:
            try:
                job = await self._jobs.claim_message(_CLAIMED_SECONDS)
                if job is None:
                    await asyncio.sleep(_LOOK_SECONDS)
                else:
                    await self._note(job, *await self._try(session, key, job))
            except StoreUnavailableError as error:
                _log.warning("Webhooks wait for the database: %s", error)
                await asyncio.sleep(_AWAY_SECONDS)
            except Exception:  # noqa: BLE001 - messages would wait for ever
                _log.exception("Sending webhooks met something unexpected and goes on")
                await asyncio.sleep(_AWAY_SECONDS)

    async def _try(self, session: aiohttp.ClientSession, key: bytes, job: Job) -> tuple[int | None, str]:
        """As `_send`, with a span."""
        if self._tracing is None:
            return await _send(session, key, job)
        with self._tracing.webhook(job.id, job.webhook_attempts - 1, job.trace) as attempt:
            status, problem = await _send(session, key, job)
            if status is None:
                attempt.unreached()
            else:
                attempt.answered(status)
            return status, problem

    async def _note(self, job: Job, status: int | None, problem: str) -> None:
        state, seconds = verdict(status, job.webhook_attempts, self._rules.retry_seconds)
        if state is not WebhookState.DELIVERED:
            fields = {"job": job.id, "attempt": job.webhook_attempts, "problem": problem, "tenant": job.tenant}
            _log.warning("A webhook was not delivered", extra={FIELDS: fields})
        if state is not WebhookState.WAITING:
            self._metrics.webhooks.labels(state).inc()
        await self._jobs.note_message(job, state, seconds, problem or None)


def verdict(status: int | None, attempts: int, retry_seconds: Sequence[float]) -> tuple[WebhookState, float]:
    """What follows from a try: the message's state, and seconds until the next one.

    Args:
        status: Answered; None: there was no answer.
        attempts: How many tries there were, with this one.
        retry_seconds: Before the second, the third and so on.
    """
    if status is not None and 200 <= status < 300:
        return WebhookState.DELIVERED, 0.0
    if status == _GONE or attempts > len(retry_seconds):
        return WebhookState.DEAD, 0.0
    return WebhookState.WAITING, retry_seconds[attempts - 1]


def message(job: Job) -> bytes:
    """The body: what `GET /v1/jobs/{id}` answers, without the state of the message itself."""
    data = render(job) | {"url": location(job.id)}
    del data["webhook"]
    return orjson.dumps({"type": f"job.{job.state}", "timestamp": data["finished_at"], "data": data})


async def _send(session: aiohttp.ClientSession, key: bytes, job: Job) -> tuple[int | None, str]:
    """One try: the status that was answered, if any, and what was wrong."""
    body = message(job)
    headers = signature_headers(tenant_key(key, job.tenant), f"msg_{job.id}", int(time.time()), body)
    try:
        # The answer's body is never read: nothing of it is wanted.
        async with session.post(job.webhook or "", data=body, headers=headers, allow_redirects=False) as answer:
            return answer.status, "" if answer.ok else f"answered {answer.status}"
    except (aiohttp.InvalidURL, ValueError):  # whose words would quote the address, and what is secret in it
        return None, "the address cannot be used"
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return None, (str(error) or type(error).__name__)[:_PROBLEM_CHARACTERS]


def _guarded(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket for a public address.

    Raises:
        RefusedAddressError: the address is another one.
    """
    family, kind, protocol, _, target = address
    if not is_public(ipaddress.ip_address(str(target[0]).partition("%")[0])):
        raise RefusedAddressError("not a public address")
    return socket.socket(family, kind, protocol)

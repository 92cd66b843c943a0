"""Idempotency keys and the answers that belong to them.

running     the first request is at work; its gateway renews the lease, and when that runs out a repeat takes over
charged     the engine's answer is complete and is being charged: nothing is done a second time from here on
kept        the whole answer is here
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from aiservice_gateway.errors import StoreUnavailableError
from aiservice_gateway.stores.database import Database, Statement, fetch

Headers = Sequence[tuple[bytes, bytes]]

_CLAIM: Final = """
INSERT INTO {keys} AS known (tenant, route, key, attempt, first, owner, state, lease_until, expires_at)
VALUES ($1, $2, $3, $4, $4, $5, 'running', {now} + $6, {now} + $7)
ON CONFLICT (tenant, route, key) DO UPDATE
SET attempt = excluded.attempt, owner = excluded.owner, state = 'running', fingerprint = NULL,
    status = NULL, headers = NULL, lease_until = excluded.lease_until, expires_at = excluded.expires_at,
    first = CASE WHEN known.expires_at < {now} THEN excluded.first ELSE known.first END
WHERE known.expires_at < {now} OR (known.state = 'running' AND known.lease_until < {now})
RETURNING first
"""
_LOOK: Final = """
SELECT attempt, state, lease_until > {now}, fingerprint, status, headers FROM {keys}
WHERE tenant = $1 AND route = $2 AND key = $3
"""
_CHARGE: Final = """
UPDATE {keys} SET state = 'charged', fingerprint = $2 WHERE attempt = $1 AND state = 'running' RETURNING attempt
"""
_KEEP: Final = """
UPDATE {keys} SET state = 'kept', fingerprint = $2, status = $3, headers = $4
WHERE attempt = $1 AND state IN ('running', 'charged') RETURNING attempt
"""
_RELEASE: Final = "DELETE FROM {keys} WHERE attempt = $1 AND state = 'running'"
_END: Final = "UPDATE {keys} SET lease_until = 0 WHERE attempt = $1 AND state = 'charged'"
_RENEW: Final = "UPDATE {keys} SET lease_until = {now} + $2 WHERE owner = $1 AND state <> 'kept'"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a key belongs to."""

    tenant: str
    route: str
    key: str


@dataclass(frozen=True, slots=True)
class Known:
    """A key that was sent before."""

    attempt: str
    """The request whose answer counts."""
    working: bool
    """Whether that request is still being worked on."""
    kept: bool
    """Whether its answer is here."""
    fingerprint: str | None
    """Of the request; None while it is not known."""
    status: int
    headers: Headers


def holder(attempt: str) -> str:
    """What the pieces of an answer belong to. A job may have the request's own id."""
    return f"answer:{attempt}"


class Keys:
    """The keys of all gateways that share the database."""

    def __init__(self, database: Database, owner: str, *, lease_seconds: float, kept_seconds: float) -> None:
        """Wires it up.

        Args:
            database: Where they are.
            owner: Name of this gateway process.
            lease_seconds: After which the requests of a process that says nothing may be taken over.
            kept_seconds: How long a key is remembered from when it was first sent.
        """
        self.database = database
        self._owner = owner
        self._lease_seconds = lease_seconds
        self.kept_seconds = kept_seconds

    async def claim(self, scope: Scope, attempt: str) -> str | Known:
        """Makes a request the one that counts for a key.

        Returns:
            Its `first_id`; or what is known of the key where another request counts.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        values = (scope.tenant, scope.route, scope.key)
        for _ in range(3):
            rows = await fetch(
                self.database, _CLAIM, *values, attempt, self._owner, self._lease_seconds, self.kept_seconds
            )
            if rows:
                return str(rows[0][0])
            if found := await fetch(self.database, _LOOK, *values):
                name, state, leased, fingerprint, status, headers = found[0]
                working = state == "running" or (state == "charged" and bool(leased))
                return Known(name, working, state == "kept", fingerprint, status or 0, _read_headers(headers or "[]"))
        raise StoreUnavailableError("a key is claimed and released again and again")

    async def charge(self, attempt: str, fingerprint: str | None) -> bool:
        """Notes that an answer is about to be charged; False: another attempt counts.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        return bool(await fetch(self.database, _CHARGE, attempt, fingerprint))

    async def keep(self, attempt: str, fingerprint: str, status: int, headers: Headers, rest: Statement) -> None:
        """Keeps an answer, with the last piece of its body.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        await self.database.run((_KEEP, (attempt, fingerprint, status, _write_headers(headers))), rest)

    async def release(self, attempt: str) -> None:
        """Forgets the key of a request that was charged nothing; of another one says that no answer will follow.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        await fetch(self.database, _RELEASE, attempt)
        await fetch(self.database, _END, attempt)

    async def renew(self) -> None:
        """Says that this process is at work on its requests.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        await fetch(self.database, _RENEW, self._owner, self._lease_seconds)


def _write_headers(headers: Headers) -> str:
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    return orjson.dumps(pairs).decode()


def _read_headers(text: str) -> Headers:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in orjson.loads(text)]

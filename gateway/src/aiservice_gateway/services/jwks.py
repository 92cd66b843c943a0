"""The public keys of a token issuer, from its JWKS address (RFC 7517): fetched at the start, followed, and kept.

While the issuer is away the last keys serve on. What it answers is not trusted further than it must be: the answer has
a bound in size and time, redirects are refused, and of the keys only those that sign with the algorithms below are
taken, and only their public part.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import AllowedPublicKeys, ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from aiservice_gateway.errors import UnavailableError
from aiservice_gateway.settings import is_loopback

_log = logging.getLogger(__name__)

_REFRESH_SECONDS = 300.0
_UNKNOWN_KEY_SECONDS = 10.0
"""A token with an unknown key makes the keys be fetched, at most this often: anyone can send such tokens."""
_FETCH_SECONDS = 5.0
_FIRST_BACKOFF_SECONDS = 1.0
_LONGEST_BACKOFF_SECONDS = 60.0
_MAXIMUM_BYTES = 512 * 1024
_MAXIMUM_KEYS = 64
_RSA_BITS = range(2048, 8192 + 1)  # RFC 7518 section 3.3; beyond, each check would take long
_LONGEST_MEMBER = 1400  # base64 of 8192 bits and a little
_LARGEST_EXPONENT = 2**32

_KINDS: dict[tuple[object, object], tuple[frozenset[str], Callable[[dict[str, Any]], Any], tuple[str, ...]]] = {
    # By kty and crv: the algorithms, how the key is read, and the members of its public part.
    ("RSA", None): (frozenset({"RS256", "PS256"}), RSAAlgorithm.from_jwk, ("kty", "n", "e")),
    ("EC", "P-256"): (frozenset({"ES256"}), ECAlgorithm.from_jwk, ("kty", "crv", "x", "y")),
    ("OKP", "Ed25519"): (frozenset({"EdDSA"}), OKPAlgorithm.from_jwk, ("kty", "crv", "x")),
}

ALGORITHMS = frozenset().union(*(algorithms for algorithms, _, _ in _KINDS.values()))
"""What tokens may be signed with when a public key checks them."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One key of the issuer."""

    kid: str | None
    algorithms: frozenset[str]
    """What tokens it may check."""
    document: bytes
    """Its public part in canonical form: two keys are equal when this is."""
    key: AllowedPublicKeys = field(compare=False, repr=False)


def read_keys(body: bytes) -> tuple[PublicKey, ...]:
    """The usable keys of a JWK set. Others are left out, as RFC 7517 section 5 asks.

    Raises:
        ValueError: it is no JWK set.
    """
    document = orjson.loads(body)
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError('it is no JWK set: {"keys": [...]}')
    if len(listed) > _MAXIMUM_KEYS:
        raise ValueError(f"it lists {len(listed)} keys, more than {_MAXIMUM_KEYS}")
    return tuple(key for key in map(_read_key, listed) if key is not None)


def _read_key(jwk: object) -> PublicKey | None:
    """One key; None where it cannot check tokens here."""
    if not isinstance(jwk, dict) or not _is_for_signatures(jwk):
        return None
    kid, algorithm = jwk.get("kid"), jwk.get("alg")
    try:
        algorithms, read, members = _KINDS[jwk.get("kty"), jwk.get("crv")]
        public = {member: jwk[member] for member in members}
        if any(len(member) > _LONGEST_MEMBER for member in public.values()):
            return None
        key = read(public)
    except (jwt.PyJWTError, KeyError, ValueError, TypeError, OverflowError):
        return None
    if algorithm is not None:
        algorithms &= {algorithm} if isinstance(algorithm, str) else frozenset()
    if not algorithms or not isinstance(kid, str | None) or not _is_strong(key):
        return None
    return PublicKey(kid, algorithms, orjson.dumps(public, option=orjson.OPT_SORT_KEYS), key)


def _is_for_signatures(jwk: dict[str, Any]) -> bool:
    """Not for encryption, and not a private key: one that is published signs for everybody."""
    operations = jwk.get("key_ops", ["verify"])
    return jwk.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations and "d" not in jwk


def _is_strong(key: object) -> bool:
    """RSA keys have a size; that of the others is their curve's."""
    if not isinstance(key, RSAPublicKey):
        return True
    return key.key_size in _RSA_BITS and key.public_numbers().e < _LARGEST_EXPONENT


class KeySource:
    """Follows the keys of one address."""

    def __init__(self, url: str) -> None:
        """Fetches nothing yet."""
        self._url = url
        self._keys: tuple[PublicKey, ...] = ()
        self._watchers: list[Callable[[], None]] = []
        self._wanted = asyncio.Event()
        self._fetched = asyncio.Event()
        self._fetching = False
        self._last_attempt = float("-inf")
        self.synced = False
        """Whether the keys were fetched once."""
        self.connected = False
        """Whether the last fetch brought keys."""

    def on_change(self, watcher: Callable[[], None]) -> None:
        """Calls `watcher` whenever a key was added, changed or withdrawn."""
        self._watchers.append(watcher)

    async def find(self, kid: str | None, algorithm: str) -> list[PublicKey]:
        """The keys that may have signed a token; none where the issuer has no such key.

        A token that names no key is checked only where a single one is possible.

        Raises:
            UnavailableError: the keys were never fetched.
        """
        found = self._matching(kid, algorithm)
        if not found and self._may_ask():
            await self._ask()
            found = self._matching(kid, algorithm)
        if not found and not self.synced:
            raise UnavailableError("The gateway does not have the token issuer's keys yet: try again.")
        return found

    def _matching(self, kid: str | None, algorithm: str) -> list[PublicKey]:
        usable = [key for key in self._keys if algorithm in key.algorithms]
        if kid is None:
            return usable if len(usable) == 1 else []
        return [key for key in usable if key.kid == kid]

    def _may_ask(self) -> bool:
        return self._fetching or time.monotonic() - self._last_attempt >= _UNKNOWN_KEY_SECONDS

    async def _ask(self) -> None:
        """Waits for the end of a fetch, which all who wait share."""
        fetched = self._fetched
        if not self._fetching:
            self._wanted.set()
        try:
            async with asyncio.timeout(_FETCH_SECONDS + 1):
                await fetched.wait()
        except TimeoutError:
            _log.error("The keys of the token issuer are not being followed")

    async def run(self) -> None:
        """Fetches until cancelled: now and then, when asked, and again after a failure."""
        # A proxy only where the connection proves whom it reaches: plain HTTP is for this machine.
        through_proxy = self._url.startswith("https:") and not is_loopback(self._url)
        timeout = aiohttp.ClientTimeout(total=_FETCH_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=through_proxy, auto_decompress=False) as client:
            backoff = _FIRST_BACKOFF_SECONDS
            while True:
                await self._fetch(client)
                delay = _REFRESH_SECONDS if self.connected else backoff
                backoff = _FIRST_BACKOFF_SECONDS if self.connected else min(backoff * 2, _LONGEST_BACKOFF_SECONDS)
                await self._until_wanted(delay)

    async def _until_wanted(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wanted.wait()
        except TimeoutError:
            return

    async def _fetch(self, client: aiohttp.ClientSession) -> None:
        self._wanted.clear()
        self._fetching, self._last_attempt = True, time.monotonic()
        try:
            self._take(read_keys(await _get(client, self._url)))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            _log.warning(
                "The keys of GATEWAY_JWKS_URL cannot be fetched; %s: %s",
                "the last known ones serve on" if self.synced else "tokens that need them are not accepted",
                str(error) or f"no answer within {_FETCH_SECONDS:g} s",
            )
            self.connected = False
        finally:
            self._fetching = False
            self._fetched.set()
            self._fetched = asyncio.Event()

    def _take(self, keys: tuple[PublicKey, ...]) -> None:
        changed = keys != self._keys
        self._keys = keys
        if not keys:
            _log.error("GATEWAY_JWKS_URL lists no key that can check tokens; %s do", ", ".join(sorted(ALGORITHMS)))
        elif changed or not self.connected:
            _log.info("GATEWAY_JWKS_URL lists %d keys that check tokens", len(keys))
        self.synced = self.connected = True
        if changed:
            for watcher in self._watchers:
                watcher()


async def _get(client: aiohttp.ClientSession, url: str) -> bytes:
    """The body of an answer.

    Raises:
        aiohttp.ClientError, OSError, TimeoutError: there is none.
        ValueError: it is not one to be used.
    """
    headers = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
    async with client.get(url, allow_redirects=False, headers=headers) as response:
        if 300 <= response.status < 400:
            raise ValueError(f"it redirects (status {response.status}): set GATEWAY_JWKS_URL to where the keys are")
        if response.status != 200:
            raise ValueError(f"it answers with status {response.status}")
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > _MAXIMUM_BYTES:
                raise ValueError(f"its answer is larger than {_MAXIMUM_BYTES} bytes")
        return bytes(body)

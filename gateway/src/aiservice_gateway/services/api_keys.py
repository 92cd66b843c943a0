"""API keys: what machines send as bearer instead of a token. Only their SHA-256 is kept.

A key is 256 random bits, so its hash needs neither salt nor a slow function, and may be looked up in a dictionary: how
long that takes tells nothing about a key, since nobody can choose hashes near a known one.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime

PREFIX = "ais_"
"""Tells keys from tokens, and lets scanners for leaked secrets find them."""

_RANDOM_BYTES = 32


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key of a tenant, as it is known here: by its hash."""

    name: str
    sha256: str
    """Of the whole key, prefix included, as 64 lower-case hex digits."""
    user: str | None = None
    """The user in records of what the key is used for; None: the key's name."""
    admin: bool = False
    expires: datetime | None = None


def make_key() -> str:
    """A new key, such as ais_ and 43 letters, digits, dashes and underscores."""
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def key_hash(key: str) -> str:
    """The SHA-256 of a key, in lower-case hex."""
    return hashlib.sha256(key.encode()).hexdigest()

"""Signatures of webhooks, by the Standard Webhooks specification (https://www.standardwebhooks.com), scheme v1.

Each tenant has a secret of its own, made from the gateway's: who checks one's messages can make no other's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

PREFIX: Final = "whsec_"
_LEAST_BYTES: Final = 24
_MOST_BYTES: Final = 64


def read_secret(text: str) -> bytes:
    """The key that a secret stands for.

    Raises:
        ValueError: it is none.
    """
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True) if text.startswith(PREFIX) else b""
    except binascii.Error:
        key = b""
    if not _LEAST_BYTES <= len(key) <= _MOST_BYTES:
        raise ValueError(
            f"must be {PREFIX} with {_LEAST_BYTES} to {_MOST_BYTES} bytes in base64 after it, made for example with: "
            f'echo "{PREFIX}$(openssl rand -base64 32)"'
        )
    return key


def tenant_key(key: bytes, tenant: str) -> bytes:
    """A tenant's own key."""
    return hmac.digest(key, b"webhook:" + tenant.encode(), hashlib.sha256)


def write_secret(key: bytes) -> str:
    """A key as those who check signatures take it."""
    return PREFIX + base64.b64encode(key).decode()


def signature_headers(key: bytes, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a message.

    Args:
        key: The tenant's.
        message_id: The same each time that the message is sent.
        timestamp: Of this time, in seconds since the epoch.
        body: As it is sent.
    """
    signed = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }

"""An issuer of tokens: its keys, and a real HTTP server that lists them, well or badly."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from starlette.types import Receive, Scope, Send

from support.gateway import serving


class SigningKey:
    """A key pair, made anew."""

    def __init__(self, algorithm: str, kid: str, *, bits: int = 2048) -> None:
        self.algorithm = algorithm
        self.kid = kid
        self.key: Any
        converter: Any
        if algorithm.startswith("ES"):
            self.key, converter = ec.generate_private_key(ec.SECP256R1()), ECAlgorithm
        elif algorithm == "EdDSA":
            self.key, converter = ed25519.Ed25519PrivateKey.generate(), OKPAlgorithm
        else:
            self.key, converter = rsa.generate_private_key(65537, bits), RSAAlgorithm
        named = {"kid": kid, "alg": algorithm, "use": "sig"}
        self.private: dict[str, Any] = {**json.loads(converter.to_jwk(self.key)), **named, "key_ops": ["verify"]}
        self.public: dict[str, Any] = {**json.loads(converter.to_jwk(self.key.public_key())), **named}

    def token(self, tenant: str = "acme", *, header: dict[str, Any] | None = None, **claims: object) -> str:
        """A token that this key signs."""
        document = {"tenantId": tenant, "sub": "ann", "exp": int(time.time()) + 600, **claims}
        named = {"kid": self.kid, **(header or {})}
        return jwt.encode(
            document, self.key, self.algorithm, {name: value for name, value in named.items() if value is not None}
        )


@dataclass
class Issuer:
    """Lists keys at /keys. Its fields say how; they may change while it runs."""

    keys: Sequence[SigningKey] = ()
    status: int = 200
    body: bytes | None = None
    """What is answered in place of the keys."""
    headers: dict[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    endless: bool = False
    """Whether the answer never ends."""
    asked: int = 0
    url: str = ""

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Answers one request."""
        self.asked += 1
        await asyncio.sleep(self.delay_seconds)
        document = {"keys": [key.public for key in self.keys]}
        body = self.body if self.body is not None else json.dumps(document).encode()
        headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        status = self.status if scope["path"] == "/keys" else 404
        await send({"type": "http.response.start", "status": status, "headers": headers})
        while self.endless:
            await send({"type": "http.response.body", "body": b" " * 65536, "more_body": True})
            await asyncio.sleep(0.001)  # to a client that has gone `send` waits for nothing
        await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def running_issuer(*keys: SigningKey, port: int = 0) -> AsyncIterator[Issuer]:
    """An issuer that listens; `url` is where its keys are."""
    issuer = Issuer(keys)
    async with serving(issuer, port=port) as base:
        issuer.url = f"{base}/keys"
        yield issuer

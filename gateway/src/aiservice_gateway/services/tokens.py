"""Tokens: which key checks one, and what it must say besides (RFC 7515, RFC 7519, RFC 8725).

Each source of keys has its own algorithms, so a public key never serves as the secret of an HS256 token. A token's
header only chooses among the keys that are known; what it brings along or points to (`jwk`, `jku`, `x5u`) is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
from jwt.algorithms import AllowedPublicKeys

from aiservice_gateway.errors import UnauthenticatedError
from aiservice_gateway.services.jwks import ALGORITHMS, KeySource

HMAC = "HS256"

ADVICE = "Send the header 'Authorization: Bearer <token>' with a token from your application."
EXPIRED = "The token has expired: get a new one from your application."

_MISSING = {
    "exp": "The token never expires: it must have an 'exp' claim.",
    "aud": "The token does not say whom it is for: it must have an 'aud' claim.",
    "iss": "The token does not say who issued it: it must have an 'iss' claim.",
}


@dataclass(frozen=True, slots=True)
class Secrets:
    """What applications sign with, HS256."""

    unnamed: str | None
    """Needs no `kid`."""
    named: Mapping[str, str]
    """By `kid`."""

    def __bool__(self) -> bool:
        """Whether there is any."""
        return self.unnamed is not None or bool(self.named)

    def find(self, kid: str | None) -> Sequence[str]:
        """Those that may have signed a token: the one that it names, else all, since old and new ones overlap."""
        if kid is not None and kid in self.named:
            return [self.named[kid]]
        return [*([self.unnamed] if self.unnamed is not None else []), *self.named.values()]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token must say besides who it is."""

    issuers: tuple[str, ...] = ()
    """One of these is its `iss`; none: not checked."""
    audiences: tuple[str, ...] = ()
    """One of these is in its `aud`; none: not checked."""
    leeway_seconds: float = 10.0
    """How far the clocks of issuer and gateway may differ."""


class TokenVerifier:
    """Verifies tokens."""

    def __init__(self, secrets: Secrets, keys: KeySource | None, expected: Expected) -> None:
        """Args are what tokens are checked with; without `keys` none with a public key's signature is accepted."""
        self._secrets = secrets
        self._keys = keys
        self._expected = expected
        accepted = ({HMAC} if secrets else set()) | (ALGORITHMS if keys is not None else set())
        self._accepted = frozenset(accepted)
        self._decoder = jwt.PyJWT(
            {
                "require": ["exp"],
                "verify_aud": bool(expected.audiences),
                "verify_iss": bool(expected.issuers),
                "verify_sub": False,  # users are read more leniently
                "enforce_minimum_key_length": True,
            }
        )

    async def verify(self, token: str) -> dict[str, Any]:
        """The claims of a genuine token.

        Raises:
            UnauthenticatedError: it is not one.
            UnavailableError: the keys that would tell were never fetched.
        """
        kid, algorithm = self._read_header(token)
        keys: Sequence[str | AllowedPublicKeys]
        if algorithm == HMAC:
            keys = self._secrets.find(kid)
        elif self._keys is not None:
            keys = [known.key for known in await self._keys.find(kid, algorithm)]
        else:
            keys = ()
        if not keys:
            raise UnauthenticatedError("The token is signed with a key that its issuer does not list.")
        return self._claims(token, keys, algorithm)

    def _read_header(self, token: str) -> tuple[str | None, str]:
        """Key id and algorithm of a token, not to be believed yet."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise UnauthenticatedError(f"The token cannot be read. {ADVICE}") from error
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._accepted:
            names = sorted(self._accepted)
            listed = f"only {names[0]} is" if len(names) == 1 else f"only {', '.join(names)} are"
            raise UnauthenticatedError(f"The token's algorithm is not accepted: {listed}.")
        # RFC 7515 section 4.1.11: what is critical and not understood makes a token invalid; nothing is understood.
        if "crit" in header or header.get("b64", True) is not True:
            raise UnauthenticatedError("The token's header asks for an extension that the gateway does not have.")
        return header.get("kid"), algorithm

    def _claims(self, token: str, keys: Sequence[str | AllowedPublicKeys], algorithm: str) -> dict[str, Any]:
        for key in keys:
            try:
                return self._decode(token, key, algorithm)
            except jwt.InvalidSignatureError:
                continue
        raise UnauthenticatedError("The token's signature is wrong: it was made with another secret or key.")

    def _decode(self, token: str, key: str | AllowedPublicKeys, algorithm: str) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = self._decoder.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._expected.audiences or None,
                issuer=self._expected.issuers or None,
                leeway=self._expected.leeway_seconds,
            )
        except jwt.InvalidSignatureError:
            raise
        except jwt.ExpiredSignatureError as error:
            raise UnauthenticatedError(EXPIRED) from error
        except jwt.MissingRequiredClaimError as error:
            raise UnauthenticatedError(_MISSING[error.claim]) from error
        except jwt.InvalidAudienceError as error:
            raise UnauthenticatedError("The token is not for this gateway: its audience is another.") from error
        except jwt.InvalidIssuerError as error:
            raise UnauthenticatedError("The token's issuer is not one that the gateway accepts.") from error
        except jwt.ImmatureSignatureError as error:
            raise UnauthenticatedError("The token is not valid yet: check the clock of its issuer.") from error
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise UnauthenticatedError(f"The token cannot be read. {ADVICE}") from error
        return claims


def make_token(
    secret: str, claims: Mapping[str, object], *, lifetime_seconds: float, now: float, kid: str | None = None
) -> str:
    """A token as the application would issue it, for trying things out.

    Args:
        secret: What to sign with.
        claims: Tenant and user, under the names that the gateway is configured with.
        lifetime_seconds: Time until it expires.
        now: Seconds since the epoch.
        kid: Name of the secret, where it has one.
    """
    timed = {**claims, "iat": int(now), "exp": int(now + lifetime_seconds)}
    return jwt.encode(timed, secret, HMAC, headers=None if kid is None else {"kid": kid})

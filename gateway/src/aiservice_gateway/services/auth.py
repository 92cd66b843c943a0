"""Who asks: bearer tokens, signed HS256 with the secret that the application signs with."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import jwt

from aiservice_gateway.errors import NoTenantError, UnauthenticatedError
from aiservice_gateway.models import Identity

ALGORITHM = "HS256"
LEEWAY_SECONDS = 10.0
"""How far the clocks of the application and the gateway may differ."""

_MAXIMUM_TOKEN_CHARACTERS = 8192
_MAXIMUM_NAME_CHARACTERS = 256
_CACHED_TOKENS = 4096
_FAR_FUTURE = 2**53  # JSON integers have no bound, floats have
_SCHEME = "bearer"

_EXPIRED = "The token has expired: get a new one from your application."
_ADVICE = "Send the header 'Authorization: Bearer <token>' with a token from your application."


class Authenticator:
    """Verifies tokens, and remembers the ones it verified until they expire."""

    def __init__(
        self, secret: str, *, tenant_claim: str, user_claim: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._secret = secret
        self._tenant_claim = tenant_claim
        self._user_claim = user_claim
        self._clock = clock
        self._decoder = jwt.PyJWT(
            {
                "require": ["exp"],
                # Whom a token is for is not checked: the secret is shared with one application only.
                "verify_aud": False,
                "verify_sub": False,  # read below, more leniently
                "enforce_minimum_key_length": True,
            }
        )
        self._verified: OrderedDict[str, tuple[Identity, float]] = OrderedDict()

    def identify(self, authorization: Sequence[str]) -> Identity:
        """Says who asks.

        Args:
            authorization: The values of all Authorization headers of the request.

        Raises:
            UnauthenticatedError: there is no token, or not a valid one.
            NoTenantError: the token is valid and names no tenant.
        """
        token = _token(authorization)
        known = self._verified.get(token)
        if known is not None:
            identity, expires = known
            if self._clock() >= expires:
                self._verified.pop(token, None)
                raise UnauthenticatedError(_EXPIRED)
            self._verified.move_to_end(token)
            return identity
        claims = self._claims(token)
        identity = Identity(self._tenant(claims), self._user(claims))
        self._remember(token, identity, min(int(claims["exp"]), _FAR_FUTURE) + LEEWAY_SECONDS)
        return identity

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = self._decoder.decode(
                token, self._secret, algorithms=[ALGORITHM], leeway=LEEWAY_SECONDS
            )
        except jwt.ExpiredSignatureError as error:
            raise UnauthenticatedError(_EXPIRED) from error
        except jwt.MissingRequiredClaimError as error:
            raise UnauthenticatedError("The token never expires: it must have an 'exp' claim.") from error
        except jwt.InvalidSignatureError as error:
            raise UnauthenticatedError("The token's signature is wrong: it was made with another secret.") from error
        except jwt.InvalidAlgorithmError as error:
            raise UnauthenticatedError(f"The token's algorithm is not accepted: only {ALGORITHM} is.") from error
        except jwt.ImmatureSignatureError as error:
            raise UnauthenticatedError("The token is not valid yet: check the clock of its issuer.") from error
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError) as error:
            raise UnauthenticatedError(f"The token cannot be read. {_ADVICE}") from error
        return claims

    def _tenant(self, claims: dict[str, Any]) -> str:
        tenant = claims.get(self._tenant_claim)
        if not _is_name(tenant):
            raise NoTenantError(
                f"The token names no tenant: it must have a '{self._tenant_claim}' claim, a text of 1 to "
                f"{_MAXIMUM_NAME_CHARACTERS} printable characters."
            )
        return str(tenant)

    def _user(self, claims: dict[str, Any]) -> str | None:
        user = claims.get(self._user_claim)
        if isinstance(user, int) and not isinstance(user, bool):
            user = str(user)  # many applications number their users
        return str(user) if _is_name(user) else None

    def _remember(self, token: str, identity: Identity, expires: float) -> None:
        self._verified[token] = (identity, expires)
        if len(self._verified) > _CACHED_TOKENS:
            self._verified.popitem(last=False)


def _token(authorization: Sequence[str]) -> str:
    """The bearer token of a request.

    Raises:
        UnauthenticatedError: there is none, or more than one.
    """
    if not authorization:
        raise UnauthenticatedError(f"This needs a token. {_ADVICE}")
    if len(authorization) > 1:
        raise UnauthenticatedError(f"There is more than one Authorization header. {_ADVICE}")
    scheme, _, token = authorization[0].partition(" ")
    token = token.strip(" ")
    if scheme.lower() != _SCHEME or not token:
        raise UnauthenticatedError(f"The Authorization header is not a bearer token. {_ADVICE}")
    if len(token) > _MAXIMUM_TOKEN_CHARACTERS:
        raise UnauthenticatedError(f"The token is longer than {_MAXIMUM_TOKEN_CHARACTERS} characters.")
    return token


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAXIMUM_NAME_CHARACTERS and value.isprintable()


def make_token(secret: str, claims: dict[str, object], *, lifetime_seconds: float, now: float) -> str:
    """A token as the application would issue it, for trying things out.

    Args:
        secret: What to sign with.
        claims: Tenant and user, under the names that the gateway is configured with.
        lifetime_seconds: Time until it expires.
        now: Seconds since the epoch.
    """
    return jwt.encode({**claims, "iat": int(now), "exp": int(now + lifetime_seconds)}, secret, ALGORITHM)

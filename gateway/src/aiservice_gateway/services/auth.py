"""Who asks: a token of the application's or an issuer's, or the API key of a machine, sent as bearer."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from aiservice_gateway.errors import UnauthenticatedError
from aiservice_gateway.models import Identity
from aiservice_gateway.services.api_keys import PREFIX
from aiservice_gateway.services.claims import Claims
from aiservice_gateway.services.tenants import Tenants
from aiservice_gateway.services.tokens import ADVICE, EXPIRED, TokenVerifier

_MAXIMUM_TOKEN_CHARACTERS = 8192
_CACHED_TOKENS = 4096
_FAR_FUTURE = 2**53  # JSON integers have no bound, floats have
_SCHEME = "bearer"


class Authenticator:
    """Says who asks, and remembers the tokens that it verified until they expire or the keys change.

    API keys are not remembered: looking one up costs as little, and one that is withdrawn is refused at once.
    """

    def __init__(
        self,
        verifier: TokenVerifier,
        claims: Claims,
        tenants: Tenants,
        *,
        leeway_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Args are what it asks; `leeway_seconds` is how long after its end a token still passes."""
        self._verifier = verifier
        self._claims = claims
        self._tenants = tenants
        self._leeway_seconds = leeway_seconds
        self._clock = clock
        self._verified: OrderedDict[str, tuple[Identity, float]] = OrderedDict()

    async def identify(self, authorization: Sequence[str]) -> Identity:
        """Says who asks, and that the tenant may.

        Args:
            authorization: The values of all Authorization headers of the request.

        Raises:
            UnauthenticatedError: there is no token or key, or not a valid one.
            NoTenantError: the token is valid and names no tenant.
            TenantSuspendedError, UnknownTenantError: the tenant may not.
            UnavailableError: what would tell is not known yet.
        """
        identity = self._remembered(authorization) or await self._verify(authorization)
        self._tenants.check(identity.tenant)
        return identity

    def forget(self) -> None:
        """Verifies every token anew: keys have changed."""
        self._verified.clear()

    def _remembered(self, authorization: Sequence[str]) -> Identity | None:
        if len(authorization) != 1 or (known := self._verified.get(authorization[0])) is None:
            return None
        identity, expires = known
        if self._clock() >= expires:
            del self._verified[authorization[0]]
            raise UnauthenticatedError(EXPIRED)
        self._verified.move_to_end(authorization[0])
        return identity

    async def _verify(self, authorization: Sequence[str]) -> Identity:
        token = _token(authorization)
        if token.startswith(PREFIX):
            return self._tenants.holder(token, self._clock())
        claims = await self._verifier.verify(token)
        identity = self._claims.identity(claims)
        self._verified[authorization[0]] = identity, min(int(claims["exp"]), _FAR_FUTURE) + self._leeway_seconds
        if len(self._verified) > _CACHED_TOKENS:
            self._verified.popitem(last=False)
        return identity


def _token(authorization: Sequence[str]) -> str:
    """The bearer token of a request.

    Raises:
        UnauthenticatedError: there is none, or more than one.
    """
    if not authorization:
        raise UnauthenticatedError(f"This needs a token. {ADVICE}")
    if len(authorization) > 1:
        raise UnauthenticatedError(f"There is more than one Authorization header. {ADVICE}")
    scheme, _, token = authorization[0].partition(" ")
    token = token.strip(" ")
    if scheme.lower() != _SCHEME or not token:
        raise UnauthenticatedError(f"The Authorization header is not a bearer token. {ADVICE}")
    if len(token) > _MAXIMUM_TOKEN_CHARACTERS:
        raise UnauthenticatedError(f"The token is longer than {_MAXIMUM_TOKEN_CHARACTERS} characters.")
    return token

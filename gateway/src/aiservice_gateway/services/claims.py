"""What the claims of a verified token say: the tenant, the user, and whether it is an administrator's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiservice_gateway.errors import NoTenantError
from aiservice_gateway.models import Identity

_MAXIMUM_NAME_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class Claims:
    """Names of the claims, each a claim's own name or a path with dots into it."""

    tenant: str = "tenantId"
    user: str = "sub"
    role: str = "role"
    admin_role: str | None = None
    """The role of administrators; None: nobody is one."""

    def identity(self, claims: Mapping[str, object]) -> Identity:
        """Who the claims are about.

        Raises:
            NoTenantError: they name no tenant.
        """
        tenant = claim(claims, self.tenant)
        if not is_name(tenant):
            raise NoTenantError(
                f"The token names no tenant: it must have a '{self.tenant}' claim, a text of 1 to "
                f"{_MAXIMUM_NAME_CHARACTERS} printable characters."
            )
        return Identity(str(tenant), self._user(claims), self._is_admin(claims))

    def _user(self, claims: Mapping[str, object]) -> str | None:
        user = claim(claims, self.user)
        if isinstance(user, int) and not isinstance(user, bool):
            user = str(user)  # many applications number their users
        return str(user) if is_name(user) else None

    def _is_admin(self, claims: Mapping[str, object]) -> bool:
        if self.admin_role is None:
            return False
        roles = claim(claims, self.role)
        return roles == self.admin_role or (isinstance(roles, list) and self.admin_role in roles)


def claim(claims: object, name: str) -> object:
    """A claim's value, None where there is none.

    A claim that has exactly this name wins. Otherwise dots lead into objects: `realm_access.roles`. Names of claims may
    hold dots themselves (`https://example.com/app`), so the longest beginning that is a claim is followed first.
    """
    if not isinstance(claims, Mapping):
        return None
    if name in claims:
        return claims[name]
    end = name.rfind(".")
    while end > 0:
        if name[:end] in claims:
            found = claim(claims[name[:end]], name[end + 1 :])
            if found is not None:
                return found
        end = name.rfind(".", 0, end)
    return None


def is_name(value: object) -> bool:
    """Whether a value can name a tenant or a user: a text of 1 to 256 printable characters."""
    return isinstance(value, str) and 0 < len(value) <= _MAXIMUM_NAME_CHARACTERS and value.isprintable()

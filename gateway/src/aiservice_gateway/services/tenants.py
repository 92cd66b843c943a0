"""Tenants: what each may do, from AITenant objects or the services file, live.

A tenant that no AITenant is about has the defaults. A limit on requests that is stated replaces defaults (`policy`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal

from aiservice_api.tasks import Task
from aiservice_gateway.errors import (
    TenantSuspendedError,
    UnauthenticatedError,
    UnavailableError,
    UnknownTenantError,
)
from aiservice_gateway.models import Identity, Limit, Measure, Policy, Service
from aiservice_gateway.services.api_keys import ApiKey, key_hash

DEFAULT_WINDOW_SECONDS = 3600


def default_policy(requests_per_hour: int) -> Policy:
    """What a tenant may do for whom nothing else is said: a number of requests an hour to each service."""
    limits = (Limit(Measure.REQUESTS, Decimal(requests_per_hour), task, DEFAULT_WINDOW_SECONDS) for task in Task)
    return Policy(tuple(limits))


@dataclass(frozen=True, slots=True)
class Tenant:
    """What one AITenant says."""

    key: str
    """What tells it from every other AITenant: NAMESPACE/NAME, or the name in a file."""
    name: str
    """The tenant, as tokens name it."""
    stated: Policy = field(default=Policy())
    keys: tuple[ApiKey, ...] = ()
    created: datetime = field(default=datetime(1970, 1, 1, tzinfo=UTC))


class Tenants:
    """The tenants that are known, and the policies that follow. Of two AITenants for one tenant the older counts."""

    def __init__(self, requests_per_hour: int, *, required: bool = False) -> None:
        """Knows nobody yet.

        Args:
            requests_per_hour: What a tenant may ask of each task, where nothing else is stated.
            required: Whether a tenant that no AITenant is about is refused.
        """
        self._default = default_policy(requests_per_hour)
        self._required = required
        self._stated: dict[str, Tenant] = {}
        self._chosen: Mapping[str, Tenant] = {}
        self._policies: Mapping[str, Policy] = {}
        self._keys: Mapping[str, tuple[ApiKey, str]] = {}
        self.synced = False
        """Whether all of them have been known once. Before, nobody is let in: it might be suspended."""

    def replace(self, tenants: Iterable[Tenant]) -> None:
        """Sets all AITenants."""
        self._stated = {tenant.key: tenant for tenant in tenants}
        self.synced = True
        self._index()

    def put(self, tenant: Tenant) -> None:
        """Adds an AITenant, or changes it."""
        self._stated[tenant.key] = tenant
        self._index()

    def remove(self, key: str) -> None:
        """Removes an AITenant, if it is there."""
        if self._stated.pop(key, None) is not None:
            self._index()

    def chosen(self, tenant: str) -> Tenant | None:
        """The AITenant that counts for a tenant, if there is one."""
        return self._chosen.get(tenant)

    def policy(self, tenant: str) -> Policy:
        """What a tenant may do now.

        The default is a limit on requests for each task. A stated limit on requests for a task replaces the default of
        that task; one for all tasks together replaces every default. Limits of other measures come on top.
        """
        return self._policies.get(tenant, self._default)

    def check(self, tenant: str) -> None:
        """Lets a tenant pass.

        Raises:
            TenantSuspendedError, UnknownTenantError: it may not.
            UnavailableError: the tenants are not known yet.
        """
        self._check_synced()
        policy = self._policies.get(tenant)
        if policy is None and self._required:
            raise UnknownTenantError("The tenant is not known here: ask whoever runs the gateway to add it.")
        if policy is not None and policy.suspended:
            raise TenantSuspendedError("The tenant is suspended: ask whoever runs the gateway.")

    def holder(self, key: str, now: float) -> Identity:
        """Who holds an API key.

        Args:
            key: As it was sent.
            now: Seconds since the epoch.

        Raises:
            UnauthenticatedError: nobody does, or it has expired.
            UnavailableError: the keys are not known yet.
        """
        self._check_synced()
        found = self._keys.get(key_hash(key))
        if found is None:
            raise UnauthenticatedError("The API key is not known: it was withdrawn, or is not whole.")
        known, tenant = found
        if known.expires is not None and now >= known.expires.timestamp():
            raise UnauthenticatedError("The API key has expired: ask whoever runs the gateway for a new one.")
        return Identity(tenant, known.user or known.name, known.admin)

    def _check_synced(self) -> None:
        if not self.synced:
            raise UnavailableError("The gateway has just started and does not know the tenants yet: try again.")

    def _index(self) -> None:
        chosen: dict[str, Tenant] = {}
        for tenant in sorted(self._stated.values(), key=lambda tenant: (tenant.created, tenant.key)):
            chosen.setdefault(tenant.name, tenant)
        keys: dict[str, tuple[ApiKey, str]] = {}
        for tenant in chosen.values():
            for key in tenant.keys:
                keys.setdefault(key.sha256, (key, tenant.name))
        self._chosen, self._keys = chosen, keys
        self._policies = {
            name: replace(tenant.stated, limits=_with_defaults(tenant.stated.limits, self._default.limits))
            for name, tenant in chosen.items()
        }


def may_use(policy: Policy, tenant: str, service: Service) -> bool:
    """Whether a tenant with this policy may use a service: both must agree."""
    admitted = service.tenants is None or tenant in service.tenants
    return admitted and (policy.services is None or not policy.services.isdisjoint((service.name, service.key)))


def _with_defaults(stated: Iterable[Limit], defaults: tuple[Limit, ...]) -> tuple[Limit, ...]:
    """The limits that hold, each measure, task and window once: of two that count the same the lower."""
    lowest: dict[tuple[Measure, Task | None, int | None], Limit] = {}
    for limit in stated:
        counted = (limit.measure, limit.task, limit.window_seconds)
        if counted not in lowest or limit.maximum < lowest[counted].maximum:
            lowest[counted] = limit
    replaced = {task for measure, task, _ in lowest if measure is Measure.REQUESTS}
    kept = () if None in replaced else (limit for limit in defaults if limit.task not in replaced)
    return (*kept, *lowest.values())

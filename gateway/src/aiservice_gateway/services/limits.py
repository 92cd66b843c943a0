"""Limits: how many requests a tenant may make to each service. A service here is a task, as in the usage table.

Redis counts for all gateways together. While it is away each gateway counts for itself, starting from what it let
pass before; so a limit is never lifted, and with several gateways it may be exceeded by what each lets pass alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from aiservice_api.tasks import Task
from aiservice_gateway.errors import StoreUnavailableError
from aiservice_gateway.models import Admission, Quota
from aiservice_gateway.stores.memory import MemoryLimiter
from aiservice_gateway.stores.redis import RedisStore

WINDOW_SECONDS = 3600.0


class Limits:
    """Admits requests."""

    def __init__(self, limit: int, local: MemoryLimiter, shared: RedisStore | None) -> None:
        self._limit = limit
        self._local = local
        self._shared = shared

    async def admit(self, tenant: str, task: Task, request_id: str) -> Admission:
        """Counts a request, unless the tenant has used up its limit. Never fails."""
        if self._shared is not None:
            try:
                admission = await self._shared.admit(tenant, task, request_id, self._limit, WINDOW_SECONDS)
            except StoreUnavailableError:
                pass
            else:
                if not admission.allowed:
                    return admission
                # What this process admitted by itself while Redis was away, Redis does not know of.
                known_here = self._local.admit(tenant, task, request_id)
                if known_here.allowed:
                    return admission
                await self._refund_shared(tenant, task, request_id)
                return known_here
        return self._local.admit(tenant, task, request_id)

    async def refund(self, tenant: str, task: Task, request_id: str) -> None:
        """Uncounts a request that no engine worked on."""
        self._local.refund(tenant, task, request_id)
        await self._refund_shared(tenant, task, request_id)

    async def _refund_shared(self, tenant: str, task: Task, request_id: str) -> None:
        if self._shared is not None:
            try:
                await self._shared.refund(tenant, task, request_id)
            except StoreUnavailableError:
                return  # it stays counted there for an hour: on the safe side

    async def quotas(self, tenant: str) -> Mapping[Task, Quota]:
        """Where a tenant stands with every task."""
        if self._shared is not None:
            try:
                return await self._shared.quotas(tenant, self._limit, WINDOW_SECONDS)
            except StoreUnavailableError:
                pass
        return self._local.quotas(tenant)


def whole_seconds(seconds: float) -> int:
    """Seconds to wait, rounded up: after them it is certain."""
    return math.ceil(seconds)


def quota_headers(quota: Quota) -> dict[str, str]:
    """The limit's state as response headers; reset is in seconds from now."""
    return {
        "x-ratelimit-limit": str(quota.limit),
        "x-ratelimit-remaining": str(quota.remaining),
        "x-ratelimit-reset": str(whole_seconds(quota.reset_seconds)),
    }

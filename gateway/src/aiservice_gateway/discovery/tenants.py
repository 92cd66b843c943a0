"""What an AITenant says, and what it is told in return: whether it counts."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import aiohttp
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from aiservice_api.v1alpha1 import API_VERSION, GROUP, VERSION, AITenant, ConditionStatus, TenantLimit, TenantMeasure
from aiservice_gateway.discovery.follow import Document, key_of
from aiservice_gateway.models import Limit, Measure, Policy
from aiservice_gateway.services.api_keys import ApiKey
from aiservice_gateway.services.tenants import DEFAULT_WINDOW_SECONDS, Tenant, Tenants

_log = logging.getLogger(__name__)

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_WHOLE = {TenantMeasure.REQUESTS, TenantMeasure.CONCURRENCY}
_MOST_REQUESTS = 1_000_000
_WINDOWED = {TenantMeasure.REQUESTS, TenantMeasure.UNITS}

_ACCEPTED = "Accepted"
_FIELD_MANAGER = "aiservice-gateway"
_PATCH_SECONDS = 10.0
_RETRY_SECONDS = 30.0


def to_tenant(resource: AITenant) -> Tenant:
    """What the gateway needs of an AITenant.

    Raises:
        ValueError: it breaks a rule that an API server would have held it to; the message says which.
    """
    spec, meta = resource.spec, resource.metadata
    keys = tuple(
        ApiKey(key.name, _digest(key.sha256), key.user, key.admin, _in_utc(key.expires)) for key in spec.api_keys
    )
    return Tenant(
        key=f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name,
        name=spec.tenant if spec.tenant is not None else meta.name,
        stated=Policy(
            limits=tuple(map(_to_limit, spec.limits)),
            services=frozenset(spec.services) if spec.services is not None else None,
            suspended=spec.suspend,
        ),
        keys=keys,
        **({"created": meta.creation_timestamp} if meta.creation_timestamp is not None else {}),
    )


def _to_limit(limit: TenantLimit) -> Limit:
    maximum = Decimal(str(limit.maximum))
    if limit.measure in _WHOLE and maximum != maximum.to_integral_value():
        raise ValueError(f"{limit.measure} is counted whole: {maximum} cannot be its maximum")
    if limit.measure is TenantMeasure.REQUESTS and maximum > _MOST_REQUESTS:
        raise ValueError(f"each request of a window is remembered, so at most {_MOST_REQUESTS} can be")
    if limit.measure not in _WINDOWED:
        if limit.window is not None:
            raise ValueError(f"a limit of {limit.measure} has no window: remove it")
        return Limit(Measure(limit.measure), maximum, limit.task)
    seconds = _seconds(limit.window) if limit.window is not None else DEFAULT_WINDOW_SECONDS
    return Limit(Measure(limit.measure), maximum, limit.task, seconds)


def _seconds(window: str) -> int:
    if (found := re.fullmatch("([1-9][0-9]{0,6})([smhd])", window)) is None:
        raise ValueError(f"{window!r} is no window: write a number and a unit: 90s, 30m, 24h or 7d")
    return int(found[1]) * _SECONDS[found[2]]


def _digest(sha256: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError("sha256 of an API key is 64 lower-case hex digits, as the command `key` prints them")
    return sha256


def _in_utc(moment: datetime | None) -> datetime | None:
    """A moment without a zone, which a file may state, is in UTC."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


class TenantObjects:
    """Keeps the tenants that AITenant objects are about, and the objects for their status."""

    def __init__(self, tenants: Tenants) -> None:
        self.tenants = tenants
        self.changed = asyncio.Event()
        """Set when a status may have to be written."""
        self._objects: dict[str, AITenant] = {}

    @property
    def objects(self) -> Mapping[str, AITenant]:
        """Those that could be read, by NAMESPACE/NAME."""
        return self._objects

    def replace(self, documents: Sequence[Document]) -> None:
        """These are all AITenants."""
        self._objects = {}
        self.tenants.replace(filter(None, [self._read(document) for document in documents]))
        self.changed.set()

    def put(self, document: Document) -> None:
        """One was made or changed. What it said before stays where it cannot be read."""
        tenant = self._read(document)
        if tenant is not None:
            self.tenants.put(tenant)
            self.changed.set()

    def remove(self, key: str) -> None:
        """One was deleted."""
        self._objects.pop(key, None)
        self.tenants.remove(key)
        self.changed.set()

    def _read(self, document: Document) -> Tenant | None:
        try:
            resource = AITenant.model_validate(document)
            tenant = to_tenant(resource)
        except ValueError as error:
            _log.error("AITenant %s cannot be read and changes nothing: %s", key_of(document), error)
            return None
        self._objects[tenant.key] = resource
        return tenant


class Verdicts:
    """Writes into each AITenant's status whether it counts.

    All gateways come to the same verdicts and write only those that are not there yet, so several do no harm, also of
    two versions: words alone are no reason to write.
    """

    def __init__(self, api: client.ApiClient, objects: TenantObjects) -> None:
        """Writes nothing yet."""
        self._api = api
        self._objects = objects

    async def run(self) -> None:
        """Writes until cancelled. What cannot be written is logged, and tried again later."""
        while True:
            await self._objects.changed.wait()
            self._objects.changed.clear()
            for key, status in list(self._outstanding()):
                if not await self._write(key, status):
                    # What keeps one from being written most likely keeps all.
                    await asyncio.sleep(_RETRY_SECONDS)
                    self._objects.changed.set()
                    break

    def _outstanding(self) -> Iterable[tuple[str, dict[str, Any]]]:
        for key, resource in self._objects.objects.items():
            condition = verdict(resource, self._objects.tenants, datetime.now(UTC))
            if condition is not None:
                yield key, {"observedGeneration": resource.metadata.generation, "conditions": [condition]}

    async def _write(self, key: str, status: dict[str, Any]) -> bool:
        namespace, name = key.split("/")
        body = {
            "apiVersion": API_VERSION,
            "kind": "AITenant",
            "metadata": {"name": name, "namespace": namespace},
            "status": status,
        }
        try:
            await _apply_status(self._api, namespace, name, body)
        except (ApiException, aiohttp.ClientError, OSError, TimeoutError) as error:
            if isinstance(error, ApiException) and error.status == 404:
                return True  # deleted meanwhile
            _log.warning("The status of AITenant %s cannot be written: %s", key, error)
            return False
        return True


async def _apply_status(api: client.ApiClient, namespace: str, name: str, body: dict[str, Any]) -> None:
    """Server-side apply of a status: of two gateways that write at once the later one's time stays.

    Raises:
        ApiException: the API server refuses.
        aiohttp.ClientError, OSError, TimeoutError: it does not answer.
    """
    response = await client.CustomObjectsApi(api).patch_namespaced_custom_object_status_without_preload_content(
        *(GROUP, VERSION, namespace, "aitenants", name, body),
        field_manager=_FIELD_MANAGER,
        force=True,
        _content_type="application/apply-patch+yaml",
        _request_timeout=_PATCH_SECONDS,
    )
    async with response:
        answer = await response.text()
        if response.status != 200:
            raise ApiException(status=response.status, reason=answer)


def verdict(resource: AITenant, tenants: Tenants, now: datetime) -> dict[str, Any] | None:
    """The condition Accepted that an AITenant should have; None where it has it."""
    tenant = to_tenant(resource)
    counts = tenants.chosen(tenant.name)
    generation = resource.metadata.generation
    if counts is None or counts.key == tenant.key:
        status, reason, message = ConditionStatus.TRUE, "Counts", f"Tokens of tenant {tenant.name} get what this says."
    else:
        other = counts.key.partition("/")[2]
        status, reason = ConditionStatus.FALSE, "TenantTaken"
        message = (
            f"{other} is about tenant {tenant.name} too, and older: this object changes nothing. Delete one of them, "
            "or set spec.tenant to another tenant."
        )
    for present in resource.status.conditions:
        if present.type == _ACCEPTED:
            if (present.status, present.reason, present.observed_generation) == (status, reason, generation):
                return None
            if present.status is status:
                now = present.last_transition_time
    return {
        "type": _ACCEPTED,
        "status": status.value,
        "observedGeneration": generation,
        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "reason": reason,
        "message": message,
    }

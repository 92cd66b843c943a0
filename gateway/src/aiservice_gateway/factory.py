"""Wires the parts together. Nothing else constructs a service or a store."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from aiservice_api.tasks import Task
from aiservice_gateway.discovery import Discovery
from aiservice_gateway.discovery.file import FileDiscovery, read_services
from aiservice_gateway.discovery.kubernetes import KubernetesDiscovery, connect
from aiservice_gateway.errors import SettingsError, StoreUnavailableError, UnavailableError
from aiservice_gateway.metrics import Metrics
from aiservice_gateway.models import Service
from aiservice_gateway.services.auth import Authenticator
from aiservice_gateway.services.backlog import Backlog
from aiservice_gateway.services.health import HealthCheck
from aiservice_gateway.services.leases import Leases
from aiservice_gateway.services.ledger import Ledger
from aiservice_gateway.services.limits import Limits, default_policy
from aiservice_gateway.services.proxy import Proxy
from aiservice_gateway.services.registry import Registry
from aiservice_gateway.services.upstream import Upstream
from aiservice_gateway.services.usage import Usage
from aiservice_gateway.settings import Settings
from aiservice_gateway.stores.base import UsageStore
from aiservice_gateway.stores.memory import MemoryCounters, MemoryLimiter
from aiservice_gateway.stores.postgres import SCHEMA_REVISION, PostgresUsage
from aiservice_gateway.stores.redis import RedisStore
from aiservice_gateway.stores.spool import Spool
from aiservice_gateway.stores.sqlite import SqliteUsage

_log = logging.getLogger(__name__)

_CLOSE_SECONDS = 3.0
"""For each step of stopping. All steps together stay below the 10 s that the chart's grace period has for them."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The running parts, as routes use them."""

    auth: Authenticator
    registry: Registry
    discovery: Discovery
    proxy: Proxy
    usage: Usage
    ledger: Ledger
    health: HealthCheck
    limits: Limits
    metrics: Metrics
    redis: RedisStore | None

    def resolve(self, task: Task, name: str | None) -> tuple[Service, str]:
        """The service for a request and its base URL.

        Raises:
            UnavailableError: the services are not known yet, or this one is not ready.
            NotFoundError: as `Registry.resolve`.
        """
        if not self.discovery.synced:
            raise UnavailableError("The gateway has just started and does not know the services yet: try again.")
        return self.registry.resolve(task, name)

    def dependencies(self) -> Mapping[str, bool]:
        """Which of the things that the gateway depends on answer. None of them stops requests."""
        return dependencies(self.discovery, self.ledger, self.redis)


@dataclass(slots=True)
class Lifecycle:
    """Where the process is between start and stop."""

    gateway: Gateway | None = field(default=None)
    draining: bool = False

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        return not self.draining and self.gateway is not None and self.gateway.discovery.synced


def dependencies(discovery: Discovery, ledger: Ledger, redis: RedisStore | None) -> Mapping[str, bool]:
    """Which of them answer."""
    answers = {"discovery": discovery.connected, "database": ledger.database_up}
    return answers if redis is None else answers | {"redis": redis.available}


async def prepare(settings: Settings) -> None:
    """Finds out, before anything is served, what would keep the gateway from working.

    Raises:
        SettingsError: something has to be changed; the message says what.
    """
    Spool(settings.spool_dir).open().close()
    if settings.services_file is not None:
        read_services(settings.services_file)
    else:
        async with connect(settings.kubeconfig):
            pass
    if settings.database_url is None:
        from aiservice_gateway.migrations import migrate_sqlite  # noqa: PLC0415 - Alembic is slow to import

        await asyncio.to_thread(migrate_sqlite, settings.sqlite_file)
    else:
        await _check_schema(settings.database_url.get_secret_value())


async def _check_schema(url: str) -> None:
    store = PostgresUsage(url)
    try:
        revision = await store.schema_revision()
    except StoreUnavailableError as error:
        # Starting matters more: usage records wait until the database is back.
        _log.warning("The database does not answer, so its schema was not checked: %s", error)
        return
    finally:
        await store.close()
    if revision is None or revision < SCHEMA_REVISION:
        raise SettingsError(
            f"The database of DATABASE_URL is at schema revision {revision or 'none'} and this gateway needs "
            f"{SCHEMA_REVISION}. Run this once: python -m aiservice_gateway migrate"
        )


@asynccontextmanager
async def running_gateway(settings: Settings, metrics: Metrics) -> AsyncIterator[Gateway]:
    """Starts everything, and stops it in the order that loses nothing. `prepare` must have passed before.

    Raises:
        SettingsError: as `prepare`, where something changed since.
    """
    async with AsyncExitStack() as stack:
        registry = Registry()
        discovery = await _discovery(settings, registry, stack)
        store: UsageStore = (
            PostgresUsage(settings.database_url.get_secret_value())
            if settings.database_url is not None
            else SqliteUsage(settings.sqlite_file)
        )
        stack.push_async_callback(store.close)
        redis = None
        if settings.redis_url is not None:
            redis = RedisStore(settings.redis_url.get_secret_value(), uuid.uuid4().hex, settings.lease_seconds)
            stack.push_async_callback(redis.close)
            await redis.connect()
            renewing = asyncio.create_task(Leases(redis, settings.lease_seconds).run(), name="leases")
            stack.push_async_callback(_cancel, renewing)
        local, backlog = MemoryLimiter(), Backlog(redis)
        if redis is not None:
            redis.on_return = backlog.tell
        spool = Spool(settings.spool_dir).open()
        ledger = Ledger(store, redis, spool, MemoryCounters(), metrics, local=local, backlog=backlog)
        policy = default_policy(settings.rate_limit_per_hour)
        limits = Limits(
            lambda _: policy,
            local,
            redis,
            backlog,
            spent_of=ledger.spent,
            reserved_units=settings.reserved_units,
            prices=settings.prices,
            secret=_partition_secret(settings),
        )
        ledger.start()
        stack.push_async_callback(ledger.close, _CLOSE_SECONDS)
        upstream = Upstream()
        stack.push_async_callback(upstream.close)
        proxy = Proxy(upstream, limits, ledger, settings.prices, metrics, settings.upstream_timeout_seconds)
        stack.push_async_callback(proxy.finished, _CLOSE_SECONDS)
        yield Gateway(
            auth=Authenticator(
                settings.jwt_secret.get_secret_value(),
                tenant_claim=settings.tenant_claim,
                user_claim=settings.user_claim,
                clock=time.time,
            ),
            registry=registry,
            discovery=discovery,
            proxy=proxy,
            usage=Usage(store, ledger, limits),
            ledger=ledger,
            health=HealthCheck(registry, upstream, lambda: dependencies(discovery, ledger, redis)),
            limits=limits,
            metrics=metrics,
            redis=redis,
        )


def _partition_secret(settings: Settings) -> bytes:
    """The same in every gateway of an installation, and no way back to the secret that it is made from."""
    return hashlib.sha256(b"ratelimit:" + settings.jwt_secret.get_secret_value().encode()).digest()


async def _discovery(settings: Settings, registry: Registry, stack: AsyncExitStack) -> Discovery:
    discovery: Discovery
    if settings.services_file is not None:
        discovery = FileDiscovery(settings.services_file, registry)
    else:
        api = await stack.enter_async_context(connect(settings.kubeconfig))
        discovery = KubernetesDiscovery(api, registry, settings.namespaces)
    following = asyncio.create_task(discovery.run(), name="discovery")
    stack.push_async_callback(_cancel, following)
    return discovery


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

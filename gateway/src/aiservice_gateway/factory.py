"""Wires the parts together. Nothing else constructs a service or a store."""

from __future__ import annotations

import asyncio
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
from aiservice_gateway.services.health import HealthCheck
from aiservice_gateway.services.ledger import Ledger
from aiservice_gateway.services.limits import WINDOW_SECONDS, Limits
from aiservice_gateway.services.openai.held import Room
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
    metrics: Metrics
    redis: RedisStore | None
    room: Room
    """For what requests of the OpenAI-compatible API must hold."""

    def resolve(self, task: Task, name: str | None) -> tuple[Service, str]:
        """The service for a request and its base URL.

        Raises:
            UnavailableError: the services are not known yet, or this one is not ready.
            NotFoundError: as `Registry.resolve`.
        """
        self._check_synced()
        return self.registry.resolve(task, name)

    def known_services(self) -> list[Service]:
        """All services, in the order in which they take requests.

        Raises:
            UnavailableError: they are not known yet.
        """
        self._check_synced()
        return self.registry.by_precedence()

    def _check_synced(self) -> None:
        if not self.discovery.synced:
            raise UnavailableError("The gateway has just started and does not know the services yet: try again.")

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
            redis = RedisStore(settings.redis_url.get_secret_value(), instance=uuid.uuid4().hex)
            stack.push_async_callback(redis.close)
            await redis.ping()
        local = MemoryLimiter(settings.rate_limit_per_hour, WINDOW_SECONDS)
        limits = Limits(settings.rate_limit_per_hour, local, redis)
        ledger = Ledger(store, redis, Spool(settings.spool_dir).open(), MemoryCounters(), metrics)
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
            metrics=metrics,
            redis=redis,
            room=Room(settings.held_upload_bytes),
        )


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

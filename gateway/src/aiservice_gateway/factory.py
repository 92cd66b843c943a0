"""Wires the parts together. Nothing else constructs a service or a store."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from aiservice_api.tasks import Task
from aiservice_gateway.discovery import Discovery
from aiservice_gateway.discovery.file import FileDiscovery, read_file
from aiservice_gateway.discovery.kubernetes import KubernetesDiscovery, connect, own_namespace
from aiservice_gateway.errors import SettingsError, StoreUnavailableError, UnavailableError
from aiservice_gateway.metrics import Metrics
from aiservice_gateway.models import Identity, Service
from aiservice_gateway.services.auth import Authenticator
from aiservice_gateway.services.backends import Backends
from aiservice_gateway.services.backlog import Backlog
from aiservice_gateway.services.claims import Claims
from aiservice_gateway.services.database_watch import DatabaseWatch
from aiservice_gateway.services.delivery import Delivery
from aiservice_gateway.services.health import HealthCheck
from aiservice_gateway.services.idempotency import Idempotency
from aiservice_gateway.services.jobs.desk import Bounds, JobDesk
from aiservice_gateway.services.jobs.runner import JobRunner, Rules
from aiservice_gateway.services.jobs.webhooks import WebhookRules, Webhooks
from aiservice_gateway.services.jwks import KeySource
from aiservice_gateway.services.leases import Leases
from aiservice_gateway.services.ledger import Ledger
from aiservice_gateway.services.limits import Limits
from aiservice_gateway.services.openai.held import Room
from aiservice_gateway.services.pool import Pool
from aiservice_gateway.services.proxy import Proxy
from aiservice_gateway.services.registry import Registry
from aiservice_gateway.services.retention import Retention
from aiservice_gateway.services.sweeper import Sweeper
from aiservice_gateway.services.tenants import Tenants, may_use
from aiservice_gateway.services.tokens import Expected, Secrets, TokenVerifier
from aiservice_gateway.services.usage import Usage
from aiservice_gateway.settings import Settings, TokenSettings
from aiservice_gateway.stores.base import UsageStore
from aiservice_gateway.stores.database import Database, PostgresDatabase, SqliteDatabase
from aiservice_gateway.stores.jobs import Jobs, Terms
from aiservice_gateway.stores.keys import Keys
from aiservice_gateway.stores.memory import MemoryCounters, MemoryLimiter
from aiservice_gateway.stores.postgres import SCHEMA_REVISION, PostgresUsage
from aiservice_gateway.stores.redis import RedisStore
from aiservice_gateway.stores.spool import Spool
from aiservice_gateway.stores.sqlite import SqliteUsage
from aiservice_gateway.telemetry import Tracing
from aiservice_gateway.webhook_signing import read_secret

_log = logging.getLogger(__name__)

_CLOSE_SECONDS = 3.0
"""For each step of stopping. All steps together stay below the 10 s that the chart's grace period has for them."""


_NOTE_SECONDS = 1.0
"""How old the gauges of another worker may be."""
_WORK_LEASES = 2
"""Leases of jobs and keys in leases of Redis: what a dead gateway held of limits is free before its work is redone."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The running parts, as routes use them."""

    auth: Authenticator
    keys: KeySource | None
    tenants: Tenants
    registry: Registry
    discovery: Discovery
    proxy: Proxy
    usage: Usage
    ledger: Ledger
    database: DatabaseWatch
    health: HealthCheck
    limits: Limits
    metrics: Metrics
    redis: RedisStore | None
    room: Room
    """For what requests of the OpenAI-compatible API must hold."""
    idempotency: Idempotency
    jobs: JobDesk

    @property
    def ready(self) -> bool:
        """Whether services, tenants and the issuer's keys were known once."""
        return self.discovery.synced and (self.keys is None or self.keys.synced)

    def resolve(self, task: Task, name: str | None, caller: Identity) -> Service:
        """The service for a request, among those that the caller may use.

        Raises:
            UnavailableError: the services are not known yet, or this one is not ready.
            NotFoundError: as `Registry.resolve`.
        """
        self._check_synced()
        policy = self.tenants.policy(caller.tenant)
        return self.registry.resolve(task, name, lambda service: may_use(policy, caller.tenant, service))

    def known_services(self, caller: Identity) -> list[Service]:
        """All services that a caller may use, in the order in which they take requests.

        Raises:
            UnavailableError: they are not known yet.
        """
        self._check_synced()
        policy = self.tenants.policy(caller.tenant)
        return [one for one in self.registry.by_precedence() if may_use(policy, caller.tenant, one)]

    def _check_synced(self) -> None:
        if not self.discovery.synced:
            raise UnavailableError("The gateway has just started and does not know the services yet: try again.")

    async def note(self) -> None:
        """Sets the gauges to what is so now."""
        metrics = self.metrics
        answers = self.dependencies()
        for dependency, up in answers.items():
            metrics.up.labels(dependency).set(up)
        for place, records in (await self.ledger.waiting()).items():
            metrics.usage_waiting.labels(place).set(records)
        if answers["database"]:
            await self._note_jobs()
        self.proxy.backends.note()
        metrics.pods_followed.set(self.discovery.pods_followed)
        services = {(one.key, task.value): one.ready for one in self.registry.services() for task in one.tasks}
        metrics.set_all(metrics.services, services)

    async def _note_jobs(self) -> None:
        """Where the database hangs, the gauges stay as they are: the other metrics are wanted within seconds."""
        counting = asyncio.ensure_future(self.jobs.jobs.open())
        counting.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to look
        with contextlib.suppress(StoreUnavailableError, TimeoutError):
            async with asyncio.timeout(_NOTE_SECONDS):
                # Broken off, a query to a server that hangs takes its time to end: that is left to itself.
                for state, jobs in (await asyncio.shield(counting)).items():
                    self.metrics.jobs_open.labels(state).set(jobs)

    async def note_often(self) -> None:
        """Goes on until it is cancelled: whichever worker is asked for metrics, those of the others are to be fresh."""
        while True:
            await self.note()
            await asyncio.sleep(_NOTE_SECONDS)

    def dependencies(self) -> Mapping[str, bool]:
        """Which of the things that the gateway depends on answer. None of them stops requests."""
        return dependencies(self.discovery, self.keys, self.database, self.ledger, self.redis)


@dataclass(slots=True)
class Lifecycle:
    """Where the process is between start and stop."""

    gateway: Gateway | None = field(default=None)
    draining: bool = False

    def drain(self) -> None:
        """Begins to stop: not ready any more, and nobody waits for a turn."""
        self.draining = True
        if self.gateway is not None:
            self.gateway.proxy.backends.close()
            self.gateway.jobs.on_drain()

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        return not self.draining and self.gateway is not None and self.gateway.ready


def running(lifecycle: Lifecycle) -> Gateway:
    """The running parts."""
    if lifecycle.gateway is None:
        raise RuntimeError("a request was served before the application's lifespan had begun")
    return lifecycle.gateway


def dependencies(
    discovery: Discovery, keys: KeySource | None, database: DatabaseWatch, ledger: Ledger, redis: RedisStore | None
) -> Mapping[str, bool]:
    """Which of them answer; of the database, whether it takes records too."""
    answers = {"discovery": discovery.connected, "database": database.up and ledger.database_up}
    if keys is not None:
        answers["issuer"] = keys.connected
    if redis is not None:
        answers["redis"] = redis.available
    return answers


async def prepare(settings: Settings) -> None:
    """Finds out, before anything is served, what would keep the gateway from working.

    Raises:
        SettingsError: something has to be changed; the message says what.
    """
    Spool(settings.spool_dir).open().close()
    if settings.services_file is not None:
        read_file(settings.services_file)
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
async def running_gateway(
    settings: Settings, metrics: Metrics, tracing: Tracing | None = None
) -> AsyncIterator[Gateway]:
    """Starts everything, and stops it in the order that loses nothing. `prepare` must have passed before.

    Raises:
        SettingsError: as `prepare`, where something changed since.
    """
    async with AsyncExitStack() as stack:
        registry = Registry()
        tenants = Tenants(settings.rate_limit_per_hour, required=settings.require_tenant)
        backends = Backends(metrics, registry.has)
        discovery = await _discovery(settings, registry, tenants, backends, stack)
        keys = _keys(settings, stack)
        store: UsageStore = (
            PostgresUsage(settings.database_url.get_secret_value())
            if settings.database_url is not None
            else SqliteUsage(settings.sqlite_file)
        )
        stack.push_async_callback(store.close)
        watch = DatabaseWatch(store)
        await watch.look()
        stack.push_async_callback(_cancel, asyncio.create_task(watch.run(), name="database-watch"))
        if settings.usage_retention_days is not None:
            retention = Retention(store, settings.usage_retention_days, settings.usage_daily_days, metrics)
            retention.start()
            stack.push_async_callback(retention.close)
        database: Database = (
            PostgresDatabase(settings.database_url.get_secret_value())
            if settings.database_url is not None
            else SqliteDatabase(settings.sqlite_file)
        )
        stack.push_async_callback(database.close)
        sweeping = asyncio.create_task(Sweeper(database).run(), name="sweeper")
        stack.push_async_callback(_cancel, sweeping)
        redis, worker = None, uuid.uuid4().hex
        if settings.redis_url is not None:
            redis = RedisStore(settings.redis_url.get_secret_value(), worker, settings.lease_seconds)
            stack.push_async_callback(redis.close)
            await redis.connect()
            renewing = asyncio.create_task(Leases(redis, settings.lease_seconds).run(), name="leases")
            stack.push_async_callback(_cancel, renewing)
        local, backlog = MemoryLimiter(), Backlog(redis)
        if redis is not None:
            redis.on_return = backlog.tell
        spool = Spool(settings.spool_dir).open()
        ledger = Ledger(store, redis, spool, MemoryCounters(), metrics, local=local, backlog=backlog)
        limits = Limits(
            tenants.policy,
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
        pool = Pool()
        stack.callback(pool.close)
        proxy = Proxy(
            Delivery(pool, metrics, tracing),
            backends,
            limits,
            ledger,
            settings.prices,
            metrics,
            settings.upstream_timeout_seconds,
        )
        stack.push_async_callback(proxy.finished, _CLOSE_SECONDS)
        room = Room(settings.held_upload_bytes)
        gateway = Gateway(
            auth=authenticator(settings, keys, tenants),
            keys=keys,
            tenants=tenants,
            registry=registry,
            discovery=discovery,
            proxy=proxy,
            usage=Usage(store, ledger, limits),
            ledger=ledger,
            database=watch,
            health=HealthCheck(registry, pool, lambda: dependencies(discovery, keys, watch, ledger, redis)),
            limits=limits,
            metrics=metrics,
            redis=redis,
            room=room,
            idempotency=_idempotency(settings, database, worker),
            jobs=_desk(settings, _jobs(settings, database, worker), room, metrics, tracing),
        )
        if metrics.shared:
            stack.push_async_callback(_cancel, asyncio.create_task(gateway.note_often(), name="gauges"))
        _start_jobs(settings, gateway, tracing, stack)
        yield gateway


def authenticator(
    settings: TokenSettings, keys: KeySource | None, tenants: Tenants, clock: Callable[[], float] = time.time
) -> Authenticator:
    """What says who asks. It forgets the tokens that it has seen when keys change."""
    secrets = Secrets(
        settings.jwt_secret.get_secret_value() if settings.jwt_secret is not None else None,
        {kid: secret.get_secret_value() for kid, secret in settings.jwt_secrets.items()},
    )
    expected = Expected(settings.issuers, settings.audiences, settings.leeway_seconds)
    claims = Claims(settings.tenant_claim, settings.user_claim, settings.role_claim, settings.admin_role)
    verifier = TokenVerifier(secrets, keys, expected)
    auth = Authenticator(verifier, claims, tenants, leeway_seconds=settings.leeway_seconds, clock=clock)
    if keys is not None:
        keys.on_change(auth.forget)
    return auth


def _idempotency(settings: Settings, database: Database, worker: str) -> Idempotency:
    keys = Keys(
        database,
        worker,
        lease_seconds=_WORK_LEASES * settings.lease_seconds,
        kept_seconds=settings.idempotency_seconds,
    )
    return Idempotency(keys, most_bytes=settings.idempotency_max_bytes, renew_seconds=settings.lease_seconds / 3)


def _desk(settings: Settings, jobs: Jobs, room: Room, metrics: Metrics, tracing: Tracing | None) -> JobDesk:
    bounds = Bounds(settings.job_input_bytes, settings.job_deadline_seconds, settings.upstream_timeout_seconds)
    return JobDesk(jobs, Webhooks(jobs, _webhook_rules(settings), metrics, tracing), room, bounds)


def _start_jobs(settings: Settings, gateway: Gateway, tracing: Tracing | None, stack: AsyncExitStack) -> None:
    desk = gateway.jobs
    desk.webhooks.start()
    stack.push_async_callback(desk.webhooks.close)
    drain_seconds = settings.drain_delay_seconds + settings.drain_seconds
    rules = Rules(settings.job_concurrency, settings.job_output_bytes, drain_seconds)
    runner = JobRunner(
        desk.jobs,
        gateway.proxy,
        resolve=gateway.resolve,
        check=gateway.tenants.check,
        rules=rules,
        metrics=gateway.metrics,
        tracing=tracing,
    )
    desk.on_submit, desk.on_cancel, desk.on_drain = runner.wake, runner.cancel, runner.drain
    runner.start()
    stack.push_async_callback(runner.close)


def _jobs(settings: Settings, database: Database, worker: str) -> Jobs:
    terms = Terms(
        _WORK_LEASES * settings.lease_seconds,
        settings.job_attempts,
        settings.job_retention_seconds,
        settings.job_max_open,
    )
    return Jobs(database, worker, terms)


def _webhook_rules(settings: Settings) -> WebhookRules:
    secret = settings.webhook_secret
    return WebhookRules(
        None if secret is None else read_secret(secret.get_secret_value()),
        settings.webhook_allow_http,
        settings.webhook_allow_private,
        settings.webhook_retry_seconds,
    )


def _keys(settings: Settings, stack: AsyncExitStack) -> KeySource | None:
    if settings.jwks_url is None:
        return None
    if not settings.audiences:
        _log.warning(
            "GATEWAY_JWT_AUDIENCE is not set: whatever the issuer of GATEWAY_JWKS_URL signs for any application is "
            "accepted here"
        )
    keys = KeySource(settings.jwks_url)
    stack.push_async_callback(_cancel, asyncio.create_task(keys.run(), name="keys"))
    return keys


def _partition_secret(settings: Settings) -> bytes:
    """The same in every gateway of an installation, and no way back to the secret that it is made from."""
    shared = (settings.jwt_secret, *settings.jwt_secrets.values(), settings.redis_url)
    secret = next((secret.get_secret_value() for secret in shared if secret is not None), uuid.uuid4().hex)
    return hashlib.sha256(b"ratelimit:" + secret.encode()).digest()


async def _discovery(
    settings: Settings, registry: Registry, tenants: Tenants, backends: Backends, stack: AsyncExitStack
) -> Discovery:
    discovery: Discovery
    if settings.services_file is not None:
        discovery = FileDiscovery(settings.services_file, registry, tenants)
    else:
        api = await stack.enter_async_context(connect(settings.kubeconfig))
        own = settings.namespace or own_namespace()
        put_pods = backends.put_pods if settings.follow_pods else None
        discovery = KubernetesDiscovery(api, registry, settings.namespaces, tenants, own, put_pods=put_pods)
    following = asyncio.create_task(discovery.run(), name="discovery")
    stack.push_async_callback(_cancel, following)
    return discovery


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

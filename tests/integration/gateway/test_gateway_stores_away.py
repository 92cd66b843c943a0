"""Whole gateways whose Redis or database is away or stands still: it is told at once, and requests are answered."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from support.databases import PostgresServer, RedisServer
from support.gateway import (
    bearer,
    environment,
    eventually,
    gateway_here,
    gateway_process,
    running_engine,
    whisper,
    write_services,
)
from support.relay import relaying

TOLD_SECONDS = 8
"""The database is asked every 2 s and has 2 s to answer; /health is up to 2 s old."""
ANSWERED_SECONDS = 4.0
"""Redis has 1 s to answer an admission, and as long again at the end of a request."""
REPLICATION_SECONDS = 1.0
"""What a failover may lose: see docs/gateway.md, with `min-replicas-max-lag 1`."""
CLIENTS = 8
SLOTS = 20
MANY = 1_000_000


@asynccontextmanager
async def gateway(folder: Path, requests: int = MANY, **variables: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A gateway process with a service; yields a client of a tenant with limits of all measures."""
    limits = [
        {"measure": "requests", "maximum": requests, "window": "1h"},
        {"measure": "units", "maximum": MANY, "window": "1h"},
        {"measure": "concurrency", "maximum": SLOTS},
        {"measure": "spend", "maximum": 1000},
    ]
    async with running_engine() as engine:
        write_services(folder / "services.yaml", whisper(engine.url), tenants={"acme": limits})
        settings = environment(folder, GATEWAY_RATE_LIMIT_PER_HOUR="1000000", GATEWAY_LEASE_SECONDS="1", **variables)
        async with (
            gateway_process(folder, settings) as process,
            aiohttp.ClientSession(process.url, headers=bearer()) as client,
        ):
            yield client


async def told(client: aiohttp.ClientSession, status: str, **dependencies: bool) -> None:
    """Waits until /health, /readyz and /metrics say how the gateway and what it depends on are."""

    async def look() -> bool:
        async with client.get("/health") as answer:
            if (await answer.json())["status"] != status:
                return False
        async with client.get("/readyz") as answer:
            if not (await answer.json())["dependencies"].items() >= dependencies.items():
                return False
        async with client.get("/metrics", timeout=aiohttp.ClientTimeout(5)) as answer:
            text = await answer.text()
        gauges = [f'dependency_up{{dependency="{name}"}} {float(up)}' for name, up in dependencies.items()]
        return all(gauge in text for gauge in gauges)

    await eventually(look, TOLD_SECONDS)


async def test_an_idle_gateway_tells_that_postgresql_is_away(
    tmp_path: Path, migrated_database: str, postgres_server: PostgresServer
) -> None:
    async with gateway(tmp_path, DATABASE_URL=migrated_database) as client:
        await told(client, "healthy", database=True)
        postgres_server.stop(signal.SIGQUIT)
        await told(client, "degraded", database=False)
        postgres_server.start()
        await told(client, "healthy", database=True)


async def test_an_idle_gateway_tells_that_postgresql_stands_still(
    tmp_path: Path, migrated_database: str, postgres_server: PostgresServer
) -> None:
    async with gateway(tmp_path, DATABASE_URL=migrated_database) as client:
        await told(client, "healthy", database=True)
        with postgres_server.standing_still():
            await told(client, "degraded", database=False)
        await told(client, "healthy", database=True)


async def test_a_gateway_that_starts_without_postgresql_says_so_from_the_first(
    tmp_path: Path, migrated_database: str, postgres_server: PostgresServer
) -> None:
    postgres_server.stop(signal.SIGQUIT)
    try:
        async with gateway(tmp_path, DATABASE_URL=migrated_database) as client:
            async with client.get("/health") as answer:
                assert (await answer.json())["status"] == "degraded"
            await told(client, "degraded", database=False)
            postgres_server.start()
            await told(client, "healthy", database=True)
    finally:
        postgres_server.start()


@pytest.mark.parametrize("how", ["gone", "spoilt"])
async def test_an_idle_gateway_tells_that_its_file_cannot_be_read(tmp_path: Path, how: str) -> None:
    file = tmp_path / "usage.sqlite3"
    async with running_engine() as engine:
        write_services(tmp_path / "services.yaml", whisper(engine.url))
        async with gateway_here(environment(tmp_path)) as client:
            await told(client, "healthy", database=True)
            if how == "gone":
                kept = file.rename(tmp_path / "kept")
                await told(client, "degraded", database=False)
                kept.rename(file)
            else:
                content = file.read_bytes()
                file.write_bytes(b"this is no database" * 1000)
                await told(client, "degraded", database=False)
                file.write_bytes(content)
            await told(client, "healthy", database=True)


@dataclass
class Traffic:
    """Requests of several clients, one after the other each, until it is told to end."""

    client: aiohttp.ClientSession
    over: bool = False
    answered: dict[str, float] = field(default_factory=dict)
    """Ids of those that succeeded, and when their answers were complete."""
    refused: int = 0
    slowest: float = 0.0

    async def more(self, count: int) -> None:
        """Waits for so many more answers."""
        goal = len(self.answered) + self.refused + count
        await eventually(lambda: len(self.answered) + self.refused >= goal)

    async def _go_on(self) -> None:
        while not self.over:
            begun = time.monotonic()
            async with self.client.post("/api/speech-to-text", json={}) as answer:
                await answer.read()
                assert answer.status in {200, 429}
                if answer.status == 200:
                    self.answered[answer.headers["X-Request-Id"]] = time.monotonic()
                else:
                    self.refused += 1
                    await asyncio.sleep(0.02)
            self.slowest = max(self.slowest, time.monotonic() - begun)

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """While this lasts; every answer is 200 or 429."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._go_on())
            try:
                yield
            finally:
                self.over = True


async def rows(postgres: PostgresServer, database: str) -> dict[str, str]:
    """Ids and their outcomes; each id is there once."""
    lines = (await asyncio.to_thread(postgres.psql, database, 'SELECT id, status FROM "AIUsage"')).splitlines()
    found = dict(line.split("|") for line in lines)
    assert len(found) == len(lines)
    return found


async def all_is_right(
    client: aiohttp.ClientSession, traffic: Traffic, postgres: PostgresServer, database: str
) -> None:
    """Every answered request is one row, counts once today, and is all that the limits hold."""
    count = len(traffic.answered)

    async def written() -> bool:
        return await rows(postgres, database) == dict.fromkeys(traffic.answered, "succeeded")

    await eventually(written)
    async with client.get("/api/usage") as answer:
        today = (await answer.json())["today"]["speech-to-text"]
    async with client.get("/api/limits") as answer:
        left = {one["measure"]: one["remaining"] for one in (await answer.json())["limits"]}
    cost = float(await asyncio.to_thread(postgres.psql, database, 'SELECT sum(cost)::float8 FROM "AIUsage"'))
    assert today["count"] == count
    assert left == {
        "requests": MANY - count,
        "units": MANY - 2.5 * count,
        "concurrency": SLOTS,
        "spend": pytest.approx(1000 - cost, abs=1e-6),
    }


async def test_requests_are_answered_while_redis_stands_still(
    tmp_path: Path, redis_url: str, migrated_database: str, redis_server: RedisServer, postgres_server: PostgresServer
) -> None:
    async with gateway(tmp_path, REDIS_URL=redis_url, DATABASE_URL=migrated_database) as client:
        traffic = Traffic(client)
        async with traffic.flowing():
            await traffic.more(100)
            with redis_server.standing_still():
                await told(client, "degraded", redis=False, database=True)
                await traffic.more(300)
                await asyncio.sleep(2)
            await told(client, "healthy", redis=True, database=True)
            await traffic.more(100)
        assert traffic.slowest < ANSWERED_SECONDS
        assert not traffic.refused
        await all_is_right(client, traffic, postgres_server, migrated_database)


async def test_requests_are_answered_while_postgresql_stands_still(
    tmp_path: Path, redis_url: str, migrated_database: str, postgres_server: PostgresServer
) -> None:
    async with gateway(tmp_path, REDIS_URL=redis_url, DATABASE_URL=migrated_database) as client:
        traffic = Traffic(client)
        async with traffic.flowing():
            await traffic.more(100)
            with postgres_server.standing_still():
                await told(client, "degraded", redis=True, database=False)
                await traffic.more(300)
                await asyncio.sleep(2)
            await told(client, "healthy", redis=True, database=True)
            await traffic.more(100)
        assert traffic.slowest < ANSWERED_SECONDS
        assert not traffic.refused
        await all_is_right(client, traffic, postgres_server, migrated_database)


@pytest.fixture
def redis_pair() -> Iterator[tuple[RedisServer, RedisServer]]:
    """A primary and its replica."""
    with tempfile.TemporaryDirectory(prefix="aiservice-redis-") as one, tempfile.TemporaryDirectory() as other:
        primary, replica = RedisServer(Path(one)), RedisServer(Path(other))
        try:
            primary.start()
            replica.start()
            assert replica.command("REPLICAOF", "127.0.0.1", str(primary.port)) == "+OK"
            deadline = time.monotonic() + 20
            while primary.command("WAIT", "1", "100") != ":1":
                assert time.monotonic() < deadline
                time.sleep(0.05)
            for name, value in {"min-replicas-to-write": "1", "min-replicas-max-lag": "1"}.items():
                assert primary.command("CONFIG", "SET", name, value) == "+OK"
            yield primary, replica
        finally:
            primary.stop(signal.SIGKILL)
            replica.stop(signal.SIGKILL)


async def test_redis_fails_over_to_its_replica(
    tmp_path: Path,
    redis_pair: tuple[RedisServer, RedisServer],
    migrated_database: str,
    postgres_server: PostgresServer,
) -> None:
    """The address stays and leads to the replica, which at first refuses to write and then is promoted."""
    primary, replica = redis_pair
    limit = 3000
    with relaying(primary.port) as relay:
        variables = {"REDIS_URL": f"redis://127.0.0.1:{relay.port}/0", "DATABASE_URL": migrated_database}
        async with gateway(tmp_path, limit, **variables) as client:
            traffic = Traffic(client)
            async with traffic.flowing():
                await traffic.more(300)
                primary.stop(signal.SIGKILL)
                died = time.monotonic()
                await traffic.more(100)
                relay.server_port = replica.port
                relay.drop()
                await told(client, "degraded", redis=False, database=True)
                assert replica.command("REPLICAOF", "NO", "ONE") == "+OK"
                await told(client, "healthy", redis=True, database=True)
                await eventually(lambda: traffic.refused > 20)
            assert traffic.slowest < ANSWERED_SECONDS

            def may_be_lost(name: str) -> bool:
                return died - REPLICATION_SECONDS <= traffic.answered[name] <= died

            # What the replica had not got is gone from its limits too, so that many more may pass.
            lost_at_most = sum(map(may_be_lost, traffic.answered))
            assert limit <= len(traffic.answered) <= limit + lost_at_most
            kept = {name for name in traffic.answered if not may_be_lost(name)}

            async def written() -> bool:
                return (await rows(postgres_server, migrated_database)).keys() >= kept

            await eventually(written)
            assert (await rows(postgres_server, migrated_database)).keys() <= traffic.answered.keys()

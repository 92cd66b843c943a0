"""Whole gateways whose Redis or database is away or stands still: it is told at once, and requests are answered."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from support.databases import PostgresServer
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

TOLD_SECONDS = 8
"""The database is asked every 2 s and has 2 s to answer; /health is up to 2 s old."""


@asynccontextmanager
async def gateway(folder: Path, **variables: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A gateway process with a service; yields a client whose requests go there."""
    async with running_engine() as engine:
        write_services(folder / "services.yaml", whisper(engine.url))
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

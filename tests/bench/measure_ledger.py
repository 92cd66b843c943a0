"""Whether every answered request is in the ledger once, after all that can go wrong: PostgreSQL, Redis and workers.

Real requests by 32 clients to a gateway of two workers, while PostgreSQL is stopped for a minute, Redis is restarted
and a worker is killed (SIGKILL) ten times. Each client notes the ids of the answers that it got, and at the end
PostgreSQL compares the notes with `"AIUsage"`; the rows are then compared with the counters of the day that Redis
keeps by tenant. `scripts/bench ledger` makes a million requests, which takes 5 to
20 minutes; `scripts/bench ledger --requests 20000 --outage 10` takes one minute.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import uvloop

from aiservice_gateway.stores.redis import RedisStore
from bench import gateways
from bench.gateway_scene import databases, migrated
from bench.http_load import Connection, Question, WrongAnswerError, connect, question
from bench.report import family, machine, publish, table
from support.databases import PostgresServer, RedisServer
from support.gateway import GatewayProcess, bearer, environment, eventually, gateway_process, write_services

CLIENTS: Final = 32
_TENANTS: Final = 50
_REDIS_AWAY_SECONDS: Final = 5.0
_TELLING_SECONDS: Final = 3.0
_LEASE_SECONDS: Final = 5
_SETTLE_SECONDS: Final = 600.0
_PROGRESS_SECONDS: Final = 10.0
_LONGEST_SECONDS: Final = 4 * 3600.0
_GOOD: Final = b"iVBORw0KGgo"

METHOD: Final = (
    "{clients} clients, each with a kept-open connection, ask a gateway of two workers, all of it on one machine. "
    "While they do, PostgreSQL is stopped (SIGQUIT) for {outage:g} s, Redis is stopped for {away:g} s and started "
    "again with what is in its append-only file (fsync every second), and a worker is killed (SIGKILL) {kills} times, "
    "evenly over the run. Answered: a client has all of a 200, whose id it notes. Missing: noted, and no row that "
    "succeeded. Unheard: rows that nobody noted, of requests whose connection broke; more of them than broken "
    "connections would be double. Counted twice and not counted: requests (or units) by which Redis' counters of a day "
    "and tenant exceed the rows, or fall short of them. Redis ends in order (SIGTERM), with all of its file synced, so "
    "that nothing is allowed for what fsync every second may lose in a crash of its machine. What a worker answered "
    "while Redis was away is in its memory until it can tell Redis: only if one was killed then, counters may fall "
    "short, by what was answered meanwhile."
)

_COMPARE: Final = """
SELECT (SELECT count(*) FROM "AIUsage") AS rows,
       (SELECT count(*) FROM noted LEFT JOIN "AIUsage" AS row ON row.id = noted.id
        WHERE row.status IS DISTINCT FROM 'succeeded' OR row.units <> 1) AS missing,
       (SELECT count(*) FROM "AIUsage" AS row LEFT JOIN noted ON row.id = noted.id WHERE noted.id IS NULL) AS unheard,
       (SELECT count(*) FROM "AIUsage" WHERE status = 'interrupted') AS interrupted
"""


_BY_COUNTER: Final = """
SELECT to_char("createdAt", 'YYYY-MM-DD'), "tenantId", count(*), sum(units)::float8 FROM "AIUsage" GROUP BY 1, 2
"""


@dataclass
class Run:
    """What has happened so far."""

    wanted: int
    noted: list[bytes] = field(default_factory=list)
    """Ids of answers, in 16 bytes each."""
    broken: int = 0
    """Connections that broke with a request on them."""
    killed: int = 0
    redis_away: bool = False
    """From before it is stopped until the workers have told it what it missed."""
    killed_untold: bool = False
    """Whether a worker was killed meanwhile."""
    untold: int = 0
    """Answers meanwhile, if one was."""
    faults_over: bool = False

    @property
    def over(self) -> bool:
        """Whether the clients may stop."""
        return self.faults_over and len(self.noted) >= self.wanted

    async def reached(self, part: float) -> None:
        """Waits until a part of what is wanted was answered."""
        await eventually(lambda: len(self.noted) >= self.wanted * part, _LONGEST_SECONDS)


@dataclass(frozen=True)
class Found:
    """What the comparison says."""

    answered: int
    broken: int
    killed: int
    rows: int
    missing: int
    unheard: int
    interrupted: int
    """Of the rows: those that a sweeper closed."""
    counted_twice: int
    not_counted: int
    untold: int
    """How many may be not counted."""
    seconds: float

    @property
    def double(self) -> int:
        """Rows that no request accounts for."""
        return self.rows - self.answered - min(self.unheard, self.broken)

    def check(self) -> None:
        """Raises WrongAnswerError unless each answered request was recorded and counted once, and nothing else was."""
        if self.missing or self.double or self.counted_twice or self.not_counted > self.untold:
            raise WrongAnswerError(f"the ledger is wrong: {self}")


async def client(run: Run, asked: Question) -> None:
    """One request after the other; a connection that breaks is made anew."""
    connection: Connection | None = None
    while not run.over:
        waits = False
        try:
            connection = connection or await connect(asked.host, asked.port)
            waits = True
            answer = await connection.ask(asked.wire)
        except OSError:
            run.broken += waits
            connection = None
            await asyncio.sleep(0.05)
            continue
        asked.check(answer)
        run.noted.append(uuid.UUID(answer.request_id).bytes)
    if connection is not None:
        connection.close()


async def faults(
    run: Run, gateway: GatewayProcess, postgres: PostgresServer, redis: RedisServer, options: argparse.Namespace
) -> None:
    """All that goes wrong, each at its part of the way."""

    async def kill_workers() -> None:
        for number in range(options.kills):
            await run.reached((number + 0.5) / options.kills)
            victim = family(gateway.pid)[1:][number % 2 : number % 2 + 1]
            if victim:
                os.kill(victim[0], signal.SIGKILL)
                run.killed += 1
                run.killed_untold |= run.redis_away

    async def stop_postgres() -> None:
        await run.reached(0.3)
        postgres.stop(signal.SIGQUIT)
        _say(f"PostgreSQL is stopped for {options.outage:g} s")
        await asyncio.sleep(options.outage)
        postgres.launch()
        await asyncio.to_thread(postgres.wait)
        _say("PostgreSQL is back")

    async def restart_redis() -> None:
        await run.reached(0.6)
        run.redis_away, before = True, len(run.noted)
        redis.stop(signal.SIGTERM)
        _say(f"Redis is stopped for {_REDIS_AWAY_SECONDS:g} s")
        await asyncio.sleep(_REDIS_AWAY_SECONDS)
        redis.launch()
        await asyncio.to_thread(redis.wait)
        _say("Redis is back")
        await asyncio.sleep(_TELLING_SECONDS)
        run.redis_away = False
        # Beside the answers: what was on its way when it went, and when it had come back.
        run.untold = len(run.noted) - before + 2 * CLIENTS if run.killed_untold else 0

    await asyncio.gather(kill_workers(), stop_postgres(), restart_redis())
    run.faults_over = True


async def progress(run: Run) -> None:
    """Tells how far it is, until it is cancelled."""
    begun = time.monotonic()
    while True:
        await asyncio.sleep(_PROGRESS_SECONDS)
        done, seconds = len(run.noted), time.monotonic() - begun
        rate = done / seconds
        left = max(0.0, (run.wanted - done) / rate) if rate else 0.0
        _say(f"{done:,} of {run.wanted:,} answered, {rate:.0f} a second, {run.killed} killed; {left:.0f} s to go")


async def compare(run: Run, database: str, redis: RedisServer, seconds: float) -> Found:
    """Waits until the database has everything, and compares; at last with what is not as it should be."""
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("CREATE UNLOGGED TABLE noted (id text)")
        notes = ((str(uuid.UUID(bytes=one)),) for one in run.noted)
        await connection.copy_records_to_table("noted", records=notes)
        await connection.execute("CREATE UNIQUE INDEX ON noted (id)")  # an id that was answered twice would fail here
        await connection.execute("ANALYZE noted")
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            nothing_waits = redis.command("XLEN", "aiservice:usage:waiting") == ":0"
            row = dict(await connection.fetchrow(_COMPARE) or {})
            if (nothing_waits and not row["missing"]) or time.monotonic() > deadline:
                twice, not_counted = await count(connection, redis.url)
                return Found(
                    len(run.noted), run.broken, run.killed, **row,
                    counted_twice=twice, not_counted=not_counted, untold=run.untold, seconds=seconds,
                )  # fmt: skip
            _say(f"{row['missing']:,} records are on their way to the database")
            await asyncio.sleep(2)
    finally:
        await connection.close()


async def count(connection: asyncpg.Connection[asyncpg.Record], redis_url: str) -> tuple[int, int]:
    """By how many requests, or units, Redis' counters exceed the rows, and fall short of them."""
    store = RedisStore(redis_url, "compares")
    if not await store.connect():
        raise WrongAnswerError("Redis does not answer")
    twice = missing = 0
    try:
        for day, tenant, rows, units in await connection.fetch(_BY_COUNTER):
            totals = (await store.counters(tenant, day)).values()
            over = (sum(one.count for one in totals) - rows, round(sum(one.units for one in totals) - units))
            twice += max(0, *over)
            missing += max(0, *(-one for one in over))
    finally:
        await store.close()
    return twice, missing


async def run_all(options: argparse.Namespace) -> None:
    facts = machine()
    with tempfile.TemporaryDirectory(prefix="aiservice-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        postgres, redis = stack.enter_context(databases(folder))
        database = migrated(postgres)
        engine_url = stack.enter_context(gateways.engine(folder))
        write_services(folder / "services.yaml", {"name": "sdxl", "tasks": ["text-to-image"], "url": engine_url})
        settings = environment(
            folder,
            REDIS_URL=redis.url,
            DATABASE_URL=database,
            GATEWAY_RATE_LIMIT_PER_HOUR="1000000",
            GATEWAY_WORKERS="2",
            GATEWAY_LEASE_SECONDS=str(_LEASE_SECONDS),
            GATEWAY_LOG_LEVEL="WARNING",
        )
        async with gateway_process(folder, settings) as gateway:
            run = Run(options.requests)
            begun = time.monotonic()
            telling = asyncio.create_task(progress(run))
            async with asyncio.TaskGroup() as group:
                group.create_task(faults(run, gateway, postgres, redis, options))
                for number in range(CLIENTS):
                    token = bearer(f"tenant-{number % _TENANTS}")
                    group.create_task(client(run, question(f"{gateway.url}/api/text-to-image", b"{}", token, _GOOD)))
            telling.cancel()
            seconds = time.monotonic() - begun
            await asyncio.sleep(3 * _LEASE_SECONDS)  # what the last dead worker had open is closed by then
            found = await compare(run, database, redis, seconds)
    found.check()
    show(found, facts, options)


def show(found: Found, facts: Mapping[str, Any], options: argparse.Namespace) -> None:
    rows = [
        ["requests answered", f"{found.answered:,}"],
        ["in seconds", f"{found.seconds:.0f}"],
        ["workers killed", str(found.killed)],
        ["connections broken", str(found.broken)],
        ["missing", str(found.missing)],
        ["double", str(found.double)],
        ["counted twice", str(found.counted_twice)],
        ["not counted", str(found.not_counted)],
        ["- at most allowed", str(found.untold)],
        ["unheard", str(found.unheard)],
        ["- of them interrupted", str(found.interrupted)],
    ]
    method = METHOD.format(clients=CLIENTS, outage=options.outage, away=_REDIS_AWAY_SECONDS, kills=options.kills)
    document = {"machine": facts, "found": asdict(found)}
    publish("Ledger: what becomes of records", method, [table(["", ""], rows)], document, options.output)


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000, help="(default: %(default)s)")
    parser.add_argument("--outage", type=float, default=60.0, help="of PostgreSQL, in seconds (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=10, help="workers that are killed (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="file for the figures as JSON")
    uvloop.run(run_all(parser.parse_args()))


if __name__ == "__main__":
    main()

"""What the gateway costs: requests through it against the same requests straight to the engine, in one run.

Everything is real but the engine: PostgreSQL with the gateway's tables, Redis, the gateway as a process of its own.
`scripts/bench gateway` runs it; it takes about 45 s.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import uvloop

from bench.report import cpu_seconds, machine, peak_memory_mib, percentile, publish, table
from support.databases import PostgresServer, RedisServer, free_port
from support.gateway import GatewayProcess, bearer, command, environment, gateway_process, whisper, write_services

CONNECTIONS = 16
ROUNDS = 5
MOST_REQUESTS = 20_000
"""A measurement ends after this many, however fast the machine is; all of them together stay below _LIMIT."""
_LIMIT = "1000000"
_PATH = "/api/speech-to-text"
_BODY = b'{"audio": "%b"}' % (b"A" * 1000)
_LEDGER_SECONDS = 30.0

METHOD = (
    f"{ROUNDS} rounds, direct and gateway in turn, each {{seconds:g}} s over {CONNECTIONS} kept-open connections and "
    "{seconds:g} s over one. requests/s is the median of the rounds (lowest-highest); latencies are of all rounds' "
    "requests. One asyncio client process posts 1 kB of JSON; the engine is a process that answers 150 bytes at once; "
    "the gateway has its one worker; PostgreSQL (fsync off) and Redis (append-only file, fsync every second) are real. "
    "All of it is on loopback and shares the cores. The run fails unless every answer is 200 and the ledger holds "
    "every request that went through the gateway."
)


class WrongAnswerError(Exception):
    """Something other than a good answer was measured, so the figures mean nothing."""


@dataclass
class Way:
    """One way to the engine, and what was measured on it."""

    url: str
    headers: Mapping[str, str]
    rates: list[float] = field(default_factory=list)
    """Requests a second at CONNECTIONS connections, one a round."""
    busy_latencies: list[float] = field(default_factory=list)
    """Seconds, at CONNECTIONS connections."""
    latencies: list[float] = field(default_factory=list)
    """Seconds, at one connection."""
    requests: int = 0

    async def load(self, client: aiohttp.ClientSession, connections: int, seconds: float) -> tuple[list[float], float]:
        """Sends requests over each connection, one after the other; returns their latencies, and how long it took."""
        latencies: list[float] = []
        begin = time.perf_counter()
        await asyncio.gather(*(self._send(client, begin + seconds, latencies) for _ in range(connections)))
        self.requests += len(latencies)
        return latencies, time.perf_counter() - begin

    async def _send(self, client: aiohttp.ClientSession, until: float, latencies: list[float]) -> None:
        while (begin := time.perf_counter()) < until and len(latencies) < MOST_REQUESTS:
            async with client.post(self.url, data=_BODY, headers=self.headers) as answer:
                body = await answer.read()
            latencies.append(time.perf_counter() - begin)
            if answer.status != 200:
                raise WrongAnswerError(f"{self.url} answered {answer.status}: {body[:300]!r}")

    async def measure(self, client: aiohttp.ClientSession, seconds: float) -> None:
        """One round."""
        latencies, took = await self.load(client, CONNECTIONS, seconds)
        self.rates.append(len(latencies) / took)
        self.busy_latencies += latencies
        self.latencies += (await self.load(client, 1, seconds))[0]

    def figures(self) -> dict[str, Any]:
        """The figures of all rounds; latencies in ms."""
        return {
            "requests": self.requests,
            "requests_per_second": median(self.rates),
            "requests_per_second_rounds": self.rates,
            "p50_ms": percentile(self.latencies, 50) * 1000,
            "p99_ms": percentile(self.latencies, 99) * 1000,
            "busy_p50_ms": percentile(self.busy_latencies, 50) * 1000,
            "busy_p99_ms": percentile(self.busy_latencies, 99) * 1000,
        }


@dataclass(frozen=True)
class Cost:
    """What the gateway process used."""

    cpu_ms_per_request: float
    peak_memory_mib: float


@contextlib.contextmanager
def databases(folder: Path) -> Iterator[tuple[PostgresServer, RedisServer]]:
    """PostgreSQL and Redis, with their data in a folder."""
    (folder / "postgres").mkdir()
    (folder / "redis").mkdir()
    folder.chmod(0o755)  # PostgreSQL may run as another user
    postgres, redis = PostgresServer(folder / "postgres"), RedisServer(folder / "redis")
    try:
        postgres.start()
        redis.start()
        # Tests let Redis fsync on every write, to restart it without loss; what is measured is Redis' own default.
        if (said := redis.command("CONFIG", "SET", "appendfsync", "everysec")) != "+OK":
            raise RuntimeError(f"Redis: {said}")
        yield postgres, redis
    finally:
        redis.stop(signal.SIGTERM)
        postgres.stop(signal.SIGQUIT)


@contextlib.contextmanager
def upstream() -> Iterator[str]:
    """The engine; yields its base URL."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(Path(__file__).with_name("upstream.py")), str(port)])
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


async def measure(direct: Way, through: Way, gateway: GatewayProcess, seconds: float) -> Cost:
    """All rounds, after a warm-up of each way."""
    pid = gateway._process.pid
    cpu = 0.0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS)) as client:
        for way in (direct, through):
            await way.load(client, CONNECTIONS, 0.5)
        warm_up = through.requests
        for _ in range(ROUNDS):
            await direct.measure(client, seconds)
            begin = cpu_seconds(pid)
            await through.measure(client, seconds)
            cpu += cpu_seconds(pid) - begin
    return Cost(cpu / (through.requests - warm_up) * 1000, peak_memory_mib(pid))


async def settle(postgres: PostgresServer, database: str, sent: int) -> None:
    """Waits until the ledger holds every request.

    Raises:
        WrongAnswerError: it does not in time.
    """
    deadline = time.monotonic() + _LEDGER_SECONDS
    while (recorded := int(postgres.psql(database, 'SELECT COUNT(*) FROM "AIUsage"'))) != sent:
        if time.monotonic() > deadline:
            raise WrongAnswerError(f"{sent} requests were answered, and {recorded} are in the ledger")
        await asyncio.sleep(0.2)


async def run(seconds: float, output: Path | None) -> None:
    facts = machine()
    with tempfile.TemporaryDirectory(prefix="aiservice-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        postgres, redis = stack.enter_context(databases(folder))
        database = postgres.create_database()
        migrated = command("migrate", DATABASE_URL=database)
        if migrated.returncode != 0:
            raise RuntimeError(f"migrate: {migrated.stderr}")
        engine_url = stack.enter_context(upstream())
        write_services(folder / "services.yaml", whisper(engine_url))
        variables = environment(folder, REDIS_URL=redis.url, DATABASE_URL=database, GATEWAY_RATE_LIMIT_PER_HOUR=_LIMIT)
        async with gateway_process(folder, variables) as gateway:
            json_type = {"Content-Type": "application/json"}
            direct = Way(engine_url + _PATH, json_type)
            through = Way(gateway.url + _PATH, {**json_type, **bearer()})
            cost = await measure(direct, through, gateway, seconds)
            await settle(postgres, database, through.requests)
    show(direct, through, cost, facts=facts, method=METHOD.format(seconds=seconds), output=output)


def show(direct: Way, through: Way, cost: Cost, *, facts: Mapping[str, Any], method: str, output: Path | None) -> None:
    ways = {"direct": direct.figures(), "gateway": through.figures()}
    floor, ours = ways["direct"], ways["gateway"]
    rates = [f"{median(way.rates):.0f} ({min(way.rates):.0f}-{max(way.rates):.0f})" for way in (direct, through)]
    latencies = {
        "latency p50 ms, 1 connection": "p50_ms",
        "latency p99 ms, 1 connection": "p99_ms",
        f"latency p50 ms, {CONNECTIONS} connections": "busy_p50_ms",
        f"latency p99 ms, {CONNECTIONS} connections": "busy_p99_ms",
    }
    rows = [
        [f"requests/s, {CONNECTIONS} connections", *rates, f"{_ratio(floor, ours, 'requests_per_second'):.3f}", ""],
        *(
            [
                label,
                f"{floor[key]:.2f}",
                f"{ours[key]:.2f}",
                f"{_ratio(floor, ours, key):.1f}",
                f"+{ours[key] - floor[key]:.2f}",
            ]
            for label, key in latencies.items()
        ),
        ["gateway CPU ms a request", "", f"{cost.cpu_ms_per_request:.2f}", "", ""],
        ["gateway peak memory MiB", "", f"{cost.peak_memory_mib:.0f}", "", ""],
        ["requests, warm-up included", str(direct.requests), str(through.requests), "", ""],
    ]
    document = {
        "machine": facts,
        **ways,
        "ratios": {key: _ratio(floor, ours, key) for key in ("requests_per_second", *latencies.values())},
        "added_p50_ms": ours["p50_ms"] - floor["p50_ms"],
        "added_p99_ms": ours["p99_ms"] - floor["p99_ms"],
        "gateway_process": asdict(cost),
    }
    drawn = table(["", "direct", "gateway", "ratio", "added"], rows)
    publish("Gateway: through it against straight to the engine", method, [drawn], document, output)


def _ratio(floor: Mapping[str, float], ours: Mapping[str, float], key: str) -> float:
    return ours[key] / floor[key]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one measurement (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="file for the figures as JSON")
    options = parser.parse_args()
    uvloop.run(run(options.seconds, options.output))


if __name__ == "__main__":
    main()

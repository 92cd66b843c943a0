"""What gateways cost: requests through ours, Envoy and LiteLLM against the same requests straight to the engine.

Everything is real but the engine: PostgreSQL with the gateway's tables, Redis, each gateway a process of its own.
`scripts/bench gateway` runs it; it takes about four minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import uvloop

from bench import gateways
from bench.figures import ratios, spread
from bench.gateway_memory import Memory, measure_memory
from bench.gateway_scene import databases, migrated
from bench.http_load import Question, WrongAnswerError, closed_loop, open_loop, question
from bench.report import cpu_seconds, family, machine, memory_mib, percentile, publish, table
from support.databases import PostgresServer
from support.gateway import GatewayProcess, bearer, environment, gateway_process, write_services

CONNECTIONS: Final = 16
RATE: Final = 300.0
_OPEN_CONNECTIONS: Final = 64
_LIMIT: Final = "1000000"
_BODY: Final = b'{"model": "sdxl", "prompt": "%b"}' % (b"A quiet harbour at dawn. " * 8)
_GOOD: Final = b"iVBORw0KGgo"
_NATIVE: Final = "/api/text-to-image"
_OPENAI: Final = "/v1/images/generations"
_LEDGER_SECONDS: Final = 60.0

OURS, OURS_V1, OURS_2, ENVOY, LITELLM = "ours", "ours, /v1", "ours, 2 workers", "Envoy", "LiteLLM"
DIRECT: Final = "direct"

METHOD: Final = (
    "{rounds} rounds, each way in turn: {seconds:g} s over 16 kept-open connections, {seconds:g} s over one, and, of "
    "the ways that manage it, {seconds:g} s of 300 requests/s at fixed times (a late one counts from when it was due). "
    "requests/s and ratios are medians of the rounds (lowest-highest); latencies are of all rounds' requests. One "
    "asyncio client posts 270 bytes of JSON; the engine, on uvicorn as the runtime is, answers 1.2 kB at once; each "
    "gateway has one worker, unless it says 2. Ours checks a JWT, counts limits in Redis (append-only file, fsync "
    "every second), writes its log and records every request in PostgreSQL (fsync off). Envoy checks the JWT and has a "
    "local rate limit; LiteLLM checks its master key and a limit of the model, without database and Redis. All on "
    "loopback, sharing the cores. The run fails unless every answer is a good one and the ledger holds every request "
    "that went through ours, once."
)


@dataclass
class Way:
    """One way to the engine, and what was measured on it."""

    name: str
    asked: Question
    pid: int | None = None
    """The gateway's process."""
    recorded: bool = False
    """Whether its requests must be in the ledger."""
    rates: list[float] = field(default_factory=list)
    """Requests a second at CONNECTIONS connections, one a round."""
    cpu_ms: list[float] = field(default_factory=list)
    """Of the gateway, for a request at CONNECTIONS connections, one a round."""
    latencies: list[float] = field(default_factory=list)
    """Seconds, at one connection."""
    alone_cpu_ms: list[float] = field(default_factory=list)
    """As `cpu_ms`, at one connection."""
    steady: list[float] = field(default_factory=list)
    """Seconds, at RATE requests a second."""
    memory_mib: float = 0.0
    """At the end, of all its processes."""
    requests: int = 0

    async def warm_up(self) -> None:
        """Lets it import, connect and compile what it needs."""
        latencies, _ = await closed_loop(self.asked, CONNECTIONS, 1.0)
        self.requests += len(latencies)

    async def measure(self, seconds: float) -> None:
        """One round."""
        begin = self._cpu()
        latencies, took = await closed_loop(self.asked, CONNECTIONS, seconds)
        self.cpu_ms.append((self._cpu() - begin) / len(latencies) * 1000)
        self.rates.append(len(latencies) / took)
        begin = self._cpu()
        alone, _ = await closed_loop(self.asked, 1, seconds)
        self.alone_cpu_ms.append((self._cpu() - begin) / len(alone) * 1000)
        steady: list[float] = []
        if self.rates[0] > RATE:
            steady = await open_loop(self.asked, RATE, seconds, _OPEN_CONNECTIONS)
        self.latencies += alone
        self.steady += steady
        self.requests += len(latencies) + len(alone) + len(steady)

    def end(self) -> None:
        """Reads what is only read once."""
        if self.pid is not None:
            self.memory_mib = sum(map(memory_mib, family(self.pid)))

    def _cpu(self) -> float:
        return sum(map(cpu_seconds, family(self.pid))) if self.pid is not None else 0.0


async def recorded(postgres: PostgresServer, database: str, sent: int) -> None:
    """Waits until the ledger holds every request.

    Raises:
        WrongAnswerError: it does not in time, or holds more.
    """
    sql = """SELECT COUNT(*) FROM "AIUsage" WHERE status = 'succeeded'"""
    deadline = time.monotonic() + _LEDGER_SECONDS
    while (found := int(await asyncio.to_thread(postgres.psql, database, sql))) != sent:
        if time.monotonic() > deadline:
            raise WrongAnswerError(f"{sent} requests were answered, and {found} are in the ledger")
        await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def all_ways(folder: Path, engine_url: str, settings: Mapping[str, str]) -> AsyncIterator[list[Way]]:
    """Every way, started."""
    async with contextlib.AsyncExitStack() as stack:

        async def ours(workers: int) -> GatewayProcess:
            variables = {**settings, "GATEWAY_WORKERS": str(workers)}
            return await stack.enter_async_context(gateway_process(folder, variables))

        one, two = await ours(1), await ours(2)
        envoy_url, envoy_pid = stack.enter_context(gateways.envoy(folder, engine_url))
        litellm_url, litellm_pid, key = stack.enter_context(gateways.litellm(folder, engine_url))
        token = bearer()
        yield [
            Way(DIRECT, question(engine_url + _NATIVE, _BODY, {}, _GOOD)),
            Way(OURS, question(one.url + _NATIVE, _BODY, token, _GOOD), one.pid, recorded=True),
            Way(OURS_V1, question(one.url + _OPENAI, _BODY, token, _GOOD), one.pid, recorded=True),
            Way(OURS_2, question(two.url + _NATIVE, _BODY, token, _GOOD), two.pid, recorded=True),
            Way(ENVOY, question(envoy_url + _NATIVE, _BODY, token, _GOOD), envoy_pid),
            Way(
                LITELLM,
                question(litellm_url + _OPENAI, _BODY, {"Authorization": f"Bearer {key}"}, _GOOD),
                litellm_pid,
            ),
        ]


async def run(options: argparse.Namespace) -> None:
    facts = machine()
    with tempfile.TemporaryDirectory(prefix="aiservice-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        postgres, redis = stack.enter_context(databases(folder))
        database = migrated(postgres)
        engine_url = stack.enter_context(gateways.engine(folder))
        service = {"name": "sdxl", "tasks": ["text-to-image"], "url": engine_url, "model": "sdxl"}
        voice = {"name": "xtts", "tasks": ["text-to-speech"], "url": engine_url, "model": "xtts"}
        write_services(folder / "services.yaml", service, voice)
        settings = environment(folder, REDIS_URL=redis.url, DATABASE_URL=database, GATEWAY_RATE_LIMIT_PER_HOUR=_LIMIT)
        async with all_ways(folder, engine_url, settings) as ways:
            for way in ways:
                await way.warm_up()
            for _ in range(options.rounds):
                for way in ways:
                    await way.measure(options.seconds)
            for way in ways:
                way.end()
            await recorded(postgres, database, sum(way.requests for way in ways if way.recorded))
        memory = await measure_memory(folder, settings)
    show(ways, memory, facts=facts, options=options)


def show(ways: Sequence[Way], memory: Memory, *, facts: Mapping[str, Any], options: argparse.Namespace) -> None:
    by_name = {way.name: way for way in ways}
    direct = by_name[DIRECT]
    rows = [[way.name, *_row(way, direct, by_name[ENVOY], by_name[LITELLM])] for way in ways]
    header = ["", "requests/s, 16 connections", "of Envoy", "of LiteLLM", "added p50 ms", "added p99 ms"]
    header += ["p99 ms at 300/s", "CPU ms", "RSS MiB"]
    one, two = by_name[OURS], by_name[OURS_2]
    scaling = {"16": ratios(two.cpu_ms, one.cpu_ms), "1": ratios(two.alone_cpu_ms, one.alone_cpu_ms)}
    scaled = [[f"CPU of 2 workers to 1, connections: {name}", ratio.shown(2)] for name, ratio in scaling.items()]
    tables = [table(header, rows), table(["a request", "ratio"], scaled), memory.table()]
    document = {
        "machine": facts,
        "ways": {way.name: _figures(way) for way in ways},
        "cpu_of_2_workers": {name: asdict(ratio) for name, ratio in scaling.items()},
        "memory": asdict(memory),
    }
    method = METHOD.format(rounds=options.rounds, seconds=options.seconds)
    publish("Gateway: beside its peers, and straight to the engine", method, tables, document, options.output)


def _row(way: Way, direct: Way, envoy: Way, litellm: Way) -> list[str]:
    added = [
        (percentile(way.latencies, percent) - percentile(direct.latencies, percent)) * 1000 for percent in (50, 99)
    ]
    return [
        spread(way.rates).shown(0),
        ratios(way.rates, envoy.rates).shown(2),
        ratios(way.rates, litellm.rates).shown(1),
        *(f"{one:.2f}" if way is not direct else "" for one in added),
        f"{percentile(way.steady, 99) * 1000:.1f}" if way.steady else "",
        spread(way.cpu_ms).shown(2) if way.pid else "",
        f"{way.memory_mib:.0f}" if way.pid else "",
    ]


def _figures(way: Way) -> dict[str, Any]:
    """For programs; latencies in ms."""
    return {
        "requests": way.requests,
        "requests_per_second": spread(way.rates).median,
        "requests_per_second_rounds": way.rates,
        "cpu_ms_rounds": way.cpu_ms,
        "p50_ms": percentile(way.latencies, 50) * 1000,
        "p99_ms": percentile(way.latencies, 99) * 1000,
        "p99_ms_at_300": percentile(way.steady, 99) * 1000 if way.steady else None,
        "memory_mib": way.memory_mib,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, help="file for the figures as JSON")
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()

"""text-to-image: what batches give, what the server costs, what it does for clients that leave, and its memory.

The model is a tiny SDXL with random weights, on a CPU: real pipelines, a real batcher, no GPU.
`scripts/bench diffusion` runs it; about ten minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

from aiservice_diffusion.bodies import Picture
from aiservice_diffusion.engine import DiffusionEngine
from aiservice_diffusion.settings import DiffusionSettings
from bench import cold_start
from bench.diffusion_servers import CLIENTS, FLOOR, SIZE, STEPS, TASK, THREADS, all_servers, our_server, picture
from bench.figures import Overhead, Spread, growth, overhead, quartiles, ratios, spread
from bench.report import machine, memory_mib, publish, table
from bench.serving import Body, Server, as_json, load, load_requests, service
from support.engines import load as load_engine
from weights import tiny

LONG_STEPS = 60
"""Of requests that are left behind: long enough to be left in the middle."""
LEAVE_AFTER = 1.0
_QUIET = 1.0
_SLACK = 0.05
"""Of a core: what an idle server may use beyond what it used before. Some look for work all the time."""
_LONGEST = 600.0

METHOD = (
    f"A tiny SDXL with random weights (two text encoders, UNet, VAE; 24 MB), {SIZE} pixels, {STEPS} steps, fp32 on "
    "the CPU. Every server is a process of its own on loopback around the same pipeline code and the same encoding "
    f"to PNG, with {THREADS} thread of computation; the floor is FastAPI with one lock. What is gained by batches "
    "here is gained by the batcher: a tiny model on a CPU computes sixteen pictures at once in less time than one "
    "after the other because each step costs Python and dispatch, not arithmetic. It says nothing of how much a GPU "
    f"gains. Throughput: {{rounds}} rounds, in each of them every server in turn is asked by {CLIENTS} clients for "
    "{seconds:g} s; median (lowest-highest), ratios to the floor are of the rounds. Overhead: {pairs} pairs of "
    "one call of the pipeline in the benchmark's process and one request to the service over a kept-open "
    "connection, in turn, each first every other time; median (middle half) of the differences. What is added holds "
    "JSON, PNG, base64, HTTP and the ways between threads; 'beside the device' is the client's time without what "
    f"the answer says that the device took. Leaving: {CLIENTS} clients ask for {LONG_STEPS} steps and close their "
    f"connections after {LEAVE_AFTER:g} s; CPU is what the server's processes use from then until they are idle; "
    f"'next answer' is how long a client waits who comes right after, in a run of its own, for a picture of {STEPS} "
    "steps; {leavings} times each, medians. Memory: {requests} requests by 16 clients, of four shapes and three "
    "formats, after a warm-up; RSS of the process. "
)


@dataclass
class Throughput:
    """What a server did for many clients."""

    rates: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)


def throughput(servers: Sequence[Server], rounds: int, seconds: float) -> dict[str, Throughput]:
    """Rounds over all servers, after a warm-up of each."""
    found = {server.name: Throughput() for server in servers}
    for server in servers:
        load_requests(server, CLIENTS, 2 * CLIENTS, picture)
    for _ in range(rounds):
        for server in servers:
            seen = load(server, CLIENTS, seconds, picture)
            found[server.name].rates.append(seen.rate)
            found[server.name].latencies += seen.latencies
    return found


@dataclass(frozen=True)
class Cost:
    """What our server adds to the pipeline at one client."""

    direct_ms: Spread
    served_ms: Spread
    added: Overhead
    beside_device_ms: Spread


def cost(server: Server, model: Path, pairs: int) -> Cost:
    """Pairs of a call and a request."""
    engine = DiffusionEngine(DiffusionSettings(model_dir=model, threads=THREADS))
    load_engine(engine)
    engine.warm_up()
    wanted = Picture("a cup", "", 1, 64, 64, STEPS, 5.0, (), None)
    pipeline = engine._loaded
    client = server.client()
    direct: list[float] = []
    served: list[float] = []
    beside: list[float] = []

    def call() -> None:
        begin = time.perf_counter()
        pipeline.make([wanted], lambda: None)
        direct.append(time.perf_counter() - begin)

    def request() -> None:
        answer = client.ask(as_json(prompt="a cup", size=SIZE, steps=STEPS, guidance=5.0, seed=1))
        served.append(answer.seconds)
        beside.append(answer.seconds - answer.device_seconds)

    warm_up = max(3, pairs // 10)
    for number in range(warm_up + pairs):
        for step in (call, request) if number % 2 else (request, call):
            step()
    client.close()
    engine.release()
    direct, served, beside = (values[warm_up:] for values in (direct, served, beside))
    in_ms = [[value * 1000 for value in values] for values in (direct, served, beside)]
    return Cost(quartiles(in_ms[0]), quartiles(in_ms[1]), overhead(served, direct), quartiles(in_ms[2]))


@dataclass(frozen=True)
class Left:
    """What a server did for clients that had gone."""

    cpu_seconds: float
    busy_seconds: float
    """Until it was idle."""
    next_answer_seconds: float


def leaving(server: Server, times: int) -> Left:
    """All clients leave in the middle, several times."""
    cpu, busy, waited = [], [], []
    share = _share(server, 2 * _QUIET)
    for _ in range(times):
        _leave(server)
        begin, used = time.perf_counter(), server.cpu_seconds()
        idle, used_until = _until_idle(server, share)
        busy.append(idle - begin)
        cpu.append(used_until - used - share * (idle - begin))
        _leave(server)
        client = server.client()
        waited.append(client.ask(picture(0)).seconds)
        client.close()
        _until_idle(server, share)
    return Left(median(cpu), median(busy), median(waited))


def _leave(server: Server) -> None:
    clients = [server.client() for _ in range(CLIENTS)]
    for number, client in enumerate(clients):
        client.send(picture(number, LONG_STEPS))
    time.sleep(LEAVE_AFTER)
    for client in clients:
        client.close()


def _until_idle(server: Server, share: float) -> tuple[float, float]:
    """Waits until a server uses no more than it does when idle; returns when that began, and its CPU seconds then."""
    deadline = time.perf_counter() + _LONGEST
    while True:
        since, before = time.perf_counter(), server.cpu_seconds()
        if _share(server, _QUIET) <= share + _SLACK or since > deadline:
            return since, before


def _share(server: Server, seconds: float) -> float:
    """How much of a core a server uses."""
    begin, used = time.perf_counter(), server.cpu_seconds()
    time.sleep(seconds)
    return (server.cpu_seconds() - used) / (time.perf_counter() - begin)


@dataclass(frozen=True)
class Memory:
    """RSS over many requests."""

    warm_up: int
    requests: int
    before_mib: float
    after_mib: float
    samples: list[tuple[int, float]]

    @property
    def slope(self) -> float:
        """MiB for a thousand requests, over the second half: allocators still settle in the first."""
        return growth(self.samples[len(self.samples) // 2 :])


def memory(server: Server, warm_up: int, requests: int) -> Memory:
    """Asks for pictures of all kinds and looks at the process in between."""
    kinds = cycle([(size, kind) for size in ("64x64", "96x64", "64x96", "96x96") for kind in ("png", "jpeg", "webp")])
    bodies = [
        as_json(prompt="a cup" * (1 + number % 7), size=size, format=kind, steps=2, n=1 + number % 2)
        for number, (size, kind) in zip(range(168), kinds, strict=False)
    ]

    def body_of(number: int) -> Body:
        return bodies[number % len(bodies)]

    load_requests(server, CLIENTS, warm_up, body_of)
    samples = [(0, memory_mib(server.pid))]
    step = max(1, requests // 10)
    for done in range(step, requests + 1, step):
        load_requests(server, CLIENTS, step, body_of)
        samples.append((done, memory_mib(server.pid)))
    return Memory(warm_up, samples[-1][0], samples[0][1], samples[-1][1], samples)


@dataclass(frozen=True)
class Results:
    """All of it."""

    throughput: Mapping[str, Throughput]
    cost: Cost
    left: Mapping[str, Left]
    memory: Memory
    cold: Mapping[str, Mapping[str, Spread]]


def tell(stage: str) -> None:
    print(f"measuring: {stage}", file=sys.stderr, flush=True)


def measure(folder: Path, options: argparse.Namespace) -> Results:
    model = folder / "model"
    tiny.sdxl(model)
    tell("overhead")
    with our_server(model, folder / "alone", 4) as server:
        added = cost(server, model, options.pairs)
    tell("memory")
    with service(
        "memory", "aiservice_diffusion", TASK, folder / "memory", model_dir=model, queue_size=CLIENTS, threads=THREADS
    ) as server:
        grown = memory(server, options.requests // 5, options.requests)
    tell("throughput")
    with all_servers(model, folder) as servers:
        rates = throughput(servers, options.rounds, options.seconds)
        tell("clients that leave")
        left = {server.name: leaving(server, options.leavings) for server in servers}
    tell("cold start")
    cold = {
        "tiny SDXL": cold_start.starts("aiservice_diffusion", TASK, folder / "cold", model_dir=model, threads=THREADS),
    }
    return Results(rates, added, left, grown, cold)


def drawn(results: Results) -> list[str]:
    floor = results.throughput[FLOOR].rates
    rates = [
        [
            name,
            spread(one.rates).shown(1),
            ratios(one.rates, floor).shown(2),
            f"{median(one.latencies) * 1000:.0f}",
            f"{results.left[name].cpu_seconds:.1f}",
            f"{results.left[name].busy_seconds:.1f}",
            f"{results.left[name].next_answer_seconds:.2f}",
        ]
        for name, one in results.throughput.items()
    ]
    head = [
        "",
        f"pictures/s, {CLIENTS} clients",
        "ratio",
        "p50 ms",
        "left: CPU s",
        "left: busy s",
        "left: next answer s",
    ]
    added = results.cost.added
    alone = [
        ["pipeline called, ms", results.cost.direct_ms.shown(1)],
        ["service asked, ms", results.cost.served_ms.shown(1)],
        ["added in a pair, ms", added.added_ms.shown(2)],
        ["added, % of the pipeline", f"{added.percent:.1f}"],
        ["beside the device, ms", results.cost.beside_device_ms.shown(2)],
    ]
    grown = results.memory
    sizes = [
        [f"RSS MiB after a warm-up of {grown.warm_up}", f"{grown.before_mib:.1f}"],
        [f"RSS MiB after {grown.requests} more", f"{grown.after_mib:.1f}"],
        ["MiB for a thousand requests, second half", f"{grown.slope:+.1f}"],
    ]
    return [
        table(head, rates),
        table(["one client", "median (middle half)"], alone),
        table(["memory", ""], sizes),
        cold_start.drawn(results.cold),
    ]


def document(results: Results, facts: Mapping[str, Any]) -> dict[str, Any]:
    floor = results.throughput[FLOOR].rates
    return {
        "machine": facts,
        "throughput": {
            name: {"pictures_per_second_rounds": one.rates, "ratio": asdict(ratios(one.rates, floor))}
            for name, one in results.throughput.items()
        },
        "overhead": asdict(results.cost),
        "left": {name: asdict(one) for name, one in results.left.items()},
        "memory": {**asdict(results.memory), "mib_per_thousand_requests": results.memory.slope},
        "cold_start": cold_start.kept(results.cold),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of all servers (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=6, help="of one server in a round (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=100, help="of a call and a request (default: %(default)s)")
    parser.add_argument("--leavings", type=int, default=3, help="times that clients leave (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=2000, help="for the memory (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="file for the figures as JSON")
    options = parser.parse_args()
    facts = machine()
    with tempfile.TemporaryDirectory(prefix="aiservice-bench-") as name:
        results = measure(Path(name), options)
    method = METHOD.format(**vars(options)) + cold_start.METHOD
    title = "Diffusion: batches, overhead, clients that leave, memory"
    publish(title, method, drawn(results), document(results, facts), options.output)


if __name__ == "__main__":
    main()

"""The servers around one tiny SDXL: ours with batches of several sizes, and the peers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bench.serving import Body, Server, as_json, peer, service

ROOT = Path(__file__).parents[2]
TASK = "text-to-image"
PATH = f"/api/{TASK}"
CLIENTS = 16
STEPS = 4
SIZE = "64x64"
THREADS = 1
"""Of one computation, everywhere: the tensors of a tiny model are not worth a second one, whose waiting for the first
is noise, and the other cores are left to clients and servers."""

FLOOR = "one at a time"
OURS = "ours, batches of"
BATCHES = (1, 4, 16)
PEERS = {"LitServe": "in_litserve", "mosec": "in_mosec"}


def picture(number: int, steps: int = STEPS) -> Body:
    """A request of its own for each number; all of them can be made in one batch."""
    return as_json(prompt=f"a cup, number {number}", size=SIZE, steps=steps, seed=number)


def ours(max_batch: int) -> str:
    """The name of our server with batches of this size."""
    return f"{OURS} {max_batch}"


def batches_of(name: str, max_batch: int) -> str:
    """The name of a peer with batches of this size."""
    return f"{name}, batches of {max_batch}"


@contextlib.contextmanager
def our_server(model: Path, folder: Path, max_batch: int) -> Iterator[Server]:
    """Our image's process, with places for all clients whatever the size of a batch."""
    with service(
        ours(max_batch),
        "aiservice_diffusion",
        TASK,
        folder / f"ours-{max_batch}",
        model_dir=model,
        max_batch=max_batch,
        queue_size=CLIENTS,
        threads=THREADS,
    ) as server:
        yield server


@contextlib.contextmanager
def peer_server(name: str, script: str, model: Path, folder: Path, max_batch: int) -> Iterator[Server]:
    """The same pipeline in another server, out of the environment bench-peers."""
    command = [str(ROOT / ".venvs" / "bench-peers" / "bin" / "python"), str(ROOT / f"tests/bench/peers/{script}.py")]
    variables = {
        "BENCH_MODEL": str(model),
        "BENCH_MAX_BATCH": str(max_batch),
        "AISERVICE_THREADS": str(THREADS),  # read by the engine that they share with our service
    }
    place = folder / f"{script}-{max_batch}"
    with peer(name, command, PATH, folder=place, variables=variables, probe=picture(0)) as server:
        yield server


@contextlib.contextmanager
def all_servers(model: Path, folder: Path) -> Iterator[list[Server]]:
    """Every server, up at the same time; the floor first."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(peer_server(FLOOR, "one_at_a_time", model, folder, 1)),
            *(stack.enter_context(our_server(model, folder, size)) for size in BATCHES),
            *(
                stack.enter_context(peer_server(batches_of(name, size), script, model, folder, size))
                for size in BATCHES[1:]
                for name, script in PEERS.items()
            ),
        ]

"""The life of the process: listen, load, serve, drain, end.

start       sockets open; /health answers; the device thread loads and warms up
ready       /ready answers 200
SIGTERM     /ready answers 503; requests in flight finish, new ones are answered 503; exit 0
load fails  its sentence becomes the pod's termination message; exit 1
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn

from aiservice_runtime import tracing
from aiservice_runtime.app import build_app
from aiservice_runtime.device import Phase
from aiservice_runtime.engine import PORTS, Engine, Task
from aiservice_runtime.errors import FatalError
from aiservice_runtime.logs import configure_logging
from aiservice_runtime.service import Service
from aiservice_runtime.settings import RuntimeSettings

log = logging.getLogger(__name__)

# Longer than proxies keep an idle connection, so that it is they who close it.
_KEEP_ALIVE_SECONDS = 120
# Of the drain time, at most this is kept for sending the last answers and letting go of the device.
_LAST_SECONDS = 2.0


class _Server(uvicorn.Server):
    """Leaves signals to serve(): a drain comes before uvicorn's own shutdown."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run_main(start: Callable[[], int]) -> None:
    """Runs a container's main function and ends the process; a FatalError becomes its termination message."""
    try:
        code = start()
    except FatalError as error:
        _write_termination_message(str(error))
        log.critical("fatal: %s", error)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit(): a computation that goes on in another thread cannot be stopped, and must not keep the process.
    os._exit(code)


def serve(engine: Engine, settings: RuntimeSettings) -> int:
    """Serves the engine until SIGTERM or SIGINT; returns the exit code. Raises FatalError when it cannot start."""
    configure_logging(settings)
    _prepare_environment(settings)
    tasks = chosen_tasks(engine, settings)
    return asyncio.run(_serve(engine, settings, tasks))


def chosen_tasks(engine: Engine, settings: RuntimeSettings) -> dict[str, Task[Any, Any, Any]]:
    """Returns the engine's tasks that the settings ask for. Raises FatalError on one the engine does not know."""
    known = {task.name: task for task in engine.tasks}
    unknown = [name for name in (*settings.tasks, *settings.ports) if name not in known]
    if unknown:
        raise FatalError(f"This image does not serve the task {unknown[0]!r}; it serves {', '.join(known)}.")
    return {name: known[name] for name in settings.tasks or known}


async def _serve(engine: Engine, settings: RuntimeSettings, tasks: dict[str, Task[Any, Any, Any]]) -> int:
    service = Service(engine, settings, tasks, tracing.configure(settings))
    sockets = [_listen(settings.host, _port(name, settings)) for name in tasks]
    ports = {name: sock.getsockname()[1] for name, sock in zip(tasks, sockets, strict=True)}
    config = uvicorn.Config(
        build_app(service),
        http="h11",  # it takes in and drops the rest of a body that was refused; clients then see the answer
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    loop = asyncio.get_running_loop()
    stop, started, failed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def note() -> None:
        started.set()
        if service.device.phase is Phase.FAILED:
            failed.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = asyncio.create_task(server.serve(sockets=sockets))
    log.info("listening", extra={"fields": {"ports": ports}})
    service.device.start(on_change=lambda: loop.call_soon_threadsafe(note))
    await _first(started.wait(), stop.wait())
    if service.device.phase is Phase.SERVING:
        _tell_start(service)
        await _first(stop.wait(), failed.wait())
    if service.device.phase is not Phase.FAILED:
        await _drain(service, settings.drain_seconds)
    server.should_exit = True
    await serving
    await asyncio.to_thread(service.tracing.close)
    if service.device.phase is Phase.FAILED:
        raise FatalError(service.device.failure)
    return 0


def _tell_start(service: Service) -> None:
    """Logs how long the start took, in its parts."""
    service.metrics.start_seconds.labels("total").set(_process_seconds())
    parts = {
        sample.labels["phase"]: sample.value
        for metric in service.metrics.start_seconds.collect()
        for sample in metric.samples
    }
    log.info("ready", extra={"fields": {f"{phase}_seconds": round(value, 3) for phase, value in parts.items()}})


def _process_seconds() -> float:
    """Returns how long this process has been running: proc(5), field 22 of stat, in clock ticks since the boot."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


async def _drain(service: Service, seconds: float) -> None:
    """Refuses new requests and waits for those in flight, then lets go of the device."""
    deadline = time.monotonic() + seconds
    service.draining = True
    log.info("draining", extra={"fields": {"in_flight": service.admission.held}})
    finished = await service.admission.wait_until_empty(seconds - min(_LAST_SECONDS, seconds / 2))
    if not finished:
        log.warning("the drain time is over", extra={"fields": {"given_up": service.admission.held}})
    service.close()
    left = max(0.0, deadline - time.monotonic())
    await asyncio.to_thread(
        service.device.join, left if finished and service.device.phase in {Phase.SERVING, Phase.ASLEEP} else 0
    )


async def _first(*waits: Any) -> None:
    """Waits until one of these is done, and cancels the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _port(task: str, settings: RuntimeSettings) -> int:
    port = settings.ports.get(task, PORTS.get(task))
    if port is None:
        raise FatalError(f"The task {task!r} has no standard port: give one with AISERVICE_PORTS={task}=<port>.")
    return port


def _listen(host: str, port: int) -> socket.socket:
    try:
        listener = _create(host, port)
    except OSError as error:
        raise FatalError(f"Cannot listen on port {port}: {error.strerror or error}.") from None
    # Connections inherit it. asyncio sets it only on sockets that were made with the protocol's number; without it the
    # body of an answer waits 40 ms for the acknowledgement of its headers (Nagle's algorithm, RFC 896).
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _create(host: str, port: int) -> socket.socket:
    if host:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=1024, dualstack_ipv6=True)
    return socket.create_server(("", port), backlog=1024)


def _prepare_environment(settings: RuntimeSettings) -> None:
    """Keeps libraries, imported later by the engine, off the network and off the read-only root."""
    home = Path(tempfile.gettempdir()) / f"aiservice-{os.getuid()}"
    home.mkdir(parents=True, exist_ok=True)
    os.environ.update(
        HOME=str(home),
        XDG_CACHE_HOME=str(home / ".cache"),
        HF_HOME=str(home / ".cache" / "huggingface"),
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        TRANSFORMERS_OFFLINE="1",
        OMP_NUM_THREADS=str(settings.threads),
    )


def _write_termination_message(sentence: str) -> None:
    """Writes where Kubernetes reads why a container ended; elsewhere there is no such file, and none is made."""
    path = os.environ.get("TERMINATION_LOG", "/dev/termination-log")
    flags = os.O_WRONLY | os.O_TRUNC | (os.O_CREAT if "TERMINATION_LOG" in os.environ else 0)
    try:
        descriptor = os.open(path, flags, 0o644)
    except OSError:
        return
    with os.fdopen(descriptor, "w") as file:
        file.write(sentence[:4000])

"""Servers of a model as processes of their own on loopback, and clients that load them.

The clients are threads on the standard library's HTTP client: a request costs them a tenth of a millisecond or two,
which is nothing beside a model, and no environment needs another package for them.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.report import cpu_seconds
from support.service_process import TESTS, Process

HOST = "127.0.0.1"
_START_SECONDS = 120
_ANSWER_SECONDS = 600


class WrongAnswerError(Exception):
    """Something other than a good answer was measured, so the figures mean nothing."""


@dataclass(frozen=True)
class Body:
    """What is posted."""

    content: bytes
    media_type: str = "application/json"


def as_json(**fields: Any) -> Body:
    """A request without a file."""
    return Body(json.dumps(fields).encode())


@dataclass(frozen=True)
class Timed:
    """One answer, and how long it took."""

    seconds: float
    device_seconds: float
    """What the server says that the model computed for it; 0 where it says nothing."""
    body: dict[str, Any]


class Client:
    """One kept-open connection."""

    def __init__(self, port: int, path: str) -> None:
        self._path = path
        self._connection = http.client.HTTPConnection(HOST, port, timeout=_ANSWER_SECONDS)

    def send(self, body: Body) -> None:
        """Sends a request, and does not wait for the answer."""
        self._connection.request("POST", self._path, body.content, {"Content-Type": body.media_type})

    def ask(self, body: Body) -> Timed:
        """Sends a request and takes its answer.

        Raises:
            WrongAnswerError: it is not 200.
        """
        begin = time.perf_counter()
        self.send(body)
        answer = self._connection.getresponse()
        content = answer.read()
        seconds = time.perf_counter() - begin
        if answer.status != 200:
            raise WrongAnswerError(f"{self._path} answered {answer.status}: {content[:300]!r}")
        return Timed(seconds, float(answer.getheader("X-AIService-Device-Seconds") or 0), json.loads(content))

    def close(self) -> None:
        """Leaves."""
        self._connection.close()


@dataclass
class Server:
    """A server that is up."""

    name: str
    port: int
    path: str
    pid: int
    """Of the process that was started, which leads a session with all that it started itself."""
    ready: Mapping[str, Any] = field(default_factory=dict)
    """Its log record `ready`; empty for servers that are not ours."""

    def client(self) -> Client:
        """A new connection."""
        return Client(self.port, self.path)

    def cpu_seconds(self) -> float:
        """What it and the processes that it started have used so far."""
        used = 0.0
        for pid in _session(self.pid):
            with contextlib.suppress(OSError):  # ended meanwhile
                used += cpu_seconds(pid)
        return used


@dataclass(frozen=True)
class Load:
    """What some clients saw."""

    latencies: list[float]
    seconds: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds


def load(server: Server, connections: int, seconds: float, body_of: Callable[[int], Body]) -> Load:
    """Each client asks one request after the other for so many seconds; `body_of` is given the request's number."""
    until = time.perf_counter() + seconds
    return _load(server, connections, lambda _: time.perf_counter() < until, body_of)


def load_requests(server: Server, connections: int, requests: int, body_of: Callable[[int], Body]) -> Load:
    """The clients ask so many requests in all."""
    return _load(server, connections, lambda number: number < requests, body_of)


def _load(server: Server, connections: int, more: Callable[[int], bool], body_of: Callable[[int], Body]) -> Load:
    latencies: list[float] = []
    errors: list[Exception] = []
    numbers = iter(range(10**9))  # its next() is one step of the interpreter, so threads may share it

    def ask() -> None:
        client = server.client()
        try:
            while not errors and more(number := next(numbers)):
                latencies.append(client.ask(body_of(number)).seconds)
        except Exception as error:  # noqa: BLE001 - raised below, in the thread that waits
            errors.append(error)
        finally:
            client.close()

    threads = [threading.Thread(target=ask) for _ in range(connections)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return Load(latencies, time.perf_counter() - begin)


@contextlib.contextmanager
def service(name: str, module: str, task: str, folder: Path, **settings: Any) -> Iterator[Server]:
    """One of our images as its container starts it; settings by their names."""
    folder.mkdir(parents=True, exist_ok=True)
    variables = {f"AISERVICE_{key.upper()}": str(value) for key, value in settings.items()}
    process = Process(module, folder, ["--ports", f"{task}=0", "--tasks", task], variables)
    try:
        ready = process.wait_for("ready", _START_SECONDS)
        yield Server(name, process.ports()[task], f"/api/{task}", process.child.pid, ready)
    finally:
        process.child.send_signal(signal.SIGTERM)
        try:
            process.end(30)
        except subprocess.TimeoutExpired:
            process.child.kill()
            process.end()


@contextlib.contextmanager
def peer(
    name: str, command: Sequence[str], path: str, *, folder: Path, variables: Mapping[str, str], probe: Body
) -> Iterator[Server]:
    """Another server, which is told a port; it is up once it answers `probe`."""
    folder.mkdir(parents=True, exist_ok=True)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TRANSFORMERS_OFFLINE": "1"}
    port = _free_port()
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            env={**os.environ, **offline, **variables, "PYTHONPATH": str(TESTS)},
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it may start processes of its own, which are to end with it
        )
    server = Server(name, port, path, process.pid)
    try:
        _await(process, server, probe, log)
        yield server
    finally:
        _end_session(process)


def _await(process: subprocess.Popen[bytes], server: Server, probe: Body, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        client = server.client()
        try:
            client.ask(probe)
            return
        except (OSError, http.client.HTTPException, WrongAnswerError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{server.name} did not start:\n{log.read_text()[-3000:]}") from error
            time.sleep(0.2)
        finally:
            client.close()


def _end_session(process: subprocess.Popen[bytes]) -> None:
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
    for pid in _session(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _session(leader: int) -> list[int]:
    """The processes that belong to a process: its session if it leads one, else itself alone."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(") ")[2].split()
            if int(fields[3]) == leader:
                members.append(int(stat.parent.name))
    return members or [leader]


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port

"""A real PostgreSQL and a real Redis for tests, on free loopback ports, in temporary folders, gone at the end.

`postgres_server` and `redis_server` run for the whole session and can be stopped and started by a test. `database_url`
is a fresh, empty database and `redis_url` an emptied Redis for one test; both make sure that the server is up.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

_START_SECONDS = 30.0
_HOST = "127.0.0.1"


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A server process that can be stopped and started, and always keeps its port and its data."""

    def __init__(self, name: str, folder: Path, command: Sequence[str], ready: Callable[[], bool]) -> None:
        self._name = name
        self._log = folder / "log"
        self._command = command
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, unless it runs, and waits until it answers."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Starts it, unless it runs, without a wait.

        Only on the main thread: the server ends with the thread that started it.
        """
        assert threading.current_thread() is threading.main_thread()
        if self._process is not None and self._process.poll() is None:
            return
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def wait(self) -> None:
        """Waits until it answers."""
        deadline = time.monotonic() + _START_SECONDS
        while not self._ready():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{self._name} did not start; its log ends:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stops it: SIGINT breaks off the connections, SIGKILL is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_START_SECONDS)
            self._process = None

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """All its processes stop (SIGSTOP) and go on afterwards: connections stay open, and nothing is answered."""
        assert self._process is not None
        stopped = [self._process.pid]
        os.kill(self._process.pid, signal.SIGSTOP)  # it first: from now on it has no new children
        try:
            for child in _children(self._process.pid):
                os.kill(child, signal.SIGSTOP)
                stopped.append(child)
            yield
        finally:
            for one in stopped:
                os.kill(one, signal.SIGCONT)


class PostgresServer(Server):
    """PostgreSQL, with a user `postgres` who needs no password."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        user = _unprivileged()
        data = folder / "data"
        if user:
            shutil.chown(folder, "postgres", "postgres")
        # -N and fsync=off: nothing of this outlives the test run.
        initdb = [
            _program("initdb"),
            "-D",
            str(data),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
            "-N",
        ]
        subprocess.run([*user, *initdb], check=True, capture_output=True, cwd=folder)
        options = {
            "listen_addresses": _HOST,
            "port": str(self.port),
            "unix_socket_directories": str(folder),
            "fsync": "off",
            "max_connections": "100",
        }
        command = [*user, *_DIE_WITH_TESTS, _program("postgres"), "-D", str(data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        super().__init__("PostgreSQL", folder, command, self._answers)

    def create_database(self, template: str | None = None) -> str:
        """Makes a database, empty or a copy of the one with the URL `template`; returns its URL."""
        name = f"test_{uuid.uuid4().hex}"
        copied = template.rpartition("/")[2] if template else "template1"
        self.psql("postgres", f"CREATE DATABASE {name} TEMPLATE {copied}")
        return f"postgresql://postgres@{_HOST}:{self.port}/{name}"

    def psql(self, database: str, sql: str) -> str:
        """Runs SQL with the real psql; returns its rows, one a line, with | between the columns.

        Args:
            database: Name or URL of the database.
            sql: One or several statements.
        """
        target = database if "://" in database else f"postgresql://postgres@{_HOST}:{self.port}/{database}"
        command = [_program("psql"), target, "--no-psqlrc", "--tuples-only", "--no-align", "-v", "ON_ERROR_STOP=1"]
        return subprocess.run(
            command, input=sql, check=True, capture_output=True, text=True, timeout=_START_SECONDS
        ).stdout.strip()

    def _answers(self) -> bool:
        command = [_program("pg_isready"), "-q", "-h", _HOST, "-p", str(self.port), "-U", "postgres"]
        return subprocess.run(command, check=False).returncode == 0


class RedisServer(Server):
    """Redis, with an append-only file, so that a restart keeps the data.

    Without fsync every write is made before its reply, and a killed Redis loses none of them; with `everysec` one that
    comes during an fsync may wait for it.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        command = [*_DIE_WITH_TESTS, _program("redis-server"), "--bind", _HOST, "--port", str(self.port)]
        command += ["--dir", str(folder), "--save", "", "--appendonly", "yes", "--appendfsync", "no"]
        super().__init__("Redis", folder, command, lambda: self.command("PING") == "+PONG")
        self.url = f"redis://{_HOST}:{self.port}/0"

    def restart_empty(self) -> None:
        """A crash that loses all data."""
        self.stop(signal.SIGKILL)
        shutil.rmtree(self._folder / "appendonlydir")
        self.start()

    def command(self, *words: str) -> str:
        """Sends one command; returns the answer's first line in Redis' own notation; nothing when it is down."""
        request = f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
        try:
            with socket.create_connection((_HOST, self.port), timeout=2) as connection:
                connection.sendall(request.encode())
                return connection.makefile("rb").readline().decode().strip()
        except OSError:
            return ""


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for the session."""
    with tempfile.TemporaryDirectory(prefix="aiservice-postgres-") as folder:
        server = PostgresServer(Path(folder))
        yield server
        server.stop(signal.SIGQUIT)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Redis for the session."""
    with tempfile.TemporaryDirectory(prefix="aiservice-redis-") as folder:
        server = RedisServer(Path(folder))
        yield server
        server.stop(signal.SIGTERM)


@pytest.fixture
def database_url(postgres_server: PostgresServer) -> str:
    """A fresh, empty database."""
    postgres_server.start()
    return postgres_server.create_database()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty Redis."""
    redis_server.start()
    assert redis_server.command("FLUSHALL") == "+OK"
    return redis_server.url


_DIE_WITH_TESTS = ("setpriv", "--pdeathsig", "KILL")
"""The kernel ends the server when the test run is killed and cannot."""


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _unprivileged() -> list[str]:
    """PostgreSQL refuses to run as root: what to put before its commands."""
    if os.geteuid() != 0:
        return []
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        pytest.fail("There is no user postgres: install the Debian package postgresql")
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


def _program(name: str) -> str:
    """The path of a program of PostgreSQL or Redis; Debian keeps PostgreSQL's servers off the PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    found = shutil.which(name) or (str(versions[-1]) if versions else None)
    if found is None:
        pytest.fail(f"{name} is missing: install the Debian packages postgresql and redis-server (make test does)")
    return found

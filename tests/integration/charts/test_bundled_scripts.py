"""The start scripts of the bundled stores, with the real PostgreSQL and Redis of Debian instead of their images."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.charts import CHARTS
from support.cluster import REPOSITORY, CommandError, eventually, run

SCRIPTS = CHARTS / "aiservice-gateway/files/bundled"
NOBODY = 65534
NAMELESS = 65532
"""The user of the chart's pods, who has no name where the chart does not bring one."""
PASSWORD = "a-Password.of~the_test"


@pytest.fixture(scope="session", autouse=True)
def programs() -> None:
    """PostgreSQL, its client, and Redis."""
    packages = "source scripts/lib/debian.sh && need_packages postgresql redis-server"
    subprocess.run(["bash", "-c", packages], cwd=REPOSITORY, check=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a store keeps its data, with its password in a file beside; the script's user owns it."""
    (tmp_path / "data").mkdir()
    (tmp_path / "password").write_text(PASSWORD)
    if os.geteuid() == 0:
        for path in (tmp_path, *tmp_path.iterdir()):
            os.chown(path, NOBODY, NOBODY)
        # pytest keeps the folders above to the user of the tests.
        for above in list(tmp_path.parents)[:3]:
            above.chmod(above.stat().st_mode | 0o011)
    return tmp_path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def shell(script: str, command: str, environment: Mapping[str, str], user: int = NOBODY) -> list[str]:
    """The command line of a script as a container runs it: without root, and with no variables but its own."""
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if os.geteuid() == 0 else []
    variables = [f"{name}={value}" for name, value in environment.items()]
    return [*become, "env", "-i", "PATH=/usr/bin:/bin", *variables, "/bin/sh", str(SCRIPTS / script), command]


@contextmanager
def serving(command: list[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs a server; kills it in the end, if the test has not stopped it."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, cwd="/") as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def postgresql(folder: Path) -> dict[str, str]:
    """Environment of the script for PostgreSQL."""
    return {
        "PGDATA": str(folder / "data/pgdata"),
        "PGPORT": str(free_port()),
        "PGHOST": "127.0.0.1",
        "POSTGRES_USER": "aiservice",
        "POSTGRES_DB": "aiservice",
        "POSTGRES_PASSWORD_FILE": str(folder / "password"),
        "PATIENCE_SECONDS": "100",
    }


def query(environment: Mapping[str, str], sql: str, password: str = PASSWORD) -> str:
    url = f"postgresql://aiservice:{password}@127.0.0.1:{environment['PGPORT']}/aiservice"
    return run("psql", "--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "--command", sql, url).strip()


def test_postgresql_survives_a_kill_and_takes_a_new_password(folder: Path, postgresql: dict[str, str]) -> None:
    serve, log = shell("postgresql.sh", "serve", postgresql), folder / "log"
    with serving(serve, log) as server:
        run(*shell("postgresql.sh", "wait", postgresql))
        query(postgresql, "CREATE TABLE kept AS SELECT 7 AS number")
        with pytest.raises(CommandError, match="password authentication failed"):
            query(postgresql, "SELECT 1", password="another")
        server.kill()
        server.wait()
    (folder / "password").write_text("another-Password")
    (folder / "data/pgdata").chmod(0o2770)  # as Kubernetes does with fsGroup when it mounts a volume again
    with serving(serve, log) as server:
        run(*shell("postgresql.sh", "wait", postgresql))
        assert query(postgresql, "SELECT number FROM kept", password="another-Password") == "7"
        run(*shell("postgresql.sh", "ready", postgresql))
        # A client that stays connected does not keep the pod from stopping.
        with subprocess.Popen(psql_that_stays(postgresql, "another-Password"), stderr=subprocess.DEVNULL):
            sleepers = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
            eventually(lambda: query(postgresql, sleepers, "another-Password") == "1")
            run(*shell("postgresql.sh", "stop", postgresql))
            assert server.wait(timeout=120) == 0
    assert "database system is shut down" in log.read_text()
    assert not list((folder / "data").glob("*.new"))


def psql_that_stays(environment: Mapping[str, str], password: str) -> list[str]:
    url = f"postgresql://aiservice:{password}@127.0.0.1:{environment['PGPORT']}/aiservice"
    return ["psql", "--no-psqlrc", "--quiet", "--command", "SELECT pg_sleep(600)", url]


def test_postgresql_starts_anew_where_a_first_start_was_killed(folder: Path, postgresql: dict[str, str]) -> None:
    half_made = folder / "data/pgdata.new"
    half_made.mkdir()
    (half_made / "PG_VERSION").write_text("15\n")
    if os.geteuid() == 0:
        os.chown(half_made, NOBODY, NOBODY)
    with serving(shell("postgresql.sh", "serve", postgresql), folder / "log"):
        waiting = {name: postgresql[name] for name in ("PGHOST", "PGPORT", "PATIENCE_SECONDS")}
        run(*shell("postgresql.sh", "wait", waiting, user=NAMELESS))
        assert query(postgresql, "SELECT current_database()") == "aiservice"


def test_waiting_for_postgresql_ends(postgresql: dict[str, str]) -> None:
    with pytest.raises(CommandError, match=r"no PostgreSQL at 127\.0\.0\.1:\d+ after 1 s"):
        run(*shell("postgresql.sh", "wait", {**postgresql, "PATIENCE_SECONDS": "1"}))


def test_redis_survives_a_kill(folder: Path) -> None:
    environment = {
        "REDIS_DATA": str(folder / "data"),
        "REDIS_PORT": str(free_port()),
        "REDIS_PASSWORD_FILE": str(folder / "password"),
    }
    serve, ready = shell("redis.sh", "serve", environment), shell("redis.sh", "ready", environment)

    def redis(*command: str) -> str:
        words = ("redis-cli", "-p", environment["REDIS_PORT"], *command)
        return run("env", f"REDISCLI_AUTH={PASSWORD}", *words).strip()

    for stop in (signal.SIGKILL, signal.SIGTERM):
        with serving(serve, folder / "log") as server:
            eventually(lambda: answers(ready))
            assert redis("INCR", "starts") == ("1" if stop is signal.SIGKILL else "2")
            assert "NOAUTH" in run("redis-cli", "-p", environment["REDIS_PORT"], "GET", "starts")
            eventually(lambda: redis("INFO", "persistence").count("aof_pending_bio_fsync:0"), timeout=60)
            server.send_signal(stop)
            assert server.wait(timeout=60) == (-stop if stop is signal.SIGKILL else 0)
    assert not answers(ready)


def answers(command: list[str]) -> bool:
    """Whether a probe succeeds."""
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_an_image_without_redis_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="this image has no redis-server program: set"):
        run("env", "-i", f"PATH={tmp_path}", "/bin/sh", SCRIPTS / "redis.sh", "serve")

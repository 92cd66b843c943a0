"""What stands behind a gateway that is measured: a real PostgreSQL and a real Redis."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

from support.databases import PostgresServer, RedisServer
from support.gateway import command


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
        # Tests let Redis do without fsync; what is measured is Redis' own default.
        if (said := redis.command("CONFIG", "SET", "appendfsync", "everysec")) != "+OK":
            raise RuntimeError(f"Redis: {said}")
        yield postgres, redis
    finally:
        redis.stop(signal.SIGTERM)
        postgres.stop(signal.SIGQUIT)


def migrated(postgres: PostgresServer) -> str:
    """URL of a new database with the gateway's tables."""
    database = postgres.create_database()
    done = command("migrate", DATABASE_URL=database)
    if done.returncode != 0:
        raise RuntimeError(f"migrate: {done.stderr}")
    return database

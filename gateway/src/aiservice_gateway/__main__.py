"""`python -m aiservice_gateway serve | migrate | token`. Settings come from environment variables."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import sys
import time
from collections.abc import Sequence

from aiservice_gateway import __version__, logs
from aiservice_gateway.errors import SettingsError
from aiservice_gateway.settings import DatabaseSettings, Settings, TokenSettings, unknown_variables

_log = logging.getLogger(__name__)

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_SERVE = """
Serves the API on GATEWAY_HOST:GATEWAY_PORT (0.0.0.0:8000).

needed:    JWT_SECRET, the secret of the application that issues the tokens
usual:     DATABASE_URL (PostgreSQL; else SQLite), REDIS_URL (else limits are counted in this process)
services:  AIService objects of the cluster (in a pod, or with KUBECONFIG); or GATEWAY_SERVICES_FILE

docs/gateway.md describes every setting.
"""

_MIGRATE = """
Brings the database of DATABASE_URL (or the file GATEWAY_SQLITE_FILE) to the state that this version needs. Run it
before a new version serves. It is safe to run twice, and twice at once. A table "AIUsage" that the application made
first is adopted: missing columns are added, nothing is changed or removed.
"""

_ABOUT_TOKENS = """
Prints a token signed with JWT_SECRET, as the application would issue it, for trying things out:

  curl -H "Authorization: Bearer $(python -m aiservice_gateway token --tenant acme)" http://localhost:8000/api/usage
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return {"serve": _serve, "migrate": _migrate, "token": _token}[options.command](options)
    except SettingsError as error:
        print(f"aiservice-gateway: {error}", file=sys.stderr)
        return 1


def _serve(_: argparse.Namespace) -> int:
    settings = Settings.load(os.environ)
    logs.configure(settings.log_level)
    for name in unknown_variables(os.environ):
        _log.warning("%s is no setting of the gateway; docs/gateway.md lists them", name)
    # Imported late, so that the other commands and a wrong setting are answered at once.
    from aiservice_gateway.factory import prepare  # noqa: PLC0415 - see above
    from aiservice_gateway.server import serve  # noqa: PLC0415 - see above

    asyncio.run(prepare(settings))
    serve(settings)
    return 0


def _migrate(_: argparse.Namespace) -> int:
    settings = DatabaseSettings.load(os.environ)
    from aiservice_gateway.migrations import migrate_postgres, migrate_sqlite  # noqa: PLC0415 - Alembic is slow to import

    if settings.database_url is not None:
        migrate_postgres(settings.database_url.get_secret_value())
    else:
        migrate_sqlite(settings.sqlite_file)
    print("The database is up to date.")
    return 0


def _token(options: argparse.Namespace) -> int:
    settings = TokenSettings.load(os.environ)
    from aiservice_gateway.services.auth import make_token  # noqa: PLC0415 - the others need no PyJWT

    claims: dict[str, object] = {settings.tenant_claim: options.tenant}
    if options.user is not None:
        claims[settings.user_claim] = options.user
    secret = settings.jwt_secret.get_secret_value()
    print(make_token(secret, claims, lifetime_seconds=options.expires, now=time.time()))
    return 0


def duration(text: str) -> float:
    """Seconds from a text such as 90s, 15m, 1h or 7d.

    Raises:
        argparse.ArgumentTypeError: it is no such text.
    """
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration: write a number and s, m, h or d, as in 1h")
    return float(int(match[1]) * _SECONDS[match[2]])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aiservice_gateway",
        description="The gateway of AIService: one authenticated door, limits for each tenant, usage.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    raw = argparse.RawDescriptionHelpFormatter
    commands.add_parser("serve", help="serve the API", description=_SERVE, formatter_class=raw)
    commands.add_parser("migrate", help="prepare the database", description=_MIGRATE, formatter_class=raw)
    token = commands.add_parser("token", help="print a token", description=_ABOUT_TOKENS, formatter_class=raw)
    token.add_argument("--tenant", required=True, help="the tenant that the token names")
    token.add_argument("--user", help="the user that it names")
    token.add_argument("--expires", type=duration, default="1h", help="lifetime, as in 30m, 1h or 7d (default: 1h)")
    return parser


if __name__ == "__main__":
    sys.exit(main())

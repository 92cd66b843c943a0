"""`python -m aiservice_gateway serve | migrate | token | key`. Settings come from environment variables."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr

from aiservice_gateway import __version__, logs
from aiservice_gateway.errors import SettingsError
from aiservice_gateway.settings import DatabaseSettings, Settings, TokenSettings, unknown_variables

_log = logging.getLogger(__name__)

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_SERVE = """
Serves the API on GATEWAY_HOST:GATEWAY_PORT (0.0.0.0:8000).

needed:    JWT_SECRET, the secret of the application that issues the tokens; or GATEWAY_JWKS_URL, an issuer's keys
usual:     DATABASE_URL (PostgreSQL; else SQLite), REDIS_URL (else limits are counted in this process)
services:  AIService and AITenant objects of the cluster (in a pod, or with KUBECONFIG); or GATEWAY_SERVICES_FILE

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

_ABOUT_KEYS = """
Makes an API key for a machine. The key goes to standard error, once; it is not kept. What belongs into the tenant's
AITenant, or into the services file, goes to standard output:

  python -m aiservice_gateway key --tenant acme --name ci --expires 90d
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return {"serve": _serve, "migrate": _migrate, "token": _token, "key": _key}[options.command](options)
    except SettingsError as error:
        print(f"aiservice-gateway: {error}", file=sys.stderr)
        return 1


def _serve(_: argparse.Namespace) -> int:
    settings = Settings.load(os.environ)
    logs.configure(settings.log_level)
    for name in unknown_variables(os.environ):
        _log.warning("%s is no setting of the gateway; docs/gateway.md lists them", name)
    # Imported late, so that the other commands and a wrong setting are answered at once.
    if settings.workers > 1:
        from aiservice_gateway import workers  # noqa: PLC0415 - see above

        return workers.serve(settings)
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
    from aiservice_gateway.services.tokens import make_token  # noqa: PLC0415 - the others need no PyJWT

    kid, secret = _signing_secret(settings)
    claims = _claims(settings, options)
    print(make_token(secret.get_secret_value(), claims, lifetime_seconds=options.expires, now=time.time(), kid=kid))
    return 0


def _signing_secret(settings: TokenSettings) -> tuple[str | None, SecretStr]:
    """What tokens are signed with here, and its `kid`, if it has one."""
    if settings.jwt_secret is not None:
        return None, settings.jwt_secret
    if not settings.jwt_secrets:
        raise SettingsError("A token is signed with JWT_SECRET, which is not set: your issuer has to make it.")
    return next(iter(settings.jwt_secrets.items()))


def _claims(settings: TokenSettings, options: argparse.Namespace) -> dict[str, object]:
    """What the token says, such that a gateway with these settings accepts it. A claim's name may look like a path."""
    claims: dict[str, object] = {settings.tenant_claim: options.tenant}
    if options.user is not None:
        claims[settings.user_claim] = options.user
    if options.admin:
        if settings.admin_role is None:
            raise SettingsError("GATEWAY_ADMIN_ROLE is not set, so no token is an administrator's.")
        claims[settings.role_claim] = settings.admin_role
    if settings.issuers:
        claims["iss"] = settings.issuers[0]
    if settings.audiences:
        claims["aud"] = settings.audiences[0]
    return claims


def _key(options: argparse.Namespace) -> int:
    import yaml  # noqa: PLC0415 - the others need no YAML

    from aiservice_gateway.services.api_keys import key_hash, make_key  # noqa: PLC0415 - nor keys

    key = make_key()
    entry: dict[str, object] = {"name": options.name, "sha256": key_hash(key)}
    if options.user is not None:
        entry["user"] = options.user
    if options.admin:
        entry["admin"] = True
    if options.expires is not None:
        entry["expires"] = f"{datetime.now(UTC) + timedelta(seconds=options.expires):%Y-%m-%dT%H:%M:%SZ}"
    print(f"The key, which is not shown again: {key}", file=sys.stderr)
    print(yaml.safe_dump({"spec": {"tenant": options.tenant, "apiKeys": [entry]}}, sort_keys=False), end="")
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
    token.add_argument("--admin", action="store_true", help="with the role of administrators, GATEWAY_ADMIN_ROLE")
    token.add_argument("--expires", type=duration, default="1h", help="lifetime, as in 30m, 1h or 7d (default: 1h)")
    key = commands.add_parser("key", help="make an API key", description=_ABOUT_KEYS, formatter_class=raw)
    key.add_argument("--tenant", required=True, help="the tenant that it is for")
    key.add_argument("--name", default="key", help="what tells it from the tenant's other keys (default: key)")
    key.add_argument("--user", help="the user in usage records (default: the key's name)")
    key.add_argument("--admin", action="store_true", help="its holder sees every tenant's usage")
    key.add_argument("--expires", type=duration, help="lifetime, as in 90d (default: it does not expire)")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""The table "AIUsage". One that the application made first is adopted: what it lacks is added, nothing is changed."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from alembic import op
from sqlalchemy.exc import DBAPIError

from aiservice_api.tasks import Task
from aiservice_gateway.errors import SettingsError
from aiservice_gateway.models import MODEL_CHARACTERS, Outcome, UsageRecord
from aiservice_gateway.stores.postgres import INSERT

revision = "0001"
down_revision = None

_COLUMNS = {
    "id": "text PRIMARY KEY",
    "tenantId": "text NOT NULL",
    "userId": "text",
    "service": "text NOT NULL",
    "model": "text",
    "requestId": "text",
    "tokens": "integer NOT NULL DEFAULT 0",
    "units": "numeric(18,6) NOT NULL DEFAULT 0",
    "unit": "text",
    "cost": "numeric(18,8) NOT NULL DEFAULT 0",
    "durationMs": "integer NOT NULL DEFAULT 0",
    "status": "text NOT NULL DEFAULT 'succeeded'",
    "createdAt": "timestamp(3) NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')",
}

_SQLITE = """
CREATE TABLE IF NOT EXISTS "AIUsage" (
  id text PRIMARY KEY,
  "tenantId" text NOT NULL,
  "userId" text,
  service text NOT NULL,
  model text,
  "requestId" text,
  tokens integer NOT NULL DEFAULT 0,
  units real NOT NULL DEFAULT 0,
  unit text,
  cost real NOT NULL DEFAULT 0,
  "durationMs" integer NOT NULL DEFAULT 0,
  status text NOT NULL DEFAULT 'succeeded',
  "createdAt" text NOT NULL
)
"""

# The name is the one that Prisma gives to @@index([tenantId, createdAt]).
_INDEX = 'CREATE INDEX IF NOT EXISTS "AIUsage_tenantId_createdAt_idx" ON "AIUsage" ("tenantId", "createdAt")'

_FOREIGN_KEY_VIOLATION = "23503"


def upgrade() -> None:
    """Makes the table, or makes the application's fit."""
    if op.get_context().dialect.name == "sqlite":
        op.execute(_SQLITE)
        op.execute(_INDEX)
        return
    columns = ", ".join(f'"{name}" {definition}' for name, definition in _COLUMNS.items())
    op.execute(f'CREATE TABLE IF NOT EXISTS "AIUsage" ({columns})')
    for name, definition in _COLUMNS.items():
        # Rows of the application's own have no value for a column that is new to them: it must not be demanded.
        lenient = definition if "DEFAULT" in definition else definition.split()[0]
        op.execute(f'ALTER TABLE "AIUsage" ADD COLUMN IF NOT EXISTS "{name}" {lenient}')
    op.execute(_INDEX)
    _try_it()


def _try_it() -> None:
    """Writes a record as the gateway will, and takes it back: an adopted table may refuse it in many ways."""
    connection = op.get_bind()
    trial = connection.begin_nested()
    try:
        connection.exec_driver_sql(INSERT, (f"[{_trial_record().to_wire().decode()}]",))
    except DBAPIError as error:
        # A table that wants the tenant to be one of the application's is fine: real tenants are.
        if getattr(error.orig, "sqlstate", None) != _FOREIGN_KEY_VIOLATION:
            raise SettingsError(
                'The table "AIUsage" that exists already cannot take a usage record: '
                f"{error.orig}. Change the table so that it can (columns that docs/gateway.md does not list need a "
                "default), or rename it, then run the migration again."
            ) from error
    finally:
        trial.rollback()


def _trial_record() -> UsageRecord:
    return UsageRecord(
        id="00000000-0000-7000-8000-000000000000",
        tenant="trial",
        user="trial",
        service=Task.SPEECH_TO_TEXT,
        model="m" * MODEL_CHARACTERS,
        tokens=2**31 - 1,
        units=Decimal("1.5"),
        unit="audio-second",
        cost=Decimal("0.00000001"),
        duration_ms=2**31 - 1,
        status=Outcome.SUCCEEDED,
        created_at=datetime.now(UTC),
    )

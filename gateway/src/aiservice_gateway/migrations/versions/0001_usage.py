"""The table "AIUsage". One that the application made first is adopted: what it lacks is added, nothing is changed."""

from __future__ import annotations

from alembic import op

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

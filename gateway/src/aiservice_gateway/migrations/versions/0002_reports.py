"""Reports over all tenants, and the days' sums of rows that retention has let go.

`usage_rolled_up` keeps the ids of those rows, so that a record that is replayed after its row is gone is not counted
again.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

_POSTGRESQL = """
CREATE TABLE aiservice.usage_daily (
  day date NOT NULL,
  tenant_id text NOT NULL,
  service text NOT NULL,
  model text NOT NULL,
  user_id text NOT NULL,
  unit text NOT NULL,
  count bigint NOT NULL,
  tokens bigint NOT NULL,
  units numeric NOT NULL,
  cost numeric NOT NULL,
  PRIMARY KEY (tenant_id, day, service, model, user_id, unit)
);
CREATE INDEX usage_daily_day_idx ON aiservice.usage_daily (day);
CREATE TABLE aiservice.usage_rolled_up (id uuid PRIMARY KEY)
"""

_SQLITE = """
CREATE TABLE aiservice_usage_daily (
  day text NOT NULL,
  tenant_id text NOT NULL,
  service text NOT NULL,
  model text NOT NULL,
  user_id text NOT NULL,
  unit text NOT NULL,
  count integer NOT NULL,
  tokens integer NOT NULL,
  units real NOT NULL,
  cost real NOT NULL,
  PRIMARY KEY (tenant_id, day, service, model, user_id, unit)
);
CREATE INDEX aiservice_usage_daily_day_idx ON aiservice_usage_daily (day);
CREATE TABLE aiservice_usage_rolled_up (id text PRIMARY KEY) WITHOUT ROWID
"""

# The name is the one that Prisma gives to @@index([createdAt]).
_INDEX = 'CREATE INDEX IF NOT EXISTS "AIUsage_createdAt_idx" ON "AIUsage" ("createdAt")'


def upgrade() -> None:
    """Makes the tables and the index."""
    statements = _SQLITE if op.get_context().dialect.name == "sqlite" else _POSTGRESQL
    for statement in statements.split(";"):
        op.execute(statement)
    op.execute(_INDEX)

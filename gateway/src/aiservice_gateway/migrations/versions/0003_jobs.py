"""Jobs with their webhooks, idempotency keys, and the pieces of requests and answers that belong to them.

Times are seconds since the epoch, on the database's clock. Everything carries the time after which it may be deleted.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

_TABLES = """
CREATE TABLE {own}pieces (
  holder text NOT NULL,
  number integer NOT NULL,
  data {bytes} NOT NULL,
  expires_at double precision NOT NULL,
  PRIMARY KEY (holder, number)
);
CREATE INDEX {name}pieces_expires_idx ON {own}pieces (expires_at);
CREATE TABLE {own}idempotency_keys (
  tenant text NOT NULL,
  route text NOT NULL,
  key text NOT NULL,
  attempt text NOT NULL,
  first text NOT NULL,
  owner text NOT NULL,
  state text NOT NULL,
  fingerprint text,
  status integer,
  headers text,
  lease_until double precision NOT NULL,
  expires_at double precision NOT NULL,
  PRIMARY KEY (tenant, route, key)
);
CREATE INDEX {name}idempotency_keys_attempt_idx ON {own}idempotency_keys (attempt);
CREATE INDEX {name}idempotency_keys_expires_idx ON {own}idempotency_keys (expires_at);
CREATE TABLE {own}jobs (
  id text PRIMARY KEY,
  tenant text NOT NULL,
  user_id text,
  task text NOT NULL,
  service text,
  webhook text,
  content_type text NOT NULL,
  input_bytes bigint NOT NULL,
  state text NOT NULL,
  attempts integer NOT NULL DEFAULT 0,
  cancelled integer NOT NULL DEFAULT 0,
  worker text,
  attempt text,
  lease_until double precision NOT NULL DEFAULT 0,
  created_at double precision NOT NULL,
  started_at double precision,
  finished_at double precision,
  run_after double precision NOT NULL,
  deadline double precision NOT NULL,
  expires_at double precision NOT NULL,
  status integer,
  headers text,
  output_bytes bigint,
  record text,
  error text,
  webhook_state text,
  webhook_attempts integer NOT NULL DEFAULT 0,
  webhook_after double precision NOT NULL DEFAULT 0,
  webhook_problem text
);
CREATE INDEX {name}jobs_open_idx ON {own}jobs (tenant, created_at) WHERE state IN ('queued', 'running');
CREATE INDEX {name}jobs_tenant_idx ON {own}jobs (tenant, id);
CREATE INDEX {name}jobs_webhook_idx ON {own}jobs (webhook_after) WHERE webhook_state = 'waiting';
CREATE INDEX {name}jobs_expires_idx ON {own}jobs (expires_at)
"""


def upgrade() -> None:
    """Makes the tables."""
    if op.get_context().dialect.name == "sqlite":
        text = _TABLES.format(own="aiservice_", name="aiservice_", bytes="blob")
    else:
        text = _TABLES.format(own="aiservice.", name="", bytes="bytea")
    for statement in text.split(";"):
        op.execute(statement)

"""A job's place in the trace of the request that handed it in.

A column of its own: `headers`, the only one with JSON of that kind, is the answer's, and webhooks are sent after that.
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds the column. The version before names the columns that it writes and reads, so it runs on."""
    table = "aiservice_jobs" if op.get_context().dialect.name == "sqlite" else "aiservice.jobs"
    op.execute(f"ALTER TABLE {table} ADD COLUMN trace text")

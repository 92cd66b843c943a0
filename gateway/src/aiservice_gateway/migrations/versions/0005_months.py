"""Since when usage is told by the day: what is older is summed up by month, in the rows of the months' first days.

`usage_horizon` has one row. Before the first month is summed up it lies before every record.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"

_POSTGRESQL = """
CREATE TABLE aiservice.usage_horizon (
  number integer PRIMARY KEY DEFAULT 1 CHECK (number = 1),
  before date NOT NULL
);
INSERT INTO aiservice.usage_horizon (before) VALUES ('0001-01-01')
"""

_SQLITE = """
CREATE TABLE aiservice_usage_horizon (
  number integer PRIMARY KEY DEFAULT 1 CHECK (number = 1),
  before text NOT NULL
);
INSERT INTO aiservice_usage_horizon (before) VALUES ('0001-01-01T00:00:00.000')
"""


def upgrade() -> None:
    """Makes the table. The version before does not know it, and runs on."""
    statements = _SQLITE if op.get_context().dialect.name == "sqlite" else _POSTGRESQL
    for statement in statements.split(";"):
        op.execute(statement)

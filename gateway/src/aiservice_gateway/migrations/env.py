"""What Alembic runs: the revisions, in the transaction of a connection that the caller opened."""

from __future__ import annotations

from alembic import context

attributes = context.config.attributes
context.configure(
    connection=attributes["connection"],
    version_table="alembic_version",
    version_table_schema=attributes["version_schema"],
)
with context.begin_transaction():
    context.run_migrations()

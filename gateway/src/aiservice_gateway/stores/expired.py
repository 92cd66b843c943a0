"""Deletes what was kept for a set time and has outlived it."""

from __future__ import annotations

from typing import Final

from aiservice_gateway.stores.database import Database, fetch

_BATCH: Final = 200

_DELETE: Final = (
    ("{pieces}", "(holder, number)", "holder, number"),
    ("{keys}", "(tenant, route, key)", "tenant, route, key"),
    ("{jobs}", "id", "id"),
)


async def delete_expired(database: Database) -> int:
    """Deletes from all tables, a few rows at a time; returns how many rows that were.

    Raises:
        StoreUnavailableError: the database does not answer.
    """
    deleted = 0
    for table, key, columns in _DELETE:
        sql = (
            f"DELETE FROM {table} WHERE {key} IN "  # noqa: S608 - constants
            f"(SELECT {columns} FROM {table} WHERE expires_at < {{now}} LIMIT {_BATCH}) RETURNING expires_at"
        )
        while rows := await fetch(database, sql):
            deleted += len(rows)
    return deleted

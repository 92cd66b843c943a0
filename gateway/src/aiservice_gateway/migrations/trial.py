"""Writes a record as the gateway will, and takes it back: an application's table may refuse it in many ways."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from aiservice_api.tasks import Task
from aiservice_gateway.errors import SettingsError
from aiservice_gateway.ids import new_request_id
from aiservice_gateway.models import MODEL_CHARACTERS, Outcome, UsageRecord
from aiservice_gateway.stores.postgres import INSERT

_FOREIGN_KEY_VIOLATION = "23503"


def try_it(connection: Connection) -> None:
    """Tries the table `"AIUsage"` of a PostgreSQL database.

    Raises:
        SettingsError: it cannot take a record; the message says why.
    """
    trial = connection.begin_nested()
    try:
        connection.exec_driver_sql(INSERT, (f"[{_record().to_wire().decode()}]",))
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


def _record() -> UsageRecord:
    return UsageRecord(
        id=new_request_id(),
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

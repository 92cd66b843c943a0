"""JSON log lines. What goes in is listed by the caller field by field, so no token, prompt or media gets in."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import orjson

from aiservice_gateway.models import timestamp

FIELDS = "fields"
"""Key of `extra` under which a log call hands over structured fields."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Renders a record with its fields and, where there is one, its traceback."""
        line: dict[str, object] = {
            "time": timestamp(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, FIELDS, {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def configure(level: str) -> None:
    """Sends all logs of the process to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Nothing of these is in a line, so no record has to find them out ("Optimization" in the logging module's manual).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001 - the manual's name for it
    # A migration is told by its command; Alembic's own lines are about Alembic.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Our own access log has what uvicorn's lacks; its lifecycle lines are kept.
    logging.getLogger("uvicorn.access").disabled = True

"""One JSON object a line on standard output. Media, prompts and texts never go into a log record."""

from __future__ import annotations

import json
import logging
import sys
import time
from types import TracebackType
from typing import Any

from aiservice_runtime.settings import RuntimeSettings

# Text of an exception is cut here: a library may quote its input in it.
_EXCEPTION_CHARACTERS = 300


class JsonFormatter(logging.Formatter):
    """Renders a record with its time in UTC and, of `extra={"fields": {...}}`, every field."""

    def __init__(self, **constant: str) -> None:
        super().__init__()
        self._constant = {key: value for key, value in constant.items() if value}

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line of JSON."""
        milliseconds = int(record.msecs)
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{milliseconds:03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._constant,
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0]:
            entry["exception"] = " <- ".join(_causes(record.exc_info[1]))
            entry["traceback"] = _places(record.exc_info[2])
        return json.dumps(entry, ensure_ascii=False, default=str)


def _causes(error: BaseException | None) -> list[str]:
    """Returns the error and what it came from, each as type and shortened text."""
    causes = []
    while error is not None:
        causes.append(f"{type(error).__name__}: {error}"[:_EXCEPTION_CHARACTERS])
        error = error.__cause__
    return causes


def _places(traceback: TracebackType | None) -> list[str]:
    """Returns file, line and function of each frame, outermost first. No source text, no values."""
    places = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        places.append(f"{code.co_filename}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return places


def configure_logging(settings: RuntimeSettings) -> None:
    """Sends every record of the process, warnings included, to standard output as JSON."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(service=settings.name, namespace=settings.namespace))
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    logging.captureWarnings(True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # its steps at start and stop are told in our own words

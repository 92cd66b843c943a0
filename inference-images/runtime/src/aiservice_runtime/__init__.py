"""What every inference image is built on: one engine, one device thread, one HTTP app.

An image brings an Engine and calls serve(). This package imports no machine-learning library.
"""

from aiservice_runtime.engine import (
    Answer,
    AnswerBody,
    Check,
    Described,
    Engine,
    Example,
    Fact,
    Facts,
    Fault,
    FileBody,
    FormList,
    Media,
    Memory,
    Prepared,
    Raw,
    RequestBody,
    Shape,
    Stream,
    Task,
    Usage,
)
from aiservice_runtime.errors import FatalError, InvalidRequestError, PayloadTooLargeError, RequestError
from aiservice_runtime.server import run_main, serve
from aiservice_runtime.settings import RuntimeSettings, parse_settings

__all__ = [
    "Answer",
    "AnswerBody",
    "Check",
    "Described",
    "Engine",
    "Example",
    "Fact",
    "Facts",
    "FatalError",
    "Fault",
    "FileBody",
    "FormList",
    "InvalidRequestError",
    "Media",
    "Memory",
    "PayloadTooLargeError",
    "Prepared",
    "Raw",
    "RequestBody",
    "RequestError",
    "RuntimeSettings",
    "Shape",
    "Stream",
    "Task",
    "Usage",
    "parse_settings",
    "run_main",
    "serve",
]

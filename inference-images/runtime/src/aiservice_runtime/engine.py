"""The contract between the runtime and an image: what an engine can do, and what one task takes and gives.

An engine lives on one thread, the device thread: load(), warm_up(), every Task.run and release() are called there,
in this order and never at the same time. Only Task.prepare is called elsewhere, from several threads.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Protocol, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict

# Where each task listens. The numbers are public: Services, Compose files and clients name them.
PORTS = {
    "text-to-image": 7860,
    "text-to-speech": 7861,
    "speech-to-text": 7862,
    "image-to-image": 7863,
    "image-to-text": 7864,
}


def _decoded(value: object) -> object:
    """Returns the bytes of a base64 text; a multipart file is bytes already."""
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be base64 text without line breaks or a data: prefix") from None


Media = Annotated[bytes, BeforeValidator(_decoded)]
"""A picture or a sound: base64 text in JSON, a file part in multipart."""


class RequestBody(BaseModel):
    """Base of what a task accepts: the fields of its JSON object, which are the parts of its multipart form too."""

    model_config = ConfigDict(extra="forbid")

    file_field: ClassVar[str | None] = None
    """Name of the Media field that a multipart part called `file` fills; None for tasks without a file."""


@dataclass(frozen=True)
class Answer:
    """The result of one request."""

    body: dict[str, Any]
    """The answer's own keys, JSON-ready; the runtime adds `request_id` and `usage`."""
    units: float
    """What the request is charged for, in the task's unit; rounded to 3 decimals."""
    tokens: int
    """The task's token count."""


BodyT = TypeVar("BodyT", bound=RequestBody)
WorkT = TypeVar("WorkT")


@dataclass(frozen=True)
class Task(Generic[BodyT, WorkT]):
    """One thing an engine does: its name, what it takes, and how a request becomes an answer."""

    name: str
    """One of PORTS, or the port must be given in the settings."""
    unit: str
    """What is counted: "image", "audio-second", ..."""
    body: type[BodyT]
    prepare: Callable[[BodyT], WorkT]
    """Decodes and checks, without the device. Called in a worker thread, several at a time, once the model is loaded.

    Raises InvalidRequestError or PayloadTooLargeError when the request can be refused before it costs device time.
    """
    run: Callable[[Sequence[WorkT]], Sequence[Answer]]
    """Computes on the device, in the device thread; gives one answer for each piece of work, in order.

    What it raises fails all of the batch. The runtime hands over batches of one for now.
    """


class Engine(Protocol):
    """What an image brings: a model and the tasks it serves from one copy of the weights."""

    @property
    def tasks(self) -> Sequence[Task[Any, Any]]:
        """All the tasks this engine knows; AISERVICE_TASKS may choose fewer. Needed before load()."""

    def load(self) -> None:
        """Reads the weights from the model folder. Raises FatalError with a sentence that says what to do."""

    def warm_up(self) -> None:
        """Runs once what the first request would otherwise wait for: kernels, caches, compilation."""

    def release(self) -> None:
        """Lets go of the device. Called once, after the last run; also when load() failed."""

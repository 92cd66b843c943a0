"""The contract between the runtime and an image: what an engine can do, and what one task takes and gives.

An engine lives on one thread, the device thread: all its methods, and every Task.run and Task.stream, are called
there and never at the same time. Task.prepare, and what it returns, is called elsewhere, from several threads.
"""

from __future__ import annotations

import base64
import binascii
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, ClassVar, Generic, Protocol, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, PrivateAttr, WithJsonSchema

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


_MEDIA = BeforeValidator(_decoded)

Media = Annotated[bytes, _MEDIA, WithJsonSchema({"type": "string", "contentEncoding": "base64"})]
"""A picture or a sound: base64 text in JSON, a file part in multipart."""


def _listed(value: object) -> object:
    """Returns the list of a JSON text; a JSON body has lists already."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):  # the latter of "[[[[..."
        raise ValueError("must be a JSON list") from None


FormList = BeforeValidator(_listed)
"""Of a field that is a list: a form, which has texts only, sends it as JSON text."""


class RequestBody(BaseModel):
    """Base of what a task accepts: the fields of its JSON object, which are the parts of its multipart form too."""

    # The text below a field is its description in /openapi.json.
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    file_field: ClassVar[str | None] = None
    """Name of the Media field that a multipart part called `file` fills; None for tasks without a file."""

    @classmethod
    def media_fields(cls) -> list[str]:
        """Returns the names of the Media fields: as many files may a form hold."""
        return [
            name
            for name, field in cls.model_fields.items()
            if _MEDIA in field.metadata
            or any(_MEDIA in getattr(part, "__metadata__", ()) for part in get_args(field.annotation))
        ]


class FileBody(RequestBody):
    """Base of a body whose answer holds a file, which can be had by itself too (Task.files).

    A subclass has the field `format`, whose values are the keys of Task.files.
    """

    _file: str | None = PrivateAttr(default=None)

    @property
    def file(self) -> str | None:
        """The format of the file that is to be the answer, by itself; None: the answer is JSON."""
        return self._file

    def answer_with_file(self, kind: str) -> None:
        """Makes the answer the file itself, in this format; the runtime does so before Task.prepare."""
        self._file = kind

    @property
    def stated_format(self) -> str | None:
        """The field `format`, where the client has sent it."""
        stated: str | None = self.model_dump(include={"format"}, exclude_unset=True).get("format")
        return stated

    @property
    def file_asked_by(self) -> str | None:
        """Name of the field by which the body itself asks for the file, so that JSON is no choice; None: none does."""
        return None

    @property
    def no_file(self) -> str | None:
        """Why the answer cannot be the file itself, as a sentence that says what to do; None: it can."""
        return None


class Described(BaseModel):
    """Base of what stands in an answer; the text below a field is its description in /openapi.json.

    A field with the default None is left out where there is nothing to say; one that may be null has no default.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)


class Usage(Described):
    """What a request is charged for."""

    units: float
    """In the task's unit, to 3 decimals."""
    unit: str
    """What is counted: image, audio-second, ..."""
    tokens: int
    """The task's token count."""
    cost: float | None
    """Units times X-AIService-Unit-Price, to 6 decimals; null without a price."""


class AnswerBody(Described):
    """What every JSON answer holds; a task adds the keys of its own."""

    request_id: str
    """That of the header X-Request-Id."""
    usage: Usage


@dataclass(frozen=True)
class Shape:
    """One form in which a task answers, for /openapi.json."""

    media_type: str
    description: str = ""
    body: type[AnswerBody] | None = None
    """What a JSON answer holds; None: it is a text, or events."""
    events: Sequence[type[Described]] = ()
    """Of a streamed answer of server-sent events: what the data of one can hold."""


@dataclass(frozen=True)
class Example:
    """A request and its answer, for /openapi.json; media in it are base64 text."""

    name: str
    """In lower case with hyphens, unique in the task."""
    summary: str
    request: Mapping[str, Any]
    """The JSON body."""
    answer: Any
    """JSON, or the text of an answer that is none. The runtime adds `request_id` to an object."""
    media_type: str = "application/json"
    """Of the answer."""


Facts = Mapping[str, str | int | float]
"""What is told in headers of an answer that is no JSON: `Seed` is told as X-AIService-Seed."""


@dataclass(frozen=True)
class Raw:
    """An answer that is no JSON."""

    content: bytes
    media_type: str
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True)
class Fact:
    """One of the Facts that a task tells, for /openapi.json."""

    name: str
    kind: str
    """Of the value, as JSON Schema calls it: string, integer, number."""
    description: str


@dataclass(frozen=True)
class Answer:
    """The result of one request."""

    body: dict[str, Any]
    """The answer's own keys, JSON-ready; the runtime adds `request_id` and `usage`."""
    units: float
    """What the request is charged for, in the task's unit; rounded to 3 decimals."""
    tokens: int
    """The task's token count."""
    raw: Raw | None = None
    """Set when the answer is no JSON; `body` does not count then."""


BodyT = TypeVar("BodyT", bound=RequestBody)
WorkT = TypeVar("WorkT")
ResultT = TypeVar("ResultT")


class Stream(Protocol):
    """How one streamed answer is written. Its methods are called off the device and the event loop, one at a time."""

    @property
    def media_type(self) -> str:
        """Content type of the answer."""

    @property
    def units(self) -> float:
        """What the request is charged for; known before the first byte."""

    @property
    def tokens(self) -> int:
        """The task's token count, of what has been written so far."""

    def encode(self, chunk: Any) -> bytes:
        """Returns the bytes of one chunk that the device gave; none yet is fine."""

    def end(self, usage: dict[str, Any]) -> bytes:
        """Returns the last bytes."""

    def failed(self, sentence: str) -> bytes | None:
        """Returns how a failure in the middle is told; None when the format has no words, and the connection is cut."""


@dataclass(frozen=True)
class Prepared(Generic[WorkT, ResultT]):
    """A request that was decoded and checked: the pieces of work in it, and how their results become its answer."""

    pieces: Sequence[WorkT]
    """At least one; more for a request that asks for several results."""
    finish: Callable[[Sequence[ResultT]], Answer]
    """Makes the answer of the results, in the order of the pieces, off the device."""
    together: Hashable = None
    """Pieces of one task with equal values may be computed together; None: each alone."""
    stream: Stream | None = None
    """Set when the answer is to be streamed: Task.stream computes the one piece, and finish is not called."""
    tokens: int | None = None
    """Of a streamed answer: the task's token count, where it is known before anything is computed."""
    facts: Facts = field(default_factory=dict)
    """Of a streamed answer: what its headers tell besides."""


Check = Callable[[], None]
"""Raises AbandonedError when nobody waits for any of the work any more. Call it between steps."""


@dataclass(frozen=True)
class Task(Generic[BodyT, WorkT, ResultT]):
    """One thing an engine does: its name, what it takes, and how a request becomes an answer."""

    name: str
    """One of PORTS, or the port must be given in the settings."""
    unit: str
    """What is counted: "image", "audio-second", ..."""
    body: type[BodyT]
    prepare: Callable[[BodyT], Prepared[WorkT, ResultT]]
    """Decodes and checks, without the device. Called in a worker thread, several at a time, once the model is loaded.

    Raises InvalidRequestError or PayloadTooLargeError when the request can be refused before it costs device time.
    """
    run: Callable[[Sequence[WorkT], Check], Sequence[ResultT]]
    """Computes on the device; gives one result for each piece of work, in order.

    When it raises, the pieces are computed again in halves, so that only what cannot be computed fails.
    """
    stream: Callable[[WorkT, Check], Iterator[Any]] | None = None
    """Computes on the device, and gives the result in chunks.

    Called once more when the device ran out of memory before the first chunk.
    """
    max_batch: int = 1
    """Most pieces that run() should get at once, unless the settings say otherwise."""
    answers: Sequence[Shape] = (Shape("application/json", body=AnswerBody),)
    """The forms of its answers, the usual one first; /openapi.json tells them."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Content types of the file in an answer by its `format`, the usual one first; with these, a client's Accept may
    ask for the file itself, and the body is a FileBody."""
    facts: Sequence[Fact] = ()
    """What the headers of an answer tell that is the file itself."""
    examples: Sequence[Example] = ()
    """Shown in /openapi.json; each must be answered as it is by the model in the folder."""


class Fault(Enum):
    """What an error of the device means."""

    REQUEST = "request"
    """The work cannot be computed, or a defect."""
    OUT_OF_MEMORY = "out of memory"
    """There was no room; the device goes on."""
    DEVICE = "device"
    """The device does not answer this process any more: the process must end."""


@dataclass(frozen=True)
class Memory:
    """What the device's memory holds, in bytes."""

    used: int
    """By this process."""
    free: int
    """Left to anybody."""


class Engine(ABC):
    """What an image brings: a model and the tasks it serves from one copy of the weights."""

    @property
    @abstractmethod
    def tasks(self) -> Sequence[Task[Any, Any, Any]]:
        """All the tasks this engine knows; AISERVICE_TASKS may choose fewer. Needed before load()."""

    def import_libraries(self) -> None:  # noqa: B027 - not every engine has some
        """Imports what load() needs, apart from it so that its time shows."""

    @abstractmethod
    def load(self) -> None:
        """Reads the weights from the model folder. Raises FatalError with a sentence that says what to do."""

    @abstractmethod
    def warm_up(self) -> None:
        """Runs once what the first request would otherwise wait for: kernels, caches, compilation."""

    @abstractmethod
    def sleep(self) -> None:
        """Gives the device's memory back; the weights stay in the memory of the host. Nothing runs until wake()."""

    @abstractmethod
    def wake(self) -> None:
        """Takes the weights back to the device."""

    @abstractmethod
    def release(self) -> None:
        """Lets go of the device. Called once, after the last run; also when load() failed."""

    def fault(self, error: Exception) -> Fault:
        """Returns what an error of run() or stream() means."""
        return Fault.REQUEST

    def recover(self) -> None:  # noqa: B027 - not every engine has a device of its own
        """Gives back what an error left behind on the device. Called when the error is gone, with its frames."""

    def memory(self) -> Memory | None:
        """Returns what the device's memory holds; None where that is the memory of the process. Any thread."""
        return None

"""Reads what a client asks a job for, and writes its input down while it arrives.

In JSON the task's request is an object within the order. A form is the task's own, with the order's fields beside its
own ones; its files are never whole in memory.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

import orjson
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import Headers
from starlette.types import Receive

from aiservice_api.tasks import Task
from aiservice_gateway.errors import (
    BadRequestError,
    ParameterError,
    PayloadTooLargeError,
    RequestTimeoutError,
    UnsupportedMediaError,
)
from aiservice_gateway.services.openai.form_writer import FormWriter
from aiservice_gateway.services.openai.held import Room
from aiservice_gateway.services.upload import ClientGoneError
from aiservice_gateway.services.upstream import refuse_compressed
from aiservice_gateway.stores.pieces import Pieces

JSON: Final = "application/json"
FORM: Final = "multipart/form-data"

PRINTABLE: Final = r"^[^\x00-\x1f\x7f]+$"
"""Text without control characters, which PostgreSQL does not all take."""

_TEXT_BYTES: Final = 1024 * 1024
_PARTS: Final = 64


class WebhookOrder(BaseModel):
    """Who is told when the job is over."""

    model_config = ConfigDict(extra="forbid")

    url: Annotated[str, Field(min_length=1, max_length=2048)]
    """Gets a POST, signed as the Standard Webhooks specification has it."""


class Order(BaseModel):
    """What is to be done."""

    model_config = ConfigDict(extra="forbid")

    task: Task
    service: Annotated[str | None, Field(max_length=256, pattern=PRINTABLE)] = None
    """Name of the service to use; the task's default when left out."""
    webhook: WebhookOrder | None = None
    deadline_seconds: Annotated[float | None, Field(ge=1)] = None
    """Time after which an answer is of no use any more; the gateway's own, at most, when left out."""


class JsonOrder(Order):
    """The body of a request in JSON."""

    request: dict[str, Any]
    """What `POST /api/<task>` takes as its JSON body."""


class Intake:
    """Reads one order."""

    def __init__(self, headers: Headers, receive: Receive, pieces: Pieces, room: Room, most_bytes: int) -> None:
        """Reads nothing yet.

        Args:
            headers: The client's.
            receive: The request's channel.
            pieces: Where the input is written.
            room: For a body that must be held to be read.
            most_bytes: Of the largest input.

        Raises:
            UnsupportedMediaError, BadRequestError: the body is of no kind that is taken.
        """
        refuse_compressed(headers)
        self._receive = receive
        self._pieces = pieces
        self._room = room
        self._most_bytes = most_bytes
        self.content_type = JSON
        """Of the input."""
        self._writer: FormWriter | None = None
        media_type, options = parse_options_header(headers.get("content-type", ""))
        if media_type == FORM:
            self._writer = FormWriter()
            self.content_type = self._writer.content_type
            try:
                self._parser = PushMultipartParser(options.get("boundary", ""), max_segment_count=_PARTS)
            except MultipartError as error:
                raise _improper(error) from None
        elif media_type != JSON:
            raise UnsupportedMediaError(f"The body must be {JSON} or {FORM}, and the Content-Type header must say so.")
        self._fields: dict[str, Any] = {}
        self._part: str | None = None
        """Name of the text that is being read."""
        self._text = bytearray()

    async def read(self, seconds: float) -> Order:
        """Reads the body, and writes the input down but for its last piece.

        Raises:
            ClientGoneError: the client went away.
            GatewayError: the order is refused.
            StoreUnavailableError: the input cannot be written.
        """
        try:
            async with asyncio.timeout(seconds):
                return await (self._read_json() if self._writer is None else self._read_form(self._writer))
        except TimeoutError:
            raise RequestTimeoutError(f"The request's body did not arrive within {seconds:g} s.") from None

    async def _read_json(self) -> Order:
        body = bytearray()
        try:
            async for chunk in self._arriving():
                self._room.take(len(chunk))
                body += chunk
                self._check(len(body))
            order = JsonOrder.model_validate(_parse(body))
            await self._pieces.add(orjson.dumps(order.request))
        except ValidationError as error:
            raise _wrong(error) from None
        finally:
            self._room.give(len(body))
        return order

    async def _read_form(self, writer: FormWriter) -> Order:
        try:
            async for chunk in self._arriving():
                for event in self._parser.parse(chunk):
                    self._pieces.put(self._parsed(event, writer))
                await self._pieces.flush()
                self._check(self._pieces.size)
            self._parser.close()
            self._pieces.put(writer.end)
            return Order.model_validate(self._fields)
        except MultipartError as error:
            raise _improper(error) from None
        except ValidationError as error:
            raise _wrong(error) from None

    def _parsed(self, event: MultipartSegment | bytes | None, writer: FormWriter) -> bytes:
        """What a part of the form becomes."""
        if isinstance(event, MultipartSegment):
            name = event.name or ""
            if event.filename is not None:
                self._part = None
                return writer.file(_quotable(name))
            self._part = name
            self._text.clear()
            return b""
        if self._part is None:
            return writer.file_end if event is None else event
        if event is not None:
            self._text += event
            if len(self._text) > _TEXT_BYTES:
                raise PayloadTooLargeError(f"A text of the form is larger than {_TEXT_BYTES} bytes.")
            return b""
        return self._keep(self._part, writer)

    def _keep(self, name: str, writer: FormWriter) -> bytes:
        try:
            text = self._text.decode()
        except UnicodeDecodeError:
            raise ParameterError(f"{name} is not UTF-8.", name) from None
        if name not in Order.model_fields:
            return writer.text(_quotable(name), text)
        if name in self._fields:
            raise ParameterError(f"{name} is given more than once.", name)
        self._fields[name] = {"url": text} if name == "webhook" else text
        return b""

    async def _arriving(self) -> Any:
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            more = message.get("more_body", False)
            yield message.get("body", b"")

    def _check(self, size: int) -> None:
        if size > self._most_bytes:
            raise PayloadTooLargeError(f"The input of a job may have {self._most_bytes} bytes.")


def _parse(body: bytearray) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"The body is not valid JSON: {error}.") from None


def _quotable(name: str) -> str:
    """A name that can stand in the head of a part."""
    if not name.isprintable() or '"' in name or "\\" in name:
        raise BadRequestError("The form has a part whose name is no name of a field.")
    return name


def _wrong(error: ValidationError) -> ParameterError:
    problem = error.errors(include_url=False, include_input=False)[0]
    name = ".".join(map(str, problem["loc"])) or "body"
    if problem["type"] == "missing":
        return ParameterError(f"{name} is missing.", name, "missing_required_parameter")
    if problem["type"] == "extra_forbidden":
        return ParameterError(f"{name} is nothing that a job has.", name, "unknown_parameter")
    return ParameterError(f"{name}: {problem['msg']}.", name)


def _improper(error: MultipartError) -> BadRequestError:
    return BadRequestError(f"The body is not a proper multipart form: {error}.")

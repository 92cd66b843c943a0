"""Request bodies on their way in: read as far as the service must be known, then translated while they pass.

A body is never whole in memory. Of a form the texts are, within bounds; files are passed on as they arrive once the
model is known, and held before (see `held`). Of JSON everything is but the strings that hold files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import orjson
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.types import Message, Receive

from aiservice_gateway.errors import (
    BadRequestError,
    ParameterError,
    PayloadTooLargeError,
    UnsupportedMediaError,
)
from aiservice_gateway.services.openai.form_writer import FormWriter
from aiservice_gateway.services.openai.held import Held, Room
from aiservice_gateway.services.openai.json_strings import Piece, Skeleton, StringTaker
from aiservice_gateway.services.openai.parameters import MISSING, Parameters, Taken, form_fields
from aiservice_gateway.services.upload import ClientGoneError
from aiservice_gateway.services.upstream import refuse_compressed

JSON = "application/json"
FORM = "multipart/form-data"

_TEXT_BYTES = 1024 * 1024
"""Most bytes of a JSON body without its files, and of all texts of a form."""
_PARTS = 64
_MOST_TAKEN = 16
_PREFIX_BYTES = 256
_LIST = "[]"


class Body(ABC):
    """One request's body."""

    content_type: str
    """Of what the service gets."""

    def __init__(self, kind: type[Parameters], receive: Receive, room: Room) -> None:
        """Reads nothing yet."""
        self._kind = kind
        self._client = receive
        self._room = room
        self._received_all = False
        self._sent_all = False
        self._held: list[Held] = []
        self._chunks: AsyncGenerator[bytes, None] | None = None
        self.parameters: Parameters | None = None
        """Set once all of them have arrived."""
        self.gone = False
        """Whether the client went away."""

    @property
    @abstractmethod
    def model(self) -> str | None:
        """Which service is meant. Known after `begin`."""

    @abstractmethod
    async def begin(self) -> None:
        """Reads until the service is known.

        Raises:
            GatewayError: the request is refused.
            ClientGoneError: the client went away.
        """

    @abstractmethod
    def translated(self) -> AsyncGenerator[bytes, None]:
        """The service's body."""

    async def receive(self) -> Message:
        """The channel that the service's body is read from, in the place of the client's."""
        if self._sent_all:
            return await self._next_message()
        self._chunks = self._chunks or self.translated()
        try:
            return {"type": "http.request", "body": await anext(self._chunks), "more_body": True}
        except StopAsyncIteration:
            self._sent_all = True
            return {"type": "http.request", "body": b"", "more_body": False}
        except ClientGoneError:
            return {"type": "http.disconnect"}

    async def close(self) -> None:
        """Lets go of what is held."""
        if self._chunks is not None:
            await self._chunks.aclose()
        for held in self._held:
            held.close()

    def hold(self) -> Held:
        """A place for bytes."""
        self._held.append(Held(self._room))
        return self._held[-1]

    async def arriving(self) -> AsyncGenerator[bytes, None]:
        """The client's body, as it comes."""
        while not self._received_all:
            message = await self._next_message()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            self._received_all = not message.get("more_body", False)
            if chunk := message.get("body", b""):
                yield chunk

    async def _next_message(self) -> Message:
        message = await self._client()
        self.gone = self.gone or message["type"] == "http.disconnect"
        return message


class JsonBody(Body):
    """A JSON object. Of each string that is taken out, what comes before its comma stays, with its number after it."""

    content_type = JSON

    def __init__(self, kind: type[Parameters], receive: Receive, room: Room) -> None:
        super().__init__(kind, receive, room)
        self._skeleton = bytearray()
        self._prefix: bytearray | None = None
        """Of the string that is being taken out, while its comma has not come."""
        self._native: dict[str, Any] = {}

    @property
    def model(self) -> str | None:
        """Its `model`."""
        return self.parameters.model if self.parameters is not None else None

    async def begin(self) -> None:
        """Reads all of it."""
        taker = StringTaker(self._kind.taken)
        async with aclosing(self.arriving()) as chunks:
            async for chunk in chunks:
                for part in taker.feed(chunk):
                    await self._take(part)
        try:
            document = orjson.loads(self._skeleton)
        except orjson.JSONDecodeError as error:
            raise BadRequestError(f"The body is not valid JSON: {error}.") from None
        if not isinstance(document, dict):
            raise BadRequestError("The body must be a JSON object.")
        self.parameters = self._kind.read(document)
        self._native = self.parameters.native()
        if any(isinstance(value, Taken) and value.number >= len(self._held) for value in self._native.values()):
            raise BadRequestError("The body writes the key of a file with escapes: write it plainly.")

    async def translated(self) -> AsyncGenerator[bytes, None]:
        """The fields, with what was taken out put where it belongs."""
        files = {name: value for name, value in self._native.items() if isinstance(value, Taken)}
        document = orjson.dumps({name: value for name, value in self._native.items() if name not in files})
        if not files:
            yield document
            return
        yield document[:-1]
        between = b"" if document == b"{}" else b","
        for name, value in files.items():
            yield b'%s%s:"' % (between, orjson.dumps(name))
            between = b","
            async for chunk in self._held[value.number].chunks():
                yield chunk
            yield b'"'
        yield b"}"

    async def _take(self, part: Skeleton | Piece) -> None:
        if isinstance(part, Piece):
            await self._hold(part)
            return
        self._skeleton += part.data
        if len(self._skeleton) > _TEXT_BYTES:
            raise PayloadTooLargeError(f"The JSON is larger than {_TEXT_BYTES} bytes, files left out.")

    async def _hold(self, piece: Piece) -> None:
        if piece.number == len(self._held):
            if piece.number == _MOST_TAKEN:
                raise BadRequestError(f"The body has more than {_MOST_TAKEN} addresses.")
            self.hold()
            self._prefix = bytearray()
        data = piece.data
        if self._prefix is not None:
            before, comma, data = data.partition(b",")
            self._prefix += before + comma
            if comma or piece.last:
                self._skeleton += self._prefix + (b"%d" % piece.number if comma else b"")
                self._prefix = None
            elif len(self._prefix) > _PREFIX_BYTES:
                raise BadRequestError("The body has a long address that is no data: URL; addresses are never fetched.")
        await self._held[piece.number].add(data)


@dataclass(frozen=True, slots=True)
class _FilePart:
    """Something of a file in a form: that it begins (no data), data, or its end (empty data)."""

    name: str
    """In the services' forms."""
    data: bytes | None = None


class FormBody(Body):
    """A multipart form. Its files are passed on first, in the order in which they come, then its texts."""

    def __init__(self, kind: type[Parameters], receive: Receive, room: Room, boundary: str) -> None:
        """Reads nothing yet.

        Raises:
            BadRequestError: the boundary cannot be one.
        """
        super().__init__(kind, receive, room)
        try:
            self._parser = PushMultipartParser(boundary, max_segment_count=_PARTS)
        except MultipartError as error:
            raise _improper(error) from None
        self._writer = FormWriter()
        self.content_type = self._writer.content_type
        self._texts: dict[str, Any] = {}
        self._text_bytes = 0
        self._part = ""
        """Name of the part that is being read."""
        self._text: bytearray | None = None
        """Its bytes, if it is a text."""
        self._files: dict[str, Held | None] = {}
        """By the services' names; None: passed on as it arrives."""
        self._seen: set[str] = set()
        """The services' names of all files so far."""
        self._parts = self._read()
        self._native: dict[str, Any] = {}

    @property
    def model(self) -> str | None:
        """The text `model`."""
        model: str | None = self._texts.get("model")
        return model

    async def begin(self) -> None:
        """Reads until a file begins and the model is known, or everything."""
        async for part in self._parts:
            if part.data is None and self.model is not None:
                self._files[part.name] = None
                self._check_early()
                return
            held = self._files[part.name] = self._files.get(part.name) or self.hold()
            await held.add(part.data or b"")
        self._finish()

    async def translated(self) -> AsyncGenerator[bytes, None]:
        """The files, then the fields."""
        for name, held in list(self._files.items()):
            yield self._writer.file(name)
            if held is not None:
                async for chunk in held.chunks():
                    yield chunk
                yield self._writer.file_end
        if self.parameters is None:
            async for part in self._parts:
                yield self._writer.file(part.name) if part.data is None else part.data or self._writer.file_end
            self._finish()
        for name, value in form_fields(self._native).items():
            yield self._writer.text(name, value)
        yield self._writer.end

    async def close(self) -> None:
        """Lets go of what is held."""
        await super().close()
        await self._parts.aclose()

    def _check_early(self) -> None:
        """Refuses what is wrong already, before a large file has been sent. More texts may follow it."""
        try:
            self._kind.read(self._texts)
        except ParameterError as error:
            if error.reason != MISSING:
                raise

    def _finish(self) -> None:
        """Everything has arrived."""
        needed, name = next(iter(self._kind.files.items()))
        if name not in self._seen:
            raise ParameterError(f"The file {needed} is missing.", needed, MISSING)
        parameters = self._kind.read(self._texts)
        self._native = parameters.native()
        self.parameters = parameters

    async def _read(self) -> AsyncGenerator[_FilePart, None]:
        """Parses; gives what is of files, and keeps the texts."""
        try:
            async with aclosing(self.arriving()) as chunks:
                async for chunk in chunks:
                    for event in self._parser.parse(chunk):
                        if (part := self._parsed(event)) is not None:
                            yield part
            self._parser.close()
        except MultipartError as error:
            raise _improper(error) from None

    def _parsed(self, event: MultipartSegment | bytes | None) -> _FilePart | None:
        if isinstance(event, MultipartSegment):
            return self._begin_part(event.name or "", is_file=event.filename is not None)
        if self._text is None:
            return _FilePart(self._part, event or b"")
        if event is None:
            self._keep(self._part, self._text)
            return None
        self._text_bytes += len(event)
        if self._text_bytes > _TEXT_BYTES:
            raise PayloadTooLargeError(f"The texts of the form are larger than {_TEXT_BYTES} bytes.")
        self._text += event
        return None

    def _begin_part(self, name: str, *, is_file: bool) -> _FilePart | None:
        plain = name.removesuffix(_LIST)
        if not is_file:
            if plain in self._kind.files:
                raise ParameterError(f"{plain} must be a file: give the part a filename.", plain)
            self._kind.check_name(plain)
            self._part, self._text = name, bytearray()
            return None
        if plain not in self._kind.files:
            self._kind.check_name(plain)
            raise ParameterError(f"{plain} is not taken as a file here.", plain)
        self._part, self._text = self._kind.files[plain], None
        if self._part in self._seen:
            raise ParameterError(f"More than one {plain} is sent, and the service takes one.", plain)
        self._seen.add(self._part)
        return _FilePart(self._part)

    def _keep(self, name: str, text: bytearray) -> None:
        plain = name.removesuffix(_LIST)
        try:
            value = text.decode()
        except UnicodeDecodeError:
            raise ParameterError(f"{plain} is not UTF-8.", plain) from None
        if name != plain:
            self._texts.setdefault(plain, []).append(value)
        elif plain in self._texts:
            raise ParameterError(f"{plain} is given more than once.", plain)
        else:
            self._texts[plain] = value


def open_body(kind: type[Parameters], headers: Headers, receive: Receive, room: Room) -> Body:
    """A request's body.

    Raises:
        UnsupportedMediaError: it is of another type than the route takes, or compressed.
        BadRequestError: it is a form without a proper boundary.
    """
    refuse_compressed(headers)
    media_type, options = parse_options_header(headers.get("content-type", ""))
    wanted = FORM if kind.files else JSON
    if media_type != wanted:
        raise UnsupportedMediaError(f"The body must be {wanted}, and the Content-Type header must say so.")
    if not kind.files:
        return JsonBody(kind, receive, room)
    boundary = options.get("boundary", "")
    if not boundary:
        raise BadRequestError("The Content-Type header names no boundary of the form.")
    return FormBody(kind, receive, room, boundary)


def _improper(error: MultipartError) -> BadRequestError:
    return BadRequestError(f"The body is not a proper multipart form: {error}.")

"""Reads a request's body, limited while it arrives, and turns it into the task's RequestBody."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Receive

from aiservice_runtime.engine import RequestBody
from aiservice_runtime.errors import (
    ClientGoneError,
    InvalidRequestError,
    PayloadTooLargeError,
    UnsupportedMediaError,
)

JSON = "application/json"
MULTIPART = "multipart/form-data"

_FIELD_BYTES = 64 * 1024  # a multipart field that is no file
_MAX_FIELDS = 32

BodyT = TypeVar("BodyT", bound=RequestBody)

RawBody = bytes | dict[str, str | bytes]
"""A JSON text, or the parts of a form."""


class _Parser(MultiPartParser):
    """Keeps files in memory, which admission and the size limit bound; /tmp of a pod may be smaller."""

    spool_max_size = sys.maxsize
    ended = False

    def on_end(self) -> None:
        """Notes that the last boundary has come."""
        self.ended = True

    def close_files(self) -> None:
        """Closes every file; the base class leaves one open whose part has no end."""
        for file in self._files_to_close_on_error:
            file.close()


class Incoming:
    """The receiving side of one request: its body, limited while it arrives, and the client's going away."""

    def __init__(self, headers: Headers, receive: Receive, limit: int) -> None:
        self._headers = headers
        self._receive = receive
        self._limit = limit
        self._complete = False

    @property
    def accept(self) -> Sequence[str]:
        """The values of all Accept headers."""
        return self._headers.getlist("accept")

    def check(self) -> None:
        """Looks at the headers only.

        Raises UnsupportedMediaError, or PayloadTooLargeError if the body is over the limit by its own account.
        """
        kind = self._media_type()
        if kind not in {JSON, MULTIPART}:
            found = repr(kind[:100]) if kind else "a body without Content-Type"
            raise UnsupportedMediaError(f"Send {JSON} or {MULTIPART}, not {found}.")
        length = self._headers.get("content-length", "")
        if length.isdigit() and int(length) > self._limit:
            raise _too_large(self._limit)

    async def read(self, seconds: float, *, files: int) -> RawBody:
        """Receives the body within this many seconds; a form may hold this many files.

        Raises PayloadTooLargeError, InvalidRequestError (late, or no proper form) or ClientGoneError.
        """
        try:
            async with asyncio.timeout(seconds):
                if self._media_type() == MULTIPART:
                    return await self._read_form(files)
                return b"".join([chunk async for chunk in self._chunks()])
        except TimeoutError:
            raise InvalidRequestError(f"The body did not arrive within {seconds:g} seconds.") from None

    async def gone(self) -> None:
        """Returns when the client has closed the connection. Only after the whole body has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _media_type(self) -> str:
        return self._headers.get("content-type", "").partition(";")[0].strip().lower()

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        self._complete = not message.get("more_body", False)
        body: bytes = message.get("body", b"")
        return body

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        received = 0
        while not self._complete:
            chunk = await self._next()
            received += len(chunk)
            if received > self._limit:
                raise _too_large(self._limit)
            yield chunk

    async def _read_form(self, files: int) -> dict[str, str | bytes]:
        parser = _Parser(
            self._headers, self._chunks(), max_files=files, max_fields=_MAX_FIELDS, max_part_size=_FIELD_BYTES
        )
        try:
            form = await parser.parse()
            if not parser.ended:
                raise InvalidRequestError("The form ends before its last boundary.")
            parts: dict[str, str | bytes] = {}
            for name, value in form.multi_items():
                if name in parts:
                    raise InvalidRequestError(f"The form has more than one part named {_quoted(name)}.")
                parts[name] = await value.read() if isinstance(value, UploadFile) else value
            return parts
        except MultiPartException as error:
            raise InvalidRequestError(f"The body is not a proper multipart form: {error.message}") from None
        finally:
            parser.close_files()


def parse(kind: type[BodyT], raw: RawBody) -> BodyT:
    """Returns the validated body. Takes time in proportion to the media: call it off the event loop.

    Raises InvalidRequestError with a sentence that names the field; what the client sent is not repeated.
    """
    try:
        if isinstance(raw, bytes):
            return kind.model_validate_json(raw)
        return kind.model_validate(_named(kind, raw))
    except ValidationError as error:
        raise InvalidRequestError(_sentence(kind, error)) from None


def _named(kind: type[RequestBody], parts: dict[str, str | bytes]) -> dict[str, Any]:
    """Gives the part called `file` the name of the field that it fills."""
    if kind.file_field is None or "file" not in parts:
        return dict(parts)
    if kind.file_field in parts:
        raise InvalidRequestError(f"The form has both `file` and `{kind.file_field}`; send one of them.")
    rest = {name: value for name, value in parts.items() if name != "file"}
    if isinstance(parts["file"], str):
        raise InvalidRequestError("The part `file` must be a file: give it a filename.")
    return {kind.file_field: parts["file"], **rest}


def _sentence(kind: type[RequestBody], error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "json_invalid":
        return f"The body is not valid JSON: {first['msg'].removeprefix('Invalid JSON: ')}."
    if first["type"] == "extra_forbidden":
        return f"{_quoted(field)} is no field of this task; its fields are {', '.join(kind.model_fields)}."
    if first["type"] == "missing":
        also = " (in a form: the part `file`)" if field == kind.file_field else ""
        return f"The field {field}{also} is missing."
    if not field:
        return "The body must be a JSON object."
    return f"{field}: {first['msg'].removeprefix('Value error, ')}."


def _quoted(name: str) -> str:
    return repr(name[:40])


def _too_large(limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"The body is larger than {limit // 1024**2} MiB, the limit of this service.")

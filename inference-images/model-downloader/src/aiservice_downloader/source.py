"""Where the files come from: the source part of a ModelCache's spec, parsed and checked once more.

The API server has validated the same fields. This process writes to a volume that other pods trust, so that it
checks paths and addresses itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Self

import httpx2
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from aiservice_downloader.errors import DownloadError, Reason

MANIFEST_NAME = ".aiservice-manifest.json"
"""File that lists the published files; no file of a model may take its name."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_PATH_BYTES = 512
_MAX_PART_BYTES = 255


def check_relative_path(path: str) -> str:
    """Returns `path` if it names a file below a folder, else raises ValueError saying what is wrong with it."""
    parts = path.split("/")
    if path.startswith("/") or any(part in {"", ".", ".."} for part in parts):
        raise ValueError(f"{path!r} must be a relative path without '.', '..' or empty parts")
    if _CONTROL.search(path) or "\\" in path:
        raise ValueError(f"{path!r} must not contain control characters or backslashes")
    if len(path.encode()) > _MAX_PATH_BYTES or any(len(part.encode()) > _MAX_PART_BYTES for part in parts):
        raise ValueError(f"{path!r} is too long: {_MAX_PATH_BYTES} bytes in all, {_MAX_PART_BYTES} a part")
    if parts[0] == MANIFEST_NAME:
        raise ValueError(f"{path!r} is the name of the manifest that this program writes")
    return path


def check_distinct(paths: Iterable[str]) -> None:
    """Raises ValueError if two files would need the same place, or one the place of another's folder."""
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            raise ValueError(f"{path!r} occurs twice")
        seen.add(path)
    for path in seen:
        parts = path.split("/")
        for end in range(1, len(parts)):
            if (folder := "/".join(parts[:end])) in seen:
                raise ValueError(f"{folder!r} is both a file and the folder of {path!r}")


class _Wire(BaseModel):
    """Fields are camelCase on the wire. What this process does not use (tokenSecretRef) is ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class HuggingFaceSource(_Wire):
    """A repository of the Hugging Face Hub, or of a mirror that speaks its API."""

    repo: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")]
    revision: Annotated[str, Field(min_length=1)] = "main"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    endpoint: Annotated[str, Field(pattern=r"^https?://[^/?#]+(/[^?#]*)?$")] | None = None


class HttpFile(_Wire):
    """One file with its address, its place below the model folder and its digest."""

    url: Annotated[str, Field(pattern=r"^https?://[^/?#]+/.*$")]
    path: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    _path = field_validator("path")(check_relative_path)

    @field_validator("url")
    @classmethod
    def _readable(cls, url: str) -> str:
        try:
            httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise ValueError(f"not a URL: {error}") from error
        return url


class HttpSource(_Wire):
    """Files fetched over HTTP."""

    files: Annotated[tuple[HttpFile, ...], Field(min_length=1)]

    @field_validator("files")
    @classmethod
    def _distinct(cls, files: tuple[HttpFile, ...]) -> tuple[HttpFile, ...]:
        check_distinct(file.path for file in files)
        return files


class Source(_Wire):
    """Exactly one source."""

    hugging_face: HuggingFaceSource | None = None
    http: HttpSource | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.hugging_face is None) == (self.http is None):
            raise ValueError("set exactly one of huggingFace and http")
        return self

    def to_wire(self) -> dict[str, Any]:
        """The JSON form that the manifest records; equal for equal sources. It holds no secret."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def parse_source(text: str) -> Source:
    """Parses AISERVICE_SOURCE.

    Raises:
        DownloadError: BadSource, naming each field that is wrong.
    """
    try:
        return Source.model_validate_json(text)
    except ValidationError as error:
        problems = "; ".join(
            ".".join(str(part) for part in item["loc"]) + (": " if item["loc"] else "") + item["msg"]
            for item in error.errors(include_url=False, include_input=False)
        )
        raise DownloadError(
            Reason.BAD_SOURCE, f"The source is not one that can be downloaded: {problems}. Correct the model's spec."
        ) from error

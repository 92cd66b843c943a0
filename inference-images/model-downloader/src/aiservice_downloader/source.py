"""Where the files come from: the source part of a ModelCache's spec, parsed and checked once more.

The API server has validated the same fields. This process writes to a volume that other pods trust, so that it
checks paths and addresses itself.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

import httpx2
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from aiservice_downloader.errors import DownloadError, Reason
from aiservice_downloader.image_name import parse_image
from aiservice_downloader.paths import check_distinct, check_relative_path


class _Wire(BaseModel):
    """Fields are camelCase on the wire. Unknown ones pass in manifests only: a later version may have written them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class HuggingFaceSource(_Wire):
    """A repository of the Hugging Face Hub, or of a mirror that speaks its API."""

    repo: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")]
    revision: Annotated[str, Field(min_length=1)] = "main"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    endpoint: Annotated[str, Field(pattern=r"^https?://[^/?#]+(/[^?#]*)?$")] | None = None


class HttpFile(_Wire):
    """One file with its address, its place below the model folder and its digest; or an archive and its folder."""

    url: Annotated[str, Field(pattern=r"^https?://[^/?#]+/.*$")]
    path: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    unpack: bool = False
    """Whether the file is an archive to be unpacked into the folder `path`, once its digest was found right."""

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


class S3Source(_Wire):
    """The objects below a prefix of a bucket, at AWS or a server that speaks its protocol."""

    bucket: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$")]
    prefix: str = ""
    endpoint: Annotated[str, Field(pattern=r"^https?://[^/?#]+/?$")] | None = None
    region: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")] | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    path_style: bool = False

    @field_validator("prefix")
    @classmethod
    def _folder(cls, prefix: str) -> str:
        # One form for equal prefixes; `models/a` must not take in `models/ab`.
        return prefix.strip("/")


class OciSource(_Wire):
    """The files that the layers of an OCI image or artifact hold."""

    image: str
    path: str = ""
    """Only what is below this folder, and relative to it."""

    @field_validator("image")
    @classmethod
    def _named(cls, image: str) -> str:
        parse_image(image)
        return image

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        path = path.strip("/")
        return check_relative_path(path) if path else path


class Source(_Wire):
    """Exactly one source."""

    hugging_face: HuggingFaceSource | None = None
    s3: S3Source | None = None
    http: HttpSource | None = None
    oci: OciSource | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(source is not None for source in (self.hugging_face, self.s3, self.http, self.oci)) != 1:
            raise ValueError("set exactly one of huggingFace, s3, http and oci")
        return self

    def to_wire(self) -> dict[str, Any]:
        """The JSON form that the manifest records; equal for equal sources. It holds no secret."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


_CORRECT = "Correct the model's spec."
_OTHER_VERSION = "The operator knows other sources than this downloader: use the image (download.image) of its version."


def parse_source(text: str) -> Source:
    """Parses AISERVICE_SOURCE.

    Raises:
        DownloadError: BadSource, naming each field that is wrong, or that this process does not know: it may say which
            files are wanted.
    """
    try:
        return Source.model_validate_json(text, extra="forbid")
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        problems = "; ".join(
            ".".join(str(part) for part in item["loc"]) + (": " if item["loc"] else "") + item["msg"] for item in found
        )
        is_unknown = any(item["type"] == "extra_forbidden" for item in found)
        raise DownloadError(
            Reason.BAD_SOURCE,
            f"The source is not one that can be downloaded: {problems}. {_OTHER_VERSION if is_unknown else _CORRECT}",
        ) from error

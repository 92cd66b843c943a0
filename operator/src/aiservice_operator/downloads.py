"""What the downloader says, in progress lines and last words, and what claims remember of it in annotations."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from aiservice_api.v1alpha1 import DownloadStatus
from aiservice_operator.quantities import human_bytes


class _Message(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class Progress(_Message):
    """A line on the downloader's standard output."""

    event: Literal["progress"]
    bytes_done: int = Field(ge=0)
    bytes_total: int | None = Field(default=None, ge=0)
    bytes_per_second: int | None = Field(default=None, ge=0)
    eta_seconds: int | None = Field(default=None, ge=0)


class Success(_Message):
    """Last words of a Job that did what it was for."""

    status: Literal["ok"]
    bytes: int | None = Field(default=None, ge=0)
    """Of all files; None: a source that is measured does not tell."""
    files: int | None = None
    revision: str | None = None
    download_bytes: int | None = Field(default=None, ge=0)
    """To fetch, of a source that is measured: less than is in the files, where those are packed."""
    repaired: tuple[str, ...] = ()
    """Files that were damaged and are as they should be again; of many, the first."""
    repaired_files: int = 0
    """How many those are in all."""


class Failure(_Message):
    """Last words of a Job that did not."""

    status: Literal["failed"]
    reason: str = Field(pattern=r"^[A-Z][A-Za-z]{0,63}$")
    message: str
    retryable: bool
    required_bytes: int | None = Field(default=None, ge=0)
    """What the volume must hold in all, where it is too small."""
    revision: str | None = None
    """What the source's revision was resolved to, where it came so far."""


class _Kept(_Message):
    """What a claim's annotation remembers."""

    def to_json(self) -> str:
        """Returns the annotation's value."""
        kept = self.model_dump(mode="json", exclude_defaults=True)
        return json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Measurement(_Kept):
    """How large a source said to be."""

    source: str
    """Digest of what was measured."""
    bytes: int | None = None
    """None: it does not tell."""
    packed: int | None = None
    """Bytes of what its files are packed in, where it tells only that."""
    revision: str | None = None
    """What its revision was resolved to, which is what is downloaded then."""


class Proof(_Kept):
    """The verified download on a claim."""

    source: str
    """Digest of what was downloaded."""
    bytes: int | None = None
    files: int | None = None
    revision: str | None = None

    def size(self) -> str:
        """Returns how much it is, for people; empty where the downloader's word was lost."""
        return human_bytes(self.bytes) if self.bytes is not None else ""


class Verification(_Kept):
    """When and how the files on a claim were last compared with their digests."""

    at: datetime
    request: str = ""
    """The newest wish, as an annotation of the ModelCache, that this answered."""
    always: bool = False
    """Whether the spec asked for it at all times then."""
    repaired: tuple[str, ...] = ()
    """Files that were damaged and were fetched again; of many, the first."""
    repaired_files: int = 0
    """How many those are in all."""
    damage: str = ""
    """What was found damaged since and could not be repaired, in the downloader's words."""


def parse_progress(line: str) -> Progress | None:
    """Parses a line of the log; None where it is something else."""
    try:
        return Progress.model_validate_json(line)
    except ValidationError:
        return None


def parse_success(message: str) -> Success | None:
    """Parses a termination message; None where it tells of no success."""
    try:
        return Success.model_validate_json(message)
    except ValidationError:
        return None


def parse_failure(message: str) -> Failure | None:
    """Parses a termination message; None where it tells of no failure."""
    try:
        return Failure.model_validate_json(message)
    except ValidationError:
        return None


_KeptModel = TypeVar("_KeptModel", Measurement, Proof, Verification)


def parse_kept(model: type[_KeptModel], annotation: str) -> _KeptModel | None:
    """Parses a claim's annotation; None where there is none, or one that nobody can read."""
    try:
        return model.model_validate_json(annotation)
    except ValidationError:
        return None


def progress_status(progress: Progress, attempts: int) -> DownloadStatus:
    """Converts the downloader's numbers to the status of a ModelCache."""
    done, total = progress.bytes_done, progress.bytes_total
    text = f"{100 * done // total}% of {human_bytes(total)}" if total else human_bytes(done)
    return DownloadStatus(
        bytes_done=done,
        bytes_total=total,
        bytes_per_second=progress.bytes_per_second,
        eta_seconds=progress.eta_seconds,
        progress=text,
        attempts=attempts,
    )

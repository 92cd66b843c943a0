"""What the downloader says and what is remembered of it: progress lines, its last words, and the proof on the claim."""

from __future__ import annotations

import json
from typing import Literal

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
    """Last words of a download that is complete and verified."""

    status: Literal["ok"]
    bytes: int | None = None
    files: int | None = None
    revision: str | None = None


class Failure(_Message):
    """Last words of a download that is not."""

    status: Literal["failed"]
    reason: str = Field(pattern=r"^[A-Z][A-Za-z]{0,63}$")
    message: str
    retryable: bool


class Proof(_Message):
    """What a claim's annotation says of the verified download on it."""

    source: str
    """Digest of what was downloaded."""
    bytes: int | None = None
    files: int | None = None
    revision: str | None = None

    def to_json(self) -> str:
        """Returns the annotation's value."""
        return json.dumps(self.model_dump(exclude_none=True), sort_keys=True, separators=(",", ":"))

    def size(self) -> str:
        """Returns how much it is, for people; empty where the downloader's word was lost."""
        return human_bytes(self.bytes) if self.bytes is not None else ""


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


def parse_proof(annotation: str) -> Proof | None:
    """Parses a claim's annotation; None where there is none, or one that nobody can read."""
    try:
        return Proof.model_validate_json(annotation)
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

"""What can go wrong, in the classes that a ModelCache's status tells apart."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a download failed; the words that status conditions show."""

    NOT_FOUND = "NotFound"
    UNAUTHORIZED = "Unauthorized"
    UNREACHABLE = "Unreachable"
    OUT_OF_SPACE = "OutOfSpace"
    CHECKSUM_MISMATCH = "ChecksumMismatch"
    BAD_SOURCE = "BadSource"
    VOLUME_ERROR = "VolumeError"
    INTERRUPTED = "Interrupted"


RETRYABLE = frozenset({Reason.UNREACHABLE, Reason.VOLUME_ERROR, Reason.INTERRUPTED})
"""Failures that the same download may survive later; the others need a change by a person."""


class DownloadError(Exception):
    """A failure with its class and a sentence that says what to do about it."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    @property
    def retryable(self) -> bool:
        """Whether trying again, with nothing changed, can help."""
        return self.reason in RETRYABLE


class StopRequested(Exception):  # noqa: N818  it is not an error: another file failed, or the process is asked to end
    """Raised in a worker when the whole download is to end."""

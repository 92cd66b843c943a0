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
    FORBIDDEN_ADDRESS = "ForbiddenAddress"


RETRYABLE = frozenset({Reason.UNREACHABLE, Reason.VOLUME_ERROR, Reason.INTERRUPTED})
"""Failures that the same download may survive later; the others need a change by a person."""


class DownloadError(Exception):
    """A failure with its class and a sentence that says what to do about it."""

    def __init__(
        self, reason: Reason, message: str, *, required_bytes: int | None = None, retryable: bool | None = None
    ) -> None:
        """Describes the failure.

        Args:
            reason: Its class.
            message: What happened and what to do, in whole sentences.
            required_bytes: How many bytes of files the volume must hold, where that is what failed.
            retryable: Whether trying again, with nothing changed, can help; by default, what the class says.
        """
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.required_bytes = required_bytes
        self.retryable = reason in RETRYABLE if retryable is None else retryable
        self.revision: str | None = None
        """What the source's revision was resolved to, if it came so far."""


def download_error_in(error: BaseException) -> DownloadError | None:
    """The failure of ours that a library has wrapped into one of its own; None if there is none."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, DownloadError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


class StopRequested(Exception):  # noqa: N818  it is not an error: another file failed, or the process is asked to end
    """Raised in a worker when the whole download is to end."""


class StreamError(Exception):
    """A faster way to a file's bytes failed. There is a slower one."""

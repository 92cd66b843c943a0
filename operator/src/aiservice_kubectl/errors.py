"""Every error that `kubectl ais` ends with on purpose, and the exit codes.

PluginError          the message is what the user reads, the code what a script sees
├── NotFoundError    there is no such object
├── UsageError       the command line, a file or the operator's configuration cannot be used
└── ClusterError     kubectl could not do what it was asked to
    └── RefusedError the API server answered, and said no
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What the process ends with."""

    OK = 0
    NO = 1
    """There is no such object, or the manifest would not be accepted."""
    USAGE = 2
    DOES_NOT_FIT = 3
    CLUSTER = 4


class PluginError(Exception):
    """Base of all errors raised on purpose."""

    code = Exit.NO


class NotFoundError(PluginError):
    """There is no such object."""


class UsageError(PluginError):
    """Something that the user gave cannot be used."""

    code = Exit.USAGE


class ClusterError(PluginError):
    """The cluster could not be asked."""

    code = Exit.CLUSTER


class RefusedError(ClusterError):
    """The API server refused.

    Attributes:
        reason: Its word for it, such as Forbidden, NotFound or Invalid.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

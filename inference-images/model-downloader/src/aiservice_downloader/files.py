"""The list of what to fetch, and the record of what was fetched."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from aiservice_downloader.digests import Digest


@dataclass(frozen=True)
class RemoteFile:
    """One file to fetch."""

    path: str
    """Place below the model folder; checked, so that it cannot lead out of it."""
    url: str
    digest: Digest
    access_hint: str
    """What to do if the server refuses to give the file: the end of a sentence."""
    size: int | None = None
    """Bytes, if the source vouches for it."""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    """Sent to the origin of `url` only, never to where it redirects; may hold a token."""

    @property
    def key(self) -> str:
        """Name for what is kept of an unfinished fetch: other content or another place gives another name."""
        return hashlib.sha256(f"{self.digest} {self.path}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Plan:
    """All files of a model."""

    files: tuple[RemoteFile, ...]
    revision: str | None = None
    """The commit that the revision was resolved to, for sources that have commits."""


@dataclass(frozen=True)
class FetchedFile:
    """A file that is on the volume, with the content that was asked for."""

    path: str
    size: int
    sha256: str

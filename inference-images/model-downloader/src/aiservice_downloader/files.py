"""The list of what to fetch, and the record of what was fetched."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from aiservice_downloader.digests import Digest


@dataclass(frozen=True)
class Address:
    """Where one request goes, and with which credentials."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent to the origin of `url` only, never to where it redirects; may hold a token."""


@dataclass(frozen=True)
class RemoteFile:
    """One file to fetch."""

    path: str
    """Place below the model folder, checked, so that it cannot lead out of it; of an archive, a name for people."""
    url: str
    """Where the file is, for messages, and for requests unless `sign` gives another form of it."""
    digest: Digest
    access_hint: str
    """What to do if the server refuses to give the file: the end of a sentence."""
    size: int | None = None
    """Bytes, if the source vouches for it."""
    sign: Callable[[], Address] | None = field(default=None, repr=False, compare=False)
    """Makes the address of the next request, for sources whose signatures and tokens do not last for a download."""
    etag: str | None = None
    """If given, only content with this ETag is taken: the server must answer 412 once it has other content."""
    stream: Callable[[int], Iterator[bytes]] | None = field(default=None, repr=False, compare=False)
    """A faster way than HTTP to the bytes from an offset on, where there is one. HTTP is taken when it fails."""
    packed: bool = False
    """Whether this is an archive, whose content is part of the model and not the file itself."""

    @property
    def key(self) -> str:
        """Name for what is kept of an unfinished fetch: other content or another place gives another name."""
        return hashlib.sha256(f"{self.digest} {self.path}".encode()).hexdigest()[:32]

    def address(self) -> Address:
        """Where the next request goes."""
        return Address(self.url) if self.sign is None else self.sign()


@dataclass(frozen=True)
class Unpack:
    """How archives become files of the model."""

    archives: tuple[RemoteFile, ...]
    """Their content, one over the other."""
    into: str = ""
    """Folder below the model folder; empty for the model folder itself."""
    below: str = ""
    """Only what is below this folder of the archives' content is taken, and without its name."""
    layers: bool = False
    """Whether the archives are layers of an image, which can delete what is below them."""
    only: frozenset[str] | None = None
    """The files of the model that are wanted from here; None: all."""

    def may_hold(self, path: str) -> bool:
        """Whether a file of the model can come from here."""
        return not self.into or path.startswith(f"{self.into}/")


@dataclass(frozen=True)
class Plan:
    """All files of a model."""

    files: tuple[RemoteFile, ...]
    """What to fetch, archives included."""
    revision: str | None = None
    """The commit or digest that the revision was resolved to, for sources that have them."""
    unpacks: tuple[Unpack, ...] = ()
    unpacked_bytes: int | None = None
    """What the archives' content comes to, where that is known."""

    def part_for(self, sizes: Mapping[str, int]) -> Plan:
        """What has to be fetched to get some of the files, given with their sizes."""
        plain = {file.path for file in self.files if not file.packed}
        packed = {path: size for path, size in sizes.items() if path not in plain}
        unpacks = tuple(
            replace(unpack, only=frozenset(packed))
            for unpack in self.unpacks
            if any(unpack.may_hold(path) for path in packed)
        )
        archives = {archive.key for unpack in unpacks for archive in unpack.archives}
        files = tuple(file for file in self.files if (file.key in archives if file.packed else file.path in sizes))
        return Plan(files, self.revision, unpacks, sum(packed.values()))


@dataclass(frozen=True)
class FetchedFile:
    """A file that is on the volume, with the content that was asked for."""

    path: str
    size: int
    sha256: str

"""The Hub's own protocol for large files: chunks of them, from many connections at a time.

The library is not written in Python, so that the guard of addresses does not see its connections. It is used for the
public Hub only, which tells where its storage is; nothing that a manifest says decides where it connects to.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Protocol

from hf_xet import XetConfig, XetDownloadStreamGroup, XetFileInfo, XetSession  # type: ignore[import-untyped]  # it has no types
from huggingface_hub import constants

from aiservice_downloader.errors import StreamError

_PUBLIC_HUB = "https://huggingface.co"
_CONFIG = {
    "telemetry.enabled": False,
    # Where the storage cannot be reached though the Hub can, HTTP should be taken soon.
    "client.connect_timeout": "15s",
    "client.read_timeout": "60s",
    "client.retry_max_attempts": 2,
    "client.retry_max_duration": "60s",
}


class FileData(Protocol):
    """What the Hub says of a file that its chunk storage has."""

    @property
    def file_hash(self) -> str:
        """Its name in the storage."""

    @property
    def refresh_route(self) -> str:
        """Where the Hub gives tokens for the storage."""


def xet_serves(endpoint: str) -> bool:
    """Whether a Hub's large files may come by this way. HF_HUB_DISABLE_XET turns it off, as in the Hub's library."""
    return endpoint.rstrip("/") == _PUBLIC_HUB and not constants.HF_HUB_DISABLE_XET


class XetStreams:
    """Streams of the files of one repository. May be used from several threads."""

    def __init__(self, private: Mapping[str, str]) -> None:
        """Connects to nothing yet.

        Args:
            private: Headers that get tokens for the storage from the Hub.
        """
        self._private = dict(private)
        self._groups: dict[str, XetDownloadStreamGroup] = {}
        self._lock = threading.Lock()

    def open(self, data: FileData | None, size: int, start: int) -> Iterator[bytes]:
        """The bytes of a file from an offset on.

        Raises:
            StreamError: If the storage does not have or not give them, now or later.
        """
        if data is None:
            raise StreamError("The Hub's chunk storage does not have the file")
        try:
            group = self._group(data.refresh_route)
            yield from group.download_stream(XetFileInfo(data.file_hash, size), start=start, end=size)
        except Exception as error:  # the library raises what it likes, and HTTP serves as well
            with self._lock:
                self._groups.pop(data.refresh_route, None)  # one that has failed fails for other files too
            raise StreamError(f"The Hub's chunk storage failed ({type(error).__name__})") from error

    def _group(self, refresh_route: str) -> XetDownloadStreamGroup:
        """The connections to the storage, shared by all files of the repository."""
        with self._lock:
            if refresh_route not in self._groups:
                self._groups[refresh_route] = self.connect(refresh_route)
            return self._groups[refresh_route]

    def connect(self, refresh_route: str) -> XetDownloadStreamGroup:
        """Connects to the storage that the Hub names at this address, with a token from there."""
        return XetSession(XetConfig().with_config(_CONFIG)).new_download_stream_group(
            token_refresh_url=refresh_route, token_refresh_headers=self._private
        )

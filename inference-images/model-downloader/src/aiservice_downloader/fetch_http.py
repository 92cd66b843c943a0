"""Fetches one file over HTTP: goes on where an earlier attempt ended, and lets only the right content through."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus

import httpx2

from aiservice_downloader.advice import FOR_MANIFESTS, Advice
from aiservice_downloader.client import HttpClient, raise_for_answer, shown
from aiservice_downloader.digests import Hasher, hash_file
from aiservice_downloader.errors import DownloadError, Reason, StreamError
from aiservice_downloader.files import FetchedFile, RemoteFile
from aiservice_downloader.progress import Progress, Stop
from aiservice_downloader.retry import Patience, TransientError
from aiservice_downloader.space import Space
from aiservice_downloader.volume import Partial, Volume

_CONTENT_RANGE = re.compile(r"^bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)$")


@dataclass(frozen=True)
class ContentRange:
    """A Content-Range header; None is what it leaves open."""

    start: int | None
    end: int | None
    total: int | None


def parse_content_range(value: str | None) -> ContentRange:
    """Reads `bytes 5-9/10`, `bytes 5-9/*` or `bytes */10`; anything else leaves all open."""
    match = _CONTENT_RANGE.match(value or "")
    if match is None:
        return ContentRange(None, None, None)
    start, end, total = match.groups()
    return ContentRange(int(start) if start else None, int(end) if end else None, int(total) if total != "*" else None)


class _Transfer:
    """One file on its way: the bytes so far, and where they came from."""

    def __init__(self, file: RemoteFile, partial: Partial) -> None:
        self.file = file
        self.partial = partial
        self.hasher = Hasher(file.digest, file.size)
        self.joined = False
        """Whether the bytes are of more than one answer, which may have been of different content."""
        self.stream = file.stream
        """The faster way, as long as it works."""

    @property
    def position(self) -> int:
        """Bytes so far."""
        return self.hasher.size

    def start_over(self) -> None:
        """Forgets all bytes."""
        self.hasher = Hasher(self.file.digest, self.file.size)
        self.joined = False


@dataclass(frozen=True)
class Fetcher:
    """Gets files onto the volume, complete and verified. May be used from several threads, a file in each."""

    client: HttpClient
    volume: Volume
    progress: Progress
    patience: Patience
    stop: Stop
    space: Space
    advice: Advice = FOR_MANIFESTS

    def obtain(self, file: RemoteFile) -> FetchedFile:
        """Makes sure that a file is staged, with the content that was asked for.

        Raises:
            DownloadError: With the reason why it cannot be had.
            StopRequested: If the download is to end.
        """
        return self._from_staging(file) or self._from_server(file)

    def _from_staging(self, file: RemoteFile) -> FetchedFile | None:
        path = self.volume.staged(file)
        if not path.is_file() or path.is_symlink():
            return None
        self.progress.at(file.path, path.stat().st_size)
        if file.size in {None, path.stat().st_size}:
            hasher = Hasher(file.digest, file.size)
            hash_file(path, hasher, self.stop.check)
            if hasher.matches():
                self.progress.set_size(file.path, hasher.size)
                return FetchedFile(file.path, hasher.size, hasher.sha256)
        path.unlink()
        self.progress.at(file.path, 0)
        return None

    def _from_server(self, file: RemoteFile) -> FetchedFile:
        transfer = _Transfer(file, self.volume.partial(file))
        self._take_up(transfer)
        self._transfer(transfer)
        if not transfer.hasher.matches() and transfer.joined:
            # The file may have changed at the server between two answers. One answer alone decides.
            self._discard(transfer)
            self._transfer(transfer)
        if not transfer.hasher.matches():
            found = transfer.hasher.found
            self._discard(transfer)
            raise DownloadError(
                Reason.CHECKSUM_MISMATCH,
                f"{file.path} from {shown(file.url)} has the {file.digest.algorithm} digest {found}, not "
                f"{file.digest.hex}: {self.advice.digest} at the source.",
            )
        self.volume.stage(file, transfer.partial)
        return FetchedFile(file.path, transfer.position, transfer.hasher.sha256)

    def _take_up(self, transfer: _Transfer) -> None:
        """Reads what an earlier process left of the file."""
        size = transfer.partial.size()
        if transfer.file.size is not None and size > transfer.file.size:
            self._discard(transfer)
        elif size > 0:
            hash_file(transfer.partial.data, transfer.hasher, self.stop.check)
            transfer.joined = True
        self.progress.at(transfer.file.path, transfer.position)

    def _discard(self, transfer: _Transfer) -> None:
        transfer.partial.remove()
        transfer.start_over()
        self.progress.at(transfer.file.path, 0)

    def _transfer(self, transfer: _Transfer) -> None:
        self.patience.run(lambda: self._receive(transfer), lambda: transfer.position)

    def _receive(self, transfer: _Transfer) -> None:
        """Receives what is missing, in one request."""
        file = transfer.file
        if file.size is not None and transfer.position == file.size > 0:
            return
        if transfer.stream is not None:
            self._receive_stream(transfer, transfer.stream)
            return
        headers = _range_headers(transfer.position, transfer.partial.validator(), file.etag)
        address = file.address()
        with self.client.open("GET", address.url, headers=headers, private=address.headers) as response:
            total = self._accept(transfer, response)
            if total is not None:
                if file.size is not None and total != file.size:
                    raise DownloadError(
                        Reason.CHECKSUM_MISMATCH,
                        f"{file.path} has {total} bytes at {shown(file.url)} and {file.size} by the list of its "
                        "repository: the source does not give what it lists; try another revision or endpoint.",
                    )
                self.progress.set_size(file.path, total)
            if response.status_code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                self._append(transfer, response.iter_raw(), _strong_etag(response))
        # Without a Content-Length, only the list of the source tells an answer that was cut off from a whole one.
        expected = file.size if total is None else total
        if expected is not None and transfer.position < expected:
            raise TransientError(f"The server ended {shown(file.url)} after {transfer.position} of {expected} bytes")
        self.progress.set_size(file.path, transfer.position)

    def _receive_stream(self, transfer: _Transfer, stream: Callable[[int], Iterator[bytes]]) -> None:
        """Receives what is missing by the faster way, and gives it up for this file if it fails."""
        position = transfer.position
        transfer.joined = position > 0
        try:
            self._append(transfer, stream(position), None)
        except StreamError as error:
            transfer.stream = None
            raise TransientError(f"{error}; the rest of {transfer.file.path} comes over HTTP") from error
        if transfer.position != transfer.file.size:
            transfer.stream = None
            raise TransientError(f"The stream of {transfer.file.path} ended after {transfer.position} bytes")

    def _accept(self, transfer: _Transfer, response: httpx2.Response) -> int | None:
        """Decides by the head of an answer what to do with bytes already there; returns the size of the file."""
        if _has_other_content(transfer.file, response):
            raise DownloadError(
                Reason.INTERRUPTED,
                f"{transfer.file.path} was replaced at {shown(transfer.file.url)} while it was fetched: the next "
                "attempt takes the new content.",
            )
        if response.status_code == HTTPStatus.OK:
            self._discard(transfer)
            length = response.headers.get("Content-Length", "")
            return int(length) if length.isdecimal() else None
        found = parse_content_range(response.headers.get("Content-Range"))
        if response.status_code == HTTPStatus.PARTIAL_CONTENT and found.start == transfer.position:
            transfer.joined = transfer.position > 0
            return found.total
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and found.total == transfer.position:
            return found.total  # all of it was there already
        if response.status_code in {HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}:
            at = transfer.position
            self._discard(transfer)
            raise TransientError(f"The server did not give {shown(transfer.file.url)} from byte {at} on")
        raise_for_answer(response, url=transfer.file.url, access_hint=transfer.file.access_hint)
        return None

    def _append(self, transfer: _Transfer, chunks: Iterator[bytes], validator: str | None) -> None:
        start_over = transfer.position == 0
        path = transfer.file.path
        with transfer.partial.open(start_over=start_over, validator=validator) as output:
            for chunk in chunks:
                self.stop.check()
                self.space.write(output, chunk, self._missing)
                transfer.hasher.update(chunk)
                self.progress.received(path, len(chunk))

    def _missing(self) -> int | None:
        return self.progress.missing_bytes if self.progress.total_bytes is not None else None


def _has_other_content(file: RemoteFile, response: httpx2.Response) -> bool:
    """Whether a file that is asked for by its ETag is no longer there, or is answered with other content."""
    if file.etag is None:
        return False
    if response.status_code == HTTPStatus.PRECONDITION_FAILED:
        return True
    return response.is_success and response.headers.get("ETag") != file.etag


def _range_headers(position: int, validator: str | None, etag: str | None) -> dict[str, str]:
    """Asks for the rest of a file; with a validator, for the whole of it should it have changed.

    Of a file whose ETag is known beforehand, other content is not wanted at all.
    """
    headers = {"If-Match": etag} if etag else {}
    if position == 0:
        return headers
    headers["Range"] = f"bytes={position}-"
    return {**headers, "If-Range": validator} if validator and not etag else headers


def _strong_etag(response: httpx2.Response) -> str | None:
    """The ETag, if equal ETags mean equal bytes."""
    etag = response.headers.get("ETag")
    return etag if etag is not None and etag.startswith('"') else None

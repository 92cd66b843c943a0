"""Asks the Hugging Face Hub, or a mirror of it, which files a repository has at a revision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi, HfFileMetadata, get_hf_file_metadata, hf_hub_url, set_client_factory
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo, RepoSibling

from aiservice_downloader.advice import Advice
from aiservice_downloader.client import may_pass, parse_url, shown
from aiservice_downloader.digests import Digest
from aiservice_downloader.errors import DownloadError, Reason
from aiservice_downloader.fetch_xet import XetStreams, xet_serves
from aiservice_downloader.files import Address, Plan, RemoteFile
from aiservice_downloader.guard import Guard
from aiservice_downloader.paths import check_distinct, check_relative_path, wanted
from aiservice_downloader.retry import Patience, TransientError, parse_retry_after
from aiservice_downloader.source import HuggingFaceSource

T = TypeVar("T")

_TIMEOUT_SECONDS = 30.0
_SHA256_DIGITS = 64
_SHA1_DIGITS = 40
_LIBRARY = "aiservice-model-downloader"


def plan_repository(
    source: HuggingFaceSource,
    *,
    pinned: str | None,
    token: str | None,
    patience: Patience,
    guard: Guard,
    advice: Advice,
) -> Plan:
    """Resolves the revision to a commit and lists the wanted files of it, each with its size and digest.

    Args:
        source: The repository.
        pinned: The commit to take instead of what the revision names by now.
        token: An access token.
        patience: With the Hub.
        guard: Looks at what the library asks for.
        advice: For messages.

    Raises:
        DownloadError: If the repository, the revision or the wanted files are not to be had.
        StopRequested: If the download is to end.
    """
    if pinned is not None:
        source = source.model_copy(update={"revision": pinned})
    hub = _Hub(source, token, patience, guard, advice)
    info = hub.model_info()
    if not info.sha:
        raise DownloadError(
            Reason.BAD_SOURCE,
            f"{hub.where} does not tell which commit {source.revision!r} is: use a mirror that speaks the Hub's API.",
        )
    chosen = [file for file in info.siblings or [] if wanted(file.rfilename, source.include, source.exclude)]
    if not chosen:
        raise DownloadError(
            Reason.NOT_FOUND,
            f"{hub.where} has {len(info.siblings or [])} files at {source.revision!r} and none is wanted by include "
            f"{list(source.include)} and exclude {list(source.exclude)}: correct the globs.",
        )
    try:
        check_distinct(check_relative_path(sibling.rfilename) for sibling in chosen)
    except ValueError as error:
        raise DownloadError(Reason.BAD_SOURCE, f"{hub.where} lists a file that is refused: {error}.") from error
    return Plan(tuple(hub.remote_file(sibling, info.sha) for sibling in chosen), revision=info.sha)


class _Hub:
    """The Hub's API for one repository, with its failures put into our words."""

    def __init__(
        self, source: HuggingFaceSource, token: str | None, patience: Patience, guard: Guard, advice: Advice
    ) -> None:
        self._source = source
        self._token = token
        self._patience = patience
        self._advice = advice
        set_client_factory(lambda: _library_client(guard))
        # False, not None: a token that the library finds by itself must not be used.
        self._api = HfApi(endpoint=source.endpoint, token=token or False, library_name=_LIBRARY)
        self.where = f"{source.repo} at {shown(parse_url(self._api.endpoint))}"
        self._private = {"Authorization": f"Bearer {token}"} if token else {}
        self._xet = XetStreams(self._private) if xet_serves(self._api.endpoint) else None

    def model_info(self) -> ModelInfo:
        """The repository at the wanted revision: its commit and its files."""
        return self._ask(
            lambda: self._api.model_info(
                self._source.repo,
                revision=self._source.revision,
                files_metadata=True,
                timeout=_TIMEOUT_SECONDS,
            )
        )

    def remote_file(self, sibling: RepoSibling, commit: str) -> RemoteFile:
        """One file of the repository, with its size and digest."""
        path = sibling.rfilename
        url = hf_hub_url(self._source.repo, path, revision=commit, endpoint=self._api.endpoint)
        size, digest = sibling.size, _listed_digest(sibling)
        if size is None or digest is None:
            size, digest = self._ask_for_digest(path, url)
        return RemoteFile(
            path=path,
            url=url,
            digest=digest,
            size=size,
            access_hint=self._access_hint(),
            sign=lambda: Address(url, self._private),
            stream=self._stream(url, size, sibling),
        )

    def _stream(self, url: str, size: int, sibling: RepoSibling) -> Callable[[int], Iterator[bytes]] | None:
        """The faster way to a large file, where the Hub has one."""
        xet = self._xet
        if xet is None or sibling.lfs is None:
            return None
        return lambda start: xet.open(self._ask(lambda: self._metadata(url)).xet_file_data, size, start)

    def _ask_for_digest(self, path: str, url: str) -> tuple[int, Digest]:
        """Size and digest from the file's own address: mirrors may leave them out of the list."""
        meta = self._ask(lambda: self._metadata(url))
        digest = digest_of_etag(meta.etag)
        if meta.size is None or digest is None:
            raise DownloadError(
                Reason.BAD_SOURCE,
                f"{self.where} tells neither in its list nor for the file itself what {path} must hash to, so that it "
                "cannot be verified: use a mirror that passes the Hub's ETags on.",
            )
        return meta.size, digest

    def _metadata(self, url: str) -> HfFileMetadata:
        return get_hf_file_metadata(
            url,
            token=self._token or False,
            timeout=_TIMEOUT_SECONDS,
            endpoint=self._api.endpoint,
            library_name=_LIBRARY,
        )

    def _ask(self, call: Callable[[], T]) -> T:
        def attempt() -> T:
            try:
                return call()
            except HFValidationError as error:
                raise DownloadError(Reason.BAD_SOURCE, f"{error} Correct the model's spec.") from error
            except HfHubHTTPError as error:
                raise self._failure(error) from error
            except httpx2.TransportError as error:
                detail = str(error) or type(error).__name__
                raise TransientError(f"The connection for {self.where} failed: {detail.rstrip('.')}") from error
            except ValueError as error:  # an answer that is no JSON
                raise DownloadError(
                    Reason.BAD_SOURCE, f"{self.where} does not answer as the Hub does: check the endpoint."
                ) from error

        return self._patience.run(attempt)

    def _failure(self, error: HfHubHTTPError) -> Exception:
        status = error.response.status_code
        said = f"{status} {error.response.reason_phrase}".strip()
        revision = self._source.revision
        if isinstance(error, RevisionNotFoundError):
            return DownloadError(
                Reason.NOT_FOUND, f"{self.where} has no revision {revision!r}: name a branch, a tag or a commit of it."
            )
        if isinstance(error, EntryNotFoundError):
            return DownloadError(Reason.NOT_FOUND, f"{self.where} lists a file that it does not have ({said}).")
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} or isinstance(error, GatedRepoError):
            return DownloadError(Reason.UNAUTHORIZED, f"{self.where} answered {said}: {self._access_hint()}.")
        if isinstance(error, RepositoryNotFoundError) or status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
            return DownloadError(
                Reason.NOT_FOUND,
                f"{self.where} does not exist, or the token may not see it ({said}): check repo and endpoint.",
            )
        if may_pass(status):
            wait = parse_retry_after(error.response.headers.get("Retry-After"), datetime.now(UTC))
            return TransientError(f"{self.where} answered {said}", retry_after=wait)
        reason = "the request is not understood" if isinstance(error, BadRequestError) else "this is not the Hub's API"
        return DownloadError(
            Reason.BAD_SOURCE, f"{self.where} answered {said}: {reason}; check repo, revision and endpoint."
        )

    def _access_hint(self) -> str:
        if self._token is None:
            return f"the repository is private, gated or does not exist; {self._advice.anonymous}"
        return (
            f"the token {self._advice.credential} is wrong, expired, or its owner has no access; accept the "
            "repository's terms with that account, or use another token"
        )


def _library_client(guard: Guard) -> httpx2.Client:
    """The client that the Hub's library sends its requests with."""
    return httpx2.Client(
        event_hooks={"request": [lambda request: guard.check_target(request.url.host)]},
        follow_redirects=True,
        timeout=_TIMEOUT_SECONDS,
    )


def _listed_digest(sibling: RepoSibling) -> Digest | None:
    """The digest that the list gives: SHA-256 of large files, Git's blob name of the others."""
    if sibling.lfs is not None:
        return Digest("sha256", sibling.lfs.sha256)
    return Digest("git-sha1", sibling.blob_id) if sibling.blob_id else None


def digest_of_etag(etag: str | None) -> Digest | None:
    """The digest that the Hub uses as a file's ETag; None if it is no digest."""
    value = (etag or "").lower()
    if not all(character in "0123456789abcdef" for character in value):
        return None
    if len(value) == _SHA256_DIGITS:
        return Digest("sha256", value)
    return Digest("git-sha1", value) if len(value) == _SHA1_DIGITS else None

"""The one place that speaks HTTP: requests, redirects, and what answers mean for a download."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus

import httpx2

from aiservice_downloader.errors import DownloadError, Reason
from aiservice_downloader.guard import Guard
from aiservice_downloader.retry import TransientError, parse_retry_after

_MAX_REDIRECTS = 10
_TIMEOUT = httpx2.Timeout(60.0, connect=15.0)
_TRANSIENT = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED})
_MAX_DOCUMENT_BYTES = 8 << 20
_MISSING = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})


def may_pass(status: int) -> bool:
    """Whether the same request may succeed later, by the status of the answer."""
    return status in _TRANSIENT or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def parse_url(url: str) -> httpx2.URL:
    """Reads an address that a request is to go to.

    Raises:
        DownloadError: BadSource, if it cannot be read.
    """
    try:
        return httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise DownloadError(
            Reason.BAD_SOURCE, f"An address of the source cannot be read: {error}. Correct it in the model's spec."
        ) from error


def shown(url: str | httpx2.URL) -> str:
    """A URL for messages: without user, password, query and fragment, all of which may hold secrets."""
    parsed = httpx2.URL(url)
    return str(parsed.copy_with(username=None, password=None, query=None, fragment=None))


class HttpClient:
    """Opens responses of GET and HEAD requests, through redirects. May be used from several threads."""

    def __init__(self, guard: Guard, *, timeout: httpx2.Timeout = _TIMEOUT) -> None:
        self._client = httpx2.Client(
            timeout=timeout,
            follow_redirects=False,
            event_hooks={"request": [lambda request: guard.check_target(request.url.host)]},
            # Compressed bytes would be neither the file nor a range of it.
            headers={"Accept-Encoding": "identity", "User-Agent": "aiservice-model-downloader"},
        )

    def close(self) -> None:
        """Closes idle connections."""
        self._client.close()

    @contextmanager
    def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        private: Mapping[str, str],
        form: Mapping[str, str] | None = None,
    ) -> Iterator[httpx2.Response]:
        """Sends a request and yields the first response that is no redirect, its body unread.

        Args:
            method: GET or HEAD; or POST, whose redirects are not followed.
            url: Where to begin.
            headers: Sent everywhere.
            private: Sent to the origin of `url` only.
            form: Fields to send as the body.

        Raises:
            TransientError: If the connection fails, now or while the body is read.
            DownloadError: BadSource, if no request can go there, or a redirect must not or cannot be followed.
        """
        try:
            response = self._follow(method, parse_url(url), headers, private, form)
            try:
                yield response
            finally:
                response.close()
        except httpx2.TransportError as error:
            detail = str(error) or type(error).__name__
            # A redirect may have led to another server, and that is the one to look at.
            server = error.request.url.netloc.decode()
            raise TransientError(f"The connection to {server} for {shown(url)} failed: {detail.rstrip('.')}") from error

    def size_of(self, url: str) -> int | None:
        """What a HEAD request says of a file's size; None if it says nothing, for whatever reason."""
        try:
            with self.open("HEAD", url, headers={}, private={}) as response:
                length = response.headers.get("Content-Length", "")
                known = response.status_code == HTTPStatus.OK and length.isdecimal()
                return int(length) if known else None
        except DownloadError as error:
            if error.reason is Reason.FORBIDDEN_ADDRESS:
                raise
            return None  # The GET that follows will tell, and is tried more than once.
        except TransientError:
            return None

    def document(self, response: httpx2.Response) -> bytes:
        """The body of a small answer, read whole.

        Raises:
            DownloadError: BadSource, if it is larger than any document that a registry gives.
        """
        body = b""
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > _MAX_DOCUMENT_BYTES:
                raise DownloadError(
                    Reason.BAD_SOURCE,
                    f"{shown(response.request.url)} answers with more than {_MAX_DOCUMENT_BYTES >> 20} MiB where a "
                    "small document is due: check the address.",
                )
        return body

    def _follow(
        self,
        method: str,
        url: httpx2.URL,
        headers: Mapping[str, str],
        private: Mapping[str, str],
        form: Mapping[str, str] | None,
    ) -> httpx2.Response:
        here = url
        for _ in range(_MAX_REDIRECTS + 1):
            extra = private if _origin(here) == _origin(url) else {}
            request = self._client.build_request(method, here, headers={**headers, **extra}, data=form)
            try:
                response = self._client.send(request, stream=True)
            except UnicodeError as error:  # by the lookup of a name that is none
                raise DownloadError(
                    Reason.BAD_SOURCE,
                    f"{shown(url)} leads to the host {here.host!r}, which is no name: the parts between its dots must "
                    "have 1 to 63 characters each. Correct the address in the model's spec.",
                ) from error
            if not response.has_redirect_location or method == "POST":
                return response
            response.close()
            here = redirect_target(here, response.headers["Location"])
        raise DownloadError(
            Reason.BAD_SOURCE,
            f"{shown(url)} redirects more than {_MAX_REDIRECTS} times: use an address that leads to the file.",
        )


def redirect_target(here: httpx2.URL, location: str) -> httpx2.URL:
    """Where a redirect leads.

    Raises:
        DownloadError: BadSource, if it leads from https to http, or out of HTTP.
    """
    try:
        target = here.join(location)
    except httpx2.InvalidURL as error:
        raise DownloadError(
            Reason.BAD_SOURCE, f"{shown(here)} redirects to an address that cannot be read: {error}."
        ) from error
    if target.scheme not in {"http", "https"} or not target.host:
        raise DownloadError(
            Reason.BAD_SOURCE,
            f"{shown(here)} redirects to {target.scheme or 'nowhere'}: only http and https are followed.",
        )
    if here.scheme == "https" and target.scheme == "http":
        raise DownloadError(
            Reason.BAD_SOURCE,
            f"{shown(here)} redirects from https to http ({shown(target)}), which anyone on the way could read and "
            "change: use an address that stays on https.",
        )
    return target


def raise_for_answer(response: httpx2.Response, *, url: str, access_hint: str) -> None:
    """Raises what an unsuccessful answer to a GET means.

    Args:
        response: The answer; must not be a success.
        url: The address that was asked for, before redirects.
        access_hint: What to do if the server refuses: the end of a sentence.

    Raises:
        TransientError: If the same request may succeed later.
        DownloadError: If it will not.
    """
    status = response.status_code
    said = f"{status} {response.reason_phrase}".strip()
    if may_pass(status):
        wait = parse_retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
        raise TransientError(f"The server answered {said} for {shown(url)}", retry_after=wait)
    if status in _MISSING:
        raise DownloadError(
            Reason.NOT_FOUND, f"The server answered {said} for {shown(url)}: correct the address in the model's spec."
        )
    if status in _REFUSED:
        raise DownloadError(Reason.UNAUTHORIZED, f"The server answered {said} for {shown(url)}: {access_hint}.")
    raise DownloadError(
        Reason.BAD_SOURCE, f"The server answered {said} for {shown(url)}, which is no file: check the address."
    )


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port

"""Follows the objects of one kind in Kubernetes: list, watch, resume; list again when the watch is too old."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import aiohttp
import orjson
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from aiservice_api.v1alpha1 import GROUP, VERSION

_log = logging.getLogger(__name__)

_PAGE = 500
_REQUEST_SECONDS = 30.0
_WATCH_SECONDS = 300
_SILENCE_SECONDS = 90.0  # the server sends a bookmark each minute: longer silence is a dead connection
_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 15.0
_GONE = 410
_REFUSED = {403, 404}

Document = Mapping[str, Any]
"""An object as the API server gives it."""


class Sink(Protocol):
    """What is kept up to date."""

    def replace(self, documents: Sequence[Document]) -> None:
        """These are all objects."""

    def put(self, document: Document) -> None:
        """One was made or changed."""

    def remove(self, key: str) -> None:
        """NAMESPACE/NAME was deleted."""


class WatchExpiredError(Exception):
    """The server has forgotten where the watch left off."""


class Follower:
    """Follows a kind in one namespace, or in all of them."""

    def __init__(
        self,
        api: client.ApiClient,
        plural: str,
        sink: Sink,
        namespace: str | None,
        jitter: Callable[[], float] = random.random,
        *,
        group: str = GROUP,
        version: str = VERSION,
        selector: str | None = None,
        on_refused: Callable[[], None] = lambda: None,
    ) -> None:
        """Asks nothing yet.

        Args:
            api: Client of the API server.
            plural: The kind, as addresses name it.
            sink: What to keep up to date.
            namespace: Where; None for the whole cluster.
            jitter: A number from 0 to 1, for waiting.
            group: API group of the kind.
            version: Version of the API.
            selector: Labels of the objects that count; None for all.
            on_refused: Called when the API server says that the kind may not be read, or that there is none.
        """
        self._objects = client.CustomObjectsApi(api)
        self._plural = plural
        self._group = group
        self._api_version = version
        self._options: dict[str, Any] = {} if selector is None else {"label_selector": selector}
        self._on_refused = on_refused
        self._complaint = ""
        self._sink = sink
        self._namespace = namespace
        self._where = f"namespace {namespace}" if namespace else "cluster"
        self._jitter = jitter
        self._version: str | None = None
        self.synced = False
        self.connected = False

    async def run(self) -> None:
        """Lists, then watches, for ever; waits longer and longer while the API server does not answer."""
        backoff = _FIRST_BACKOFF_SECONDS
        while True:
            try:
                if self._version is None:
                    self._version = await self._list()
                    backoff = _FIRST_BACKOFF_SECONDS
                await self._watch(self._version)
                backoff = _FIRST_BACKOFF_SECONDS
            except WatchExpiredError:
                self._version = None
            except (ApiException, aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                self._note_failure(error)
                if isinstance(error, ApiException) and error.status in _REFUSED:
                    self._on_refused()
                    self._version = None
                await asyncio.sleep(backoff * (0.5 + self._jitter()))
                backoff = min(backoff * 2, _LONGEST_BACKOFF_SECONDS)

    async def _list(self) -> str:
        """Replaces everything that is known; returns the version to watch from."""
        documents: list[Document] = []
        page: dict[str, Any] = {}
        while not page or page["metadata"].get("continue"):
            response = await self._get(limit=_PAGE, _continue=page["metadata"]["continue"] if page else None)
            async with response:
                page = orjson.loads(await response.read())
            documents.extend(page["items"])
        self._sink.replace(documents)
        self.synced = True
        self._note_success()
        version: str = page["metadata"]["resourceVersion"]
        return version

    async def _watch(self, version: str) -> None:
        """Applies changes until the server ends the watch.

        Raises:
            WatchExpiredError: the server cannot go on from this version.
        """
        response = await self._get(
            watch=True, resource_version=version, allow_watch_bookmarks=True, timeout_seconds=_WATCH_SECONDS
        )
        async with response:
            self._note_success()
            while line := await _next_line(response):
                self._apply(orjson.loads(line))

    def _apply(self, event: Mapping[str, Any]) -> None:
        document = event["object"]
        if event["type"] == "ERROR":
            if document.get("code") == _GONE:
                raise WatchExpiredError
            raise ApiException(status=document.get("code"), reason=document.get("message"))
        self._version = document["metadata"]["resourceVersion"]
        if event["type"] == "DELETED":
            self._sink.remove(key_of(document))
        elif event["type"] != "BOOKMARK":
            self._sink.put(document)

    async def _get(self, **options: Any) -> aiohttp.ClientResponse:
        """Starts a list or a watch.

        Raises:
            WatchExpiredError: the version or the page is too old.
            ApiException: the API server refuses.
        """
        timeout = _WATCH_SECONDS + _REQUEST_SECONDS if options.get("watch") else _REQUEST_SECONDS
        if self._namespace is None:
            response = await self._objects.list_cluster_custom_object_without_preload_content(
                self._group, self._api_version, self._plural, _request_timeout=timeout, **self._options, **options
            )
        else:
            response = await self._objects.list_namespaced_custom_object_without_preload_content(
                self._group,
                self._api_version,
                self._namespace,
                self._plural,
                _request_timeout=timeout,
                **self._options,
                **options,
            )
        if response.status == _GONE:
            response.release()
            raise WatchExpiredError
        if response.status != 200:
            async with response:
                raise ApiException(status=response.status, reason=self._explain(response.status, await response.text()))
        return response

    def _note_success(self) -> None:
        if not self.connected:
            _log.info("The %s of the %s are being followed", self._plural, self._where)
        self.connected = True
        self._complaint = ""

    def _note_failure(self, error: Exception) -> None:
        # Said once: it is tried again every few seconds.
        if str(error) != self._complaint:
            _log.warning("The %s of the %s cannot be followed: %s", self._plural, self._where, error)
        self._complaint = str(error)
        self.connected = False

    def _explain(self, status: int, body: str) -> str:
        if status == 403:
            return f"the gateway's service account may not list and watch {self._plural}.{self._group}: {body}"
        if status == 404:
            return f"the API server knows no {self._plural}.{self._group}: install the CRDs"
        return body


def key_of(document: Document) -> str:
    """NAMESPACE/NAME of an object."""
    meta = document["metadata"]
    return f"{meta['namespace']}/{meta['name']}"


async def _next_line(response: aiohttp.ClientResponse) -> bytes:
    """The next event, or nothing at the watch's end.

    Raises:
        TimeoutError: not even a bookmark came.
    """
    async with asyncio.timeout(_SILENCE_SECONDS):
        return await response.content.readline()

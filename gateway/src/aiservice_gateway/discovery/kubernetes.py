"""Services from AIService objects: list, watch, resume; list again when the watch is too old."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException
from pydantic import ValidationError

from aiservice_api.v1alpha1 import GROUP, VERSION, AIService, Condition, ConditionStatus
from aiservice_gateway.errors import SettingsError
from aiservice_gateway.models import Service
from aiservice_gateway.services.registry import Registry

_log = logging.getLogger(__name__)

_PLURAL = "aiservices"
_PAGE = 500
_REQUEST_SECONDS = 30.0
_WATCH_SECONDS = 300
_SILENCE_SECONDS = 90.0  # the server sends a bookmark each minute: longer silence is a dead connection
_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 15.0
_GONE = 410


class WatchExpiredError(Exception):
    """The server has forgotten where the watch left off."""


def to_service(document: Mapping[str, Any]) -> Service | None:
    """What the gateway needs of an AIService; None when it is not to be offered.

    Raises:
        ValidationError: it is no AIService of a version that is known here.
    """
    resource = AIService.model_validate(document)
    spec, status, meta = resource.spec, resource.status, resource.metadata
    if not spec.gateway.expose or meta.deletion_timestamp is not None:
        return None
    # Not Ready, which is Unknown while new pods replace old ones that still serve, and True where none are wanted.
    serving = _condition(status.conditions, "Available")
    endpoints = {task: status.endpoints[task].rstrip("/") for task in spec.tasks if task in status.endpoints}
    return Service(
        name=meta.name,
        namespace=meta.namespace,
        tasks=tuple(spec.tasks),
        endpoints=endpoints,
        aliases=tuple(spec.gateway.names),
        default=spec.gateway.default,
        ready=serving is not None and serving.status is ConditionStatus.TRUE,
        reason=f"{serving.reason}: {serving.message}" if serving is not None else "the operator has not seen it yet",
        model=status.model or None,
        **({"created": meta.creation_timestamp} if meta.creation_timestamp is not None else {}),
    )


def _condition(conditions: list[Condition], kind: str) -> Condition | None:
    return next((condition for condition in conditions if condition.type == kind), None)


@asynccontextmanager
async def connect(kubeconfig: str | None) -> AsyncIterator[client.ApiClient]:
    """A client of the API server.

    Args:
        kubeconfig: Used outside of a pod; None for the user's own. In a pod its service account is used.

    Raises:
        SettingsError: neither is there.
    """
    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        try:
            await config.load_kube_config(kubeconfig, client_configuration=configuration)  # type: ignore[no-untyped-call]
        except (config.ConfigException, OSError) as error:
            raise SettingsError(
                "There is no Kubernetes to find services in: this is no pod, and KUBECONFIG names no usable file "
                f"({error}). Set KUBECONFIG, or list the services in a file and set GATEWAY_SERVICES_FILE to it."
            ) from error
    async with client.ApiClient(configuration) as api:
        yield api


class KubernetesDiscovery:
    """Follows the AIServices of some namespaces, or of the whole cluster."""

    def __init__(self, api: client.ApiClient, registry: Registry, namespaces: tuple[str, ...]) -> None:
        """Asks nothing yet.

        Args:
            api: Client of the API server.
            registry: What to keep up to date.
            namespaces: Those to follow; none means all.
        """
        self._follow = [Follower(api, registry, namespace) for namespace in namespaces or (None,)]

    @property
    def synced(self) -> bool:
        """Whether every namespace was listed once."""
        return all(follower.synced for follower in self._follow)

    @property
    def connected(self) -> bool:
        """Whether every namespace is being watched."""
        return all(follower.connected for follower in self._follow)

    async def run(self) -> None:
        """Follows until cancelled."""
        async with asyncio.TaskGroup() as group:
            for follower in self._follow:
                group.create_task(follower.run())


class Follower:
    """Follows one namespace, or all of them."""

    def __init__(
        self,
        api: client.ApiClient,
        registry: Registry,
        namespace: str | None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._objects = client.CustomObjectsApi(api)
        self._registry = registry
        self._namespace = namespace
        self._source = f"namespace {namespace}" if namespace else "cluster"
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
                await asyncio.sleep(backoff * (0.5 + self._jitter()))
                backoff = min(backoff * 2, _LONGEST_BACKOFF_SECONDS)

    async def _list(self) -> str:
        """Replaces everything that is known; returns the version to watch from."""
        services: list[Service] = []
        page: dict[str, Any] = {}
        while not page or page["metadata"].get("continue"):
            response = await self._get(limit=_PAGE, _continue=page["metadata"]["continue"] if page else None)
            async with response:
                page = orjson.loads(await response.read())
            services.extend(filter(None, map(_read, page["items"])))
        self._registry.replace(self._source, services)
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
        meta = document["metadata"]
        self._version = meta["resourceVersion"]
        if event["type"] == "BOOKMARK":
            return
        service = _read(document) if event["type"] != "DELETED" else None
        if service is None:
            self._registry.remove(self._source, f"{meta['namespace']}/{meta['name']}")
        else:
            self._registry.put(self._source, service)

    async def _get(self, **options: Any) -> aiohttp.ClientResponse:
        """Starts a list or a watch.

        Raises:
            WatchExpiredError: the version or the page is too old.
            ApiException: the API server refuses.
        """
        timeout = _WATCH_SECONDS + _REQUEST_SECONDS if options.get("watch") else _REQUEST_SECONDS
        if self._namespace is None:
            response = await self._objects.list_cluster_custom_object_without_preload_content(
                GROUP, VERSION, _PLURAL, _request_timeout=timeout, **options
            )
        else:
            response = await self._objects.list_namespaced_custom_object_without_preload_content(
                GROUP, VERSION, self._namespace, _PLURAL, _request_timeout=timeout, **options
            )
        if response.status == _GONE:
            response.release()
            raise WatchExpiredError
        if response.status != 200:
            async with response:
                raise ApiException(status=response.status, reason=_explain(response.status, await response.text()))
        return response

    def _note_success(self) -> None:
        if not self.connected:
            _log.info("AIServices are being followed in the %s", self._source)
        self.connected = True

    def _note_failure(self, error: Exception) -> None:
        _log.warning("AIServices of the %s cannot be followed; the last known ones serve on: %s", self._source, error)
        self.connected = False


async def _next_line(response: aiohttp.ClientResponse) -> bytes:
    """The next event, or nothing at the watch's end.

    Raises:
        TimeoutError: not even a bookmark came.
    """
    async with asyncio.timeout(_SILENCE_SECONDS):
        return await response.content.readline()


def _read(document: Mapping[str, Any]) -> Service | None:
    """As `to_service`; an object that cannot be read is logged and not offered."""
    try:
        return to_service(document)
    except ValidationError as error:
        meta = document.get("metadata", {})
        _log.error("AIService %s/%s cannot be read: %s", meta.get("namespace"), meta.get("name"), error)
        return None


def _explain(status: int, body: str) -> str:
    if status == 403:
        return f"the gateway's service account may not list and watch aiservices.{GROUP}: {body}"
    if status == 404:
        return f"the API server knows no aiservices.{GROUP}: install the CRDs"
    return body

"""The API server, through the official client: requests, and its exceptions turned into the operator's own.

The client's generated methods parse every answer into models, field by field, which costs more than the request; and
the store wants JSON. So this uses the client's configuration, credentials, TLS and connections, and sends bodies that
were built from its typed models.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from aiservice_operator import names
from aiservice_operator.answers import error_of
from aiservice_operator.errors import (
    ConfigurationError,
    KubeError,
    NotFoundError,
    NotLeaderError,
    RefusedError,
    UnreachableError,
)
from aiservice_operator.kinds import DYNAMIC_RESOURCES, RESOURCES, Apis, Json, Kind, ObjectId

REQUEST_SECONDS = 15.0
"""A request that takes longer has failed."""
_NOBODY = "before-first-apply"
"""The field manager to which the API server gives what was there before the first apply."""
_PAGE = 500
SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
"""Exists in every pod that may talk to the API server."""


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Json | None = None
    content_type: str = "application/json"


class Page(NamedTuple):
    """Some of a list's objects, and the version at which all of it is so."""

    bodies: list[Json]
    version: int


async def connect(*, in_cluster: bool) -> ApiClient:
    """Opens a client.

    Args:
        in_cluster: With the pod's service account; else with KUBECONFIG.

    Raises:
        ConfigurationError: what that needs is missing.
    """
    configuration = Configuration()
    try:
        if in_cluster:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call] # has no types
        else:
            await load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call] # has no types
    except (ConfigException, OSError) as error:
        raise ConfigurationError(f"no cluster to connect to: {error}; run in a pod, or set KUBECONFIG") from error
    configuration.connection_pool_maxsize = 100
    _settle_proxy(configuration)
    return ApiClient(configuration)


def _settle_proxy(configuration: Configuration) -> None:
    """Reads the environment's proxies once; the HTTP library would do it, and read .netrc, at each request."""
    address = urlsplit(configuration.host)
    if configuration.proxy is None and not proxy_bypass(address.hostname or ""):
        configuration.proxy = getproxies().get(address.scheme)
    configuration.client_session_kwargs = {"trust_env": False}


class Kube:
    """Requests to one API server.

    Args:
        client: The official client.
        may_write: Whether this process holds the Lease now; asked before every write.
        wrote: Told of every write, with kind and verb.
        scope: Label selector of the AIServices and ModelCaches that are served; empty: all.
    """

    def __init__(
        self,
        client: ApiClient,
        may_write: Callable[[], bool],
        wrote: Callable[[str, str], None] = lambda *_: None,
        scope: str = "",
    ) -> None:
        self._client = client
        self._rest: Any = client.rest_client  # its methods have no types
        self._may_write = may_write
        self._wrote = wrote
        self.scope = scope

    @property
    def server(self) -> str:
        """Base URL of the API server."""
        return str(self._client.configuration.host)

    @property
    def tls(self) -> ssl.SSLContext:
        """Authorities and client certificate."""
        context: ssl.SSLContext = self._rest.ssl_context
        return context

    @property
    def proxy(self) -> str | None:
        """Where requests go through; None: straight to the server."""
        address: str | None = self._client.configuration.proxy
        return address

    def selector(self, kind: Kind) -> str:
        """Returns the label selector of what is listed and watched of a kind; empty: everything."""
        return names.SELECTOR if RESOURCES[kind].ours_only else self.scope

    async def credentials(self) -> dict[str, str]:
        """Returns the headers that authenticate a request; the token in them is fresh."""
        headers: dict[str, str] = {}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], "", "", None)
        return headers

    async def apis(self, namespaces: Sequence[str]) -> Apis:
        """Asks which of the optional APIs are served. One that may not be listed counts as one that is not.

        Args:
            namespaces: Where; empty: in all.
        """
        refused = ""
        try:
            pod_monitors = await self._lists_pod_monitors(namespaces)
        except RefusedError as error:
            pod_monitors, refused = False, error.message
        groups = await self._read("/apis")
        dynamic = any(group["name"] == DYNAMIC_RESOURCES for group in groups["groups"])
        return Apis(pod_monitors=pod_monitors, dynamic_resources=dynamic, refused=refused)

    async def _lists_pod_monitors(self, namespaces: Sequence[str]) -> bool:
        monitors = RESOURCES[Kind.POD_MONITOR]
        try:
            served = await self._read(f"/apis/{monitors.api_version}")
            if not any(resource["name"] == monitors.plural for resource in served["resources"]):
                return False
            for namespace in namespaces or (None,):
                await self._read(monitors.path(namespace), {"limit": "1", "labelSelector": names.SELECTOR})
        except NotFoundError:
            return False
        return True

    async def pages(self, kind: Kind, namespace: str | None) -> AsyncIterator[Page]:
        """Lists a kind, in one namespace or in all, page by page."""
        selector = self.selector(kind)
        query = {"labelSelector": selector} if selector else {}
        async for page in self.pages_of(RESOURCES[kind].path(namespace), query):
            yield page

    async def get(self, identity: ObjectId) -> Json | None:
        """Returns an object, or None where there is none."""
        return await self.find(RESOURCES[identity.kind].path(identity.namespace, identity.name))

    async def find(self, path: str) -> Json | None:
        """Returns an object of any kind by its path, or None where there is none."""
        try:
            return await self._read(path)
        except NotFoundError:
            return None

    async def pages_of(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Page]:
        """Lists a collection of any kind, by its path, page by page, so that no more than one is in memory."""
        asked = {**query, "limit": str(_PAGE)}
        while True:
            page = await self._read(path, asked)
            yield Page(page["items"], int(page["metadata"]["resourceVersion"]))
            if not (more := page["metadata"].get("continue")):
                return
            asked["continue"] = more

    async def apply(self, identity: ObjectId, body: Json, subresource: str | None = None) -> Json:
        """Server-side apply: the fields of `body` become so, those applied before and now absent go.

        Returns:
            The object as it is afterwards.
        """
        resource = RESOURCES[identity.kind]
        complete = {"apiVersion": resource.api_version, "kind": identity.kind.value, **body}
        request = _Request(
            "PATCH",
            resource.path(identity.namespace, identity.name, subresource),
            {"fieldManager": names.FIELD_MANAGER, "force": "true"},
            complete,
            "application/apply-patch+yaml",
        )
        return await self._write(identity.kind, f"apply-{subresource}" if subresource else "apply", request)

    async def hand_over(self, identity: ObjectId, uid: str, replicas: int) -> Json:
        """Makes another field manager own a Deployment's number of pods, so that it stays when ours states none.

        Nothing else of it is touched.

        Args:
            identity: The Deployment.
            uid: The very one that is meant.
            replicas: The number.

        Returns:
            The Deployment as it is now.

        Raises:
            ConflictError: it is gone, or another by now.
        """
        resource = RESOURCES[identity.kind]
        body = {
            "apiVersion": resource.api_version,
            "kind": identity.kind.value,
            "metadata": {"name": identity.name, "namespace": identity.namespace, "uid": uid},
            "spec": {"replicas": replicas},
        }
        request = _Request(
            "PATCH",
            resource.path(identity.namespace, identity.name),
            {"fieldManager": names.HANDOVER_MANAGER, "force": "true"},
            body,
            "application/apply-patch+yaml",
        )
        return await self._write(identity.kind, "hand-over", request)

    async def overwrite(self, identity: ObjectId, body: Json) -> Json:
        """Replaces the spec of an object, if it has not changed since `body` was read, and forgets who owned what.

        An apply must follow, or nobody owns our fields: a field that is ours by an update too would outlive our
        dropping it. Without the hash of what was applied, one follows even if this process ends here.

        Raises:
            ConflictError: it has changed.
        """
        metadata = {
            "resourceVersion": body["metadata"]["resourceVersion"],
            "managedFields": [{}],
            "annotations": {names.APPLIED_ANNOTATION: None},
        }
        request = _Request(
            "PATCH",
            RESOURCES[identity.kind].path(identity.namespace, identity.name),
            {"fieldManager": names.FIELD_MANAGER},
            {"metadata": metadata, "spec": body["spec"]},
            "application/merge-patch+json",
        )
        return await self._write(identity.kind, "patch", request)

    async def disown_rest(self, identity: ObjectId, body: Json) -> Json:
        """Takes the fields of an object that the API server gave to nobody's manager from it, after `overwrite`.

        It gives all that there is to a manager of its own at the first apply to an object without owners, and what that
        one owns stays when our apply drops it.

        Raises:
            ConflictError: the object has changed since `body` was read.
        """
        metadata = body["metadata"]
        owners = [item for item in metadata["managedFields"] if item["manager"] != _NOBODY]
        request = _Request(
            "PATCH",
            RESOURCES[identity.kind].path(identity.namespace, identity.name),
            {"fieldManager": names.FIELD_MANAGER},
            {"metadata": {"resourceVersion": metadata["resourceVersion"], "managedFields": owners}},
            "application/merge-patch+json",
        )
        return await self._write(identity.kind, "patch", request)

    async def drop_finalizer(self, identity: ObjectId, body: Json) -> Json:
        """Removes our finalizer whoever put it there, if the object has not changed since `body` was read.

        Raises:
            ConflictError: it has changed.
        """
        kept = [name for name in body["metadata"]["finalizers"] if name != names.FINALIZER]
        metadata = {"resourceVersion": body["metadata"]["resourceVersion"], "finalizers": kept}
        request = _Request(
            "PATCH",
            RESOURCES[identity.kind].path(identity.namespace, identity.name),
            {"fieldManager": names.FIELD_MANAGER},
            {"metadata": metadata},
            "application/merge-patch+json",
        )
        return await self._write(identity.kind, "patch", request)

    async def delete(self, identity: ObjectId, uid: str, version: int | None = None) -> Json | None:
        """Deletes an object, and what it owns after it.

        Args:
            identity: What to delete.
            uid: The very object that is meant.
            version: Where given, only if it has not changed since.

        Returns:
            The object where it stays until its finalizers are gone; None where it is gone.

        Raises:
            ConflictError: it is another object by now, or has changed.
        """
        preconditions = {"uid": uid} | ({"resourceVersion": str(version)} if version is not None else {})
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        path = RESOURCES[identity.kind].path(identity.namespace, identity.name)
        request = _Request("DELETE", path, body={**options, "preconditions": preconditions})
        try:
            answer = await self._write(identity.kind, "delete", request)
        except NotFoundError:
            return None
        return answer if "deletionTimestamp" in answer.get("metadata", {}) else None

    async def record(self, namespace: str, event: Json) -> None:
        """Creates an Event (events.k8s.io/v1)."""
        path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        await self._write("Event", "create", _Request("POST", path, body=event))

    async def events_about(self, namespace: str, uid: str) -> list[Json]:
        """Returns the Events (core/v1) about one object."""
        query = {"fieldSelector": f"involvedObject.uid={uid}", "limit": str(_PAGE)}
        items: list[Json] = (await self._read(f"/api/v1/namespaces/{namespace}/events", query))["items"]
        return items

    async def last_log_line(self, namespace: str, pod: str, container: str) -> str:
        """Returns the last line that a container has printed; empty: none yet, or its node does not answer."""
        path = RESOURCES[Kind.POD].path(namespace, pod, "log")
        query = {"container": container, "tailLines": "1", "limitBytes": "4096"}
        try:
            text = await self._send(_Request("GET", path, query))
        except KubeError:  # among them 400: the container has not started; 500: the kubelet does not answer
            return ""
        return text.decode(errors="replace").strip()

    async def _read(self, path: str, query: Mapping[str, str] = MappingProxyType({})) -> Json:
        answer: Json = json.loads(await self._send(_Request("GET", path, query)))
        return answer

    async def _write(self, kind: str, verb: str, request: _Request) -> Json:
        if not self._may_write():
            raise NotLeaderError(f"{verb} of {request.path} while the Lease is not held")
        answer: Json = json.loads(await self._send(request))
        self._wrote(kind, verb)
        return answer

    async def _send(self, request: _Request) -> bytes:
        url = self.server + request.path + (f"?{urlencode(request.query)}" if request.query else "")
        headers = {"Content-Type": request.content_type, "Accept": "application/json", **await self.credentials()}
        what = f"{request.method} {request.path}"
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                response = await self._rest.request(request.method, url, headers=headers, body=request.body)
                content: bytes = await response.read()
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            raise UnreachableError(f"{what}: {error!r}") from error
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise error_of(response.status, response.headers, content, what)
        return content

"""A small client of the API server for tests: JSON in, JSON out, one connection kept open.

Standard library only, so every environment has it. It talks to clusters of `scripts/cluster`, whose kubeconfig is JSON.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

_Value = TypeVar("_Value")

COLLECTIONS: dict[str, str] = {
    "AIService": "/apis/aiservice.dev/v1alpha1/namespaces/{}/aiservices",
    "ModelCache": "/apis/aiservice.dev/v1alpha1/namespaces/{}/modelcaches",
    "AITenant": "/apis/aiservice.dev/v1alpha1/namespaces/{}/aitenants",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "PodMonitor": "/apis/monitoring.coreos.com/v1/namespaces/{}/podmonitors",
    "ReplicaSet": "/apis/apps/v1/namespaces/{}/replicasets",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "Service": "/api/v1/namespaces/{}/services",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "Pod": "/api/v1/namespaces/{}/pods",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Event": "/apis/events.k8s.io/v1/namespaces/{}/events",
    "Lease": "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
    "Namespace": "/api/v1/namespaces",
    "Node": "/api/v1/nodes",
    "PersistentVolume": "/api/v1/persistentvolumes",
    "StorageClass": "/apis/storage.k8s.io/v1/storageclasses",
}


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class KubeApi:
    """One namespace of a cluster, and what is in no namespace.

    Not for use by several threads at once: give each its own. Without a namespace it lists and watches in all of them.
    """

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        address = urlsplit(cluster["server"])
        self.namespace = namespace
        self._host, self._port = str(address.hostname), address.port or 443
        self._tls = ssl.create_default_context(cadata=_decode(cluster["certificate-authority-data"]))
        with tempfile.NamedTemporaryFile("w") as both:
            both.write(_decode(user["client-key-data"]) + _decode(user["client-certificate-data"]))
            both.flush()
            self._tls.load_cert_chain(both.name)
        self._connection: http.client.HTTPSConnection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Any:
        """One request; a connection that the server has closed is opened again, once."""
        payload = json.dumps(body) if body is not None else None
        target = f"{path}?{urlencode(query)}" if query else path
        for last in (False, True):
            if self._connection is None:
                self._connection = http.client.HTTPSConnection(self._host, self._port, context=self._tls, timeout=30)
            try:
                self._connection.request(method, target, payload, {"Content-Type": content_type})
                response = self._connection.getresponse()
                content = response.read()
                break
            except (OSError, http.client.HTTPException):
                self.close()
                if last:
                    raise
        answer = json.loads(content)
        if response.status >= 400:
            raise ApiError(response.status, answer.get("message", content.decode(errors="replace")))
        return answer

    def watch(self, kind: str, version: str) -> Iterator[Any]:
        """Events of a kind that are newer than a version, until the connection ends.

        No other request may be sent meanwhile.

        Raises:
            ApiError: the watch was refused.
        """
        query = urlencode({"watch": "true", "resourceVersion": version, "timeoutSeconds": "300"})
        self.close()
        self._connection = http.client.HTTPSConnection(self._host, self._port, context=self._tls)
        self._connection.request("GET", f"{self.path(kind)}?{query}")
        with self._connection.getresponse() as response:
            if response.status >= 400:
                raise ApiError(response.status, response.read().decode(errors="replace"))
            while line := response.readline():
                yield json.loads(line)
        self.close()

    def interrupt(self) -> None:
        """Ends a watch; the one method that another thread may call."""
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def path(self, kind: str, name: str | None = None, subresource: str | None = None) -> str:
        pattern = COLLECTIONS[kind]
        collection = pattern.format(self.namespace) if self.namespace else pattern.replace("/namespaces/{}", "")
        return "/".join(part for part in (collection, name, subresource) if part)

    @staticmethod
    def type_of(kind: str) -> dict[str, str]:
        """What lists leave out of their items."""
        parts = COLLECTIONS[kind].split("/")
        return {"apiVersion": f"{parts[2]}/{parts[3]}" if parts[1] == "apis" else parts[2], "kind": kind}

    def create(self, kind: str, body: Mapping[str, Any]) -> Any:
        return self.request("POST", self.path(kind), {**self.type_of(kind), **body})

    def dry_create(self, body: Mapping[str, Any]) -> Any:
        """What would be stored. Unknown fields are refused, as kubectl has it."""
        return self.request("POST", self.path(body["kind"]), body, query={"dryRun": "All", "fieldValidation": "Strict"})

    def apply(self, body: Mapping[str, Any]) -> Any:
        """Server-side apply, as `kubectl apply --server-side` does it."""
        path, query = self.path(body["kind"], body["metadata"]["name"]), {"fieldManager": "kubectl", "force": "true"}
        return self.request("PATCH", path, body, "application/apply-patch+yaml", query)

    def get(self, kind: str, name: str) -> Any:
        return self.request("GET", self.path(kind, name))

    def find(self, kind: str, name: str) -> Any | None:
        """The object, or None where there is none."""
        try:
            return self.get(kind, name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: str, selector: str = "") -> Any:
        return self.request("GET", self.path(kind), query={"labelSelector": selector} if selector else None)["items"]

    def patch(self, kind: str, name: str, patch: Mapping[str, Any], subresource: str | None = None) -> Any:
        """JSON merge patch, as someone who edits by hand."""
        path = self.path(kind, name, subresource)
        return self.request("PATCH", path, patch, "application/merge-patch+json", {"fieldManager": "a-human"})

    def patch_list(self, kind: str, name: str, patch: Mapping[str, Any]) -> Any:
        """Strategic merge patch: items of lists are merged by their keys."""
        path = self.path(kind, name)
        return self.request("PATCH", path, patch, "application/strategic-merge-patch+json", {"fieldManager": "a-human"})

    def delete(self, kind: str, name: str, **options: Any) -> None:
        try:
            self.request("DELETE", self.path(kind, name), {"propagationPolicy": "Background", **options})
        except ApiError as error:
            if error.status != 404:
                raise


def wait_for(look: Callable[[], _Value], what: str, timeout: float = 30, every: float = 0.03) -> _Value:
    """Calls `look` until it answers something true, and returns that.

    An AssertionError, an ApiError or a missing key counts as "not yet"; the last is told when the time is up.
    """
    deadline = time.monotonic() + timeout
    while True:
        found: object
        try:
            value = look()
            if value:
                return value
            found = value
        except (AssertionError, ApiError, LookupError) as error:
            found = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout:.0f} s; last seen: {found!r}")
        time.sleep(every)


def _decode(data: str) -> str:
    return base64.b64decode(data).decode()

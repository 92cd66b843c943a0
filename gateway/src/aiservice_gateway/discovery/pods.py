"""The pods of services, from the EndpointSlices that Kubernetes keeps for the operator's Services.

A slice that there is, is trusted: where it has no pod that serves, none does. A service without any slice, and every
service while slices may not be read, is reached at its own address, where Kubernetes picks the pod.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aiservice_api.tasks import Task
from aiservice_gateway.discovery.follow import Document, key_of
from aiservice_gateway.services.balancer import Address, Addresses

PutPods = Callable[[str, Addresses | None], None]
"""Told a service's key and its pods; None where they are not known."""

_log = logging.getLogger(__name__)

_SERVICE_LABEL = "kubernetes.io/service-name"
_FAMILIES = ("IPv4", "IPv6")
"""In the order in which they are preferred, where a pod has both."""
_TASKS = {task.value: task for task in Task}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One pod, in one slice."""

    pod: str
    host: str
    """As it stands in a URL."""
    ready: bool
    serving: bool
    """Whether it answers; it may do so while it ends, when it is not ready any more."""


@dataclass(frozen=True, slots=True)
class Slice:
    """What is taken of an EndpointSlice."""

    service: str
    """NAMESPACE/NAME, the same as its AIService's."""
    family: str
    ports: Mapping[Task, int]
    endpoints: tuple[Endpoint, ...]


def read_slice(document: Document) -> Slice | None:
    """Reads an EndpointSlice of discovery.k8s.io/v1; None where it belongs to no Service or has names for addresses."""
    meta, family = document["metadata"], document.get("addressType")
    service = meta.get("labels", {}).get(_SERVICE_LABEL)
    if not service or family not in _FAMILIES:
        return None
    return Slice(
        service=f"{meta['namespace']}/{service}",
        family=family,
        ports={
            _TASKS[port["name"]]: port["port"]
            for port in document.get("ports") or ()
            if port.get("name") in _TASKS and port.get("port")
        },
        endpoints=tuple(map(_endpoint, document.get("endpoints") or ())),
    )


def _endpoint(document: Document) -> Endpoint:
    address = document["addresses"][0]  # consumers may use any; controllers of Kubernetes write one
    conditions = document.get("conditions") or {}
    ready = conditions.get("ready")
    serving = conditions.get("serving")
    return Endpoint(
        pod=(document.get("targetRef") or {}).get("uid") or address,
        host=f"[{address}]" if ":" in address else address,
        # Unknown counts as ready, and serving as ready: so the API has it.
        ready=ready is not False,
        serving=serving if serving is not None else ready is not False,
    )


def addresses(slices: Sequence[Slice]) -> Addresses:
    """The pods of one service, by task: those that are ready, and where none is, those that end and still serve."""
    ready = _collect(slices, lambda endpoint: endpoint.ready)
    return ready or _collect(slices, lambda endpoint: endpoint.serving)


def _collect(slices: Sequence[Slice], wanted: Callable[[Endpoint], bool]) -> dict[Task, list[Address]]:
    found: dict[Task, dict[str, Address]] = {}
    for slice_ in sorted(slices, key=lambda slice_: _FAMILIES.index(slice_.family)):
        for endpoint in filter(wanted, slice_.endpoints):
            for task, port in slice_.ports.items():
                address = Address(endpoint.pod, f"http://{endpoint.host}:{port}")
                found.setdefault(task, {}).setdefault(endpoint.pod, address)
    return {task: [pods[name] for name in sorted(pods)] for task, pods in found.items()}


class PodObjects:
    """Keeps the pods of a namespace's services, or of the cluster's, up to date."""

    def __init__(self, put_pods: PutPods) -> None:
        self._put_pods = put_pods
        self._slices: dict[str, Slice] = {}
        self._of_service: dict[str, set[str]] = {}
        self._refused = False

    def replace(self, documents: Sequence[Document]) -> None:
        """These are all EndpointSlices."""
        self._refused = False
        before = set(self._of_service)
        self._slices.clear()
        self._of_service.clear()
        for document in documents:
            self._keep(key_of(document), document)
        for service in before | set(self._of_service):
            self._tell(service)

    def put(self, document: Document) -> None:
        """One was made or changed."""
        key = key_of(document)
        for service in {self._drop(key), self._keep(key, document)}:
            if service is not None:
                self._tell(service)

    def remove(self, key: str) -> None:
        """One was deleted."""
        service = self._drop(key)
        if service is not None:
            self._tell(service)

    def refused(self) -> None:
        """They may not be read: what was known will not be true for long."""
        if not self._refused:
            _log.warning("Requests go to Services, and Kubernetes picks the pod: EndpointSlices may not be read")
        self.replace(())
        self._refused = True

    def _drop(self, key: str) -> str | None:
        """Forgets a slice; returns its service."""
        known = self._slices.pop(key, None)
        if known is None:
            return None
        keys = self._of_service[known.service]
        keys.discard(key)
        if not keys:
            del self._of_service[known.service]
        return known.service

    def _keep(self, key: str, document: Document) -> str | None:
        """Takes a slice in; returns its service."""
        slice_ = read_slice(document)
        if slice_ is None:
            return None
        self._slices[key] = slice_
        self._of_service.setdefault(slice_.service, set()).add(key)
        return slice_.service

    def _tell(self, service: str) -> None:
        keys = self._of_service.get(service)
        self._put_pods(service, addresses([self._slices[key] for key in sorted(keys)]) if keys else None)

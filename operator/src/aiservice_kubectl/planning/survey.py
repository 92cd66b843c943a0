"""What `plan` needs from the cluster, asked once for all documents; or nothing, where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from aiservice_kubectl.cluster import Cluster, if_allowed
from aiservice_kubectl.errors import RefusedError
from aiservice_kubectl.planning.capacity import Room, rooms
from aiservice_operator import names
from aiservice_operator.capacity import read_nodes
from aiservice_operator.kinds import DYNAMIC_RESOURCES, RESOURCES, Apis, Json, Kind
from aiservice_operator.observed import Cache, Service


@dataclass(frozen=True, slots=True)
class Survey:
    """The cluster as it is."""

    reached: bool
    services: tuple[Service, ...] = ()
    caches: tuple[Cache, ...] = ()
    rooms: tuple[Room, ...] | None = None
    """None: not known."""
    apis: Apis | None = None
    """None: not known."""
    notes: list[str] = field(default_factory=list)


def survey(cluster: Cluster, namespaces: set[str], planned: set[tuple[str, str]]) -> Survey:
    """Looks at the cluster.

    Args:
        cluster: Which.
        namespaces: Those of the manifest.
        planned: Namespace and name of the AIServices of the manifest. Their pods count as free: they are replaced.
    """
    notes: list[str] = []
    services = [item for space in sorted(namespaces) for item in if_allowed(_services(cluster, space), notes)]
    caches = [item for space in sorted(namespaces) for item in if_allowed(_caches(cluster, space), notes)]
    return Survey(True, tuple(services), tuple(caches), _rooms(cluster, planned, notes), _apis(cluster), notes)


def _services(cluster: Cluster, namespace: str) -> Callable[[], list[Service]]:
    return lambda: cluster.services(namespace)


def _caches(cluster: Cluster, namespace: str) -> Callable[[], list[Cache]]:
    return lambda: cluster.caches(namespace)


def _rooms(cluster: Cluster, planned: set[tuple[str, str]], notes: list[str]) -> tuple[Room, ...] | None:
    try:
        bodies = cluster.items("/api/v1/nodes")
        pods = cluster.items(
            "/api/v1/pods", {"fieldSelector": "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"}
        )
    except RefusedError as error:
        if error.reason != "Forbidden":
            raise
        notes.append(f"whether it fits the nodes was not looked at: {error}")
        return None
    return rooms(read_nodes(bodies, (pod for pod in pods if not _replaced(pod, planned))))


def _replaced(pod: Json, planned: set[tuple[str, str]]) -> bool:
    metadata = pod["metadata"]
    labels = metadata.get("labels") or {}
    return (
        labels.get(names.NAME_LABEL) == names.SERVICE_APP
        and (metadata["namespace"], labels.get(names.INSTANCE_LABEL, "")) in planned
    )


def _apis(cluster: Cluster) -> Apis:
    return Apis(
        pod_monitors=_served(cluster, RESOURCES[Kind.POD_MONITOR].api_version, RESOURCES[Kind.POD_MONITOR].plural),
        dynamic_resources=any(
            group["name"] == DYNAMIC_RESOURCES for group in cluster.kubectl.get("/apis").get("groups", [])
        ),
    )


def _served(cluster: Cluster, api_version: str, plural: str) -> bool:
    try:
        found = cluster.kubectl.get(f"/apis/{api_version}")
    except RefusedError:
        return False
    return any(item["name"] == plural for item in found.get("resources", []))

"""Services from AIService objects, and tenants from AITenant objects."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from kubernetes.aio import client, config
from pydantic import ValidationError

from aiservice_api.labels import MANAGED_BY, MANAGED_BY_LABEL
from aiservice_api.v1alpha1 import AIService, Condition, ConditionStatus
from aiservice_gateway.discovery.follow import Document, Follower, key_of
from aiservice_gateway.discovery.pods import PodObjects, PutPods
from aiservice_gateway.discovery.tenants import TenantObjects, Verdicts
from aiservice_gateway.errors import SettingsError
from aiservice_gateway.models import DEFAULT_MAX_QUEUE, DEFAULT_QUEUE_SECONDS, Service
from aiservice_gateway.services.registry import Registry
from aiservice_gateway.services.tenants import Tenants

_log = logging.getLogger(__name__)

_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_OUTSIDE_OF_A_POD = "default"
_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
"""When an object was created that does not say."""


def to_service(document: Document) -> Service | None:
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
        tenants=frozenset(spec.gateway.tenants) if spec.gateway.tenants is not None else None,
        weight=spec.gateway.weight,
        timeout_seconds=spec.gateway.timeout_seconds,
        max_concurrency=spec.gateway.max_concurrency,
        max_queue=DEFAULT_MAX_QUEUE if spec.gateway.max_queue is None else spec.gateway.max_queue,
        queue_seconds=DEFAULT_QUEUE_SECONDS if spec.gateway.queue_seconds is None else spec.gateway.queue_seconds,
        created=meta.creation_timestamp or _ALWAYS,
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


def own_namespace() -> str:
    """The pod's namespace; outside of a pod `default`, as kubectl has it."""
    return _POD_NAMESPACE.read_text().strip() if _POD_NAMESPACE.is_file() else _OUTSIDE_OF_A_POD


class KubernetesDiscovery:
    """Follows the AIServices of some namespaces or of the whole cluster, and the AITenants of one namespace."""

    def __init__(
        self,
        api: client.ApiClient,
        registry: Registry,
        namespaces: tuple[str, ...],
        tenants: Tenants,
        tenants_namespace: str,
        *,
        put_pods: PutPods | None,
    ) -> None:
        """Asks nothing yet.

        Args:
            api: Client of the API server.
            registry: The services to keep up to date.
            namespaces: Those whose services to follow; none means all.
            tenants: The tenants to keep up to date.
            tenants_namespace: The one whose AITenants to follow.
            put_pods: Told the pods of services; None: they are not followed.
        """
        objects = TenantObjects(tenants)
        self._verdicts = Verdicts(api, objects)
        self._follow = [
            *(Follower(api, "aiservices", ServiceObjects(registry, name), name) for name in namespaces or (None,)),
            Follower(api, "aitenants", objects, tenants_namespace),
        ]
        self._follow_pods = [] if put_pods is None else [_pods(api, put_pods, name) for name in namespaces or (None,)]

    @property
    def synced(self) -> bool:
        """Whether every namespace was listed once."""
        return all(follower.synced for follower in self._follow)

    @property
    def connected(self) -> bool:
        """Whether every namespace is being watched."""
        return all(follower.connected for follower in self._follow)

    @property
    def pods_followed(self) -> bool:
        """Whether the pods of every namespace are being watched. Where they are not, Kubernetes picks them."""
        return bool(self._follow_pods) and all(follower.connected for follower in self._follow_pods)

    async def run(self) -> None:
        """Follows until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._verdicts.run())
            for follower in (*self._follow, *self._follow_pods):
                group.create_task(follower.run())


def _pods(api: client.ApiClient, put_pods: PutPods, namespace: str | None) -> Follower:
    pods = PodObjects(put_pods)
    return Follower(
        api,
        "endpointslices",
        pods,
        namespace,
        group="discovery.k8s.io",
        version="v1",
        selector=f"{MANAGED_BY_LABEL}={MANAGED_BY}",  # the labels of a Service are those of its slices as well
        on_refused=pods.refused,
    )


class ServiceObjects:
    """Keeps the services of a namespace, or of the cluster, in the registry."""

    def __init__(self, registry: Registry, namespace: str | None) -> None:
        self._registry = registry
        self._source = f"namespace {namespace}" if namespace else "cluster"

    def replace(self, documents: Sequence[Document]) -> None:
        """These are all AIServices."""
        self._registry.replace(self._source, filter(None, map(_read, documents)))

    def put(self, document: Document) -> None:
        """One was made or changed."""
        service = _read(document)
        if service is None:
            self.remove(key_of(document))
        else:
            self._registry.put(self._source, service)

    def remove(self, key: str) -> None:
        """One was deleted."""
        self._registry.remove(self._source, key)


def _read(document: Document) -> Service | None:
    """As `to_service`; an object that cannot be read is logged and not offered."""
    try:
        return to_service(document)
    except ValidationError as error:
        _log.error("AIService %s cannot be read: %s", key_of(document), error)
        return None

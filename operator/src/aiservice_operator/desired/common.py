"""What the builders share: metadata, security contexts and the wire form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from kubernetes.aio import client
from pydantic import BaseModel

from aiservice_api.v1alpha1 import Toleration as StatedToleration
from aiservice_api.v1alpha1.common import ApiModel
from aiservice_operator import names
from aiservice_operator.kinds import RESOURCES, Json, Kind
from aiservice_operator.observed import Meta
from aiservice_operator.settings import Toleration

_Built = TypeVar("_Built", bound=BaseModel)

USER = 65532
"""Uid and gid of everything that runs in the project's images."""


def metadata(
    name: str,
    namespace: str,
    labels: dict[str, str],
    owners: list[client.V1OwnerReference],
    annotations: dict[str, str] | None = None,
) -> client.V1ObjectMeta:
    """Builds the metadata of a child."""
    return client.V1ObjectMeta(
        name=name, namespace=namespace, labels=labels, annotations=annotations, owner_references=owners
    )


def controlled_by(kind: Kind, owner: Meta) -> client.V1OwnerReference:
    """Builds the reference to the one owner that manages a child."""
    return client.V1OwnerReference(
        api_version=RESOURCES[kind].api_version,
        kind=kind.value,
        name=owner.name,
        uid=owner.uid,
        controller=True,
        block_owner_deletion=True,
    )


def used_by(service: Meta) -> client.V1OwnerReference:
    """Builds one of several references that keep a shared cache: it goes when the last of them does."""
    kind = Kind.AISERVICE
    return client.V1OwnerReference(
        api_version=RESOURCES[kind].api_version, kind=kind.value, name=service.name, uid=service.uid
    )


def pod_security() -> client.V1PodSecurityContext:
    """Builds the pod's part of the `restricted` Pod Security profile."""
    return client.V1PodSecurityContext(
        run_as_non_root=True,
        run_as_user=USER,
        run_as_group=USER,
        fs_group=USER,
        # Without it the kubelet walks through every file of the model at each start of a pod.
        fs_group_change_policy="OnRootMismatch",
        seccomp_profile=client.V1SeccompProfile(type="RuntimeDefault"),
    )


def container_security() -> client.V1SecurityContext:
    """Builds the container's part of the `restricted` Pod Security profile, with a read-only root."""
    return client.V1SecurityContext(
        allow_privilege_escalation=False,
        read_only_root_filesystem=True,
        capabilities=client.V1Capabilities(drop=["ALL"]),
    )


def scratch(name: str = "tmp") -> client.V1Volume:
    """Builds the volume for what a container may write."""
    return client.V1Volume(name=name, empty_dir=client.V1EmptyDirVolumeSource())


def tolerations(wanted: Sequence[Toleration | StatedToleration]) -> list[client.V1Toleration] | None:
    """Builds tolerations; None where there are none."""
    return [client.V1Toleration(**toleration.model_dump(exclude_none=True)) for toleration in wanted] or None


def pull_secrets(secrets: Sequence[str]) -> list[client.V1LocalObjectReference] | None:
    """Builds references to image pull secrets, each once; None where there are none."""
    return [client.V1LocalObjectReference(name=name) for name in dict.fromkeys(secrets)] or None


def resources(requests: Mapping[str, str], limits: Mapping[str, str]) -> client.V1ResourceRequirements:
    """Builds the compute resources of a container."""
    return client.V1ResourceRequirements(requests=dict(requests) or None, limits=dict(limits) or None)


def as_in_a_pod(kind: type[_Built], stated: ApiModel) -> _Built:
    """Builds what the API takes field by field as Kubernetes has it; what is at its default is left to Kubernetes."""
    return kind.model_validate(stated.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True))


def body_of(built: BaseModel | Json) -> Json:
    """Returns what was built as JSON."""
    if not isinstance(built, BaseModel):
        return built
    body: Json = built.model_dump(mode="json", by_alias=True, exclude_none=True)
    return body


def wire(built: BaseModel | Json) -> Json:
    """Returns the body to apply: JSON, marked with its own hash.

    The hash makes a difference where a field is no longer wanted, which the live object alone does not show.
    """
    body = body_of(built)
    annotations = {**body["metadata"].get("annotations", {}), names.APPLIED_ANNOTATION: names.digest(body)}
    return {**body, "metadata": {**body["metadata"], "annotations": annotations}}

"""What an AIService may change of its pods: an allow-list.

There is no host path, no service account, no security context and no privilege in it, so whatever is written here, the
pods pass the `restricted` Pod Security profile.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from aiservice_api.tasks import PORTS, Task
from aiservice_api.v1alpha1.common import (
    SAFE_PATH,
    ApiModel,
    DataKey,
    DnsLabel,
    DnsSubdomain,
    exactly_one,
    rule,
    validations,
)
from aiservice_api.v1alpha1.container import EnvVar, Image, Memory, Resources
from aiservice_api.v1alpha1.scheduling import KEYS, Affinity, Labels, Toleration, TopologySpreadConstraint

RESERVED_VOLUMES = ("model", "tmp", "shm")
"""Volumes of the operator in every serving pod; sidecars may mount them too."""
_RESERVED_PATHS = ("/models", "/tmp", "/dev/shm")  # noqa: S108 - where the operator mounts them in the engine
_PATHS = " || ".join(f"m.mountPath == '{path}' || m.mountPath.startsWith('{path}/')" for path in _RESERVED_PATHS)
_OWN_DOMAINS = "k.startsWith('aiservice.dev/') || k.startsWith('app.kubernetes.io/')"


def _not_ours(what: str) -> dict[str, str]:
    return rule(
        f"!self.exists(k, {_OWN_DOMAINS})",
        f"{what} below aiservice.dev/ and app.kubernetes.io/ are the operator's: use another domain",
    )


def _stays_inside(what: str) -> dict[str, str]:
    return rule(SAFE_PATH, f"{what} must stay in the volume: write it relative, without '.', '..' or empty parts")


class KeyToPath(ApiModel):
    """One key of a ConfigMap or Secret, and the file it becomes."""

    key: Annotated[DataKey, Field(description="The key.")]
    path: Annotated[
        str,
        Field(
            description="The file, relative to the mount.",
            max_length=512,
            json_schema_extra=validations(_stays_inside("path")),
        ),
    ]


Items = Annotated[list[KeyToPath], Field(description="Keys to mount. Empty: all.", max_length=64)]


class ConfigMapVolume(ApiModel):
    """The keys of a ConfigMap as files."""

    name: Annotated[DnsSubdomain, Field(description="Name of the ConfigMap.")]
    items: Items = []


class SecretVolume(ApiModel):
    """The keys of a Secret as files."""

    secret_name: Annotated[DnsSubdomain, Field(description="Name of the Secret.")]
    items: Items = []


class EmptyDirVolume(ApiModel):
    """An empty folder that lives as long as the pod."""

    medium: Annotated[Literal["", "Memory"], Field(description="Memory keeps it in memory.")] = ""
    size_limit: Annotated[
        Memory | None, Field(description="How much it may hold, for example 1Gi. Unset: as much as the node has.")
    ] = None


class ClaimVolume(ApiModel):
    """A PersistentVolumeClaim of the namespace."""

    claim_name: Annotated[DnsSubdomain, Field(description="Name of the claim.")]
    read_only: Annotated[bool, Field(description="Whether it is mounted read-only.")] = False


class Volume(ApiModel):
    """A volume of the pods. Exactly one kind; folders of the host are not offered."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            exactly_one(
                "configMap",
                "secret",
                "emptyDir",
                "persistentVolumeClaim",
                of="configMap, secret, emptyDir and persistentVolumeClaim",
            ),
            rule(
                f"!(self.name in {list(RESERVED_VOLUMES)})",
                "the volumes model, tmp and shm are the operator's: choose another name",
            ),
        )
    )

    name: Annotated[DnsLabel, Field(description="Name that volumeMounts refer to.")]
    config_map: Annotated[ConfigMapVolume | None, Field(description="A ConfigMap.")] = None
    secret: Annotated[SecretVolume | None, Field(description="A Secret.")] = None
    empty_dir: Annotated[EmptyDirVolume | None, Field(description="An empty folder.")] = None
    persistent_volume_claim: Annotated[ClaimVolume | None, Field(description="A claim.")] = None


class VolumeMount(ApiModel):
    """Where a container sees a volume."""

    name: Annotated[DnsLabel, Field(description="Name of the volume.")]
    mount_path: Annotated[
        str,
        Field(
            description="Folder or file in the container.",
            max_length=512,
            json_schema_extra=validations(
                rule(
                    "self.matches('^/[^:]+$') && !self.matches('/[.]{0,2}(/|$)')",
                    "mountPath names a folder or file from the root on, such as /etc/engine: write it without '.', "
                    "'..', colons and a slash at the end",
                )
            ),
        ),
    ]
    sub_path: Annotated[
        str | None,
        Field(
            description="Path within the volume. Unset: its root.",
            max_length=512,
            json_schema_extra=validations(_stays_inside("subPath")),
        ),
    ] = None
    read_only: Annotated[bool, Field(description="Whether it is mounted read-only.")] = False


Mounts = Annotated[
    list[VolumeMount],
    Field(
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["mountPath"]},
    ),
]


class SidecarPort(ApiModel):
    """A port that a sidecar serves."""

    name: Annotated[
        str,
        Field(
            description="Name of the port.",
            max_length=15,
            json_schema_extra=validations(
                rule(
                    "self.matches('^[a-z0-9]+(-[a-z0-9]+)*$') && self.matches('[a-z]')",
                    "write lower-case letters, digits and single dashes, with a letter among them, for example metrics",
                ),
                rule(
                    f"!(self in {[str(task) for task in Task]})",
                    "the ports of the engine have the names of the tasks: choose another name",
                ),
            ),
        ),
    ]
    container_port: Annotated[
        int,
        Field(
            description="TCP port.",
            ge=1,
            le=65535,
            json_schema_extra=validations(
                rule(
                    f"!(self in {list(PORTS.values())})",
                    f"ports {min(PORTS.values())} to {max(PORTS.values())} are the engine's, which shares the pod's "
                    "address: choose another port",
                )
            ),
        ),
    ]


class Sidecar(ApiModel):
    """A container beside the engine, and like it: not as root, without privileges, on a read-only root."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule("self.name != 'engine'", "the container engine is the operator's: choose another name")
        )
    )

    name: Annotated[DnsLabel, Field(description="Name of the container.")]
    image: Annotated[Image, Field(description="Its image.")]
    command: Annotated[
        list[Annotated[str, Field(max_length=1024)]],
        Field(description="What it runs instead of the image's entry point.", max_length=64),
    ] = []
    args: Annotated[list[Annotated[str, Field(max_length=1024)]], Field(description="Arguments.", max_length=64)] = []
    env: Annotated[
        list[EnvVar],
        Field(
            description="Environment variables.",
            max_length=32,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []
    ports: Annotated[
        list[SidecarPort],
        Field(
            description="Ports that it serves.",
            max_length=8,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []
    resources: Annotated[Resources | None, Field(description="Compute resources.")] = None
    volume_mounts: Annotated[
        Mounts, Field(description="Volumes that it sees; the operator's model, tmp and shm may be among them.")
    ] = []


class LocalObjectReference(ApiModel):
    """An object of the same namespace."""

    name: Annotated[DnsSubdomain, Field(description="Its name.")]


_KNOWN = "(has(self.volumes) && self.volumes.exists(v, v.name == m.name))"
_MOUNTED = "!has(self.volumeMounts) || self.volumeMounts.all(m, " + _KNOWN + ")"
_SIDECARS_MOUNTED = (
    "!has(self.sidecars) || self.sidecars.all(c, !has(c.volumeMounts) || c.volumeMounts.all(m, m.name in "
    f"{list(RESERVED_VOLUMES)} || {_KNOWN}))"
)


class PodOverrides(ApiModel):
    """Changes to the pods, merged over what the operator makes, last."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(_MOUNTED, "volumeMounts names a volume that is not there: add it to volumes"),
            rule(_SIDECARS_MOUNTED, "a sidecar mounts a volume that is not there: add it to volumes"),
        )
    )

    labels: Annotated[
        Labels,
        Field(description="Labels added to the pods.", json_schema_extra=validations(KEYS, _not_ours("labels"))),
    ] = {}
    annotations: Annotated[
        dict[str, Annotated[str, Field(max_length=4096)]],
        Field(
            description="Annotations added to the pods.",
            max_length=32,
            json_schema_extra=validations(
                KEYS,
                _not_ours("annotations"),
                rule(
                    "!self.exists(k, k.startsWith('container.apparmor.security.beta.kubernetes.io/'))",
                    "annotations of AppArmor would change what the pods are allowed: remove them",
                ),
            ),
        ),
    ] = {}
    node_selector: Annotated[
        Labels, Field(description="Node labels that pods need, besides the profile's; they win over those.")
    ] = {}
    tolerations: Annotated[
        list[Toleration], Field(description="Taints that pods tolerate, besides the profile's.", max_length=16)
    ] = []
    affinity: Annotated[Affinity | None, Field(description="Where pods need or prefer to run.")] = None
    topology_spread_constraints: Annotated[
        list[TopologySpreadConstraint],
        Field(
            description="How evenly pods are spread over places.",
            max_length=8,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["topologyKey", "whenUnsatisfiable"],
            },
        ),
    ] = []
    priority_class_name: Annotated[
        DnsSubdomain | None, Field(description="PriorityClass of the pods. Unset: the profile's, or none.")
    ] = None
    runtime_class_name: Annotated[
        DnsSubdomain | None, Field(description="RuntimeClass of the pods. Unset: the profile's, or none.")
    ] = None
    image_pull_secrets: Annotated[
        list[LocalObjectReference],
        Field(
            description="Secrets for pulling the images, besides the operator's.",
            max_length=8,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []
    volumes: Annotated[
        list[Volume],
        Field(
            description="Volumes added to the pods.",
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []
    volume_mounts: Annotated[
        Mounts,
        Field(
            description="Where the engine sees them.",
            json_schema_extra=validations(
                rule(
                    f"!self.exists(m, {_PATHS})",
                    "/models, /tmp and /dev/shm, and what is below them, are the operator's: mount it elsewhere",
                )
            ),
        ),
    ] = []
    sidecars: Annotated[
        list[Sidecar],
        Field(
            description="Containers beside the engine.",
            max_length=4,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []

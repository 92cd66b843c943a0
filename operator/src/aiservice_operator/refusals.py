"""What the schema lets pass and cannot be served all the same, because fields far apart contradict each other."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection
from dataclasses import dataclass

from aiservice_api.tasks import PORTS
from aiservice_api.v1alpha1 import AIServiceSpec, ModelCacheSpec, PodOverrides
from aiservice_operator.kinds import Apis

MODEL_DIR = "/models"
"""Where the engine finds the model; read-only, so nothing can be mounted below it."""

_INLINE_CACHE = re.compile(r"mc-[0-9a-f]{16}")
"""Names of the claims of models that are stated inline."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an AIService cannot be served as it is written."""

    reason: str
    message: str


def missing_api(spec: AIServiceSpec, apis: Apis) -> Rejection | None:
    """Returns which API that a spec needs the cluster lacks; None where it has all."""
    if not spec.resource_claims or apis.dynamic_resources:
        return None
    return Rejection(
        "NoDynamicResources",
        "this cluster does not serve resource.k8s.io, which spec.resourceClaims needs: choose a profile or set "
        "spec.gpu instead, or enable dynamic resource allocation in the cluster",
    )


def contradiction(
    spec: AIServiceSpec, cached: ModelCacheSpec | None = None, cache_claims: Collection[str] = ()
) -> Rejection | None:
    """Returns why the pods of a spec could not start, or not be reached, or harm others; None where nothing is wrong.

    Args:
        spec: What is asked for.
        cached: The ModelCache that `modelCacheRef` names; None: it is not there.
        cache_claims: Claims that are known to be ModelCaches'.
    """
    if spec.pod is None:
        return None
    return (
        _port_taken(spec, spec.pod)
        or _mount_hidden(spec.pod)
        or _cache_writable(spec, {_own_claim(spec, cached), *cache_claims})
    )


def writable_claims(spec: AIServiceSpec) -> tuple[str, ...]:
    """Returns the claims that the pods of a spec could write to."""
    claims = (volume.persistent_volume_claim for volume in (spec.pod.volumes if spec.pod is not None else ()))
    return tuple(claim.claim_name for claim in claims if claim is not None and not claim.read_only)


def _own_claim(spec: AIServiceSpec, cached: ModelCacheSpec | None) -> str | None:
    """The claim that the model of `modelCacheRef` is on; a model that is stated inline has one of a known pattern."""
    if cached is not None and cached.pvc is not None:
        return cached.pvc.claim_name
    return spec.model_cache_ref.name if spec.model_cache_ref is not None else None


def _cache_writable(spec: AIServiceSpec, of_caches: Collection[str | None]) -> Rejection | None:
    """What was verified is served by all who share the cache: nobody may change it afterwards."""
    for claim in writable_claims(spec):
        if claim in of_caches or _INLINE_CACHE.fullmatch(claim):
            return Rejection(
                "MountConflict",
                f"spec.pod.volumes has the claim {claim} of a ModelCache, whose verified files others serve, too, so "
                "that no pod may change them: set persistentVolumeClaim.readOnly to true there, or, for the model of "
                "this service, mount the volume named model, which needs no entry in spec.pod.volumes",
            )
    return None


def _port_taken(spec: AIServiceSpec, pod: PodOverrides) -> Rejection | None:
    """The containers of a pod share one network: two cannot listen on one port, nor have one name for two."""
    numbers = {PORTS[task]: "the engine" for task in spec.tasks}
    port_names = {task.value: "the engine" for task in spec.tasks}
    for sidecar in pod.sidecars:
        for port in sidecar.ports:
            rival = numbers.get(port.container_port) or port_names.get(port.name)
            if rival is not None:
                return Rejection(
                    "PortConflict",
                    f"the sidecar {sidecar.name} has port {port.name} ({port.container_port}), of which {rival} has "
                    "the name or the number already: give it another name and number in spec.pod.sidecars",
                )
            numbers[port.container_port] = port_names[port.name] = f"the sidecar {sidecar.name}"
    return None


def _mount_hidden(pod: PodOverrides) -> Rejection | None:
    """A path that is one of the operator's but for a slash hides it; below a read-only one none can be made."""
    for mount in pod.volume_mounts:
        path = posixpath.normpath("/" + mount.mount_path.lstrip("/"))
        if path in {"/", "/tmp", "/dev/shm"} or path == MODEL_DIR or path.startswith(f"{MODEL_DIR}/"):  # noqa: S108 - where the operator's volumes are
            return Rejection(
                "MountConflict",
                f"spec.pod.volumeMounts mounts {mount.name} at {mount.mount_path}, which would hide what the operator "
                "mounts there, or needs a folder on the read-only model: choose a path such as /data",
            )
    return None

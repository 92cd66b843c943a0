"""The volume that a download is kept on."""

from __future__ import annotations

from kubernetes.aio import client

from aiservice_api.v1alpha1 import ModelCacheSpec, Storage
from aiservice_operator import names, quantities
from aiservice_operator.desired.common import controlled_by, metadata
from aiservice_operator.kinds import Kind
from aiservice_operator.observed import Meta
from aiservice_operator.states import Claim

UNMEASURED = "20Gi"
"""Size of a claim for a source that does not tell how large it is."""


def pvc(owner: Meta, spec: ModelCacheSpec, proof: str, live: Claim | None) -> client.V1PersistentVolumeClaim:
    """Builds the claim of a ModelCache that is downloaded.

    Args:
        owner: The ModelCache.
        spec: What it asks for.
        proof: What is known of the download on it; empty: nothing, it may be half done.
        live: The claim as it is. A volume cannot shrink, so a larger one stays as large.
    """
    storage = spec.storage or Storage()
    wanted = storage.size or UNMEASURED
    size = quantities.larger(wanted, live.requested) if live is not None else wanted
    return client.V1PersistentVolumeClaim(
        metadata=metadata(
            owner.name,
            owner.namespace,
            names.cache_labels(owner.name),
            [controlled_by(Kind.MODEL_CACHE, owner)],
            {names.DOWNLOAD_ANNOTATION: proof} if proof else None,
        ),
        spec=client.V1PersistentVolumeClaimSpec(
            access_modes=[storage.access_mode],
            resources=client.V1VolumeResourceRequirements(requests={"storage": size}),
            storage_class_name=storage.storage_class_name,
        ),
    )

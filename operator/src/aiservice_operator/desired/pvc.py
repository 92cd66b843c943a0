"""The volume that a download is kept on."""

from __future__ import annotations

from dataclasses import dataclass

from kubernetes.aio import client

from aiservice_api.v1alpha1 import ModelCacheSpec, Storage
from aiservice_operator import names, quantities
from aiservice_operator.desired.common import controlled_by, metadata
from aiservice_operator.downloads import Measurement, Proof, Verification
from aiservice_operator.kinds import Kind
from aiservice_operator.observed import Meta
from aiservice_operator.states import Claim

UNMEASURED = "20Gi"
"""Size of a claim for a source that does not tell how large it is."""
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Memory:
    """What a claim remembers, in its annotations: it outlives the Jobs that found it out."""

    measurement: Measurement | None = None
    proof: Proof | None = None
    """Of the verified download on it; None: there is none, or half of one."""
    verification: Verification | None = None

    def annotations(self) -> dict[str, str]:
        """Returns what is known, by annotation."""
        kept = {
            names.MEASURED_ANNOTATION: self.measurement,
            names.DOWNLOAD_ANNOTATION: self.proof,
            names.VERIFIED_ANNOTATION: self.verification,
        }
        return {name: known.to_json() for name, known in kept.items() if known is not None}


def pvc(
    owner: Meta, spec: ModelCacheSpec, memory: Memory, live: Claim | None = None, required: int | None = None
) -> client.V1PersistentVolumeClaim:
    """Builds the claim of a ModelCache that is downloaded.

    Args:
        owner: The ModelCache.
        spec: What it asks for.
        memory: What is known of the files.
        live: The claim as it is. A volume cannot shrink, so a larger one stays as large; one that is not bound yet
            cannot grow either.
        required: Bytes that a download turned out to need, where it did not fit.
    """
    storage = spec.storage or Storage()
    wanted = storage.size or _derived_size(memory.measurement, live, required)
    size = wanted
    if live is not None:
        size = quantities.larger(wanted, live.requested) if live.phase == "Bound" else live.requested
    return client.V1PersistentVolumeClaim(
        metadata=metadata(
            owner.name,
            owner.namespace,
            names.cache_labels(owner.name),
            [controlled_by(Kind.MODEL_CACHE, owner)],
            memory.annotations() or None,
        ),
        spec=client.V1PersistentVolumeClaimSpec(
            access_modes=[storage.access_mode],
            resources=client.V1VolumeResourceRequirements(requests={"storage": size}),
            storage_class_name=storage.storage_class_name,
        ),
    )


def _derived_size(measurement: Measurement | None, live: Claim | None, required: int | None) -> str:
    """The size where nobody states one."""
    measured = measurement.bytes if measurement is not None else None
    needed = [size for size in (measured, required) if size is not None]
    if needed:
        return volume_size(max(needed))
    if live is not None:
        return live.requested
    packed = measurement.packed if measurement is not None else None
    # What is packed is there beside its files for a while, and they are no smaller.
    return quantities.larger(UNMEASURED, volume_size(2 * packed)) if packed is not None else UNMEASURED


def volume_size(needed: int) -> str:
    """Returns the size of a volume for so many bytes of files: a tenth and 1 GiB more, in whole GiB.

    File systems keep some of a volume for themselves, and a file that is mended is there twice for a while.
    """
    return f"{-(-(needed * 11 // 10 + _GIB) // _GIB)}Gi"

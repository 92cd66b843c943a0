"""`ModelCache`: one source of model files, downloaded once, verified, shared by the services that use it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from aiservice_api.v1alpha1.common import (
    API_VERSION,
    ApiModel,
    Conditions,
    DnsSubdomain,
    LastFailure,
    ObjectMeta,
    exactly_one,
    rule,
    validations,
)
from aiservice_api.v1alpha1.sources import HttpSource, HuggingFaceSource, PvcSource

DEFAULT_SIZE = "20Gi"
"""Size of a download's volume where none is stated."""


class Storage(ApiModel):
    """The volume that a download is kept on."""

    size: Annotated[
        str,
        Field(
            description="Size of the PersistentVolumeClaim, as a Kubernetes quantity such as 20Gi.",
            max_length=32,
            json_schema_extra=validations(
                rule(
                    "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
                    "size must be a quantity above zero, for example 20Gi",
                )
            ),
        ),
    ] = DEFAULT_SIZE
    storage_class_name: Annotated[
        DnsSubdomain | None, Field(description="StorageClass of the claim. Unset: the cluster's default.")
    ] = None
    access_mode: Annotated[
        Literal["ReadWriteOnce", "ReadWriteMany"],
        Field(
            description="How nodes share the volume: with ReadWriteMany pods on several nodes use the cache, with "
            "ReadWriteOnce all of them run on one node."
        ),
    ] = "ReadWriteOnce"


class ModelCacheSpec(ApiModel):
    """Where the files of a model come from and where they are kept. Exactly one source."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            exactly_one("huggingFace", "http", "pvc", of="the sources huggingFace, http and pvc"),
            rule(
                "!has(self.pvc) || !has(self.storage)",
                "storage is for downloads; a pvc source is used as it is: remove storage",
            ),
        )
    )

    hugging_face: Annotated[
        HuggingFaceSource | None,
        Field(description="Download a repository of the Hugging Face Hub or a mirror."),
    ] = None
    http: Annotated[HttpSource | None, Field(description="Download files over HTTP, each checked by SHA-256.")] = None
    pvc: Annotated[PvcSource | None, Field(description="Use files that are already on a volume.")] = None
    storage: Annotated[
        Storage | None,
        Field(description="The volume for the download. Unset: 20Gi of the default StorageClass."),
    ] = None


class DownloadStatus(ApiModel):
    """How far the download is."""

    bytes_done: Annotated[int, Field(description="Bytes on disk so far.", ge=0)] = 0
    bytes_total: Annotated[int | None, Field(description="Bytes in all, once known.", ge=0)] = None
    bytes_per_second: Annotated[int | None, Field(description="Speed of the last seconds.", ge=0)] = None
    eta_seconds: Annotated[int | None, Field(description="Seconds left at that speed.", ge=0)] = None
    progress: Annotated[str, Field(description="The same for people, for example '43% of 6.9 GB'.", max_length=128)] = (
        ""
    )
    attempts: Annotated[int, Field(description="Pods that have tried the download so far.", ge=0)] = 0


class ModelCacheStatus(ApiModel):
    """Observed state of a ModelCache."""

    observed_generation: Annotated[int, Field(description="The generation that this status describes.", ge=0)] = 0
    source: Annotated[str, Field(description="The source in one line, for people.", max_length=1024)] = ""
    revision: Annotated[
        str | None,
        Field(description="The commit that a Hugging Face revision was resolved to.", max_length=128),
    ] = None
    claim_name: Annotated[
        str | None, Field(description="The PersistentVolumeClaim that holds the files.", max_length=253)
    ] = None
    used_by: Annotated[
        list[Annotated[str, Field(max_length=253)]],
        Field(
            description="Names of the AIServices that use this cache (at most 256 are listed).",
            max_length=256,
        ),
    ] = []
    download: Annotated[DownloadStatus | None, Field(description="How far the download is.")] = None
    last_failure: Annotated[LastFailure | None, Field(description="The last thing that went wrong.")] = None
    conditions: Conditions = []


def _or_default(version: str, field: str, default: str) -> str:
    """CEL: an optional field of the spec, or its default where it or the object around it is absent.

    Args:
        version: `self` or `oldSelf`.
        field: `OBJECT.FIELD` below the spec.
        default: CEL of the default.
    """
    outer = f"{version}.{field.partition('.')[0]}"
    return f"(has({outer}) && has({version}.{field}) ? {version}.{field} : {default})"


def _unchanged(field: str, default: str) -> str:
    """CEL: an optional field of the spec means what it meant before."""
    return f"{_or_default('self', field, default)} == {_or_default('oldSelf', field, default)}"


def _same_source(field: str) -> str:
    """CEL: a source is there as it was before, or absent as it was before."""
    return f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"


_SIZE, _OLD_SIZE = (_or_default(version, "storage.size", f"'{DEFAULT_SIZE}'") for version in ("self", "oldSelf"))
_NEW_CACHE = "make a ModelCache under a new name, point modelCacheRef at it, and delete this one when it is unused"
_UPDATE_RULES = validations(
    # Not tokenSecretRef: a missing or outdated token must be mendable, and the files stay the same.
    rule(
        " && ".join(
            [
                "has(self.huggingFace) == has(oldSelf.huggingFace)",
                _unchanged("huggingFace.repo", "''"),
                _unchanged("huggingFace.revision", "''"),
                _unchanged("huggingFace.include", "[]"),
                _unchanged("huggingFace.exclude", "[]"),
                _unchanged("huggingFace.endpoint", "''"),
            ]
        ),
        f"the source of a ModelCache never changes, since services rely on its files: {_NEW_CACHE}",
    ),
    *(
        rule(
            _same_source(field),
            f"the source of a ModelCache never changes, since services rely on its files: {_NEW_CACHE}",
        )
        for field in ("http", "pvc")
    ),
    rule(
        f"!isQuantity({_SIZE}) || !isQuantity({_OLD_SIZE}) || quantity({_SIZE}).compareTo(quantity({_OLD_SIZE})) >= 0",
        "storage.size can grow, never shrink: set it to what it was or more",
        message_expression=f"'storage.size can grow, never shrink: set it to ' + {_OLD_SIZE} + ' or more'",
    ),
    rule(
        f"{_unchanged('storage.storageClassName', repr(''))} "
        f"&& {_unchanged('storage.accessMode', repr('ReadWriteOnce'))}",
        f"storageClassName and accessMode of a volume never change: {_NEW_CACHE}",
    ),
)


class ModelCache(ApiModel):
    """One source of model files, downloaded once, verified, and shared by every AIService that uses it."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "self.metadata.name.size() <= 52",
                "metadata.name must be at most 52 characters: the download Job and its pods are named after it",
            )
        )
    )

    api_version: Literal["aiservice.dev/v1alpha1"] = API_VERSION
    kind: Literal["ModelCache"] = "ModelCache"
    metadata: ObjectMeta
    spec: Annotated[ModelCacheSpec, Field(json_schema_extra=_UPDATE_RULES)]
    status: ModelCacheStatus = ModelCacheStatus()

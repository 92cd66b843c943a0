"""`ModelCache`: one source of model files, downloaded once, verified, shared by the services that use it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
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
    matching,
    rule,
    validations,
)
from aiservice_api.v1alpha1.sources import HttpSource, HuggingFaceSource, OciSource, PvcSource, S3Source


class Storage(ApiModel):
    """The volume that a download is kept on."""

    size: Annotated[
        str | None,
        Field(
            description="Size of the PersistentVolumeClaim, as a Kubernetes quantity such as 20Gi. Unset: the size of "
            "the source and a margin; it grows when that was too little and the StorageClass can expand.",
            max_length=32,
            json_schema_extra=validations(
                rule(
                    "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
                    "size must be a quantity above zero, for example 20Gi",
                )
            ),
        ),
    ] = None
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


class RetentionPolicy(StrEnum):
    """What becomes of a cache that no AIService uses."""

    RETAIN = "Retain"
    DELETE_WHEN_UNUSED = "DeleteWhenUnused"


class Retention(ApiModel):
    """How long a cache outlives its last user."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "self.policy == 'DeleteWhenUnused' || !has(self.after)",
                "after is for policy DeleteWhenUnused: remove after, or set policy to DeleteWhenUnused",
            )
        )
    )

    policy: Annotated[
        RetentionPolicy,
        Field(
            description="Retain keeps the files until the ModelCache is deleted. DeleteWhenUnused deletes it, and the "
            "downloaded files with it, when no AIService has used it for the time in after."
        ),
    ]
    after: Annotated[
        str | None,
        Field(
            description="How long it may be unused, for example 30m, 24h or 7d. Unset: it goes with its last user.",
            max_length=8,
            json_schema_extra=matching("^[0-9]{1,6}[smhd]$", "write a number and a unit: 90s, 30m, 24h or 7d"),
        ),
    ] = None


class Verify(StrEnum):
    """When the files of a published cache are compared with their digests again."""

    ON_CHANGE = "OnChange"
    ALWAYS = "Always"


class ModelCacheSpec(ApiModel):
    """Where the files of a model come from and where they are kept. Exactly one source."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            exactly_one(
                "huggingFace",
                "s3",
                "http",
                "oci",
                "pvc",
                of="the sources huggingFace, s3, http, oci and pvc",
            ),
            rule(
                "!has(self.pvc) || !has(self.storage)",
                "storage is for downloads; a pvc source is used as it is: remove storage",
            ),
            rule(
                "!has(self.pvc) || !has(self.verify) || self.verify == 'OnChange'",
                "the files of a pvc source are not the operator's to read: remove verify, or set it to OnChange",
            ),
            rule(
                "!has(self.http) || !self.http.files.exists(f, has(f.unpack) && f.unpack) "
                "|| (has(self.storage) && has(self.storage.size))",
                "how much an archive holds is known only when it is unpacked: set storage.size to the size of the "
                "archive and of its files together",
            ),
        )
    )

    hugging_face: Annotated[
        HuggingFaceSource | None,
        Field(description="Download a repository of the Hugging Face Hub or a mirror."),
    ] = None
    s3: Annotated[S3Source | None, Field(description="Download objects of an S3 bucket.")] = None
    http: Annotated[HttpSource | None, Field(description="Download files over HTTP, each checked by SHA-256.")] = None
    oci: Annotated[OciSource | None, Field(description="Download the layers of an OCI image or artifact.")] = None
    pvc: Annotated[PvcSource | None, Field(description="Use files that are already on a volume.")] = None
    storage: Annotated[
        Storage | None,
        Field(description="The volume for the download. Unset: of the default StorageClass, as large as is needed."),
    ] = None
    retention: Annotated[
        Retention | None,
        Field(
            description="What becomes of the cache when no AIService uses it. Unset: a cache that the operator made "
            "goes with its last user, one that you made stays."
        ),
    ] = None
    verify: Annotated[
        Verify,
        Field(
            description="When files are compared with their digests again, after the download: OnChange when the "
            "annotation aiservice.dev/verify changes; Always now and every day, too. Damaged files are fetched again."
        ),
    ] = Verify.ON_CHANGE


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
        Field(
            description="The commit or digest that the revision or tag of the source was resolved to.", max_length=128
        ),
    ] = None
    claim_name: Annotated[
        str | None, Field(description="The PersistentVolumeClaim that holds the files.", max_length=253)
    ] = None
    access_mode: Annotated[
        str | None, Field(description="How nodes share that claim, for example ReadWriteOnce.", max_length=32)
    ] = None
    verified_at: Annotated[datetime | None, Field(description="When every file was last compared with its digest.")] = (
        None
    )
    unused_since: Annotated[datetime | None, Field(description="Since when no AIService uses this cache.")] = None
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


def _source_unchanged(source: str, fields: dict[str, str]) -> str:
    """CEL: a source is as it was, but for its Secret.

    Args:
        source: Its name in the spec.
        fields: Each field that tells content from content, with its default in CEL.
    """
    return " && ".join(
        [
            f"has(self.{source}) == has(oldSelf.{source})",
            *(_unchanged(f"{source}.{field}", default) for field, default in fields.items()),
        ]
    )


_NEW_CACHE = "make a ModelCache under a new name, point modelCacheRef at it, and delete this one when it is unused"
_SOURCE_RULES = (
    # Not the Secrets: a missing or outdated credential must be mendable, and the files stay the same.
    _source_unchanged(
        "huggingFace", {"repo": "''", "revision": "''", "include": "[]", "exclude": "[]", "endpoint": "''"}
    ),
    _source_unchanged(
        "s3",
        {
            "bucket": "''",
            "prefix": "''",
            "endpoint": "''",
            "region": "''",
            "include": "[]",
            "exclude": "[]",
            "pathStyle": "false",
        },
    ),
    _same_source("http"),
    _source_unchanged("oci", {"image": "''", "path": "''"}),
    _same_source("pvc"),
)
_BOTH_SIZES = (
    "has(self.storage) && has(self.storage.size) && has(oldSelf.storage) && has(oldSelf.storage.size) "
    "&& isQuantity(self.storage.size) && isQuantity(oldSelf.storage.size)"
)
_UPDATE_RULES = validations(
    *(
        rule(unchanged, f"the source of a ModelCache never changes, since services rely on its files: {_NEW_CACHE}")
        for unchanged in _SOURCE_RULES
    ),
    rule(
        f"!({_BOTH_SIZES}) || quantity(self.storage.size).compareTo(quantity(oldSelf.storage.size)) >= 0",
        "storage.size can grow, never shrink: set it to what it was or more",
        message_expression="'storage.size can grow, never shrink: set it to ' + oldSelf.storage.size + ' or more'",
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

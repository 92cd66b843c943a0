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
    RelativePath,
    rule,
    validations,
)

_SAFE_PATH = "!self.startsWith('/') && !self.split('/').exists(p, p == '..' || p == '.')"


class SecretKeyRef(ApiModel):
    """One key of a Secret in the same namespace."""

    name: Annotated[DnsSubdomain, Field(description="Name of the Secret, in the namespace of this object.")]
    key: Annotated[str, Field(description="Key of the Secret that holds the value.", min_length=1, max_length=253)] = (
        "token"
    )


class HuggingFaceSource(ApiModel):
    """A repository of the Hugging Face Hub, or of a mirror that speaks its API."""

    repo: Annotated[
        str,
        Field(
            description="Repository as OWNER/NAME, for example stabilityai/stable-diffusion-xl-base-1.0.",
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$",
            max_length=192,
        ),
    ]
    revision: Annotated[
        str,
        Field(
            description="Branch, tag or commit. A branch is resolved to a commit when the download starts; "
            "status.revision shows which.",
            min_length=1,
            max_length=128,
        ),
    ] = "main"
    include: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=256)]],
        Field(description="Globs of files to fetch, for example *.safetensors. Empty: all files.", max_length=64),
    ] = []
    exclude: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=256)]],
        Field(description="Globs of files to leave out; they win over include.", max_length=64),
    ] = []
    token_secret_ref: Annotated[
        SecretKeyRef | None,
        Field(description="Secret with an access token, for gated or private repositories."),
    ] = None
    endpoint: Annotated[
        str | None,
        Field(
            description="Base URL of a mirror that speaks the Hub's API. Unset: the public Hub.",
            pattern=r"^https?://[^/?#]+(/[^?#]*)?$",
            max_length=512,
        ),
    ] = None


class HttpFile(ApiModel):
    """One file fetched over HTTP and checked against its digest."""

    url: Annotated[
        str,
        Field(
            description="Address of the file, http or https.",
            pattern=r"^https?://[^/?#]+/.*$",
            max_length=2048,
        ),
    ]
    path: Annotated[
        RelativePath,
        Field(
            description="Where the file goes below the model folder, for example ocr/det/inference.onnx.",
            min_length=1,
            json_schema_extra=validations(
                rule(
                    _SAFE_PATH,
                    "path must stay below the model folder: write it relative, without '.' or '..' parts",
                )
            ),
        ),
    ]
    sha256: Annotated[
        str,
        Field(
            description="SHA-256 of the file's content, 64 lower-case hex digits (sha256sum FILE prints it).",
            pattern=r"^[0-9a-f]{64}$",
            max_length=64,
        ),
    ]


class HttpSource(ApiModel):
    """Files fetched over HTTP."""

    files: Annotated[
        list[HttpFile],
        Field(
            description="The files of the model. Each path may occur once.",
            min_length=1,
            max_length=128,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["path"]},
        ),
    ]


class PvcSource(ApiModel):
    """Files that are already on a PersistentVolumeClaim of the namespace; nothing is downloaded or written."""

    claim_name: Annotated[DnsSubdomain, Field(description="Name of the PersistentVolumeClaim.")]
    path: Annotated[
        RelativePath,
        Field(
            description="Folder of the model on the volume. Empty: the volume's root.",
            json_schema_extra=validations(
                rule(_SAFE_PATH, "path must stay on the volume: write it relative, without '.' or '..' parts")
            ),
        ),
    ] = ""


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
    ] = "20Gi"
    storage_class_name: Annotated[
        DnsSubdomain | None, Field(description="StorageClass of the claim. Unset: the cluster's default.")
    ] = None
    access_mode: Annotated[
        Literal["ReadWriteOnce", "ReadWriteMany"],
        Field(
            description="ReadWriteMany lets pods on several nodes share the cache; ReadWriteOnce keeps them on one node."
        ),
    ] = "ReadWriteOnce"


class ModelCacheSpec(ApiModel):
    """Where the files of a model come from and where they are kept. Exactly one source."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "[has(self.huggingFace), has(self.http), has(self.pvc)].filter(s, s).size() == 1",
                "set exactly one source: huggingFace, http or pvc",
            ),
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


class ModelCache(ApiModel):
    """One source of model files, downloaded once, verified, and shared by every AIService that uses it."""

    api_version: Literal["aiservice.dev/v1alpha1"] = API_VERSION
    kind: Literal["ModelCache"] = "ModelCache"
    metadata: ObjectMeta
    spec: ModelCacheSpec
    status: ModelCacheStatus = ModelCacheStatus()

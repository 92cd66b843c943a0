"""Where the files of a model may come from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from aiservice_api.v1alpha1.common import (
    SAFE_PATH,
    ApiModel,
    DataKey,
    DnsSubdomain,
    RelativePath,
    http_url,
    matching,
    rule,
    validations,
)

_FILE_AND_FOLDER = "self.exists(g, g.path.startsWith(f.path + '/'))"

_ALLOWED_HOSTS = "A host that is not on the public internet must be in the operator's download.allowedHosts."

_REGISTRY_PART = "[a-zA-Z0-9-]{1,63}"
_REGISTRY = f"({_REGISTRY_PART}([.]{_REGISTRY_PART})+(:[0-9]+)?|{_REGISTRY_PART}:[0-9]+|localhost)"
_PART = "[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = f"{_PART}(/{_PART})*"
_TAG = "[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"

MANIFEST_NAME = ".aiservice-manifest.json"
"""The file in a cache that lists the others with their sizes and digests; the downloader writes it last."""


class SecretKeyRef(ApiModel):
    """One key of a Secret in the same namespace."""

    name: Annotated[DnsSubdomain, Field(description="Name of the Secret, in the namespace of this object.")]
    key: Annotated[DataKey, Field(description="Key of the Secret that holds the value.")] = "token"


class SecretRef(ApiModel):
    """A Secret in the same namespace, used as a whole."""

    name: Annotated[DnsSubdomain, Field(description="Name of the Secret, in the namespace of this object.")]


Glob = Annotated[str, Field(min_length=1, max_length=256)]
Include = Annotated[
    list[Glob],
    Field(
        description="Globs of files to fetch, for example *.safetensors (a * also matches slashes). Empty: all.",
        max_length=64,
    ),
]
Exclude = Annotated[list[Glob], Field(description="Globs of files to leave out; they win over include.", max_length=64)]


class HuggingFaceSource(ApiModel):
    """A repository of the Hugging Face Hub, or of a mirror that speaks its API."""

    repo: Annotated[
        str,
        Field(
            description="Repository as OWNER/NAME, for example stabilityai/stable-diffusion-xl-base-1.0.",
            max_length=192,
            json_schema_extra=validations(
                rule(
                    "self.matches('^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$')",
                    "write the repository as OWNER/NAME, without the Hub's address, for example "
                    "openai/whisper-large-v3",
                )
            ),
        ),
    ]
    revision: Annotated[
        str,
        Field(
            description="Branch, tag or commit. A branch is resolved to a commit when the download starts; "
            "status.revision shows which.",
            max_length=128,
            json_schema_extra=matching(
                "^[A-Za-z0-9][A-Za-z0-9._/-]*$",
                "write one branch, tag or commit, without blanks, for example main, v1.0 or refs/pr/1",
            ),
        ),
    ] = "main"
    include: Include = []
    exclude: Exclude = []
    token_secret_ref: Annotated[
        SecretKeyRef | None,
        Field(description="Secret with an access token, for gated or private repositories."),
    ] = None
    endpoint: Annotated[
        str | None,
        Field(
            description=f"Base URL of a mirror that speaks the Hub's API. {_ALLOWED_HOSTS} Unset: the public Hub.",
            max_length=512,
            json_schema_extra=validations(*http_url("(/[^?#[:space:]]*)?", "https://hub.example.com")),
        ),
    ] = None


class HttpFile(ApiModel):
    """One file fetched over HTTP and checked against its digest."""

    url: Annotated[
        str,
        Field(
            description=f"Address of the file, http or https. {_ALLOWED_HOSTS}",
            max_length=2048,
            json_schema_extra=validations(*http_url("/[^#[:space:]]*", "https://files.example.com/model.safetensors")),
        ),
    ]
    path: Annotated[
        RelativePath,
        Field(
            description="Where the file goes below the model folder, for example ocr/det/inference.onnx; with unpack, "
            "the folder that the archive is unpacked into.",
            json_schema_extra=validations(
                rule(
                    SAFE_PATH,
                    "path must name a file below the model folder: write it relative, without '.', '..' or empty parts",
                ),
                rule(
                    r"!self.matches('[[:cntrl:]\\\\]')",
                    "path must not contain backslashes, line breaks and other control characters: write it with /",
                ),
                rule(
                    f"self != '{MANIFEST_NAME}' && !self.startsWith('{MANIFEST_NAME}/')",
                    f"{MANIFEST_NAME} is where the download keeps its list of files: choose another path",
                ),
            ),
        ),
    ]
    sha256: Annotated[
        str,
        Field(
            description="SHA-256 of the file's content, 64 lower-case hex digits (sha256sum FILE prints it).",
            max_length=128,
            json_schema_extra=validations(
                rule(
                    "self.matches('^[0-9a-f]{64}$')",
                    "sha256 must be 64 lower-case hex digits, as sha256sum FILE prints them",
                )
            ),
        ),
    ]
    unpack: Annotated[
        bool,
        Field(
            description="Whether the file is an archive (tar, also compressed, or zip) to be unpacked into the folder "
            "path, once its digest has been checked."
        ),
    ] = False


class HttpSource(ApiModel):
    """Files fetched over HTTP."""

    files: Annotated[
        list[HttpFile],
        Field(
            description="The files of the model. Each path may occur once.",
            min_length=1,
            max_length=128,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["path"],
                **validations(
                    rule(
                        f"!self.exists(f, {_FILE_AND_FOLDER})",
                        "a path cannot be both one file or archive and a folder of other files: rename one of them",
                        message_expression=(
                            f"self.map(f, {_FILE_AND_FOLDER}, f.path)[0] "
                            "+ ' is one file or archive here and a folder of other files too: rename one of them'"
                        ),
                    )
                ),
            },
        ),
    ]


class S3Source(ApiModel):
    """Objects of an S3 bucket: of AWS, or of MinIO and other servers that speak its API."""

    bucket: Annotated[
        str,
        Field(
            description="Name of the bucket.",
            max_length=63,
            json_schema_extra=validations(
                rule(
                    "self.matches('^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$')",
                    "bucket is the name alone, 3 to 63 lower-case letters, digits, dots and dashes, without s3:// and "
                    "without a path: put the path into prefix",
                )
            ),
        ),
    ]
    prefix: Annotated[
        RelativePath,
        Field(
            description="Folder of the model in the bucket; paths of files are below it. Empty: the whole bucket.",
            json_schema_extra=validations(
                rule(
                    f"self == '' || {SAFE_PATH}",
                    "prefix names a folder in the bucket, such as models/whisper: write it without s3://, without a "
                    "slash at either end, and without '.', '..' or empty parts",
                )
            ),
        ),
    ] = ""
    endpoint: Annotated[
        str | None,
        Field(
            description="Base URL of a server other than AWS, for example http://minio.storage.svc:9000. "
            f"{_ALLOWED_HOSTS}",
            max_length=512,
            json_schema_extra=validations(
                *http_url("/?", "http://minio.storage.svc:9000 (the bucket is not part of it)")
            ),
        ),
    ] = None
    region: Annotated[
        str | None,
        Field(
            description="Region of the bucket. Unset: us-east-1, or the bucket's own where the server tells it.",
            max_length=64,
            json_schema_extra=matching("^[a-z0-9-]+$", "write the region by its code, for example eu-central-1"),
        ),
    ] = None
    include: Include = []
    exclude: Exclude = []
    path_style: Annotated[
        bool,
        Field(
            description="Whether the bucket stands in the path of the address instead of in its host name, as most "
            "servers other than AWS want it."
        ),
    ] = False
    credentials_secret_ref: Annotated[
        SecretRef | None,
        Field(
            description="Secret with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN where "
            "needed. Unset: requests are not signed, for public buckets."
        ),
    ] = None


class OciSource(ApiModel):
    """An OCI image or artifact whose layers hold the files."""

    image: Annotated[
        str,
        Field(
            description="Reference of the image or artifact, for example registry.example.com/models/sdxl:1.0. A tag "
            f"is resolved to a digest when the download starts; status.revision shows which. {_ALLOWED_HOSTS}",
            max_length=512,
            json_schema_extra=matching(
                f"^{_REGISTRY}/{_REPOSITORY}(:{_TAG}|(:{_TAG})?@sha256:[0-9a-f]{{64}})$",
                "write the image as REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST, with the registry, with a tag or "
                "digest, and without https://, for example docker.io/library/busybox:1.37",
            ),
        ),
    ]
    path: Annotated[
        RelativePath,
        Field(
            description="Folder of the model in the image. Empty: all of it.",
            json_schema_extra=validations(
                rule(
                    f"self == '' || {SAFE_PATH}",
                    "path must stay in the image: write it relative, without '.', '..' or empty parts",
                )
            ),
        ),
    ] = ""
    pull_secret_ref: Annotated[
        SecretRef | None,
        Field(
            description="Secret of type kubernetes.io/dockerconfigjson that opens the registry. Unset: the image is "
            "public."
        ),
    ] = None


class PvcSource(ApiModel):
    """Files that are already on a PersistentVolumeClaim of the namespace; nothing is downloaded or written."""

    claim_name: Annotated[DnsSubdomain, Field(description="Name of the PersistentVolumeClaim.")]
    path: Annotated[
        RelativePath,
        Field(
            description="Folder of the model on the volume. Empty: the volume's root.",
            json_schema_extra=validations(
                rule(
                    f"self == '' || {SAFE_PATH}",
                    "path must stay on the volume: write it relative, without '.', '..' or empty parts",
                )
            ),
        ),
    ] = ""

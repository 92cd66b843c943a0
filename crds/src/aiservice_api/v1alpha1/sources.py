"""Where the files of a model may come from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from aiservice_api.v1alpha1.common import ApiModel, DnsSubdomain, RelativePath, http_url, rule, validations

_SAFE_PATH = "self.split('/').all(p, p != '' && p != '.' && p != '..')"


_FILE_AND_FOLDER = "self.exists(g, g.path.startsWith(f.path + '/'))"

MANIFEST_NAME = ".aiservice-manifest.json"
"""The file in a cache that lists the others with their sizes and digests; the downloader writes it last."""


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
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$",
            min_length=1,
            max_length=128,
        ),
    ] = "main"
    include: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=256)]],
        Field(
            description="Globs of files to fetch, for example *.safetensors (a * also matches slashes). Empty: all.",
            max_length=64,
        ),
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
            max_length=512,
            json_schema_extra=validations(*http_url("(/[^?#[:space:]]*)?", "https://hub.example.com")),
        ),
    ] = None


class HttpFile(ApiModel):
    """One file fetched over HTTP and checked against its digest."""

    url: Annotated[
        str,
        Field(
            description="Address of the file, http or https.",
            max_length=2048,
            json_schema_extra=validations(*http_url("/[^#[:space:]]*", "https://files.example.com/model.safetensors")),
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
                    "path must name a file below the model folder: write it relative, without '.', '..' or empty parts",
                ),
                rule(
                    f"self != '{MANIFEST_NAME}'",
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
                        "a path cannot be both a file and a folder of other files: rename one of them",
                        message_expression=(
                            f"self.map(f, {_FILE_AND_FOLDER}, f.path)[0] "
                            "+ ' is a file here and a folder of other files: rename one of them'"
                        ),
                    )
                ),
            },
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
                rule(
                    f"self == '' || {_SAFE_PATH}",
                    "path must stay on the volume: write it relative, without '.', '..' or empty parts",
                )
            ),
        ),
    ] = ""

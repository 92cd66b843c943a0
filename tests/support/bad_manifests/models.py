"""Bad sources, files, volumes and retention: what a ModelCache and `spec.model` of an AIService must not say."""

from __future__ import annotations

from typing import Any

from support.bad_manifests.cases import Case, bad, bucket, cache_of, files, hub, image
from support.manifests import Manifest, http_file, model_cache


def storage(**fields: Any) -> Manifest:
    return model_cache(("spec.storage", fields))


def retention(**fields: Any) -> Manifest:
    return model_cache(("spec.retention", fields))


_SOURCES = (
    bad(
        "no-source",
        model_cache(("spec", {})),
        "set exactly one of the sources huggingFace, s3, http, oci and pvc; set here: none",
    ),
    bad("two-sources", model_cache(("spec.pvc", {"claimName": "models"})), "set here: huggingFace pvc"),
    bad(
        "every-source",
        model_cache(
            ("spec.s3", {"bucket": "models"}),
            ("spec.oci", {"image": "docker.io/a/b:1"}),
            ("spec.http", {"files": [http_file()]}),
            ("spec.pvc", {"claimName": "models"}),
        ),
        "set here: huggingFace s3 http oci pvc",
    ),
    bad(
        "repository-as-address",
        hub(repo="https://hub.example.com/openai/whisper-large-v3"),
        "write the repository as OWNER/NAME, without the Hub's address, for example openai/whisper-large-v3",
    ),
    bad("repository-without-owner", hub(repo="whisper-large-v3"), "write the repository as OWNER/NAME"),
    bad(
        "revision-bad",
        hub(revision="a branch"),
        "write one branch, tag or commit, without blanks, for example main, v1.0 or refs/pr/1",
    ),
    bad("glob-empty", hub(include=["*.json", ""]), "spec.huggingFace.include[1] in body should be at least 1 chars"),
    bad(
        "endpoint-not-http",
        hub(endpoint="s3://models"),
        "write an http:// or https:// address without blanks or #fragment, its host in parts of 1 to 63 characters "
        "between dots, such as https://hub.example.com",
    ),
    bad(
        "endpoint-with-password",
        hub(endpoint="https://me:secret@hub.example.com"),
        "the address carries a user name or password, which everybody who may read this object would see: remove the "
        "part before the @",
    ),
    bad("token-without-secret", hub(tokenSecretRef={}), "spec.huggingFace.tokenSecretRef.name: Required value"),
    bad(
        "token-key-bad",
        hub(tokenSecretRef={"name": "hub", "key": "my token"}),
        "spec.huggingFace.tokenSecretRef.key",
        "write one key of the object: letters, digits, dashes, underscores and dots",
    ),
    *(
        bad(
            f"bucket-{case}",
            bucket(bucket=name),
            "bucket is the name alone, 3 to 63 lower-case letters, digits, dots and dashes, without s3:// and without "
            "a path: put the path into prefix",
        )
        for case, name in [("as-address", "s3://models"), ("with-path", "models/sdxl"), ("short", "ab")]
    ),
    *(
        bad(
            f"prefix-{case}",
            bucket(prefix=prefix),
            "prefix names a folder in the bucket, such as models/whisper: write it without s3://, without a slash at "
            "either end, and without '.', '..' or empty parts",
        )
        for case, prefix in [("slash-first", "/a"), ("slash-last", "a/"), ("as-address", "s3://a/b"), ("up", "a/../b")]
    ),
    bad(
        "bucket-in-the-endpoint",
        bucket(endpoint="http://minio.storage.svc:9000/models"),
        "such as http://minio.storage.svc:9000 (the bucket is not part of it)",
    ),
    bad("endpoint-of-a-bucket-with-keys", bucket(endpoint="http://id:key@minio.storage.svc"), "remove the part before"),
    bad(
        "region-in-words",
        bucket(region="EU (Frankfurt)"),
        "write the region by its code, for example eu-central-1",
    ),
    bad("keys-without-secret", bucket(credentialsSecretRef={}), "spec.s3.credentialsSecretRef.name: Required value"),
    *(
        bad(
            f"image-{case}",
            image(name),
            "write the image as REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST, with the registry, with a tag or "
            "digest, and without https://, for example docker.io/library/busybox:1.37",
        )
        for case, name in [
            ("as-address", "https://registry.example.com/a:1"),
            ("without-registry", "library/busybox:1"),
            ("without-tag", "docker.io/library/busybox"),
            ("upper-case", "docker.io/Library/busybox:1"),
            ("with-short-digest", "docker.io/library/busybox@sha256:00"),
            ("with-a-long-part-of-the-host", f"{'a' * 64}.example.com/a:1"),
        ]
    ),
    bad(
        "image-path-outside",
        image("docker.io/a/b:1", path="/models"),
        "path must stay in the image: write it relative, without '.', '..' or empty parts",
    ),
    bad("pull-without-secret", image("docker.io/a/b:1", pullSecretRef={}), "spec.oci.pullSecretRef.name: Required"),
    bad("claim-missing", cache_of("pvc"), "spec.pvc.claimName: Required value"),
    bad(
        "claim-path-outside",
        cache_of("pvc", claimName="models", path="../other"),
        "path must stay on the volume: write it relative, without '.', '..' or empty parts",
    ),
)

_FILES = (
    bad("files-empty", files(), "spec.http.files in body should have at least 1 items"),
    bad(
        "file-not-http",
        files(http_file(url="ftp://files.example.com/model.pt")),
        "spec.http.files[0].url",
        "write an http:// or https:// address without blanks or #fragment, its host in parts of 1 to 63 characters "
        "between dots, such as https://files.example.com/",
    ),
    bad("file-without-path-in-address", files(http_file(url="https://files.example.com")), "write an http://"),
    bad("file-address-with-blank", files(http_file(url="https://files.example.com/a b")), "write an http://"),
    *(
        bad(f"file-host-{case}", files(http_file(url=f"https://{host}/model.pt")), "in parts of 1 to 63 characters")
        for case, host in [
            ("with-two-dots", "files..example.com"),
            ("with-a-long-part", f"{'a' * 64}.example.com"),
            ("with-a-dot-first", ".example.com"),
            ("with-a-port-in-words", "files.example.com:https"),
        ]
    ),
    bad(
        "file-with-password",
        files(http_file(url="https://me:secret@files.example.com/model.pt")),
        "remove the part before the @",
    ),
    bad("file-without-digest", files({"url": "https://a/b", "path": "b"}), "sha256: Required value"),
    bad(
        "digest-upper-case",
        files(http_file(sha256="AB" * 32)),
        "sha256 must be 64 lower-case hex digits, as sha256sum FILE prints them",
    ),
    bad("digest-short", files(http_file(sha256="0" * 63)), "sha256 must be 64 lower-case hex digits"),
    *(
        bad(
            f"file-path-{case}",
            files(http_file(path=path)),
            "path must name a file below the model folder: write it relative, without '.', '..' or empty parts",
        )
        for case, path in [
            ("absolute", "/etc/passwd"),
            ("outside", "a/../../b"),
            ("dot", "./a"),
            ("folder", "a/"),
            ("empty", ""),
            ("up", ".."),
            ("double-slash", "a//b"),
        ]
    ),
    *(
        bad(
            f"file-path-with-{case}",
            files(http_file(path=path)),
            "path must not contain backslashes, line breaks and other control characters: write it with /",
        )
        for case, path in [("backslash", "ocr\\det"), ("line-break", "a\nb")]
    ),
    *(
        bad(
            f"file-path-{case}-the-manifest",
            files(http_file(path=path)),
            ".aiservice-manifest.json is where the download keeps its list of files: choose another path",
        )
        for case, path in [("of", ".aiservice-manifest.json"), ("below", ".aiservice-manifest.json/a")]
    ),
    bad(
        "file-path-twice",
        files(http_file(), http_file(url="https://files.example.com/other.pt")),
        'Duplicate value: {"path":"model.pt"}',
    ),
    bad(
        "file-path-also-a-folder",
        files(http_file(path="ocr/det"), http_file(path="ocr/det/inference.onnx")),
        "ocr/det is one file or archive here and a folder of other files too: rename one of them",
    ),
    bad(
        "archive-of-unknown-size",
        files({**http_file(), "unpack": True}),
        "how much an archive holds is known only when it is unpacked: set storage.size to the size of the archive and "
        "of its files together",
    ),
)

_KEEPING = (
    bad(
        "claim-with-storage",
        model_cache(("spec", {"pvc": {"claimName": "models"}, "storage": {"size": "5Gi"}})),
        "storage is for downloads; a pvc source is used as it is: remove storage",
    ),
    bad(
        "claim-to-verify",
        model_cache(("spec", {"pvc": {"claimName": "models"}, "verify": "Always"})),
        "the files of a pvc source are not the operator's to read: remove verify, or set it to OnChange",
    ),
    bad("verify-sometimes", model_cache(("spec.verify", "Sometimes")), 'supported values: "OnChange", "Always"'),
    bad("size-zero", storage(size="0"), "size must be a quantity above zero, for example 20Gi"),
    bad("size-no-quantity", storage(size="20GB"), "size must be a quantity above zero"),
    bad("size-a-number", storage(size=20), "spec.storage.size in body must be of type string"),
    bad(
        "access-mode-read-only",
        storage(accessMode="ReadOnlyMany"),
        'supported values: "ReadWriteOnce", "ReadWriteMany"',
    ),
    bad("retention-of-what", retention(after="1h"), "spec.retention.policy: Required value"),
    bad("retention-unknown", retention(policy="Forever"), 'supported values: "Retain", "DeleteWhenUnused"'),
    bad(
        "retained-after",
        retention(policy="Retain", after="1h"),
        "after is for policy DeleteWhenUnused: remove after, or set policy to DeleteWhenUnused",
    ),
    *(
        bad(
            f"unused-{case}",
            retention(policy="DeleteWhenUnused", after=after),
            "write a number and a unit: 90s, 30m, 24h or 7d",
        )
        for case, after in [("without-unit", "90"), ("two-units", "1h30m"), ("negative", "-1h"), ("weeks", "2w")]
    ),
)

MODELS: tuple[Case, ...] = (*_SOURCES, *_FILES, *_KEEPING)

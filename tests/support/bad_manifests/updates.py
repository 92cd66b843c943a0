"""What must not change in a ModelCache that exists."""

from __future__ import annotations

from typing import NamedTuple

from support.bad_manifests.cases import bucket, cache_of, files, image
from support.manifests import ABSENT, Change, Manifest, changed, http_file, model_cache

HUB = model_cache(("spec.storage", {"size": "10Gi"}))
BUCKET = bucket(prefix="whisper", pathStyle=True)
FILES = files(http_file(), http_file(path="b"))
IMAGE = image("docker.io/models/whisper:3")
CLAIM = cache_of("pvc", claimName="models")

_SOURCE = (
    "the source of a ModelCache never changes, since services rely on its files: make a ModelCache under a new name, "
    "point modelCacheRef at it, and delete this one when it is unused"
)
_SIZE = "storage.size can grow, never shrink: set it to 10Gi or more"
_VOLUME = (
    "storageClassName and accessMode of a volume never change: make a ModelCache under a new name, point modelCacheRef "
    "at it, and delete this one when it is unused"
)


class Update(NamedTuple):
    """A cache before and after, and what the refusal must say."""

    name: str
    before: Manifest
    after: Manifest
    sentences: tuple[str, ...]


def _refused(name: str, before: Manifest, sentence: str, *changes: Change) -> Update:
    return Update(name, before, changed(before, *changes), (sentence,))


REFUSED = (
    _refused("other-repository", HUB, _SOURCE, ("spec.huggingFace.repo", "openai/whisper-small")),
    _refused("other-revision", HUB, _SOURCE, ("spec.huggingFace.revision", "v2")),
    _refused("fewer-files-of-it", HUB, _SOURCE, ("spec.huggingFace.include", ["*.json"])),
    _refused("without-some-files", HUB, _SOURCE, ("spec.huggingFace.exclude", ["*.bin"])),
    _refused("other-hub", HUB, _SOURCE, ("spec.huggingFace.endpoint", "https://hub.example.com")),
    _refused("hub-to-claim", HUB, _SOURCE, ("spec", CLAIM["spec"])),
    _refused("hub-to-files", HUB, _SOURCE, ("spec", FILES["spec"])),
    _refused("hub-to-bucket", HUB, _SOURCE, ("spec", BUCKET["spec"])),
    _refused("other-bucket", BUCKET, _SOURCE, ("spec.s3.bucket", "others")),
    _refused("other-prefix", BUCKET, _SOURCE, ("spec.s3.prefix", "whisper-small")),
    _refused("all-of-the-bucket", BUCKET, _SOURCE, ("spec.s3.prefix", ABSENT)),
    _refused("other-server", BUCKET, _SOURCE, ("spec.s3.endpoint", "http://minio.storage.svc:9000")),
    _refused("other-region", BUCKET, _SOURCE, ("spec.s3.region", "eu-central-1")),
    _refused("fewer-objects", BUCKET, _SOURCE, ("spec.s3.include", ["*.json"])),
    _refused("without-some-objects", BUCKET, _SOURCE, ("spec.s3.exclude", ["*.bin"])),
    _refused("other-style", BUCKET, _SOURCE, ("spec.s3.pathStyle", ABSENT)),
    _refused("bucket-to-image", BUCKET, _SOURCE, ("spec", IMAGE["spec"])),
    _refused("file-with-other-content", FILES, _SOURCE, ("spec.http.files", [http_file(sha256="1" * 64)])),
    _refused("a-file-less", FILES, _SOURCE, ("spec.http.files", [http_file()])),
    _refused("other-tag", IMAGE, _SOURCE, ("spec.oci.image", "docker.io/models/whisper:4")),
    _refused("other-folder-of-the-image", IMAGE, _SOURCE, ("spec.oci.path", "large")),
    _refused("other-claim", CLAIM, _SOURCE, ("spec.pvc.claimName", "others")),
    _refused("other-folder-of-the-claim", CLAIM, _SOURCE, ("spec.pvc.path", "elsewhere")),
    _refused("smaller", HUB, _SIZE, ("spec.storage.size", "9.5Gi")),
    _refused("size-no-quantity", HUB, "size must be a quantity above zero", ("spec.storage.size", "more")),
    _refused("other-class", HUB, _VOLUME, ("spec.storage.storageClassName", "fast")),
    _refused("other-access-mode", HUB, _VOLUME, ("spec.storage.accessMode", "ReadWriteMany")),
    _refused(
        "other-access-mode-by-removing-it",
        changed(HUB, ("spec.storage", {"size": "10Gi", "accessMode": "ReadWriteMany"})),
        _VOLUME,
        ("spec.storage", ABSENT),
    ),
)

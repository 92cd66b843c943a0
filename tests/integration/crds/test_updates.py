"""What may change in an object that exists, and with which words the rest is refused."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from support.cluster import CommandError, ControlPlane
from support.manifests import ABSENT, Change, Manifest, ai_service, changed, http_file, model_cache

HUB = model_cache(("spec.storage", {"size": "10Gi"}))
FILES = model_cache(("spec", {"http": {"files": [http_file(), http_file(path="b")]}}))
CLAIM = model_cache(("spec", {"pvc": {"claimName": "models"}}))

SOURCE = (
    "the source of a ModelCache never changes, since services rely on its files: make a ModelCache under a new name, "
    "point modelCacheRef at it, and delete this one when it is unused"
)
SIZE = "storage.size can grow, never shrink: set it to 10Gi or more"
VOLUME = "storageClassName and accessMode of a volume never change: make a ModelCache under a new name"


def refused(case: str, before: Manifest, sentence: str, *changes: Change) -> Any:
    return pytest.param(before, changed(before, *changes), sentence, id=case)


def allowed(case: str, before: Manifest, *changes: Change) -> Any:
    return pytest.param(before, changed(before, *changes), id=case)


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        refused("other-repository", HUB, SOURCE, ("spec.huggingFace.repo", "openai/whisper-small")),
        refused("other-revision", HUB, SOURCE, ("spec.huggingFace.revision", "v2")),
        refused("fewer-files-of-it", HUB, SOURCE, ("spec.huggingFace.include", ["*.json"])),
        refused("without-some-files", HUB, SOURCE, ("spec.huggingFace.exclude", ["*.bin"])),
        refused("other-hub", HUB, SOURCE, ("spec.huggingFace.endpoint", "https://hub.example.com")),
        refused("hub-to-claim", HUB, SOURCE, ("spec", {"pvc": {"claimName": "models"}})),
        refused("hub-to-files", HUB, SOURCE, ("spec", {"http": FILES["spec"]["http"]})),
        refused("file-with-other-content", FILES, SOURCE, ("spec.http.files", [http_file(sha256="1" * 64)])),
        refused("a-file-less", FILES, SOURCE, ("spec.http.files", [http_file()])),
        refused("other-claim", CLAIM, SOURCE, ("spec.pvc.claimName", "others")),
        refused("other-folder", CLAIM, SOURCE, ("spec.pvc.path", "elsewhere")),
        refused("smaller", HUB, SIZE, ("spec.storage.size", "9.5Gi")),
        refused("size-no-quantity", HUB, "size must be a quantity above zero", ("spec.storage.size", "more")),
        refused(
            "smaller-by-removing-it",
            changed(HUB, ("spec.storage.size", "30Gi")),
            "storage.size can grow, never shrink: set it to 30Gi or more",
            ("spec.storage", ABSENT),
        ),
        refused(
            "smaller-than-the-default",
            changed(HUB, ("spec.storage", ABSENT)),
            "storage.size can grow, never shrink: set it to 20Gi or more",
            ("spec.storage", {"size": "19Gi"}),
        ),
        refused("other-class", HUB, VOLUME, ("spec.storage.storageClassName", "fast")),
        refused("other-access-mode", HUB, VOLUME, ("spec.storage.accessMode", "ReadWriteMany")),
        refused(
            "other-access-mode-by-removing-it",
            changed(HUB, ("spec.storage", {"size": "10Gi", "accessMode": "ReadWriteMany"})),
            VOLUME,
            ("spec.storage", ABSENT),
        ),
    ],
)
def test_a_cache_keeps_its_source_and_volume(
    api: ControlPlane, room: str, before: Manifest, after: Manifest, sentence: str
) -> None:
    place = [("metadata.namespace", room), ("metadata.name", f"c-{uuid.uuid4().hex[:10]}")]
    api.apply(changed(before, *place))

    with pytest.raises(CommandError) as refusal:
        api.apply(changed(after, *place))

    assert sentence in refusal.value.stderr


@pytest.mark.parametrize(
    ("before", "after"),
    [
        allowed("larger", HUB, ("spec.storage.size", "11Gi")),
        allowed("same-size-in-other-words", HUB, ("spec.storage.size", "10240Mi")),
        allowed("larger-than-the-default", FILES, ("spec.storage", {"size": "21Gi"})),
        allowed("default-size-in-words", FILES, ("spec.storage", {"size": "20Gi"})),
        allowed("default-revision-in-words", HUB, ("spec.huggingFace.revision", "main")),
        allowed("a-token", HUB, ("spec.huggingFace.tokenSecretRef", {"name": "hub"})),
        allowed("files-in-other-order", FILES, ("spec.http.files", [http_file(path="b"), http_file()])),
        allowed("labels", HUB, ("metadata.labels", {"team": "a"})),
        allowed("service-with-another-model", ai_service(), ("spec.model.huggingFace.repo", "openai/whisper-small")),
        allowed(
            "service-with-a-cache-of-its-users",
            ai_service(),
            ("spec.model", ABSENT),
            ("spec.modelCacheRef", {"name": "mine"}),
        ),
        allowed("service-with-a-smaller-volume", ai_service(), ("spec.model.storage", {"size": "5Gi"})),
    ],
)
def test_the_rest_may_change(api: ControlPlane, room: str, before: Manifest, after: Manifest) -> None:
    name = f"c-{uuid.uuid4().hex[:10]}"
    place = [("metadata.namespace", room), ("metadata.name", name)]
    api.apply(changed(before, *place))
    api.apply(changed(after, *place))

"""What may change in an object that exists, and with which words the rest is refused."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from support.bad_manifests.updates import BUCKET, CLAIM, FILES, HUB, IMAGE, REFUSED, Update
from support.cluster import ControlPlane
from support.kube_api import ApiError, KubeApi
from support.manifests import ABSENT, Change, Manifest, ai_service, changed, http_file


@pytest.fixture(scope="module")
def storing(api: ControlPlane, room: str) -> Iterator[KubeApi]:
    """The API server, in a namespace that the tests of this module share."""
    client = KubeApi(api.kubeconfig, room)
    yield client
    client.close()


@pytest.fixture
def name() -> str:
    return f"c-{uuid.uuid4().hex[:10]}"


def called(name: str, manifest: Manifest) -> Manifest:
    return changed(manifest, ("metadata.name", name))


@pytest.mark.parametrize("update", REFUSED, ids=lambda update: update.name)
def test_a_cache_keeps_its_source_and_volume(storing: KubeApi, name: str, update: Update) -> None:
    storing.apply(called(name, update.before))

    with pytest.raises(ApiError) as refusal:
        storing.apply(called(name, update.after))

    for sentence in update.sentences:
        assert sentence in refusal.value.message


FIXED = ai_service(("spec.replicas", 5))
SCALED = ai_service(("spec.autoscaling", {"max": 5}))


def allowed(case: str, before: Manifest, *changes: Change) -> Any:
    return pytest.param(before, changed(before, *changes), id=case)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        allowed("larger", HUB, ("spec.storage.size", "11Gi")),
        allowed("same-size-in-other-words", HUB, ("spec.storage.size", "10240Mi")),
        allowed("size-left-to-the-operator", HUB, ("spec.storage", ABSENT)),
        allowed("size-no-longer-left-to-it", FILES, ("spec.storage", {"size": "1Gi"})),
        allowed("default-revision-in-words", HUB, ("spec.huggingFace.revision", "main")),
        allowed("default-volume-in-words", FILES, ("spec.storage", {"accessMode": "ReadWriteOnce"})),
        allowed("a-token", HUB, ("spec.huggingFace.tokenSecretRef", {"name": "hub"})),
        allowed("keys-of-the-bucket", BUCKET, ("spec.s3.credentialsSecretRef", {"name": "minio"})),
        allowed("a-login-of-the-registry", IMAGE, ("spec.oci.pullSecretRef", {"name": "registry"})),
        allowed("files-in-other-order", FILES, ("spec.http.files", [http_file(path="b"), http_file()])),
        *(
            allowed(f"retention-of-{index}", before, ("spec.retention", {"policy": "DeleteWhenUnused", "after": "1h"}))
            for index, before in enumerate([HUB, BUCKET, FILES, IMAGE, CLAIM])
        ),
        *(
            allowed(f"verify-of-{index}", before, ("spec.verify", "Always"))
            for index, before in enumerate([HUB, BUCKET, FILES, IMAGE])
        ),
        allowed("labels", HUB, ("metadata.labels", {"team": "a"})),
        allowed("service-with-another-model", ai_service(), ("spec.model.huggingFace.repo", "openai/whisper-small")),
        allowed("service-from-another-source", ai_service(), ("spec.model", BUCKET["spec"])),
        allowed(
            "service-with-a-cache-of-its-users",
            ai_service(),
            ("spec.model", ABSENT),
            ("spec.modelCacheRef", {"name": "mine"}),
        ),
        allowed(
            "service-with-a-smaller-volume",
            ai_service(("spec.model.storage", {"size": "10Gi"})),
            ("spec.model.storage", {"size": "5Gi"}),
        ),
        allowed("replicas-to-autoscaling", FIXED, ("spec.replicas", ABSENT), ("spec.autoscaling", {"max": 5})),
        allowed("autoscaling-to-replicas", SCALED, ("spec.autoscaling", ABSENT), ("spec.replicas", 5)),
        allowed("suspended", SCALED, ("spec.suspend", True)),
        allowed("other-hardware", FIXED, ("spec.profile", ABSENT), ("spec.gpu", {"count": 2})),
    ],
)
def test_the_rest_may_change(storing: KubeApi, name: str, before: Manifest, after: Manifest) -> None:
    storing.apply(called(name, before))

    kept = storing.apply(called(name, after))

    assert kept["metadata"]["name"] == name
    assert {field: kept["spec"].get(field) for field in before["spec"].keys() - after["spec"].keys()} == dict.fromkeys(
        before["spec"].keys() - after["spec"].keys()
    )


def test_replicas_and_autoscaling_are_swapped_in_one_step_only(storing: KubeApi, name: str) -> None:
    """Who adds the one without removing the other is told so, and nothing is lost."""
    storing.apply(called(name, FIXED))

    with pytest.raises(ApiError) as refusal:
        storing.patch("AIService", name, {"spec": {"autoscaling": {"max": 9}}})

    assert "replicas and autoscaling both say how many pods there are" in refusal.value.message
    assert storing.get("AIService", name)["spec"]["replicas"] == 5
    swapped = storing.patch("AIService", name, {"spec": {"autoscaling": {"max": 9}, "replicas": None}})
    assert "replicas" not in swapped["spec"]

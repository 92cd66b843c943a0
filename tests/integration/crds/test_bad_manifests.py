"""What the API server refuses, and with which words: the cases of `support.bad_manifests`."""

from __future__ import annotations

import pytest

from support.bad_manifests import CASES, Case
from support.bad_manifests.cases import bucket, cache_of, files, hub, image, service_with
from support.bad_manifests.tenants import limits
from support.kube_api import ApiError, KubeApi
from support.manifests import ABSENT, Manifest, ai_service, ai_tenant, http_file, model_cache


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_manifest_is_refused_with_words(server: KubeApi, case: Case) -> None:
    with pytest.raises(ApiError) as refusal:
        server.dry_create(case.manifest)

    for sentence in case.sentences:
        assert sentence in refusal.value.message


def test_no_two_cases_have_the_same_name() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize(
    "manifest",
    [
        ai_service(),
        ai_service(name="a" * 63),
        ai_service(("spec.profile", ABSENT), ("spec.resources.limits", {"cpu": 1})),
        ai_service(("spec.profile", ABSENT), ("spec.gpu", {})),
        ai_service(("spec.profile", ABSENT), ("spec.resourceClaims", [{"name": "a", "resourceClaimName": "b"}])),
        service_with(resources={"limits": {"nvidia.com/gpu": 1, "memory": "1.5Gi", "hugepages-2Mi": "4Mi"}}),
        service_with(gpuMemory=25769803776),
        service_with(autoscaling={"max": 1}),
        service_with(disruption={"maxUnavailable": "100%"}),
        service_with(disruption={"minAvailable": 0}),
        service_with(network={"restrict": False}),
        service_with(network={"allowFrom": [{"podSelector": {}}]}),
        service_with(gateway={"default": True, "names": ["openai/whisper-large-v3"]}),
        service_with(engine={"env": [{"name": "A"}], "readyPath": "/"}),
        service_with(pod={"nodeSelector": {"a": ""}, "tolerations": [{"key": "a"}]}),
        service_with(model=files(http_file(), http_file(path=".hidden/..a"))["spec"]),
        model_cache(name="a" * 52),
        hub(endpoint="http://hub.example.com:8080/mirror", include=["*.json"]),
        bucket(endpoint="http://minio.storage.svc:9000/"),
        image("docker.io/library/busybox:1.37"),
        image("localhost/a@sha256:" + "0" * 64),
        image("Registry.example.com:5000/a/b__c-d.e:V1", path="models"),
        files(http_file(path="ocr/det"), http_file(path="ocr/det2/inference.onnx")),
        cache_of("pvc", claimName="models", path="whisper/large"),
        service_with(gateway={"tenants": []}),
        ai_tenant(name="a.b-c." + "d" * 200),
        ai_tenant(("spec.services", []), ("spec.apiKeys", [])),
        limits({}, {"task": "image-to-text"}, {"window": "60m"}, {"measure": "units", "maximum": 0.5, "window": "99d"}),
        limits({"maximum": 1_000_000}, {"measure": "concurrency", "maximum": 1_000_001}),
    ],
    ids=lambda manifest: manifest["kind"],
)
def test_what_is_just_within_the_rules_is_accepted(server: KubeApi, manifest: Manifest) -> None:
    """Or the bad ones could be refused for another reason than their own."""
    server.dry_create(manifest)

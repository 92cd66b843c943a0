"""The kinds as kubectl shows them: columns, explanations, status, scale, short names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.cluster import CommandError, ControlPlane, eventually
from support.full_manifests import FULL_SERVICES
from support.manifests import Manifest, ai_service, ai_tenant, changed, model_cache

NOW = "2026-11-23T10:00:00Z"

FULL_SERVICE = changed(FULL_SERVICES[0], ("metadata.name", "sdxl"))

SERVICE_STATUS = {
    "observedGeneration": 1,
    "replicas": 2,
    "readyReplicas": 1,
    "selector": "app.kubernetes.io/instance=sdxl",
    "url": "http://sdxl.default.svc:7860",
    "endpoints": {"text-to-image": "http://sdxl.default.svc:7860"},
    "model": "stabilityai/stable-diffusion-xl-base-1.0",
    "modelCache": "mc-0011223344556677",
    "timings": {"cacheSeconds": 12.5, "loadSeconds": 3},
    "lastFailure": {"reason": "OOMKilled", "message": "out of memory", "object": "Pod/sdxl-1", "time": NOW},
    "conditions": [
        {"type": "Ready", "status": "False", "reason": "Starting", "message": "1 of 2.", "lastTransitionTime": NOW}
    ],
}

CACHE_STATUS = {
    "source": "openai/whisper-large-v3",
    "revision": "06f233fe06e710322aca913c1bc4249a0d71fce1",
    "claimName": "whisper",
    "download": {"bytesDone": 3_000_000_000, "bytesTotal": 6_900_000_000, "progress": "43% of 6.9 GB", "attempts": 1},
    "conditions": [{"type": "Ready", "status": "Unknown", "reason": "Downloading", "lastTransitionTime": NOW}],
}


@pytest.fixture
def service(api: ControlPlane, namespace: str) -> str:
    """The name of a service that exists, with a status."""
    api.apply(within(namespace, FULL_SERVICE))
    api.patch_status("aiservice/sdxl", SERVICE_STATUS, namespace)
    return "sdxl"


def within(namespace: str, manifest: Manifest) -> Manifest:
    return changed(manifest, ("metadata.namespace", namespace))


def test_status_is_a_subresource(api: ControlPlane, namespace: str, service: str) -> None:
    """Who edits the spec cannot claim a status, and who reports the status cannot change the spec."""
    api.apply(within(namespace, changed(FULL_SERVICE, ("status", {"url": "http://evil.example"}))))
    patch = json.dumps({"spec": {"replicas": 7}, "status": {"readyReplicas": 2}})
    api.kubectl("patch", f"ais/{service}", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)

    kept = api.get("-n", namespace, "ais", service)

    assert kept["spec"]["replicas"] == 2
    assert kept["status"] == {**SERVICE_STATUS, "readyReplicas": 2}
    assert kept["metadata"]["generation"] == 1


def test_scale_is_a_subresource(api: ControlPlane, namespace: str, service: str) -> None:
    api.kubectl("scale", f"ais/{service}", "-n", namespace, "--replicas=5")

    scale = api.get("-n", namespace, "ais", service, "--subresource=scale")

    assert scale["spec"] == {"replicas": 5}
    assert scale["status"] == {"replicas": 2, "selector": SERVICE_STATUS["selector"]}
    assert api.get("-n", namespace, "ais", service)["spec"]["replicas"] == 5


def test_a_service_that_says_nothing_of_replicas_can_be_scaled(api: ControlPlane, namespace: str) -> None:
    api.apply(within(namespace, ai_service()))

    api.kubectl("scale", "ais/whisper", "-n", namespace, "--replicas=3")

    assert api.get("-n", namespace, "ais", "whisper")["spec"]["replicas"] == 3


def test_scaling_by_hand_what_is_scaled_automatically_is_refused_with_words(api: ControlPlane, namespace: str) -> None:
    api.apply(within(namespace, ai_service(("spec.autoscaling", {"max": 3}))))

    with pytest.raises(CommandError) as refusal:
        api.kubectl("scale", "ais/whisper", "-n", namespace, "--replicas=3")

    assert "replicas and autoscaling both say how many pods there are: remove replicas" in refusal.value.stderr


def test_kubectl_wait_understands_the_conditions(api: ControlPlane, namespace: str, service: str) -> None:
    api.kubectl("wait", f"ais/{service}", "-n", namespace, "--for=condition=Ready=False", "--timeout=5s")


def columns(table: str) -> list[dict[str, str]]:
    """The rows of `kubectl get`, by heading; cells are separated by two or more blanks."""
    head, *rows = table.splitlines()
    starts = [index for index, letter in enumerate(head) if letter != " " and (index == 0 or head[index - 1] == " ")]
    ends = [*starts[1:], None]
    return [
        {head[a:b].strip(): row[a:b].strip() for a, b in zip(starts, ends, strict=True)} for row in rows if row.strip()
    ]


def test_kubectl_get_shows_what_matters(api: ControlPlane, namespace: str, service: str) -> None:
    [row] = columns(api.kubectl("get", "ais", "-n", namespace))
    assert list(row) == ["NAME", "TASKS", "READY", "REASON", "REPLICAS", "MODEL", "AGE"]
    del row["AGE"]
    assert row == {
        "NAME": service,
        "TASKS": '["text-to-image","image-to-image"]',
        "READY": "False",
        "REASON": "Starting",
        "REPLICAS": "2",
        "MODEL": "stabilityai/stable-diffusion-xl-base-1.0",
    }

    [wide] = columns(api.kubectl("get", "ais", "-n", namespace, "-o", "wide"))
    assert wide["SERVING"] == "1"
    assert wide["CACHE"] == "mc-0011223344556677"
    assert wide["URL"] == "http://sdxl.default.svc:7860"


def test_kubectl_get_shows_how_far_a_download_is(api: ControlPlane, namespace: str) -> None:
    api.apply(within(namespace, model_cache()))
    api.patch_status("modelcache/whisper", CACHE_STATUS, namespace)

    [row] = columns(api.kubectl("get", "mc", "-n", namespace))

    assert list(row) == ["NAME", "READY", "REASON", "SOURCE", "PROGRESS", "AGE"]
    assert (row["READY"], row["REASON"]) == ("Unknown", "Downloading")
    assert (row["SOURCE"], row["PROGRESS"]) == ("openai/whisper-large-v3", "43% of 6.9 GB")


def test_kubectl_get_shows_whether_a_tenant_counts(api: ControlPlane, namespace: str) -> None:
    api.apply(within(namespace, ai_tenant(("spec.tenant", "Acme"), ("spec.suspend", True))))
    condition = {"type": "Accepted", "status": "True", "reason": "Counts", "lastTransitionTime": NOW}
    api.patch_status("aitenant/acme", {"conditions": [condition]}, namespace)

    [row] = columns(api.kubectl("get", "ait", "-n", namespace))

    assert list(row) == ["NAME", "TENANT", "SUSPENDED", "ACCEPTED", "REASON", "AGE"]
    assert list(row.values())[:-1] == ["acme", "Acme", "true", "True", "Counts"]


@pytest.mark.parametrize("names", ["ais,mc", "ai", "aiservices,modelcaches", "aiservice,modelcache", "all"])
def test_short_names_and_categories_find_both_kinds(
    api: ControlPlane, namespace: str, tmp_path: Path, names: str
) -> None:
    api.apply(within(namespace, ai_service()), within(namespace, model_cache()))

    # A cache of its own: kubectl keeps for hours what a server at the same address once offered.
    found = api.kubectl("get", names, "-n", namespace, "-o", "name", f"--cache-dir={tmp_path}").split()

    assert found == ["aiservice.aiservice.dev/whisper", "modelcache.aiservice.dev/whisper"]


@pytest.mark.parametrize(
    ("field", "sentences"),
    [
        (
            "aiservice",
            [
                "A model served over HTTP for one or more tasks",
                "What is served, from which model, on which hardware",
                "Observed state of an AIService",
            ],
        ),
        (
            "aiservice.spec.model",
            [
                "Services of one namespace that state the same model share one",
                "Download a repository of the Hugging Face Hub or a mirror",
                "Download objects of an S3 bucket",
                "Download files over HTTP, each checked by SHA-256",
                "Download the layers of an OCI image or artifact",
            ],
        ),
        (
            "ais.spec.autoscaling",
            ["Scale the number of pods automatically", "Requests in flight that a pod should have. Unset: 4."],
        ),
        ("ais.spec.pod.sidecars", ["not as root, without privileges", "Ports that it serves"]),
        ("mc.spec.retention", ["Retain keeps the files", "for example 30m, 24h or 7d"]),
        ("ais.spec.resources.limits", ["What the container may use at most, for example nvidia.com/gpu: 1"]),
        ("mc.status.download", ["Bytes on disk so far"]),
        ("ait.spec.limits", ["The most that there may be.", "for example 60s, 30m, 24h or 7d"]),
    ],
)
def test_kubectl_explain_reads_like_documentation(
    api: ControlPlane, tmp_path: Path, field: str, sentences: list[str]
) -> None:
    def missing() -> list[str]:
        text = " ".join(api.kubectl("explain", field, f"--cache-dir={tmp_path}").split())
        return [sentence for sentence in sentences if sentence not in text]

    # The server publishes a new schema for readers some moments after it takes objects of it.
    eventually(lambda: not missing())

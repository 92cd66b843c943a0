"""Good objects: what the API server stores, what it fills in, and what kubectl shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiservice_api.tasks import Task
from aiservice_api.v1alpha1 import AIService, ModelCache
from support.cluster import REPOSITORY, ControlPlane, eventually
from support.manifests import ABSENT, Manifest, ai_service, changed, http_file, model_cache

NOW = "2026-11-23T10:00:00Z"

FULL_SERVICE = ai_service(
    ("spec.tasks", ["text-to-image", "image-to-image"]),
    (
        "spec.model",
        {
            "huggingFace": {
                "repo": "stabilityai/stable-diffusion-xl-base-1.0",
                "revision": "refs/pr/1",
                "include": ["*.json", "*.fp16.safetensors"],
                "exclude": ["*.onnx"],
                "tokenSecretRef": {"name": "hub", "key": "read"},
                "endpoint": "https://hub.example.com/mirror",
            },
            "storage": {"size": "30Gi", "storageClassName": "fast", "accessMode": "ReadWriteMany"},
        },
    ),
    ("spec.precision", "fp16"),
    ("spec.resources", {"requests": {"cpu": 2, "memory": "8Gi"}, "limits": {"memory": "16Gi", "nvidia.com/gpu": "1"}}),
    (
        "spec.engine",
        {
            "image": "registry.example.com/diffusion@sha256:" + "0" * 64,
            "args": ["--max-megapixels=4"],
            "env": [
                {"name": "LOG_LEVEL", "value": "debug"},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "REGION", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
            ],
        },
    ),
    ("spec.replicas", 2),
    ("spec.gateway", {"expose": True, "default": True, "names": ["sdxl", "stabilityai/SDXL"]}),
    name="sdxl",
)

FULL_CACHES = [
    model_cache(("spec", FULL_SERVICE["spec"]["model"]), name="hub"),
    model_cache(
        ("spec.huggingFace", ABSENT),
        ("spec.http", {"files": [http_file(), http_file(path="ocr/det")]}),
        ("spec.storage", {"size": "5Gi", "accessMode": "ReadWriteOnce"}),
        name="files",
    ),
    model_cache(("spec", {"pvc": {"claimName": "models", "path": "sdxl"}}), name="claim"),
]

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


def stored(api: ControlPlane, namespace: str, manifest: Manifest) -> Any:
    """The manifest as the API server keeps it."""
    api.apply(within(namespace, manifest))
    return api.get("-n", namespace, manifest["kind"], manifest["metadata"]["name"])


def test_a_minimal_service_gets_its_defaults_and_nothing_else(api: ControlPlane, namespace: str) -> None:
    kept = stored(api, namespace, ai_service())

    assert kept["spec"] == {
        "tasks": ["speech-to-text"],
        "model": {"huggingFace": {"repo": "openai/whisper-large-v3", "revision": "main"}},
        "profile": "nvidia-l4",
        "precision": "auto",
        "gateway": {"expose": True, "default": False},
    }
    assert "status" not in kept


def test_half_stated_objects_get_the_other_half(api: ControlPlane, namespace: str) -> None:
    manifest = ai_service(
        ("spec.gateway", {"default": True}),
        ("spec.model.storage", {"storageClassName": "fast"}),
        ("spec.model.huggingFace.tokenSecretRef", {"name": "hub"}),
    )

    spec = stored(api, namespace, manifest)["spec"]

    assert spec["gateway"] == {"expose": True, "default": True}
    assert spec["model"]["storage"] == {"storageClassName": "fast", "size": "20Gi", "accessMode": "ReadWriteOnce"}
    assert spec["model"]["huggingFace"]["tokenSecretRef"] == {"name": "hub", "key": "token"}


@pytest.mark.parametrize("manifest", [FULL_SERVICE, *FULL_CACHES], ids=lambda manifest: manifest["metadata"]["name"])
def test_what_a_full_manifest_says_is_kept_as_it_is(api: ControlPlane, namespace: str, manifest: Manifest) -> None:
    kept = stored(api, namespace, manifest)

    assert kept["spec"] == manifest["spec"]
    model: type[AIService | ModelCache] = AIService if manifest["kind"] == "AIService" else ModelCache
    assert model.model_validate(kept).spec == model.model_validate(manifest).spec


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
                "Download files over HTTP, each checked by SHA-256",
            ],
        ),
        ("ais.spec.resources.limits", ["What the container may use at most, for example nvidia.com/gpu: 1"]),
        ("mc.status.download", ["Bytes on disk so far"]),
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


def example_files() -> list[Path]:
    return sorted((REPOSITORY / "examples").rglob("*.yaml"))


@pytest.mark.parametrize("path", example_files(), ids=lambda path: path.name)
def test_an_example_is_accepted_as_it_is(api: ControlPlane, path: Path) -> None:
    api.kubectl("create", "--dry-run=server", "-f", str(path))


def test_there_is_an_example_on_a_gpu_for_every_task() -> None:
    examples = [
        document
        for path in example_files()
        if path.parent.name == "gpu"
        for document in yaml.safe_load_all(path.read_text())
        if document["kind"] == "AIService"
    ]
    assert {task for example in examples for task in example["spec"]["tasks"]} == {str(task) for task in Task}
    assert all(example["spec"]["profile"].startswith("nvidia-") for example in examples)

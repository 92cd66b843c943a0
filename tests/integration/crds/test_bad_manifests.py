"""What the API server refuses, and with which words. Each manifest is a good one with one thing wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.cluster import CommandError, ControlPlane
from support.manifests import ABSENT, Manifest, ai_service, http_file, model_cache


def bad(case: str, manifest: Manifest, *sentences: str) -> Any:
    """One case: its name, the manifest, and what the refusal must say."""
    return pytest.param(manifest, sentences, id=case)


def service_with_files(*files: dict[str, str]) -> Manifest:
    return ai_service(("spec.model", {"http": {"files": list(files)}}))


def service_with(section: str, **resources: Any) -> Manifest:
    return ai_service((f"spec.resources.{section}", resources))


def service_with_variable(**variable: Any) -> Manifest:
    return ai_service(("spec.engine.env", [variable]))


def cache_with(**source: Any) -> Manifest:
    return model_cache(("spec.huggingFace", {"repo": "a/b", **source}))


TASKS = [
    bad("no-spec", ai_service(("spec", ABSENT)), "spec: Required value"),
    bad("tasks-missing", ai_service(("spec.tasks", ABSENT)), "spec.tasks: Required value"),
    bad("tasks-empty", ai_service(("spec.tasks", [])), "spec.tasks in body should have at least 1 items"),
    bad(
        "task-unknown",
        ai_service(("spec.tasks", ["text-to-video"])),
        'Unsupported value: "text-to-video": supported values: "text-to-image", "text-to-speech"',
    ),
    bad("task-twice", ai_service(("spec.tasks", ["text-to-image", "text-to-image"])), "Duplicate value"),
    bad(
        "tasks-of-two-engines",
        ai_service(("spec.tasks", ["speech-to-text", "image-to-text"])),
        "speech-to-text and image-to-text cannot share one service, only text-to-image and image-to-image can: "
        "make one AIService for each other task",
    ),
    bad(
        "three-tasks",
        ai_service(("spec.tasks", ["text-to-image", "image-to-image", "image-to-text"])),
        "spec.tasks: Too many: 3: must have at most 2 items",
    ),
]

HARDWARE = [
    bad("profile-upper-case", ai_service(("spec.profile", "NVIDIA-L4")), "spec.profile in body should match"),
    bad(
        "no-hardware",
        ai_service(("spec.profile", ABSENT)),
        "say what hardware to use: set profile to one of the operator's resource profiles",
    ),
    bad(
        "hardware-of-nothing",
        ai_service(("spec.profile", ABSENT), ("spec.resources", {"limits": {}, "requests": {}})),
        "say what hardware to use",
    ),
    bad(
        "resource-unknown",
        service_with("limits", gpu=1),
        "gpu: no such resource; use cpu, memory, ephemeral-storage or a device with its domain, such as nvidia.com/gpu",
    ),
    bad(
        "amount-no-quantity",
        service_with("requests", memory="8 GB"),
        'spec.resources.requests[memory]: Invalid value: "8 GB": write the amount as a Kubernetes quantity',
    ),
    bad(
        "amount-negative",
        service_with("requests", cpu=-1),
        "spec.resources.requests[cpu]: Invalid value: -1: the amount must not be negative",
    ),
    bad("amount-no-text-or-number", service_with("limits", cpu=True), "must be of type integer,string"),
    bad(
        "half-a-gpu",
        service_with("limits", **{"nvidia.com/gpu": "500m"}),
        "nvidia.com/gpu: devices are not divided; write a whole number",
    ),
    bad(
        "request-above-limit",
        ai_service(("spec.resources", {"requests": {"memory": "2Gi"}, "limits": {"memory": "2000Mi"}})),
        "memory: the request is above the limit; raise the limit or lower the request",
    ),
    bad(
        "gpu-in-requests-only",
        service_with("requests", **{"nvidia.com/gpu": 1}),
        "nvidia.com/gpu: devices are asked for under limits; state the same amount there, or leave requests out",
    ),
    bad(
        "gpu-request-unlike-limit",
        ai_service(("spec.resources", {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": "2"}})),
        "nvidia.com/gpu: devices are asked for under limits",
    ),
    bad("precision-unknown", ai_service(("spec.precision", "fp8")), 'Unsupported value: "fp8"'),
    bad("replicas-negative", ai_service(("spec.replicas", -1)), "should be greater than or equal to 0"),
    bad("replicas-too-many", ai_service(("spec.replicas", 1001)), "should be less than or equal to 1000"),
    bad("replicas-in-words", ai_service(("spec.replicas", "2")), "must be of type integer"),
]

MODEL = [
    bad(
        "no-model",
        ai_service(("spec.model", ABSENT)),
        "set exactly one of model (the operator makes and shares the cache) and modelCacheRef (a ModelCache that you "
        "made); set here: none",
    ),
    bad("two-models", ai_service(("spec.modelCacheRef", {"name": "mine"})), "set here: model modelCacheRef"),
    bad(
        "cache-name-bad",
        ai_service(("spec.model", ABSENT), ("spec.modelCacheRef", {"name": "My Cache"})),
        "spec.modelCacheRef.name in body should match",
    ),
    bad(
        "no-source",
        model_cache(("spec", {})),
        "set exactly one of the sources huggingFace, http and pvc; set here: none",
    ),
    bad("two-sources", model_cache(("spec.pvc", {"claimName": "models"})), "set here: huggingFace pvc"),
    bad(
        "two-sources-in-a-service",
        ai_service(("spec.model.http", {"files": [http_file()]})),
        "spec.model: Invalid value:",
        "set here: huggingFace http",
    ),
    bad(
        "repository-as-address",
        cache_with(repo="https://hub.example.com/openai/whisper-large-v3"),
        "write the repository as OWNER/NAME, without the Hub's address, for example openai/whisper-large-v3",
    ),
    bad("repository-without-owner", cache_with(repo="whisper-large-v3"), "write the repository as OWNER/NAME"),
    bad("revision-bad", cache_with(revision="a branch"), "spec.huggingFace.revision in body should match"),
    bad(
        "glob-empty",
        cache_with(include=["*.json", ""]),
        "spec.huggingFace.include[1] in body should be at least 1 chars",
    ),
    bad(
        "endpoint-not-http",
        cache_with(endpoint="s3://models"),
        "write an http:// or https:// address without blanks or #fragment, such as https://hub.example.com",
    ),
    bad(
        "endpoint-with-password",
        cache_with(endpoint="https://me:secret@hub.example.com"),
        "the address carries a user name or password, which everybody who may read this object would see: remove the "
        "part before the @",
    ),
    bad("token-without-secret", cache_with(tokenSecretRef={}), "spec.huggingFace.tokenSecretRef.name: Required value"),
    bad("claim-missing", model_cache(("spec", {"pvc": {}})), "spec.pvc.claimName: Required value"),
    bad(
        "claim-path-outside",
        model_cache(("spec", {"pvc": {"claimName": "models", "path": "../other"}})),
        "path must stay on the volume: write it relative, without '.', '..' or empty parts",
    ),
    bad(
        "claim-with-storage",
        model_cache(("spec", {"pvc": {"claimName": "models"}, "storage": {"size": "5Gi"}})),
        "storage is for downloads; a pvc source is used as it is: remove storage",
    ),
    bad(
        "size-zero",
        model_cache(("spec.storage", {"size": "0"})),
        "size must be a quantity above zero, for example 20Gi",
    ),
    bad("size-no-quantity", model_cache(("spec.storage", {"size": "20GB"})), "size must be a quantity above zero"),
    bad(
        "access-mode-read-only",
        model_cache(("spec.storage", {"accessMode": "ReadOnlyMany"})),
        'supported values: "ReadWriteOnce", "ReadWriteMany"',
    ),
]

FILES = [
    bad("files-empty", service_with_files(), "spec.model.http.files in body should have at least 1 items"),
    bad(
        "file-not-http",
        service_with_files(http_file(url="ftp://files.example.com/model.pt")),
        "spec.model.http.files[0].url",
        "write an http:// or https:// address without blanks or #fragment, such as https://files.example.com/",
    ),
    bad(
        "file-without-path-in-address",
        service_with_files(http_file(url="https://files.example.com")),
        "write an http://",
    ),
    bad(
        "file-address-with-blank",
        service_with_files(http_file(url="https://files.example.com/a b")),
        "write an http://",
    ),
    bad(
        "file-with-password",
        service_with_files(http_file(url="https://me:secret@files.example.com/model.pt")),
        "remove the part before the @",
    ),
    bad("file-without-digest", service_with_files({"url": "https://a/b", "path": "b"}), "sha256: Required value"),
    bad(
        "digest-upper-case",
        service_with_files(http_file(sha256="AB" * 32)),
        "sha256 must be 64 lower-case hex digits, as sha256sum FILE prints them",
    ),
    bad("digest-short", service_with_files(http_file(sha256="0" * 63)), "sha256 must be 64 lower-case hex digits"),
    *(
        bad(
            f"file-path-{case}",
            service_with_files(http_file(path=path)),
            "path must name a file below the model folder: write it relative, without '.', '..' or empty parts",
        )
        for case, path in [("absolute", "/etc/passwd"), ("outside", "a/../../b"), ("dot", "./a"), ("folder", "a/")]
    ),
    bad(
        "file-path-of-the-manifest",
        service_with_files(http_file(path=".aiservice-manifest.json")),
        ".aiservice-manifest.json is where the download keeps its list of files: choose another path",
    ),
    bad(
        "file-path-twice",
        service_with_files(http_file(), http_file(url="https://files.example.com/other.pt")),
        'Duplicate value: {"path":"model.pt"}',
    ),
    bad(
        "file-path-also-a-folder",
        service_with_files(http_file(path="ocr/det"), http_file(path="ocr/det/inference.onnx")),
        "ocr/det is a file here and a folder of other files: rename one of them",
    ),
]

ENGINE_AND_GATEWAY = [
    bad(
        "image-as-address",
        ai_service(("spec.engine.image", "https://registry.example.com/engine:1")),
        "write the image as REGISTRY/NAME:TAG or REGISTRY/NAME@DIGEST, without https:// and blanks",
    ),
    bad("image-empty", ai_service(("spec.engine.image", "")), "spec.engine.image in body should be at least 1 chars"),
    bad(
        "variable-name-bad",
        service_with_variable(name="MY VAR", value="1"),
        "spec.engine.env[0].name in body should match",
    ),
    bad(
        "variable-of-the-operator",
        service_with_variable(name="AISERVICE_DEVICE", value="cuda"),
        "AISERVICE_DEVICE is set by the operator, as is every name that starts with AISERVICE_: use the field of the "
        "AIService, or engine.args, instead",
    ),
    bad(
        "variable-with-two-values",
        service_with_variable(name="A", value="1", valueFrom={"secretKeyRef": {"name": "s", "key": "k"}}),
        "set value or valueFrom, not both",
    ),
    bad(
        "variable-from-nowhere",
        service_with_variable(name="A", valueFrom={}),
        "set exactly one of secretKeyRef and configMapKeyRef; set here: none",
    ),
    bad(
        "variable-from-two-places",
        service_with_variable(
            name="A", valueFrom={of: {"name": "s", "key": "k"} for of in ("secretKeyRef", "configMapKeyRef")}
        ),
        "set here: secretKeyRef configMapKeyRef",
    ),
    bad(
        "variable-twice",
        ai_service(("spec.engine.env", [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])),
        'Duplicate value: {"name":"A"}',
    ),
    bad(
        "default-but-not-exposed",
        ai_service(("spec.gateway", {"default": True, "expose": False})),
        "a service that is not exposed cannot be the default: set gateway.default to false, or gateway.expose to true",
    ),
    bad("gateway-name-twice", ai_service(("spec.gateway.names", ["whisper-1", "whisper-1"])), "Duplicate value"),
    bad(
        "gateway-name-bad", ai_service(("spec.gateway.names", ["a name"])), "spec.gateway.names[0] in body should match"
    ),
]

NAMES = [
    *(
        bad(
            f"service-name-{case}",
            ai_service(name=name),
            "the Service of the pods gets this object's name, so metadata.name must be at most 63 lower-case letters, "
            "digits and dashes, and start with a letter",
        )
        for case, name in [("too-long", "a" * 64), ("with-dot", "whisper.v3"), ("with-digit-first", "3d")]
    ),
    bad(
        "cache-name-too-long",
        model_cache(name="a" * 53),
        "metadata.name must be at most 52 characters: the download Job and its pods are named after it",
    ),
    bad("field-misspelt", ai_service(("spec.replica", 1)), 'unknown field "spec.replica"'),
    bad("field-of-another-place", ai_service(("spec.gateway.replicas", 1)), 'unknown field "spec.gateway.replicas"'),
]


@pytest.mark.parametrize(("manifest", "sentences"), [*TASKS, *HARDWARE, *MODEL, *FILES, *ENGINE_AND_GATEWAY, *NAMES])
def test_a_bad_manifest_is_refused_with_words(
    api: ControlPlane, manifest: Manifest, sentences: tuple[str, ...]
) -> None:
    with pytest.raises(CommandError) as refusal:
        api.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(manifest))

    for sentence in sentences:
        assert sentence in refusal.value.stderr


def test_the_manifests_that_the_bad_ones_come_from_are_good(api: ControlPlane) -> None:
    """Or all of the above could be refused for another reason than their own."""
    for manifest in (
        ai_service(),
        model_cache(),
        service_with_files(http_file()),
        service_with_files(http_file(path="ocr/det"), http_file(path="ocr/det2/inference.onnx")),
        service_with("limits", **{"nvidia.com/gpu": 1, "memory": "1.5Gi", "hugepages-2Mi": "4Mi"}),
        ai_service(("spec.profile", ABSENT), ("spec.resources.limits", {"cpu": 1})),
        service_with_variable(name="A", valueFrom={"configMapKeyRef": {"name": "s", "key": "k"}}),
        ai_service(("spec.engine.env", [{"name": "A"}])),
        ai_service(("spec.gateway", {"default": True, "names": ["openai/whisper-large-v3"]})),
        cache_with(endpoint="http://hub.example.com:8080/mirror", include=["*.json"]),
        model_cache(("spec", {"pvc": {"claimName": "models", "path": "whisper/large"}})),
        ai_service(name="a" * 63),
        model_cache(name="a" * 52),
    ):
        api.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(manifest))

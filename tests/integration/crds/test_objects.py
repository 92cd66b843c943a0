"""Good objects: what the API server stores, and what it fills in."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiservice_api.tasks import Task
from aiservice_api.v1alpha1 import AIService, AITenant, ModelCache
from support.cluster import REPOSITORY, ControlPlane
from support.crd_schema import at, places, spec_fields
from support.full_manifests import FULL
from support.kube_api import KubeApi
from support.manifests import Manifest, ai_service, ai_tenant, model_cache


def parsed(manifest: Manifest) -> Any:
    """The spec as Python programs read it."""
    models: list[type[AIService | ModelCache | AITenant]] = [AIService, ModelCache, AITenant]
    model = next(model for model in models if model.__name__ == manifest["kind"])
    return model.model_validate(manifest).spec


def test_a_minimal_service_gets_its_defaults_and_nothing_else(server: KubeApi) -> None:
    kept = server.dry_create(ai_service())

    assert kept["spec"] == {
        "tasks": ["speech-to-text"],
        "model": {"huggingFace": {"repo": "openai/whisper-large-v3", "revision": "main"}, "verify": "OnChange"},
        "profile": "nvidia-l4",
        "precision": "auto",
        "engine": {"readyPath": "/ready", "healthPath": "/health"},
        "suspend": False,
        "rollout": {"surge": "Auto", "startSeconds": 1800, "drainSeconds": 30},
        "network": {"restrict": True},
        "gateway": {"expose": True, "default": False},
    }
    assert "status" not in kept


def test_a_minimal_cache_gets_its_defaults_and_nothing_else(server: KubeApi) -> None:
    kept = server.dry_create(model_cache())

    assert kept["spec"] == {
        "huggingFace": {"repo": "openai/whisper-large-v3", "revision": "main"},
        "verify": "OnChange",
    }


def test_a_minimal_tenant_gets_its_default_and_nothing_else(server: KubeApi) -> None:
    assert server.dry_create(ai_tenant())["spec"] == {"suspend": False}


def test_no_services_are_another_thing_than_unstated_ones(server: KubeApi) -> None:
    kept = server.dry_create(ai_tenant(("spec.services", [])))

    assert kept["spec"]["services"] == []
    assert parsed(kept).services == []
    assert parsed(ai_tenant()).services is None


def test_half_stated_objects_get_the_other_half(server: KubeApi) -> None:
    manifest = ai_service(
        ("spec.gateway", {"default": True}),
        ("spec.model.storage", {"storageClassName": "fast"}),
        ("spec.model.huggingFace.tokenSecretRef", {"name": "hub"}),
        ("spec.gpu", {"memory": "24Gi"}),
        ("spec.autoscaling", {"max": 3}),
        ("spec.rollout", {"drainSeconds": 60}),
    )

    spec = server.dry_create(manifest)["spec"]

    assert spec["gateway"] == {"expose": True, "default": True}
    assert spec["model"]["storage"] == {"storageClassName": "fast", "accessMode": "ReadWriteOnce"}
    assert spec["model"]["huggingFace"]["tokenSecretRef"] == {"name": "hub", "key": "token"}
    assert spec["gpu"] == {"resource": "nvidia.com/gpu", "count": 1, "memory": "24Gi"}
    assert spec["autoscaling"] == {"min": 1, "max": 3, "metric": "Concurrency"}
    assert spec["rollout"] == {"surge": "Auto", "startSeconds": 1800, "drainSeconds": 60}
    assert "replicas" not in spec


def identity(manifest: Manifest) -> str:
    return f"{manifest['kind']}-{manifest['metadata']['name']}"


@pytest.mark.parametrize("manifest", FULL, ids=identity)
def test_what_a_full_manifest_says_is_kept_and_read_as_it_is(server: KubeApi, manifest: Manifest) -> None:
    kept = server.dry_create(manifest)

    assert kept["spec"] == manifest["spec"]
    assert parsed(kept) == parsed(manifest)
    assert server.dry_create({**manifest, "spec": parsed(kept).to_wire()})["spec"].keys() >= kept["spec"].keys()


def with_defaults_left_out(manifest: Manifest) -> Manifest:
    """The manifest without any field that has a default."""
    result = copy.deepcopy(manifest)
    for path, schema in spec_fields(manifest["kind"]).items():
        if "default" in schema:
            for *holder, name in places(result, path):
                del at(result, tuple(holder))[name]
    return result


# Without its metric, the one that scales on CPU would break a rule.
SPARSE = [manifest for manifest in map(with_defaults_left_out, FULL) if identity(manifest) != "AIService-files"]


@pytest.mark.parametrize("sparse", SPARSE, ids=identity)
def test_the_defaults_of_the_api_server_are_those_of_python(server: KubeApi, sparse: Manifest) -> None:
    kept = server.dry_create(sparse)

    assert kept["spec"] != sparse["spec"]
    assert parsed(kept) == parsed(sparse)


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

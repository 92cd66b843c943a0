"""The models as Python programs use them: what they read, and what they write."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from aiservice_api.tasks import ENGINES, PORTS, Task
from aiservice_api.v1alpha1 import (
    API_VERSION,
    GROUP,
    VERSION,
    AIService,
    AIServiceSpec,
    Disruption,
    GpuSpec,
    ModelCacheSpec,
    Resources,
)


def spec(**fields: Any) -> AIServiceSpec:
    return AIServiceSpec.model_validate({"tasks": ["speech-to-text"], "profile": "cpu", **fields})


def test_the_wire_form_is_camel_case_without_nulls() -> None:
    wire = spec(modelCacheRef={"name": "whisper"}).to_wire()

    assert wire["modelCacheRef"] == {"name": "whisper"}
    assert "model" not in wire
    assert wire["precision"] == "auto"


def test_a_model_that_was_written_reads_back_the_same() -> None:
    before = spec(
        model={"http": {"files": [{"url": "https://f.example/a", "path": "a/b", "sha256": "0" * 64}]}},
        resources={"limits": {"nvidia.com/gpu": 1}},
        engine={"env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
    )

    assert AIServiceSpec.model_validate(before.to_wire()) == before


def test_amounts_are_text_however_yaml_read_them() -> None:
    resources = Resources.model_validate({"requests": {"cpu": 2, "memory": "8Gi"}, "limits": {"nvidia.com/gpu": 1}})

    assert resources.requests == {"cpu": "2", "memory": "8Gi"}
    assert resources.limits == {"nvidia.com/gpu": "1"}


def test_counts_and_memory_are_text_however_yaml_read_them() -> None:
    assert Disruption.model_validate({"maxUnavailable": 1}).max_unavailable == "1"
    assert Disruption.model_validate({"minAvailable": "50%"}).min_available == "50%"
    assert GpuSpec.model_validate({"memory": 25769803776}).memory == "25769803776"


@pytest.mark.parametrize("amount", [True, 1.5, None, ["1"]])
def test_an_amount_that_the_api_server_would_refuse_is_refused(amount: object) -> None:
    with pytest.raises(ValidationError):
        Resources.model_validate({"limits": {"cpu": amount}})


def test_an_object_of_a_newer_version_is_read_without_its_new_fields() -> None:
    service = AIService.model_validate(
        {
            "apiVersion": API_VERSION,
            "kind": "AIService",
            "metadata": {"name": "a", "managedFields": []},
            "spec": {**spec().to_wire(), "somethingNew": {"deep": True}},
            "status": {"replicas": 2, "somethingNew": 1},
        }
    )

    assert service.status.replicas == 2
    assert service.spec == spec()


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({"huggingFace": {"repo": "a/b"}}, {"huggingFace": {"exclude": [], "revision": "main", "repo": "a/b"}}),
        ({"s3": {"bucket": "abc"}}, {"verify": "OnChange", "s3": {"prefix": "", "bucket": "abc", "pathStyle": False}}),
        ({"oci": {"image": "a.b/c:1"}}, {"oci": {"path": "", "image": "a.b/c:1"}}),
    ],
)
def test_a_model_stated_twice_in_different_words_has_one_wire_form(short: dict[str, Any], long: dict[str, Any]) -> None:
    """The operator names caches by it, so that services which mean the same model share one download."""
    assert ModelCacheSpec.model_validate(short).to_wire() == ModelCacheSpec.model_validate(long).to_wire()


def test_the_version_is_one() -> None:
    assert f"{GROUP}/{VERSION}" == API_VERSION


def test_every_task_has_a_port_of_its_own_and_an_engine() -> None:
    assert [PORTS[task] for task in Task] == [7860, 7861, 7862, 7863, 7864]
    assert set(ENGINES) == set(Task)

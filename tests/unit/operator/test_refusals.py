"""Pod overrides that the schema lets pass and that could not work; and that no field is forgotten in the tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from aiservice_api.v1alpha1 import AIServiceSpec
from aiservice_api.v1alpha1.common import ApiModel
from aiservice_operator.engines import Engine, choose_engine
from aiservice_operator.kinds import Json
from aiservice_operator.refusals import Rejection
from support.operator_objects import SETTINGS, service
from support.operator_specs import FULL


def parsed(**fields: Any) -> AIServiceSpec:
    spec = service(spec=fields).spec
    assert spec is not None
    return spec


def port(name: str, number: int) -> Json:
    return {"name": f"on-{number}", "image": "x:1", "ports": [{"name": name, "containerPort": number}]}


@pytest.mark.parametrize(
    ("overrides", "reason", "words"),
    [
        ({"sidecars": [port("http", 7862)]}, "PortConflict", "port http (7862), of which the engine has"),
        ({"sidecars": [port("speech-to-text", 1)]}, "PortConflict", "port speech-to-text (1), of which the engine"),
        (
            {"sidecars": [port("a", 1), {**port("b", 1), "name": "two"}]},
            "PortConflict",
            "of which the sidecar on-1 has",
        ),
        ({"sidecars": [port("a", 1), port("a", 2)]}, "PortConflict", "of which the sidecar on-1 has"),
        ({"volumeMounts": [{"name": "v", "mountPath": "/models/"}]}, "MountConflict", "mounts v at /models/"),
        ({"volumeMounts": [{"name": "v", "mountPath": "/models/lora"}]}, "MountConflict", "the read-only model"),
        ({"volumeMounts": [{"name": "v", "mountPath": "/x/../tmp"}]}, "MountConflict", "choose a path such as /data"),
        ({"volumeMounts": [{"name": "v", "mountPath": "//"}]}, "MountConflict", "choose a path such as /data"),
    ],
)
def test_overrides_that_contradict_the_rest(overrides: Json, reason: str, words: str) -> None:
    found = choose_engine(parsed(pod=overrides), SETTINGS)
    assert isinstance(found, Rejection)
    assert found.reason == reason
    assert words in found.message


def test_overrides_that_do_not() -> None:
    mounts = [{"name": "v", "mountPath": path} for path in ("/models-too", "/tmp/cache", "/data")]
    overrides = {"sidecars": [port("a", 1), port("b", 2)], "volumeMounts": mounts}
    assert isinstance(choose_engine(parsed(pod=overrides), SETTINGS), Engine)


NOT_OF_THE_CHILDREN = {
    ("AIServiceSpec", "gateway"),
    ("AIServiceSpec", "model_cache_ref"),  # excludes model
    ("AIServiceSpec", "replicas"),  # excludes autoscaling
    ("AIServiceSpec", "suspend"),  # excludes everything else
    ("Autoscaling", "target_cpu_utilization"),  # excludes target_concurrency
    ("Disruption", "max_unavailable"),  # excludes min_available
}


def models(value: object) -> Iterator[ApiModel]:
    if isinstance(value, ApiModel):
        yield value
        for field in value.model_fields_set - {"model"}:
            yield from models(getattr(value, field))
    elif isinstance(value, list):
        for item in value:
            yield from models(item)


def test_the_full_example_uses_every_field() -> None:
    """What is proven with it elsewhere is proven for every field; a new one has to be added to it."""
    spec = service(spec=FULL).spec
    assert spec is not None
    used = {(type(model).__name__, field) for model in models(spec) for field in model.model_fields_set}
    known = {(type(model).__name__, field) for model in models(spec) for field in type(model).model_fields}
    assert known - used - NOT_OF_THE_CHILDREN == set()

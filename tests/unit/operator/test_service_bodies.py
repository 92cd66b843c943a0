"""What is built once is not built again, and never taken for something else."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from aiservice_operator.capacity import Capacity
from aiservice_operator.kinds import Apis, Json
from aiservice_operator.plan import Bodies, ServiceView, plan_service
from aiservice_operator.plan import bodies as module
from support.operator_objects import MODEL, NOW, SETTINGS, cache, container_status, pod, service
from support.operator_views import serving, view, with_status

READY = cache("mc-443918c0b15e3fd1", ready=True)


def test_it_is_built_once() -> None:
    built: list[str] = []

    def build() -> str:
        built.append("x")
        return "body"

    bodies = Bodies()
    assert [bodies.get("a", build), bodies.get("a", build), bodies.get("b", build)] == ["body"] * 3
    assert len(built) == 2


def test_what_was_not_asked_for_lately_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT", 2)
    bodies = Bodies()
    for key in ("a", "b", "a", "c"):
        bodies.get(key, lambda key=key: [key])  # type: ignore[misc] # its type follows from the loop
    assert bodies.get("a", lambda: ["again"]) == ["a"]
    assert bodies.get("b", lambda: ["again"]) == ["again"]


def variants() -> list[ServiceView]:
    """Views of one service that differ, one at a time, in what its children are built from."""
    auto: Json = {"autoscaling": {"min": 1, "max": 4}}
    scaled = serving(service(spec=auto), 3, cache=READY)
    assert scaled.deployment is not None
    body = scaled.deployment.body
    scaled = replace(
        scaled, deployment=replace(scaled.deployment, body={**body, "spec": {**body["spec"], "replicas": 3}})
    )
    loading = pod("loading", container_status(running={}))
    gpu: Json = {"profile": "nvidia-l4"}
    known = serving(service(spec=gpu, generation=2), cache=READY)
    counts = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}
    changed = service(spec={**gpu, "engine": {"args": ["--new"]}}, generation=3)
    other = cache("mc-443918c0b15e3fd1", {**MODEL, "storage": {"accessMode": "ReadWriteMany"}}, ready=True)
    return [
        scaled,
        replace(scaled, pods=(loading,)),
        replace(scaled, apis=Apis(pod_monitors=True)),
        replace(scaled, references="abcd"),
        replace(scaled, cache=other),
        view(service(spec=auto), cache=READY),
        with_status(known, counts),
        replace(with_status(known, counts), service=changed, capacity=Capacity()),
        replace(with_status(known, counts), service=changed, capacity=Capacity(refused="no")),
    ]


def test_with_memory_plans_are_as_without() -> None:
    bodies, views = Bodies(), variants()
    first: list[Any] = [plan_service(known, SETTINGS, NOW, bodies) for known in views]
    kept = copy.deepcopy(first)
    again = [plan_service(known, SETTINGS, NOW, bodies) for known in reversed(views)]
    fresh = [plan_service(known, SETTINGS, NOW) for known in views]
    assert first == fresh
    assert again == fresh[::-1]
    assert first == kept, "nothing that is kept was changed"

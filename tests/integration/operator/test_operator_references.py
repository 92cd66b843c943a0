"""Pods follow the Secrets and ConfigMaps that they take values from. The operator looks once a minute."""

from __future__ import annotations

import base64
from typing import Any

from support.kube_api import wait_for
from support.operator_world import World

PATIENCE = 100


def environment(secret: str, config: str) -> dict[str, Any]:
    return {
        "env": [
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": "token"}}},
            {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": config, "key": "mode"}}},
        ]
    }


def secret(world: World, name: str, **values: str) -> None:
    world.api.create("Secret", {"metadata": {"name": name}, "data": encoded(values)})


def encoded(values: dict[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}


def annotation(world: World, name: str) -> str | None:
    template = world.api.get("Deployment", name)["spec"]["template"]["metadata"]
    found: str | None = template["annotations"].get("aiservice.dev/references")
    return found


def seen(world: World, name: str) -> str | None:
    found: str | None = world.api.get("Deployment", name)["metadata"]["annotations"].get(
        "aiservice.dev/references-seen"
    )
    return found


def uids(world: World, name: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in world.api.list("Pod", f"app.kubernetes.io/instance={name}")}


def replaced(world: World, name: str) -> None:
    """Waits until the only pods are those of the present values, and serve."""

    def look() -> bool:
        pods = world.api.list("Pod", f"app.kubernetes.io/instance={name}")
        found = [pod["metadata"]["annotations"].get("aiservice.dev/references") for pod in pods]
        return found == [annotation(world, name)]

    wait_for(look, f"new pods of {name}")
    world.until_serving(name)


def test_pods_follow_what_they_take_values_from(world: World) -> None:
    secret(world, "hub", token="a", unused="x")
    world.api.create("ConfigMap", {"metadata": {"name": "modes"}, "data": {"mode": "fast"}})
    world.serve("secret", engine=environment("hub", "modes"))
    world.serve("config", engine=environment("hub", "modes"))
    world.serve("bystander", engine=environment("other", "modes"))
    for name in ("secret", "config", "bystander"):
        world.until_serving(name)
    waiting = uids(world, "bystander")
    before = annotation(world, "secret")
    assert before is not None
    assert len(before) == 16
    assert annotation(world, "config") == before, "the same values"
    assert annotation(world, "bystander") is None, "one of its objects is missing"

    # What nobody uses changes nothing; the rest is noticed together with it.
    world.api.patch("Secret", "hub", {"data": encoded({"token": "b", "unused": "y"})})
    secret(world, "other", token="b")
    wait_for(lambda: annotation(world, "secret") not in (None, before), "new pods for the new value", PATIENCE)
    wait_for(lambda: seen(world, "bystander"), "what was missing is noticed", PATIENCE)
    replaced(world, "secret")
    # A pod that waited for it may be loading by now: none is replaced before it changes.
    assert annotation(world, "bystander") is None
    assert uids(world, "bystander") == waiting
    world.api.patch("Secret", "other", {"data": encoded({"token": "c"})})
    wait_for(lambda: annotation(world, "bystander") is not None, "new pods for the new value", PATIENCE)
    assert seen(world, "bystander") is None
    replaced(world, "bystander")
    assert uids(world, "bystander") != waiting

    # Gone: those that run keep what they were given.
    kept = annotation(world, "secret")
    world.api.delete("Secret", "hub")
    world.api.patch("AIService", "secret", {"spec": {"replicas": 2}})
    world.until_serving("secret")
    assert annotation(world, "secret") == kept

"""How long caches outlive their users."""

from __future__ import annotations

from typing import Any

from support.fake_kubelet import untouched
from support.kube_api import wait_for
from support.operator_world import World, condition, model


def retained(name: str, policy: str, after: str | None = None) -> dict[str, Any]:
    return {**model(name), "retention": {"policy": policy, **({"after": after} if after else {})}}


def claim_uid(world: World, name: str) -> str:
    return str(world.api.get("PersistentVolumeClaim", name)["metadata"]["uid"])


def test_an_inline_cache_that_is_retained_outlives_its_users_and_serves_the_next(world: World) -> None:
    spec = retained("retained", "Retain")
    world.serve("first-user", model=spec)
    cache = world.until_serving("first-user")["status"]["modelCache"]
    assert "ownerReferences" not in world.api.get("ModelCache", cache)["metadata"]
    before = claim_uid(world, cache)

    world.api.delete("AIService", "first-user")
    world.until_gone("Deployment", "first-user")
    wait_for(lambda: world.api.get("ModelCache", cache)["status"].get("unusedSince"), "nobody uses it")
    metadata = world.api.get("ModelCache", cache)["metadata"]
    assert "deletionTimestamp" not in metadata
    assert "finalizers" not in metadata, "it is held by nothing"
    assert condition(world.api.get("ModelCache", cache), "Ready")["status"] == "True"

    world.kubelet.download = untouched  # nothing is downloaded again
    world.serve("second-user", model=spec)
    assert world.until_serving("second-user")["status"]["modelCache"] == cache
    assert claim_uid(world, cache) == before
    status = world.api.get("ModelCache", cache)["status"]
    assert status["usedBy"] == ["second-user"]
    assert "unusedSince" not in status

    # Held by nothing, it can be deleted by hand.
    world.api.delete("AIService", "second-user")
    wait_for(lambda: "finalizers" not in world.api.get("ModelCache", cache)["metadata"], "it is let go")
    world.api.delete("ModelCache", cache)
    world.until_gone("PersistentVolumeClaim", cache)


def test_an_unused_cache_goes_after_its_time(world: World) -> None:
    spec = retained("timed", "DeleteWhenUnused", "15s")
    world.serve("short", model=spec)
    cache = world.until_serving("short")["status"]["modelCache"]
    world.api.delete("AIService", "short")
    since = wait_for(lambda: world.api.get("ModelCache", cache)["status"].get("unusedSince"), "nobody uses it")
    assert since
    assert "deletionTimestamp" not in world.api.get("ModelCache", cache)["metadata"]
    world.until_gone("ModelCache", cache, 90)
    world.until_gone("PersistentVolumeClaim", cache)


def test_a_user_who_comes_in_time_keeps_it(world: World) -> None:
    world.api.create("ModelCache", {"metadata": {"name": "saved"}, "spec": retained("saved", "DeleteWhenUnused", "1h")})
    found = world.until("ModelCache", "saved", "Ready", "True", "Cached")
    assert found["status"]["unusedSince"] == found["metadata"]["creationTimestamp"]
    world.serve("saviour", model=None, modelCacheRef={"name": "saved"})
    world.until_serving("saviour")
    wait_for(lambda: "unusedSince" not in world.api.get("ModelCache", "saved")["status"], "it is used")


def test_a_cache_of_a_user_goes_with_its_last_user_where_that_is_asked_for(world: World) -> None:
    world.api.create("ModelCache", {"metadata": {"name": "brief"}, "spec": retained("brief", "DeleteWhenUnused")})
    world.until("ModelCache", "brief", "Ready", "True", "Cached")
    world.serve("only", model=None, modelCacheRef={"name": "brief"})
    world.until_serving("only")
    assert "ownerReferences" not in world.api.get("ModelCache", "brief")["metadata"]
    world.api.delete("AIService", "only")
    world.until_gone("ModelCache", "brief")
    world.until_gone("PersistentVolumeClaim", "brief")


def test_retention_can_be_given_later(world: World) -> None:
    world.api.create("ModelCache", {"metadata": {"name": "spared"}, "spec": model("spared")})
    world.until("ModelCache", "spared", "Ready", "True", "Cached")
    world.api.patch("ModelCache", "spared", {"spec": {"retention": {"policy": "DeleteWhenUnused", "after": "0s"}}})
    world.until_gone("ModelCache", "spared")

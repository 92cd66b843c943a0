"""Credentials of sources: a download that was refused starts again when its Secret is another."""

from __future__ import annotations

import base64
from typing import Any

from support.fake_kubelet import download_failed
from support.operator_world import World, condition


def secret(world: World, name: str, **values: str) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"metadata": {"name": name}, "data": encoded}


def test_a_corrected_secret_starts_a_refused_download_again(world: World) -> None:
    world.api.create("Secret", secret(world, "keys", AWS_ACCESS_KEY_ID="id", AWS_SECRET_ACCESS_KEY="wrong"))
    world.kubelet.download = download_failed("Unauthorized", "the bucket refuses these keys", retryable=False)
    source = {"s3": {"bucket": "models", "credentialsSecretRef": {"name": "keys"}}, "storage": {"size": "1Gi"}}
    world.api.create("ModelCache", {"metadata": {"name": "private"}, "spec": source})
    found = world.until("ModelCache", "private", "Downloaded", "False", "Unauthorized")
    message = condition(found, "Downloaded")["message"]
    assert "Correct Secret keys, or name another" in message
    assert "wrong" not in str(found)
    (refused,) = jobs(world, "private")

    world.kubelet.reset()
    world.api.patch("Secret", "keys", secret(world, "keys", AWS_SECRET_ACCESS_KEY="right"))
    world.until("ModelCache", "private", "Ready", "True", "Cached", timeout=120)
    (done,) = jobs(world, "private")
    assert done["metadata"]["uid"] != refused["metadata"]["uid"]

    # With the files there, another key starts nothing.
    world.api.patch("Secret", "keys", secret(world, "keys", AWS_SECRET_ACCESS_KEY="newer"))
    world.api.patch("ModelCache", "private", {"metadata": {"labels": {"touched": "yes"}}})
    world.serve("user", model=None, modelCacheRef={"name": "private"})
    world.until_serving("user")
    assert [job["metadata"]["uid"] for job in jobs(world, "private")] == [done["metadata"]["uid"]]


def jobs(world: World, cache: str) -> list[Any]:
    found: list[Any] = world.api.list("Job", f"app.kubernetes.io/instance={cache}")
    return found

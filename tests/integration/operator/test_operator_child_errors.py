"""A child that cannot be written, by no refusal, is told of; and everything else goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from support.cluster import ControlPlane
from support.kube_api import ApiError, wait_for
from support.operator_world import World, condition


def writable(world: World) -> bool:
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "probe"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    try:
        world.api.dry_create(body)
    except ApiError as error:
        if error.status != 500:
            raise
        return False
    return True


@contextlib.contextmanager
def webhook_that_is_away(control_plane: ControlPlane, world: World) -> Iterator[None]:
    """Nobody can make a Service or a claim in the namespace: a webhook is asked that does not answer."""
    name = f"away-{world.namespace}"
    webhook = {
        "name": "away.webhook.test",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["services", "persistentvolumeclaims"],
            }
        ],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}},
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 1,
    }
    control_plane.apply(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [webhook],
        }
    )
    try:
        wait_for(lambda: not writable(world), "the webhook is asked")
        yield
    finally:
        control_plane.kubectl("delete", "validatingwebhookconfiguration", name)
        wait_for(lambda: writable(world), "the webhook is no longer asked")


def test_a_webhook_that_is_away(world: World, control_plane: ControlPlane) -> None:
    world.serve("neighbour")
    cached = world.until_serving("neighbour")["status"]["modelCache"]
    reference = {"model": None, "modelCacheRef": {"name": cached}}
    with webhook_that_is_away(control_plane, world):
        world.serve("hooked", **reference)
        world.serve("uncached")
        service = world.until("AIService", "hooked", "Ready", "False", "ChildRefused")
        message = condition(service, "Ready")["message"]
        assert message.startswith("Service hooked: ")
        assert "away.webhook.test" in message
        assert condition(service, "ModelReady")["status"] == "True"
        assert world.api.find("ServiceAccount", "hooked"), "what can be made is made"
        uncached = world.until("AIService", "uncached", "ModelReady", "False", "ClaimRefused")
        assert "away.webhook.test" in condition(uncached, "Ready")["message"]
        assert condition(world.api.get("AIService", "neighbour"), "Ready")["status"] == "True"
    world.until_serving("hooked", 90)
    world.until_serving("uncached", 90)


def test_a_child_of_before_that_does_not_go(world: World) -> None:
    world.serve("again")
    world.until_serving("again")
    world.api.patch("Service", "again", {"metadata": {"finalizers": ["test.example/hold"]}})
    world.api.delete("AIService", "again")
    wait_for(lambda: "deletionTimestamp" in world.api.get("Service", "again")["metadata"], "it is being deleted")
    world.serve("again")
    service = world.until("AIService", "again", "Ready", "False", "ChildRefused")
    message = condition(service, "Ready")["message"]
    assert message.startswith("Service again: the Service again of before is still being deleted")
    world.api.patch("Service", "again", {"metadata": {"finalizers": None}})
    world.until_serving("again", 90)

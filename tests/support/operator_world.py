"""A namespace with an operator in it, and what tests ask of it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from support.cluster import ControlPlane
from support.fake_kubelet import FakeKubelet
from support.kube_api import KubeApi, wait_for
from support.operator import OperatorProcess

DIGEST = "a" * 64


def model(name: str) -> dict[str, Any]:
    """A model that no other test uses."""
    return {"http": {"files": [{"url": f"http://models.test/{name}", "path": name, "sha256": DIGEST}]}}


def spec(name: str, **fields: Any) -> dict[str, Any]:
    """Spec of an AIService that is served without trouble, with other fields; those of None are left out."""
    built = {"tasks": ["speech-to-text"], "profile": "cpu", "model": model(name), **fields}
    return {key: value for key, value in built.items() if value is not None}


def condition(body: Any, name: str) -> dict[str, Any]:
    """A condition of an object; empty where it is not there yet."""
    conditions: list[dict[str, Any]] = body.get("status", {}).get("conditions", [])
    return next((item for item in conditions if item["type"] == name), {})


@dataclass
class World:
    """A namespace with an operator and a kubelet."""

    api: KubeApi
    kubelet: FakeKubelet
    operator: OperatorProcess

    @property
    def namespace(self) -> str:
        return self.api.namespace

    def serve(self, name: str, **fields: Any) -> Any:
        """Creates an AIService."""
        return self.api.create("AIService", {"metadata": {"name": name}, "spec": spec(name, **fields)})

    def cache_of(self, service: str) -> str:
        """The name of the ModelCache that an AIService uses."""
        return str(wait_for(lambda: self.api.get("AIService", service)["status"]["modelCache"], "a cache's name"))

    def until(  # noqa: PLR0917 - reads as a sentence
        self, kind: str, name: str, condition_type: str, status: str, reason: str, timeout: float = 30
    ) -> Any:
        """Waits for a condition of the newest generation; returns the object."""

        def look() -> Any:
            body = self.api.get(kind, name)
            found = condition(body, condition_type)
            seen = {key: found.get(key) for key in ("status", "reason", "observedGeneration", "message")}
            assert (found.get("status"), found.get("reason")) == (status, reason), seen
            assert found["observedGeneration"] == body["metadata"]["generation"], seen
            return body

        return wait_for(look, f"{condition_type}={status} ({reason}) of {kind} {name}", timeout)

    def until_serving(self, name: str, timeout: float = 30) -> Any:
        return self.until("AIService", name, "Ready", "True", "Serving", timeout)

    def until_gone(self, kind: str, name: str, timeout: float = 30) -> None:
        wait_for(lambda: self.api.find(kind, name) is None, f"{kind} {name} is gone", timeout)

    def until_events(self, name: str, *reasons: str) -> None:
        """Waits until exactly these Events have been recorded about an object, in this order."""

        def look() -> bool:
            assert tuple(reason for _, reason, _ in self.events(name)) == reasons, self.events(name)
            return True

        wait_for(look, f"Events {reasons} of {name}", 10)

    def warn(self, pod: Mapping[str, Any], reason: str, message: str) -> None:
        """Records an Event about a pod, as a kubelet does."""
        metadata, now = pod["metadata"], datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        place = {"name": metadata["name"], "namespace": self.namespace}
        event = {
            "metadata": {**place, "name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}"},
            "involvedObject": {"kind": "Pod", **place, "uid": metadata["uid"]},
            "type": "Warning",
            "reason": reason,
            "message": message,
            "firstTimestamp": now,
            "lastTimestamp": now,
        }
        self.api.request("POST", f"/api/v1/namespaces/{self.namespace}/events", event)

    def events(self, name: str) -> list[tuple[str, str, str]]:
        """Type, reason and note of the operator's Events about an object, oldest first."""
        found = [
            event
            for event in self.api.list("Event")
            if event["regarding"].get("name") == name and event.get("reportingController", "").startswith("aiservice-")
        ]
        found.sort(key=lambda event: event["eventTime"] or "")
        return [(event["type"], event["reason"], event["note"]) for event in found]


def remove_namespace(api: KubeApi) -> None:
    """Deletes what the operator holds in a namespace, while it still runs, and then the namespace."""
    for kind in ("AIService", "ModelCache"):
        api.request("DELETE", api.path(kind))
    wait_for(lambda: not api.list("AIService") and not api.list("ModelCache"), "no cache is held", 60, 0.1)
    api.delete("Namespace", api.namespace)


def make_namespace(control_plane: ControlPlane) -> KubeApi:
    api = KubeApi(control_plane.kubeconfig, f"op-{uuid.uuid4().hex[:8]}")
    api.create("Namespace", {"metadata": {"name": api.namespace}})
    wait_for(lambda: api.find("ServiceAccount", "default"), "the default ServiceAccount")
    return api

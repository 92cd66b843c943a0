"""Observed objects for unit tests of the operator, as short as a test can say them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from aiservice_operator import names
from aiservice_operator.kinds import Json, Kind
from aiservice_operator.observed import Cache, Child, Service, parse
from aiservice_operator.settings import Settings

NAMESPACE = "team"
NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
MODEL: Json = {"http": {"files": [{"url": "http://models.test/a", "path": "a", "sha256": "a" * 64}]}}

SETTINGS = Settings.model_validate(
    {
        "images": {"speech-recognition": "example.test/speech:1", "diffusion": "example.test/diffusion:1"},
        "imagePullSecrets": ["registry"],
        "network": {
            "allowFrom": [
                {"podLabels": {"app.kubernetes.io/name": name}}
                for name in ("aiservice-gateway", "aiservice-operator", "prometheus")
            ]
        },
        "profiles": {
            "cpu": {"resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "8Gi"}}},
            "nvidia-l4": {
                "gpu": {"count": 1, "memoryGiB": 24},
                "resources": {"requests": {"cpu": "4", "memory": "16Gi"}},
                "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "runtimeClassName": "nvidia",
            },
            "nvidia-t4": {"gpu": {"count": 1}, "nodeSelector": {"nvidia.com/gpu.product": "Tesla-T4"}},
        },
    }
)


def timestamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def metadata(name: str, **fields: Any) -> Json:
    return {
        "name": name,
        "namespace": NAMESPACE,
        "uid": f"uid-{name}",
        "resourceVersion": "1",
        "generation": 1,
        "creationTimestamp": timestamp(NOW - timedelta(minutes=10)),
        **fields,
    }


def condition(kind: str, status: str, reason: str = "Test", message: str = "", **fields: Any) -> Json:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": timestamp(NOW - timedelta(minutes=5)),
        **fields,
    }


def service(name: str = "whisper", spec: Mapping[str, Any] | None = None, **fields: Any) -> Service:
    """An AIService; `fields` are `status` and metadata."""
    status = fields.pop("status", {})
    complete = {"tasks": ["speech-to-text"], "profile": "cpu", "model": MODEL, **(spec or {})}
    body = {
        "metadata": metadata(name, **fields),
        "spec": {key: value for key, value in complete.items() if value is not None},
        "status": status,
    }
    parsed = parse(Kind.AISERVICE, body)
    assert isinstance(parsed, Service)
    return parsed


def cache(name: str = "mine", spec: Json = MODEL, *, ready: bool | None = None, **fields: Any) -> Cache:
    """A ModelCache of a user; `ours` makes it one of the operator's."""
    if fields.pop("ours", False):
        fields["labels"] = names.cache_labels(name)
    status = fields.pop("status", {})
    if ready is not None:
        status = {"conditions": [condition("Ready", str(ready), "Cached", observedGeneration=1)]}
    parsed = parse(Kind.MODEL_CACHE, {"metadata": metadata(name, **fields), "spec": spec, "status": status})
    assert isinstance(parsed, Cache)
    return parsed


def child(kind: Kind, body: Json) -> Child:
    parsed = parse(kind, body)
    assert isinstance(parsed, Child)
    return parsed


def live(kind: Kind, built: Json, status: Json | None = None, **fields: Any) -> Child:
    """A child as the API server keeps it after it was applied."""
    name = built["metadata"]["name"]
    return child(kind, {**built, "metadata": {**metadata(name), **built["metadata"], **fields}, "status": status or {}})


def pod(name: str, status: Json | None = None, *, owner: str = "", container: str = "engine", **fields: Any) -> Child:
    """A pod; `owner` is the uid of what controls it."""
    owners = [{"kind": "Job", "name": "job", "uid": owner, "controller": True}] if owner else []
    limits = {"limits": {"memory": "8Gi"}}
    return child(
        Kind.POD,
        {
            "metadata": metadata(name, ownerReferences=owners, **fields),
            "spec": {
                "nodeName": "node",
                "containers": [{"name": container, "image": "example.test/speech:1", "resources": limits}],
            },
            "status": status or {"phase": "Pending"},
        },
    )


def container_status(container: str = "engine", **state: Any) -> Json:
    """The status of a pod whose container is in a state: `waiting`, `running` or `terminated`, `last` before that."""
    last = state.pop("last", None)
    is_ready = state.pop("ready", False)
    started = state.pop("started", is_ready)
    image = "example.test/speech:1"
    kubelet = {"name": container, "image": image, "started": started, "ready": is_ready, "state": state}
    if last is not None:
        kubelet["lastState"] = {"terminated": last}
    phase = "Running" if "waiting" not in state or last is not None else "Pending"
    if "terminated" in state:
        phase = "Failed" if state["terminated"]["exitCode"] else "Succeeded"
    return {"phase": phase, "containerStatuses": [kubelet]}

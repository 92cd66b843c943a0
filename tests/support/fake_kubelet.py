"""A kubelet and a volume provisioner that run nothing: they write the statuses that real ones would.

The scheduler, the Job and Deployment controllers and the binder of claims are real; what a real node would do with a
pod is decided here, by `download` and `serve`, which a test may replace at any time.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from support.kube_api import ApiError, KubeApi

Status = dict[str, Any]
Behaviour = Callable[[Mapping[str, Any]], Status | None]
"""From a pod on a node to its status; None leaves the pod as it is."""


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ready(pod: Mapping[str, Any]) -> Status:
    """The container runs and is ready."""
    return _running(pod, is_ready=True)


def loading(pod: Mapping[str, Any]) -> Status:
    """The container runs and is not ready yet."""
    return _running(pod, is_ready=False)


def _running(pod: Mapping[str, Any], *, is_ready: bool) -> Status:
    container = {"state": {"running": {"startedAt": _now()}}, "ready": is_ready, "restartCount": 0}
    return {"phase": "Running", "startTime": _now(), **_conditions(is_ready), **_containers(pod, container)}


def downloaded(size: int = 6_900_000_000, files: int = 12, revision: str | None = None) -> Behaviour:
    """The download ends well."""
    message = json.dumps({"status": "ok", "bytes": size, "files": files, "revision": revision})
    return lambda pod: _ended(pod, 0, "Completed", message)


def download_failed(reason: str, message: str, *, retryable: bool) -> Behaviour:
    """The download ends badly, as the downloader says it."""
    words = json.dumps({"status": "failed", "reason": reason, "message": message, "retryable": retryable})
    return lambda pod: _ended(pod, 1 if retryable else 2, "Error", words)


def oom_killed(pod: Mapping[str, Any]) -> Status:
    """The container is killed for its memory."""
    return _ended(pod, 137, "OOMKilled", "")


def _ended(pod: Mapping[str, Any], code: int, reason: str, message: str) -> Status:
    ended = {"exitCode": code, "reason": reason, "message": message, "startedAt": _now(), "finishedAt": _now()}
    container = {"state": {"terminated": ended}, "ready": False, "restartCount": 0}
    phase = "Succeeded" if code == 0 else "Failed"
    return {"phase": phase, "startTime": _now(), **_conditions(False), **_containers(pod, container)}


def crashing(message: str, reason: str = "Error", code: int = 1) -> Behaviour:
    """The container ends as soon as it starts, and the kubelet waits before the next try."""

    def behave(pod: Mapping[str, Any]) -> Status:
        ended = {"exitCode": code, "reason": reason, "message": message, "startedAt": _now(), "finishedAt": _now()}
        waiting = {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container=engine"}
        container = {
            "state": {"waiting": waiting},
            "lastState": {"terminated": ended},
            "ready": False,
            "restartCount": 3,
        }
        return {"phase": "Running", "startTime": _now(), **_conditions(False), **_containers(pod, container)}

    return behave


def waiting(reason: str, message: str) -> Behaviour:
    """The container does not start."""

    def behave(pod: Mapping[str, Any]) -> Status:
        container = {"state": {"waiting": {"reason": reason, "message": message}}, "ready": False, "restartCount": 0}
        return {"phase": "Pending", "startTime": _now(), **_conditions(False), **_containers(pod, container)}

    return behave


def untouched(_: Mapping[str, Any]) -> None:
    """Nothing happens to the pod."""


def _conditions(is_ready: bool) -> Status:
    status = "True" if is_ready else "False"
    return {
        "conditions": [
            {"type": kind, "status": status, "lastTransitionTime": _now()} for kind in ("Ready", "ContainersReady")
        ]
    }


def _containers(pod: Mapping[str, Any], status: Status) -> Status:
    common = {"imageID": "", "lastState": {}}
    return {
        "containerStatuses": [
            {**common, "name": container["name"], "image": container["image"], **status}
            for container in pod["spec"]["containers"]
        ]
    }


class FakeKubelet:
    """Behaves as the kubelet of every node and as the provisioner, for one namespace.

    Args:
        kubeconfig: An administrator's.
        namespace: Where it looks.
    """

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._api = KubeApi(kubeconfig, namespace)
        self._namespace = namespace
        self._stop = threading.Event()
        self._done: dict[str, Behaviour] = {}
        self._volumes: set[str] = set()
        self.download: Behaviour = downloaded()
        self.serve: Behaviour = ready
        self.provision = True
        self._thread = threading.Thread(target=self._run, name=f"kubelet-{namespace}", daemon=True)

    def __enter__(self) -> FakeKubelet:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)
        for volume in self._volumes:
            self._api.delete("PersistentVolume", volume)
        self._api.close()

    def reset(self) -> None:
        """Everything goes well again."""
        self.download, self.serve, self.provision = downloaded(), ready, True

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            try:
                self._look()
            except (ApiError, OSError):  # someone else changed the pod, or the API server is away: looked at again
                continue

    def _look(self) -> None:
        if self.provision:
            for claim in self._api.list("PersistentVolumeClaim"):
                self._bind(claim)
        for pod in self._api.list("Pod"):
            name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
            if "deletionTimestamp" in pod["metadata"]:
                self._api.delete("Pod", name, gracePeriodSeconds=0)
            elif pod["spec"].get("nodeName") and pod["status"]["phase"] not in ("Succeeded", "Failed"):
                self._behave(name, uid, pod)

    def _behave(self, name: str, uid: str, pod: Mapping[str, Any]) -> None:
        behaviour = self.download if "batch.kubernetes.io/job-name" in pod["metadata"]["labels"] else self.serve
        if self._done.get(uid) is behaviour:
            return
        status = behaviour(pod)
        if status is not None:
            conditions = {item["type"]: item for item in pod["status"].get("conditions", [])}
            conditions |= {item["type"]: item for item in status["conditions"]}
            self._api.patch("Pod", name, {"status": {**status, "conditions": list(conditions.values())}}, "status")
        self._done[uid] = behaviour

    def _bind(self, claim: Mapping[str, Any]) -> None:
        """Makes the volume that a claim of the default class asks for; the controller manager binds them."""
        spec, name = claim["spec"], claim["metadata"]["name"]
        if spec.get("volumeName") or claim["status"]["phase"] != "Pending" or spec.get("storageClassName"):
            return
        volume = f"pv-{claim['metadata']['uid']}"
        if volume in self._volumes:
            return
        self._api.create(
            "PersistentVolume",
            {
                "metadata": {"name": volume, "labels": {"test": self._namespace}},
                "spec": {
                    "capacity": spec["resources"]["requests"],
                    "accessModes": spec["accessModes"],
                    "hostPath": {"path": f"/nowhere/{uuid.uuid4()}"},
                    "persistentVolumeReclaimPolicy": "Retain",
                    "claimRef": {
                        "kind": "PersistentVolumeClaim",
                        "apiVersion": "v1",
                        "namespace": self._namespace,
                        "name": name,
                        "uid": claim["metadata"]["uid"],
                    },
                },
            },
        )
        self._volumes.add(volume)

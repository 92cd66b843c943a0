"""A kubelet and a volume provisioner that run nothing: they write the statuses that real ones would.

The scheduler, the Job and Deployment controllers and the binder of claims are real; what a real node would do with a
pod is decided here, by `download` and `serve`, which a test may replace at any time.
"""

from __future__ import annotations

import functools
import http.client
import json
import queue
import threading
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from support.kube_api import ApiError, KubeApi
from support.watcher import Watcher

Status = dict[str, Any]
Behaviour = Callable[[Mapping[str, Any]], Status | None]
"""From a pod on a node to its status; None leaves the pod as it is."""
_AGAIN_SECONDS = 0.1


def _now() -> str:
    return _time(datetime.now(UTC))


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def ready(pod: Mapping[str, Any]) -> Status:
    """The container runs and is ready."""
    return _running(pod, is_ready=True)


def loading(pod: Mapping[str, Any]) -> Status:
    """The container runs and is not ready yet."""
    return _running(pod, is_ready=False)


def unready(since: datetime) -> Behaviour:
    """The container has loaded, was ready until then, and does not answer its readiness probe any more."""

    def behave(pod: Mapping[str, Any]) -> Status:
        status = _running(pod, is_ready=False)
        for container in status["containerStatuses"]:
            container["started"] = True
            container["state"]["running"]["startedAt"] = _time(since - timedelta(minutes=1))
        for condition in status["conditions"]:
            condition["lastTransitionTime"] = _time(since)
        return status

    return behave


def _running(pod: Mapping[str, Any], *, is_ready: bool) -> Status:
    state = {"running": {"startedAt": _now()}}
    container = {"state": state, "started": is_ready, "ready": is_ready, "restartCount": 0}
    return {"phase": "Running", "startTime": _now(), **_conditions(is_ready), **_containers(pod, container)}


def downloaded(
    size: int | None = 6_900_000_000, files: int = 12, revision: str | None = None, **words: Any
) -> Behaviour:
    """The download, or another Job of a cache, ends well."""
    message = json.dumps({"status": "ok", "bytes": size, "files": files, "revision": revision, **words})
    return lambda pod: _ended(pod, 0, "Completed", message)


def download_failed(reason: str, message: str, *, retryable: bool, **more: Any) -> Behaviour:
    """The download ends badly, as the downloader says it."""
    words = json.dumps({"status": "failed", "reason": reason, "message": message, "retryable": retryable, **more})
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
    """Behaves as the kubelet of every node and as the provisioner, for one namespace or for all.

    It watches, so a thousand pods cost it a write each and no more.

    Args:
        kubeconfig: An administrator's.
        namespace: Where it looks; empty: everywhere.
        hands: How many pods and claims it works on at once.
    """

    def __init__(self, kubeconfig: Path, namespace: str, hands: int = 1) -> None:
        self._download: Behaviour = downloaded()
        self._measure: Behaviour = downloaded()
        self._verify: Behaviour = downloaded()
        self._serve: Behaviour = ready
        self._provision = True
        self.classes: set[str] = set()
        """StorageClasses that it provides volumes of; of claims without a class it always does."""
        self._objects: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self._work: queue.Queue[str | None] = queue.Queue()
        self._done: dict[str, Behaviour] = {}
        self._volumes: set[str] = set()
        self._watchers = [
            Watcher(kubeconfig, namespace, kind, functools.partial(self._seen, kind))
            for kind in ("PersistentVolumeClaim", "Pod")
        ]
        self._apis = [KubeApi(kubeconfig, namespace) for _ in range(hands)]
        self._threads = [
            threading.Thread(target=self._run, args=(api,), name=f"kubelet-{namespace}", daemon=True)
            for api in self._apis
        ]

    def __enter__(self) -> FakeKubelet:
        for part in self._watchers:
            part.__enter__()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        for watcher in self._watchers:
            watcher.__exit__(*failure)
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join(timeout=30)
        for volume in self._volumes:
            self._apis[0].delete("PersistentVolume", volume)
        for api in self._apis:
            api.close()

    @property
    def download(self) -> Behaviour:
        """What becomes of pods of download Jobs."""
        return self._download

    @download.setter
    def download(self, behaviour: Behaviour) -> None:
        self._download = behaviour
        self._look_again()

    @property
    def measure(self) -> Behaviour:
        """What becomes of pods that ask a source for its size."""
        return self._measure

    @measure.setter
    def measure(self, behaviour: Behaviour) -> None:
        self._measure = behaviour
        self._look_again()

    @property
    def verify(self) -> Behaviour:
        """What becomes of pods that compare files with their digests."""
        return self._verify

    @verify.setter
    def verify(self, behaviour: Behaviour) -> None:
        self._verify = behaviour
        self._look_again()

    @property
    def serve(self) -> Behaviour:
        """What becomes of other pods."""
        return self._serve

    @serve.setter
    def serve(self, behaviour: Behaviour) -> None:
        self._serve = behaviour
        self._look_again()

    @property
    def provision(self) -> bool:
        """Whether claims get a volume."""
        return self._provision

    @provision.setter
    def provision(self, wanted: bool) -> None:
        self._provision = wanted
        self._look_again()

    def reset(self) -> None:
        """Everything goes well again."""
        self._download, self._measure, self._verify = downloaded(), downloaded(), downloaded()
        self._serve, self._provision = ready, True
        self._look_again()

    def _look_again(self) -> None:
        for uid in list(self._objects):
            self._work.put(uid)

    def _seen(self, kind: str, change: str, body: Mapping[str, Any]) -> None:
        uid = body["metadata"]["uid"]
        if change == "DELETED":
            self._objects.pop(uid, None)
            return
        self._objects[uid] = (kind, body)
        self._work.put(uid)

    def _run(self, api: KubeApi) -> None:
        while (uid := self._work.get()) is not None:
            try:
                self._look(api, uid)
            except (ApiError, OSError, http.client.HTTPException):  # the API server is away, or the object is gone
                threading.Timer(_AGAIN_SECONDS, self._work.put, (uid,)).start()

    def _look(self, api: KubeApi, uid: str) -> None:
        kind, body = self._objects.get(uid, ("", {}))
        api.namespace = body["metadata"]["namespace"] if body else ""
        if kind == "PersistentVolumeClaim" and self._provision:
            self._bind(api, body)
            self._expand(api, body)
        elif kind == "Pod" and "deletionTimestamp" in body["metadata"]:
            self._end(api, body)
        elif kind == "Pod" and body["spec"].get("nodeName") and body["status"]["phase"] not in ("Succeeded", "Failed"):
            self._behave(api, uid, body)

    def _end(self, api: KubeApi, pod: Mapping[str, Any]) -> None:
        """Stops a pod that is being deleted: it has failed then, if it has not ended before."""
        name = pod["metadata"]["name"]
        if pod["status"]["phase"] not in ("Succeeded", "Failed"):
            api.patch("Pod", name, {"status": {"phase": "Failed"}}, "status")
        api.delete("Pod", name, gracePeriodSeconds=0)

    def _behave(self, api: KubeApi, uid: str, pod: Mapping[str, Any]) -> None:
        behaviour = self._of(pod)
        if self._done.get(uid) is behaviour:
            return
        status = behaviour(pod)
        if status is not None:
            conditions = {item["type"]: item for item in pod["status"].get("conditions", [])}
            conditions |= {item["type"]: item for item in status["conditions"]}
            change = {"status": {**status, "conditions": list(conditions.values())}}
            api.patch("Pod", pod["metadata"]["name"], change, "status")
        self._done[uid] = behaviour

    def _of(self, pod: Mapping[str, Any]) -> Behaviour:
        modes = {"measure": self._measure, "download": self._download, "verify": self._verify}
        variables = [variable for container in pod["spec"]["containers"] for variable in container.get("env", ())]
        mode = next((item.get("value") for item in variables if item["name"] == "AISERVICE_MODE"), "")
        return modes.get(str(mode), self._serve)

    def _expand(self, api: KubeApi, claim: Mapping[str, Any]) -> None:
        """Makes a volume as large as its claim has become."""
        spec, status, name = claim["spec"], claim["status"], claim["metadata"]["name"]
        wanted = spec["resources"]["requests"]
        if status["phase"] == "Bound" and status.get("capacity", wanted) != wanted:
            api.patch("PersistentVolume", spec["volumeName"], {"spec": {"capacity": wanted}})
            api.patch("PersistentVolumeClaim", name, {"status": {"capacity": wanted}}, "status")

    def _bind(self, api: KubeApi, claim: Mapping[str, Any]) -> None:
        """Makes the volume that a claim of the default class asks for; the controller manager binds them."""
        spec, name = claim["spec"], claim["metadata"]["name"]
        storage_class = spec.get("storageClassName") or ""
        if spec.get("volumeName") or claim["status"]["phase"] != "Pending" or storage_class not in {"", *self.classes}:
            return
        volume = f"pv-{claim['metadata']['uid']}"
        if volume in self._volumes:
            return
        api.create(
            "PersistentVolume",
            {
                "metadata": {"name": volume},
                "spec": {
                    "capacity": spec["resources"]["requests"],
                    "accessModes": spec["accessModes"],
                    "storageClassName": storage_class,
                    "hostPath": {"path": f"/nowhere/{uuid.uuid4()}"},
                    "persistentVolumeReclaimPolicy": "Retain",
                    "claimRef": {
                        "kind": "PersistentVolumeClaim",
                        "apiVersion": "v1",
                        "namespace": claim["metadata"]["namespace"],
                        "name": name,
                        "uid": claim["metadata"]["uid"],
                    },
                },
            },
        )
        self._volumes.add(volume)

"""Why pods do not run: the deepest failure below an object, in the words of the part that failed.

A pod that crashes is `Running` for a moment and `Waiting` for a while, again and again. What is said here holds through
all of that, so that a status does not flicker.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from aiservice_operator.kinds import Json
from aiservice_operator.observed import Child, parse_time
from aiservice_operator.states import conditions, pod_container

SETTLE = timedelta(seconds=3)
"""How long a pod or a claim may wait before that is a failure: what it waits for is often just being made."""
_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError"})
_UNUSABLE_IMAGE = frozenset({"InvalidImageName", "ErrImageNeverPull"})
_SETUP = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*"(: \w+)?:? ?')


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that went wrong below an object."""

    reason: str
    message: str
    object: str
    time: datetime


def of_pods(pods: Iterable[Child], now: datetime) -> Failure | None:
    """Returns the failure of the pods that is nearest to its cause; of several the newest."""
    failures = [failure for pod in pods if not pod.meta.deleting if (failure := of_pod(pod)) is not None]
    found = [failure for failure in failures if not _passing(failure, now)]
    # A pod that waits for a node is often a consequence: others on the list broke by themselves.
    return max(found, key=lambda failure: (failure.reason != "Unschedulable", failure.time), default=None)


def settles_after(pods: Iterable[Child], now: datetime) -> float | None:
    """Returns the seconds until a failure that may still pass counts as one; None where there is none such."""
    failures = (of_pod(pod) for pod in pods)
    waits = [
        (failure.time + SETTLE - now).total_seconds() for failure in failures if failure and _passing(failure, now)
    ]
    return min(waits, default=None)


def _passing(failure: Failure, now: datetime) -> bool:
    return failure.reason == "Unschedulable" and now < failure.time + SETTLE


def of_pod(pod: Child) -> Failure | None:
    """Returns why a pod does not run, or None where nothing has gone wrong so far."""
    checks: list[Callable[[Child, Json], Failure | None]] = [_image, _setup, _ended, _evicted, _unschedulable]
    container = pod_container(pod)
    return next((failure for check in checks if (failure := check(pod, container)) is not None), None)


def _image(pod: Child, container: Json) -> Failure | None:
    waiting = container.get("state", {}).get("waiting", {})
    reason, message = waiting.get("reason"), str(waiting.get("message", ""))
    image = container.get("image", "")
    if reason in _IMAGE:
        detail = _BACK_OFF.sub("", message)
        hint = "check the name, that the registry can be reached, and imagePullSecrets"
        return _failure(pod, "ImagePullBackOff", f"image {image} cannot be pulled: {detail or hint}")
    if reason in _UNUSABLE_IMAGE:
        return _failure(pod, str(reason), f"image {image} cannot be used: {message}")
    return None


def _setup(pod: Child, container: Json) -> Failure | None:
    waiting = container.get("state", {}).get("waiting", {})
    if waiting.get("reason") not in _SETUP:
        return None
    return _failure(pod, waiting["reason"], f"the container cannot be started: {waiting.get('message', '')}")


def _ended(pod: Child, container: Json) -> Failure | None:
    """A container that ended, unless it has come back and serves."""
    state = container.get("state", {})
    ended = state.get("terminated") or (
        {} if container.get("ready") else container.get("lastState", {}).get("terminated")
    )
    if not ended or (ended.get("exitCode") == 0 and "terminated" in state):
        return None
    name, when = container["name"], _time(ended.get("finishedAt"))
    if ended.get("reason") == "OOMKilled":
        limit = _memory_limit(pod, name)
        limited = f"more memory than its limit of {limit}" if limit else "more memory than its node has"
        return _failure(
            pod, "OOMKilled", f"container {name} was killed for using {limited}: raise the memory limit", when
        )
    said = str(ended.get("message", "")).strip()
    last_words = said or f"it left no message; `kubectl logs {pod.meta.name} --previous` shows what it printed"
    code = ended.get("exitCode")
    return _failure(pod, "CrashLoopBackOff", f"container {name} exited with code {code}: {last_words}", when)


def _evicted(pod: Child, _: Json) -> Failure | None:
    status = pod.body.get("status", {})
    if status.get("phase") != "Failed" or not status.get("reason"):
        return None
    return _failure(pod, status["reason"], f"the pod was stopped: {status.get('message', '')}")


def _unschedulable(pod: Child, _: Json) -> Failure | None:
    scheduled = conditions(pod.body).get("PodScheduled", {})
    if scheduled.get("status") != "False" or scheduled.get("reason") != "Unschedulable":
        return None
    when = _time(scheduled.get("lastTransitionTime"))
    return _failure(pod, "Unschedulable", f"no node can take the pod: {scheduled.get('message', '')}", when)


def _memory_limit(pod: Child, container: str) -> str:
    for spec in pod.body["spec"]["containers"]:
        if spec["name"] == container:
            return str(spec.get("resources", {}).get("limits", {}).get("memory", ""))
    return ""


def _failure(pod: Child, reason: str, message: str, when: datetime | None = None) -> Failure:
    # A kubelet's reason may name a resource, "OutOfnvidia.com/gpu"; that of a condition is one word.
    word = re.sub(r"[^A-Za-z0-9_]+", "_", reason).strip("_")
    return Failure(word or "PodFailed", message, f"Pod/{pod.meta.name}", when or pod.meta.created)


def _time(text: str | None) -> datetime | None:
    return parse_time(text) if text else None

"""Why pods do not run: the deepest failure below an object, in the words of the part that failed.

A pod that crashes is `Running` for a moment and `Waiting` for a while, again and again. What is said here holds through
all of that, so that a status does not flicker.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from aiservice_operator import names
from aiservice_operator.kinds import Json
from aiservice_operator.observed import Child, parse_time
from aiservice_operator.states import (
    conditions,
    container_statuses,
    gone_by,
    pod_container,
    pod_ended,
    unready_since,
    unschedulable_since,
    waits_on_node_since,
)

SETTLE = timedelta(seconds=3)
"""How long a pod or a claim may wait before that is a failure: what it waits for is often just being made."""
UNREADY = timedelta(seconds=30)
"""How long a pod that was ready may be unready before that is a failure: a busy engine misses a probe now and then."""
_SETTLES = {"Unschedulable": SETTLE, "NotReady": UNREADY, "NodeNotReady": SETTLE}
"""How long what may pass by itself is no failure; of nodes Kubernetes has waited long enough before it says so."""
LATE = timedelta(seconds=30)
"""How long a pod may take on its node to begin with its containers before its Events are looked at."""
_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError"})
_UNUSABLE_IMAGE = frozenset({"InvalidImageName", "ErrImageNeverPull"})
_SETUP = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*"(: \w+)?:? ?')


@dataclass(frozen=True, slots=True)
class Words:
    """What an Event says went wrong."""

    reason: str
    message: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that went wrong below an object."""

    reason: str
    message: str
    object: str
    time: datetime


def of_pods(pods: Sequence[Child], now: datetime, words: Mapping[str, Words] = MappingProxyType({})) -> Failure | None:
    """Returns the failure of the pods that is nearest to its cause; of several the newest.

    Args:
        pods: Of one object.
        now: The time.
        words: What was said last, in Events, of pods that do not start, by uid.
    """
    failures = [_of_start(pod, words) or of_pod(pod) for pod in _current(pods)]
    room = _room_at(pods)
    found = [failure for failure in failures if failure is not None and not now < _settled_at(failure, room)]
    # A pod that waits for a node is often a consequence: others on the list broke by themselves.
    return max(found, key=lambda failure: (failure.reason != "Unschedulable", failure.time), default=None)


def _current(pods: Sequence[Child]) -> list[Child]:
    """The pods that count: not those that go, nor those that ended and have a successor."""
    return [pod for pod in pods if not pod.meta.deleting and not (pod_ended(pod) and _has_successor(pod, pods))]


def _has_successor(ended: Child, pods: Sequence[Child]) -> bool:
    """Whether another pod came after one that ended: of the same second, one that did not end by itself."""
    return any(
        pod.meta.created > ended.meta.created
        or (pod.meta.created == ended.meta.created and (pod.meta.deleting or not pod_ended(pod)))
        for pod in pods
    )


def of_replaced(pods: Sequence[Child]) -> Failure | None:
    """Returns the newest failure of pods that ended and have a successor: over, and worth remembering."""
    current = _current(pods)
    failures = (of_pod(pod) for pod in pods if pod not in current and not pod.meta.deleting)
    return max((failure for failure in failures if failure is not None), key=lambda item: item.time, default=None)


def settles_after(pods: Sequence[Child], now: datetime) -> float | None:
    """Returns the seconds until a failure that may still pass counts as one; None where there is none such."""
    failures, room = (of_pod(pod) for pod in pods), _room_at(pods)
    moments = (_settled_at(failure, room) for failure in failures if failure is not None)
    return min(((moment - now).total_seconds() for moment in moments if now < moment), default=None)


def _settled_at(failure: Failure, room: datetime | None) -> datetime:
    """When a failure counts as one: a pod also waits for a node as long as others make room for it."""
    settled = failure.time + _SETTLES.get(failure.reason, timedelta())
    return max(settled, room) if room is not None and failure.reason == "Unschedulable" else settled


def _room_at(pods: Iterable[Child]) -> datetime | None:
    """When the last pod that is being stopped, and holds its node's devices until then, has to be gone."""
    return max((gone + SETTLE for pod in pods if (gone := gone_by(pod)) is not None), default=None)


def of_pod(pod: Child) -> Failure | None:
    """Returns why a pod does not run, or None where nothing has gone wrong so far."""
    checks: list[Callable[[Child, Json], Failure | None]] = [_image, _setup, _ended]
    found = (check(pod, container) for container in container_statuses(pod) for check in checks)
    first = next((failure for failure in found if failure is not None), None)
    return first or _evicted(pod) or _unschedulable(pod) or _unready(pod)


def starts_late(pod: Child, now: datetime) -> bool:
    """Whether a pod has a node and none of its containers starts, for so long that its Events may tell why."""
    since = waits_on_node_since(pod)
    return since is not None and now >= since + LATE


def late_after(pods: Iterable[Child], now: datetime) -> float | None:
    """Returns the seconds until a pod that has not started counts as late; None where there is none such."""
    moments = (since + LATE for pod in pods if (since := waits_on_node_since(pod)) is not None)
    return min(((moment - now).total_seconds() for moment in moments if moment > now), default=None)


def _of_start(pod: Child, words: Mapping[str, Words]) -> Failure | None:
    """A pod that does not start because of its volumes, its network or its node, which only Events tell."""
    said = words.get(pod.meta.uid)
    if said is None or waits_on_node_since(pod) is None:
        return None
    return _failure(pod, said.reason, f"the pod cannot be started: {said.message}", said.time)


def _image(pod: Child, container: Json) -> Failure | None:
    waiting = container.get("state", {}).get("waiting", {})
    reason, message = waiting.get("reason"), str(waiting.get("message", ""))
    image = container.get("image", "")
    if reason in _IMAGE:
        detail = _BACK_OFF.sub("", message)
        return _failure(pod, "ImagePullBackOff", f"image {image} cannot be pulled{detail and ': '}{detail}")
    if reason in _UNUSABLE_IMAGE:
        return _failure(pod, str(reason), f"image {image} cannot be used: {message}")
    return None


def _setup(pod: Child, container: Json) -> Failure | None:
    waiting = container.get("state", {}).get("waiting", {})
    if waiting.get("reason") not in _SETUP:
        return None
    return _failure(pod, waiting["reason"], f"the container cannot be started: {waiting.get('message', '')}")


def _ended(pod: Child, container: Json) -> Failure | None:
    """A container that ended, unless it has come back and serves, or did until it stopped answering."""
    state, since = container.get("state", {}), unready_since(pod)
    back = container.get("ready") or (since is not None and _was_ready(container, since))
    ended = state.get("terminated") or ({} if back else container.get("lastState", {}).get("terminated"))
    if not ended or (ended.get("exitCode") == 0 and "terminated" in state):
        return None
    name, when = container["name"], _time(ended.get("finishedAt"))
    if ended.get("reason") == "OOMKilled":
        limit = _memory_limit(pod, name)
        limited = f"more memory than its limit of {limit}" if limit else "more memory than its node has"
        return _failure(pod, "OOMKilled", f"container {name} was killed for using {limited}", when)
    # Only the last line: the rest of a log may hold what not everybody may read who may read a status.
    said = str(ended.get("message", "")).strip().rpartition("\n")[2].strip()
    last_words = said or f"it left no message; `kubectl logs {pod.meta.name} --previous` shows what it printed"
    code = ended.get("exitCode")
    return _failure(pod, "CrashLoopBackOff", f"container {name} exited with code {code}: {last_words}", when)


def _evicted(pod: Child) -> Failure | None:
    status = pod.body.get("status", {})
    if status.get("phase") != "Failed" or not status.get("reason"):
        return None
    when = _time(conditions(pod.body).get("Ready", {}).get("lastTransitionTime"))
    return _failure(pod, status["reason"], f"the pod was stopped: {status.get('message', '')}", when)


def _unschedulable(pod: Child) -> Failure | None:
    when = unschedulable_since(pod)
    if when is None:
        return None
    message = conditions(pod.body)["PodScheduled"].get("message", "")
    return _failure(pod, "Unschedulable", f"no node can take the pod: {message}", when)


def _unready(pod: Child) -> Failure | None:
    """A pod that was ready and is not any more: a container does not answer, or its node does not."""
    since = unready_since(pod)
    # What becomes of a download on such a node is decided by its Job.
    if since is None or pod_container(pod).get("name") != names.ENGINE_CONTAINER:
        return None
    where = f"pod {pod.meta.name} on node {pod.body['spec']['nodeName']}"
    statuses = container_statuses(pod)
    hung = next((item["name"] for item in statuses if _was_ready(item, since)), None)
    if hung is not None:
        message = f"container {hung} of {where} was ready, and does not answer its readiness probe any more"
        return _failure(pod, "NotReady", message, since)
    # Containers that are ready in a pod that is not: the word of a node that no kubelet speaks for any more, unless a
    # gate is closed, which is for whoever added it to explain.
    gated = conditions(pod.body)["Ready"].get("reason") == "ReadinessGatesNotReady"
    if gated or not all(item.get("ready") for item in statuses):
        return None
    return _failure(pod, "NodeNotReady", f"{where} cannot be reached: the node does not answer", since)


def _was_ready(container: Json, since: datetime) -> bool:
    """Whether a container that runs is not ready, and its pod became unready only after it had begun.

    A pod that loads has been unready from before its containers began.
    """
    began = _time(container.get("state", {}).get("running", {}).get("startedAt"))
    return container.get("started") is True and not container.get("ready") and began is not None and began < since


def _memory_limit(pod: Child, container: str) -> str:
    for spec in (*pod.body["spec"].get("initContainers", ()), *pod.body["spec"]["containers"]):
        if spec["name"] == container:
            return str(spec.get("resources", {}).get("limits", {}).get("memory", ""))
    return ""


def _failure(pod: Child, reason: str, message: str, when: datetime | None = None) -> Failure:
    # A kubelet's reason may name a resource, "OutOfnvidia.com/gpu"; that of a condition is one word.
    word = re.sub(r"[^A-Za-z0-9_]+", "_", reason).strip("_")
    return Failure(word or "PodFailed", message, f"Pod/{pod.meta.name}", when or pod.meta.created)


def _time(text: str | None) -> datetime | None:
    return parse_time(text) if text else None

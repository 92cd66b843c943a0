"""What a pod is doing, in a few words."""

from __future__ import annotations

from aiservice_operator.failures import of_pod
from aiservice_operator.observed import Child
from aiservice_operator.states import pod_container


def node(pod: Child) -> str:
    """Returns the node that a pod is on; empty where it has none."""
    return str(pod.body["spec"].get("nodeName") or "")


def ready(pod: Child) -> bool:
    """Whether a pod serves."""
    return bool(pod_container(pod).get("ready"))


def pod_state(pod: Child) -> str:
    """Returns what a pod is doing, and where."""
    failure = of_pod(pod)
    container = pod_container(pod)
    if ready(pod):
        word = "serves"
    elif failure is not None:
        word = failure.reason
    elif "running" in container.get("state", {}):
        word = "runs, not ready yet"
    elif reason := container.get("state", {}).get("waiting", {}).get("reason"):
        word = str(reason)
    else:
        word = str(pod.body.get("status", {}).get("phase", "Pending"))
    restarts = container.get("restartCount", 0)
    again = f", restarted {restarts} times" if restarts > 1 else ", restarted once" if restarts == 1 else ""
    where = f" on {node(pod)}" if node(pod) else ""
    return f"{word}{where}{again}"

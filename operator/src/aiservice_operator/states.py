"""The states of children: what decisions and status read from Deployments, claims, Jobs and pods."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from aiservice_operator import names
from aiservice_operator.kinds import Json
from aiservice_operator.observed import Child, parse_time

_NOT_BEGUN = frozenset({"ContainerCreating", "PodInitializing"})
"""Why containers wait of which none has been started yet."""


def conditions(body: Json) -> dict[str, Json]:
    """Returns the conditions of any built-in object, by type."""
    return {item["type"]: item for item in body.get("status", {}).get("conditions") or ()}


@dataclass(frozen=True, slots=True)
class Rollout:
    """How far a Deployment is."""

    wanted: int
    existing: int
    updated: int
    ready: int
    current: bool
    """Whether the numbers are about the newest spec."""
    refused: str
    """Why pods cannot be created (quota, pod security), in the API server's words; empty where they can."""
    refused_at: datetime | None

    @property
    def complete(self) -> bool:
        """Whether exactly the wanted pods exist, all of the newest spec and ready."""
        return self.current and self.existing == self.updated == self.ready == self.wanted


def rollout(deployment: Child) -> Rollout:
    """Reads the state of a Deployment."""
    spec, status = deployment.body["spec"], deployment.body.get("status", {})
    failure = conditions(deployment.body).get("ReplicaFailure", {})
    failing = failure.get("status") == "True"
    return Rollout(
        wanted=spec.get("replicas", 1),
        existing=status.get("replicas", 0),
        updated=status.get("updatedReplicas", 0),
        ready=status.get("readyReplicas", 0),
        current=status.get("observedGeneration", 0) >= deployment.meta.generation,
        refused=failure.get("message", "") if failing else "",
        refused_at=parse_time(failure["lastTransitionTime"]) if failing else None,
    )


def past_deadline(deployment: Child) -> datetime | None:
    """Returns when a Deployment's pods had made no progress for longer than they may; None where they have not."""
    progressing = conditions(deployment.body).get("Progressing", {})
    if progressing.get("status") != "False" or progressing.get("reason") != "ProgressDeadlineExceeded":
        return None
    return parse_time(progressing["lastTransitionTime"])


@dataclass(frozen=True, slots=True)
class Claim:
    """State of a PersistentVolumeClaim."""

    name: str
    uid: str
    phase: str
    created: datetime
    deleting: bool
    requested: str
    proof: str
    """The annotation that tells which verified download it holds; empty where it holds none."""


def claim(child: Child) -> Claim:
    """Reads the state of a claim."""
    spec = child.body.get("spec", {})
    return Claim(
        name=child.meta.name,
        uid=child.meta.uid,
        phase=child.body.get("status", {}).get("phase", "Pending"),
        created=child.meta.created,
        deleting=child.meta.deleting,
        requested=str(spec.get("resources", {}).get("requests", {}).get("storage", "0")),
        proof=child.meta.annotations.get(names.DOWNLOAD_ANNOTATION, ""),
    )


def unbound(child: Child | None) -> bool:
    """Whether a claim waits for a volume."""
    return child is not None and claim(child).phase == "Pending"


@dataclass(frozen=True, slots=True)
class DownloadJob:
    """State of a download Job."""

    child: Child
    source: str
    claim_uid: str
    template: str
    attempt: int
    earlier_pods: int
    pods: int
    """Pods of this Job that ran, run or failed."""
    succeeded: bool
    failed_at: datetime | None
    failed_reason: str
    failed_message: str

    @property
    def finished(self) -> bool:
        """Whether no pod will run any more."""
        return self.succeeded or self.failed_at is not None


def download_job(child: Child) -> DownloadJob:
    """Reads the state of a download Job."""
    annotations, status, state = child.meta.annotations, child.body.get("status", {}), conditions(child.body)
    failed = state.get("Failed", {})
    is_failed = failed.get("status") == "True"
    return DownloadJob(
        child=child,
        source=annotations.get(names.SOURCE_ANNOTATION, ""),
        claim_uid=annotations.get(names.CLAIM_UID_ANNOTATION, ""),
        template=annotations.get(names.TEMPLATE_ANNOTATION, ""),
        attempt=_number(annotations.get(names.ATTEMPT_ANNOTATION), 1),
        earlier_pods=_number(annotations.get(names.EARLIER_PODS_ANNOTATION), 0),
        pods=sum(status.get(field, 0) for field in ("active", "succeeded", "failed")),
        succeeded=state.get("Complete", {}).get("status") == "True",
        failed_at=parse_time(failed["lastTransitionTime"]) if is_failed else None,
        failed_reason=failed.get("reason", ""),
        failed_message=failed.get("message", ""),
    )


def _number(text: str | None, default: int) -> int:
    """Annotations can be edited by anyone: what is no number counts as the default."""
    return int(text) if text is not None and text.isdecimal() else default


def pod_container(pod: Child) -> Json:
    """Returns the status of the operator's container in a pod, whatever was injected beside it; empty: none yet."""
    statuses: list[Json] = pod.body.get("status", {}).get("containerStatuses") or []
    return next((status for status in statuses if status["name"] in names.CONTAINERS), {})


def unschedulable_since(pod: Child) -> datetime | None:
    """Returns since when no node takes a pod; None where one has, or it is going."""
    scheduled = conditions(pod.body).get("PodScheduled", {})
    if pod.meta.deleting or scheduled.get("status") != "False" or scheduled.get("reason") != "Unschedulable":
        return None
    return parse_time(scheduled["lastTransitionTime"])


def container_statuses(pod: Child) -> list[Json]:
    """Returns the statuses of the containers that a pod needs, in the order in which their failures are causes.

    First those that run before the others, then the operator's own, then those beside it. In a download only its own
    container decides: what was injected beside it may well be stopped when that has ended.
    """
    status = pod.body.get("status", {})
    first, beside = status.get("initContainerStatuses") or [], status.get("containerStatuses") or []
    own = [item for item in beside if item["name"] in names.CONTAINERS]
    if any(item["name"] == names.DOWNLOAD_CONTAINER for item in own):
        return [*first, *own]
    return [*first, *own, *(item for item in beside if item not in own)]


def gone_by(pod: Child) -> datetime | None:
    """Returns when a pod that is being deleted has to be gone; None where it stays."""
    text = pod.body["metadata"].get("deletionTimestamp")
    return parse_time(text) if text is not None else None


def pod_ended(pod: Child) -> bool:
    """Whether no container of a pod will run any more."""
    return pod.body.get("status", {}).get("phase") in {"Failed", "Succeeded"}


def waits_on_node_since(pod: Child) -> datetime | None:
    """Returns since when a pod has had a node on which no container of it has started; None where it is not so."""
    scheduled = conditions(pod.body).get("PodScheduled", {})
    if pod.meta.deleting or scheduled.get("status") != "True" or pod.body["status"].get("phase") != "Pending":
        return None
    reasons = {item.get("state", {}).get("waiting", {}).get("reason") for item in container_statuses(pod)}
    return parse_time(scheduled["lastTransitionTime"]) if reasons <= _NOT_BEGUN else None


def pod_running(pod: Child) -> bool:
    """Whether the pod's container is running now."""
    return "running" in pod_container(pod).get("state", {})


def pod_controller(pod: Child) -> str:
    """Returns the uid of the Job or ReplicaSet that made a pod; empty where nothing did."""
    return pod.meta.controller.uid if pod.meta.controller is not None else ""


def termination_message(pod: Child) -> str:
    """Returns what the pod's container left when it last ended; empty where it has not."""
    status = pod_container(pod)
    for state in (status.get("state", {}), status.get("lastState", {})):
        if "terminated" in state:
            return str(state["terminated"].get("message", ""))
    return ""

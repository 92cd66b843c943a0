"""The states of children: what decisions and status read from Deployments, claims, Jobs and pods."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from aiservice_operator import names
from aiservice_operator.kinds import Json, Key, Kind
from aiservice_operator.names import Mode
from aiservice_operator.observed import Child, Observed, Service, mounted_cache, parse_time
from aiservice_operator.quantities import parse

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


def progress_deadline(deployment: Child) -> timedelta:
    """Returns how long a new pod of a Deployment may take: to find a node, to pull its image and to load."""
    return timedelta(seconds=deployment.body["spec"].get("progressDeadlineSeconds", 600))


@dataclass(frozen=True, slots=True)
class Claim:
    """State of a PersistentVolumeClaim."""

    name: str
    uid: str
    phase: str
    created: datetime
    deleting: bool
    requested: str
    capacity: str
    """Size of its volume; empty until it is bound."""
    access_mode: str
    """The mode that lets most nodes use it; empty where it has none."""
    mounted_to_grow: bool
    """Whether its volume has grown already and the file system grows as soon as a pod mounts it."""
    growth_fault: str
    """Why its volume does not grow, in the resizer's words; empty while it may."""
    annotations: dict[str, str]

    @property
    def growing(self) -> bool:
        """Whether a pod that started now would still find the old size."""
        bound = self.phase == "Bound" and bool(self.capacity)
        return bound and not self.mounted_to_grow and parse(self.capacity) < parse(self.requested)


_WIDEST_FIRST = ("ReadWriteMany", "ReadOnlyMany", "ReadWriteOnce", "ReadWriteOncePod")


def claim(child: Child) -> Claim:
    """Reads the state of a claim."""
    spec, status, state = child.body.get("spec", {}), child.body.get("status", {}), conditions(child.body)
    modes = spec.get("accessModes") or ()
    errors = (state.get(name, {}) for name in ("ControllerResizeError", "NodeResizeError"))
    return Claim(
        name=child.meta.name,
        uid=child.meta.uid,
        phase=status.get("phase", "Pending"),
        created=child.meta.created,
        deleting=child.meta.deleting,
        requested=str(spec.get("resources", {}).get("requests", {}).get("storage", "0")),
        capacity=str(status.get("capacity", {}).get("storage", "")),
        access_mode=next((mode for mode in _WIDEST_FIRST if mode in modes), ""),
        mounted_to_grow=state.get("FileSystemResizePending", {}).get("status") == "True",
        growth_fault=next((str(error["message"]) for error in errors if error.get("message")), ""),
        annotations=child.meta.annotations,
    )


def unbound(child: Child | None) -> bool:
    """Whether a claim waits for a volume."""
    return child is not None and claim(child).phase == "Pending"


@dataclass(frozen=True, slots=True)
class CacheJob:
    """State of a Job of a ModelCache: it measures, downloads or verifies."""

    child: Child
    mode: Mode
    source: str
    claim_uid: str
    """Of the claim that it works on; empty where it measures."""
    template: str
    revision: str
    """Which commit or digest it was told to take; empty: what the source names when it runs."""
    nodes: tuple[str, ...]
    """Host names of the nodes that it was told to keep to; none: it may run on any."""
    request: str
    """Which wish for verification it answers."""
    attempt: int
    earlier_pods: int
    pods: int
    """Pods of this Job that ran, run or failed."""
    completed_at: datetime | None
    failed_at: datetime | None
    failed_reason: str
    failed_message: str

    @property
    def succeeded(self) -> bool:
        """Whether it did what it was for."""
        return self.completed_at is not None

    @property
    def held(self) -> bool:
        """Whether somebody, a queue for example, keeps it from running for now."""
        return bool(self.child.body["spec"].get("suspend", False))


def node_selector(workload: Child) -> dict[str, str]:
    """Returns the node labels that the pods of a Deployment or a Job need."""
    template: Json = workload.body["spec"].get("template", {})
    selector: dict[str, str] | None = template.get("spec", {}).get("nodeSelector")
    return selector or {}


_MODES = frozenset(Mode)


def cache_job(child: Child) -> CacheJob:
    """Reads the state of a cache's Job."""
    annotations, status, state = child.meta.annotations, child.body.get("status", {}), conditions(child.body)
    completed, failed = state.get("Complete", {}), state.get("Failed", {})
    mode = annotations.get(names.MODE_ANNOTATION, "")
    return CacheJob(
        child=child,
        mode=Mode(mode) if mode in _MODES else Mode.DOWNLOAD,
        source=annotations.get(names.SOURCE_ANNOTATION, ""),
        claim_uid=annotations.get(names.CLAIM_UID_ANNOTATION, ""),
        template=annotations.get(names.TEMPLATE_ANNOTATION, ""),
        revision=annotations.get(names.REVISION_ANNOTATION, ""),
        nodes=tuple(filter(None, annotations.get(names.NODES_ANNOTATION, "").split(","))),
        request=annotations.get(names.REQUEST_ANNOTATION, ""),
        attempt=_number(annotations.get(names.ATTEMPT_ANNOTATION), 1),
        earlier_pods=_number(annotations.get(names.EARLIER_PODS_ANNOTATION), 0),
        pods=sum(status.get(field, 0) for field in ("active", "succeeded", "failed")),
        completed_at=_since(completed),
        failed_at=_since(failed),
        failed_reason=failed.get("reason", ""),
        failed_message=failed.get("message", ""),
    )


def _since(condition: Json) -> datetime | None:
    """When a condition became true; None where it is not."""
    return parse_time(condition["lastTransitionTime"]) if condition.get("status") == "True" else None


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


def placed_at(pod: Child) -> datetime:
    """Returns when a pod got its node; when it was made, where nothing tells."""
    return _since(conditions(pod.body).get("PodScheduled", {})) or pod.meta.created


def gated_since(pod: Child) -> datetime | None:
    """Returns since when scheduling gates hold a pod back from every node; None where none does, or it is going.

    They are there from the beginning or not at all, and the API server notes no other time.
    """
    scheduled = conditions(pod.body).get("PodScheduled", {})
    gated = scheduled.get("status") == "False" and scheduled.get("reason") == "SchedulingGated"
    return pod.meta.created if gated and not pod.meta.deleting else None


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


def used_cache(observed: Observed) -> Key | None:
    """Returns the ModelCache that is in use because of an AIService, its Deployment or one of its pods; None: none is.

    A spec names the one to serve from, a Deployment the one that new pods mount. In a rollout that does not come to its
    end, pods of before serve on: without the cache that they mount there would be no way back. A pod that has ended
    mounts nothing any more, though it may stay for ever.
    """
    name = _used_name(observed)
    return Key(Kind.MODEL_CACHE, observed.meta.namespace, name) if name else None


def _used_name(observed: Observed) -> str | None:
    if isinstance(observed, Service):
        return observed.cache_name
    if not isinstance(observed, Child):
        return None
    if observed.kind is Kind.DEPLOYMENT:
        return mounted_cache(observed)
    labels = observed.meta.labels
    serves = observed.kind is Kind.POD and labels.get(names.NAME_LABEL) == names.SERVICE_APP
    return labels.get(names.CACHE_LABEL) if serves and not pod_ended(observed) else None


def waits_on_node_since(pod: Child) -> datetime | None:
    """Returns since when a pod has had a node on which no container of it has started; None where it is not so."""
    scheduled = conditions(pod.body).get("PodScheduled", {})
    if pod.meta.deleting or scheduled.get("status") != "True" or pod.body["status"].get("phase") != "Pending":
        return None
    reasons = {item.get("state", {}).get("waiting", {}).get("reason") for item in container_statuses(pod)}
    return parse_time(scheduled["lastTransitionTime"]) if reasons <= _NOT_BEGUN else None


def unready_since(pod: Child) -> datetime | None:
    """Returns since when a pod that runs is not ready, be it not yet; None where it is, or is going."""
    ready = conditions(pod.body).get("Ready", {})
    if pod.meta.deleting or pod.body["status"].get("phase") != "Running" or ready.get("status") != "False":
        return None
    return parse_time(ready["lastTransitionTime"])


def pod_running(pod: Child) -> bool:
    """Whether the pod's container is running now."""
    return "running" in pod_container(pod).get("state", {})


def engine_started(pod: Child) -> bool:
    """Whether the startup probe of the pod's container has passed since it last began: the model is loaded."""
    return pod_container(pod).get("started") is True


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

"""What the checks of an AIService look at, gathered once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from aiservice_api.v1alpha1 import AIServiceSpec, PodOverrides, Surge
from aiservice_operator.failures import Failure, Words, of_pods
from aiservice_operator.kinds import Kind
from aiservice_operator.plan.actions import Refusal
from aiservice_operator.plan.scaling import stated_replicas
from aiservice_operator.plan.service import ServicePlan, ServiceView
from aiservice_operator.plan.surge import Decision
from aiservice_operator.settings import Profile, Settings
from aiservice_operator.states import Rollout, node_selector, past_deadline, progress_deadline, rollout
from aiservice_operator.status.remedies import SERVING, advised, chosen_nodes, of_pod

_VOLUME_ELSEWHERE = "volume node affinity"
"""The scheduler's words about nodes from which a pod's volume cannot be mounted."""


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """What was observed and decided, and what follows from both."""

    view: ServiceView
    plan: ServicePlan
    settings: Settings
    refusals: Sequence[Refusal]
    """Of children that the service needs."""
    rollout: Rollout | None
    failure: Failure | None
    """The deepest failure below the service."""
    wanted: int
    """Pods that there are to be."""

    @property
    def suspended(self) -> bool:
        """Whether the spec asks for nothing to run for now."""
        return self.view.service.spec is not None and self.view.service.spec.suspend


def service_facts(
    view: ServiceView,
    plan: ServicePlan,
    settings: Settings,
    refusals: Sequence[Refusal],
    *,
    words: Mapping[str, Words],
    now: datetime,
) -> ServiceFacts:
    """Gathers what the checks look at."""
    state = rollout(view.deployment) if view.deployment is not None else None
    return ServiceFacts(
        view=view,
        plan=plan,
        settings=settings,
        refusals=[refusal for refusal in refusals if refusal.identity.kind is not Kind.POD_MONITOR],
        rollout=state,
        failure=_failure(view, plan, settings, state, words=words, now=now),
        wanted=_wanted(view.service.spec, state),
    )


def _wanted(spec: AIServiceSpec | None, state: Rollout | None) -> int:
    """What the spec states, and else what the autoscaler has set, or will set as soon as it looks."""
    stated = stated_replicas(spec) if spec is not None else None
    if stated is not None:
        return stated
    least = spec.autoscaling.min if spec is not None and spec.autoscaling is not None else 1
    return max(least, state.wanted) if state is not None else least


def _failure(
    view: ServiceView,
    plan: ServicePlan,
    settings: Settings,
    state: Rollout | None,
    *,
    words: Mapping[str, Words],
    now: datetime,
) -> Failure | None:
    """A pod's failure, why there is no pod, or that none gets ready for a reason that nothing tells."""
    found = of_pods(view.pods, now, words)
    if found is not None:
        hinted = _with_hint(found, view, plan, state, settings)
        return replace(hinted, message=advised(hinted.message, of_pod(found)))
    if view.deployment is None or state is None:
        return None
    deployment = f"Deployment/{view.deployment.meta.name}"
    if state.refused and state.refused_at is not None:
        message = advised(f"pods cannot be created: {state.refused}", SERVING["PodsRefused"])
        return Failure("PodsRefused", message, deployment, state.refused_at)
    late = past_deadline(view.deployment)
    if late is None or state.complete:
        return None
    seconds = int(progress_deadline(view.deployment).total_seconds())
    return Failure(
        "ProgressDeadlineExceeded",
        f"no pod became ready for {seconds} s, and none says why: `kubectl describe pods -l "
        f"app.kubernetes.io/instance={view.service.meta.name}` shows their Events; where loading takes longer, raise "
        "spec.rollout.startSeconds",
        deployment,
        late,
    )


def _with_hint(
    failure: Failure, view: ServiceView, plan: ServicePlan, state: Rollout | None, settings: Settings
) -> Failure:
    """Adds what in this service may keep a pod from finding a node, besides what the scheduler says."""
    if failure.reason != "Unschedulable":
        return failure
    spec, hints = view.service.spec, []
    if view.deployment is not None and (chosen := chosen_nodes(node_selector(view.deployment), [spec])):
        hints.append(chosen)
    if plan.one_node:
        hints.append(
            "The model's volume is ReadWriteOnce, so all pods that use it run on one node: use a cache with "
            "storage.accessMode ReadWriteMany, or fewer pods"
        )
        if spec is not None and _VOLUME_ELSEWHERE in failure.message and unplaced_devices(spec, settings):
            hints.append(
                "The volume may have been made on a node without the GPU, where the download ran: set "
                "spec.pod.nodeSelector to nodes that have it, then delete the PersistentVolumeClaim to have the model "
                "downloaded there"
            )
    surging = state is not None and state.existing > state.updated
    if surging and spec is not None and plan.rollout is not None and plan.rollout.surge:
        hints.append(_surge_hint(spec, plan.rollout))
    return replace(failure, message=". ".join([failure.message.rstrip("."), *hints])) if hints else failure


def unplaced_devices(spec: AIServiceSpec, settings: Settings) -> bool:
    """Whether pods get GPUs or claimed devices, and nothing in the spec says which nodes have them."""
    profile = settings.profiles.get(spec.profile or "", Profile())
    pod = spec.pod or PodOverrides()
    near = pod.affinity.node_affinity if pod.affinity is not None else None
    placed = profile.node_selector or pod.node_selector or near is not None
    return not placed and bool(spec.gpu or profile.gpu or spec.resource_claims)


def _surge_hint(spec: AIServiceSpec, decision: Decision) -> str:
    if spec.rollout.surge is Surge.ALWAYS:
        return "A new pod is to start beside the old one: make room, or set spec.rollout.surge to Never or Auto"
    return f"About the rollout: {decision.reason}"


def pods(count: int) -> str:
    """Returns a number of pods in words."""
    return "1 pod" if count == 1 else f"{count} pods"

"""Whether a ModelCache has a volume: the `StorageBound` check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from aiservice_api.v1alpha1 import ModelCacheSpec, Storage
from aiservice_operator.downloads import Progress
from aiservice_operator.failures import Failure, Words, of_pods
from aiservice_operator.kinds import Kind
from aiservice_operator.names import Mode
from aiservice_operator.observed import Child
from aiservice_operator.plan.actions import Refusal
from aiservice_operator.plan.download import CachePlan, CacheView
from aiservice_operator.plan.tries import pods_of
from aiservice_operator.states import CacheJob, Claim, claim, node_selector
from aiservice_operator.status.conditions import Check, no, pending, yes
from aiservice_operator.status.remedies import DOWNLOADING, REFUSED, advised, chosen_nodes

_NO_VOLUME = timedelta(seconds=10)
"""How long somebody may take to provide a volume before that counts as a failure."""


@dataclass(frozen=True, slots=True)
class ClaimEvent:
    """What the part that binds claims says of one, in an Event."""

    reason: str
    message: str
    problem: bool
    """Whether it is a warning."""

    @property
    def no_volume(self) -> bool:
        """Whether no volume fits and no StorageClass could make one, which is said in a normal event."""
        return self.reason == "FailedBinding"

    @property
    def waits_for_pod(self) -> bool:
        """Whether the claim is to be bound when a pod with it is scheduled."""
        return self.reason == "WaitForFirstConsumer"


@dataclass(frozen=True, slots=True)
class CacheFacts:
    """What had to be asked for, because no watch tells it."""

    source_claim: Child | None = None
    """The claim of a `pvc` source."""
    claim_event: ClaimEvent | None = None
    """What was said last of a claim that is not bound."""
    progress: Progress | None = None
    """What the running download has printed last."""
    words: Mapping[str, Words] = field(default_factory=dict)
    """What Events say of pods that do not start, and of Jobs whose pods are not made, by uid."""
    secrets_followed: bool = True
    """Whether the operator looks if the Secret of a source has changed."""


def provided_claim(name: str, namespace: str, facts: CacheFacts, now: datetime) -> Check:
    """Checks the claim of a `pvc` source: it exists, and pods can use it."""
    if facts.source_claim is None:
        return no(
            "ClaimNotFound",
            f"there is no PersistentVolumeClaim {name} in namespace {namespace}: create it, or make a ModelCache with "
            "the right spec.pvc.claimName",
        )
    state = claim(facts.source_claim)
    if state.deleting:
        return no("ClaimTerminating", f"PersistentVolumeClaim {name} is being deleted: create it again when it is gone")
    if state.phase == "Pending" and facts.claim_event is not None and facts.claim_event.waits_for_pod:
        return yes("WaitsForPod", f"PersistentVolumeClaim {name} will be bound when a serving pod is scheduled")
    return _settled(state) or _refused(state, facts, now) or _waiting(state, facts)


def own_claim(
    spec: ModelCacheSpec,
    view: CacheView,
    plan: CachePlan,
    facts: CacheFacts,
    *,
    refusals: Sequence[Refusal],
    now: datetime,
) -> Check:
    """Checks the claim that the operator made for a download."""
    refused = claim_refusal(refusals)
    if plan.conflict:
        return no("PlacementConflict", plan.conflict)
    if plan.claim is None:
        return no("ClaimRefused", advised(refused, REFUSED)) if refused else _before_the_claim(plan)
    state = plan.claim
    if state.deleting:
        return no(
            "ClaimTerminating",
            f"PersistentVolumeClaim {state.name} is being deleted and goes when no pod uses it; then the model is "
            "downloaded anew. Suspend the AIServices that use it, to have that now",
        )
    if state.phase == "Bound":
        return yes("Bound", _bound(spec, plan, state, refused))
    return (
        _settled(state) or _refused(state, facts, now) or _unscheduled(view, plan, facts, now) or _waiting(state, facts)
    )


def claim_refusal(refusals: Sequence[Refusal]) -> str:
    """Returns why the API server does not take the claim as it should be; empty where it does."""
    return next((refusal.message for refusal in refusals if refusal.identity.kind is Kind.CLAIM), "")


def held(job: CacheJob) -> Check:
    """Tells of a Job that somebody suspended: a queue such as Kueue does it, and lets it go on when there is room."""
    said = f"Job {job.child.meta.name} is suspended, by a queue or by hand: it runs when its spec.suspend is false"
    return pending("Queued", said)


def _before_the_claim(plan: CachePlan) -> Check:
    if plan.job is not None and plan.job.mode is Mode.MEASURE:
        if plan.job.held:
            return held(plan.job)
        return pending("Measuring", "the source is asked how large it is; then a claim of that size is made")
    return pending("Creating", "the claim is being created")


def _bound(spec: ModelCacheSpec, plan: CachePlan, state: Claim, refused: str) -> str:
    """What there is, why it is as large, and why it is not larger."""
    words = f"PersistentVolumeClaim {state.name} is bound"
    measured = plan.memory.measurement
    if measured is not None and measured.bytes is None and (spec.storage or Storage()).size is None:
        words += f" with {state.requested}, since its source does not tell how large it is"
    return f"{words}; it stays as it is: {refused}" if refused else words


def _settled(state: Claim) -> Check | None:
    """A claim whose fate is decided."""
    if state.phase == "Bound":
        return yes("Bound", f"PersistentVolumeClaim {state.name} is bound")
    if state.phase == "Lost":
        return no(
            "ClaimLost",
            f"the volume of PersistentVolumeClaim {state.name} is gone, and the files with it: delete the claim",
        )
    return None


def _unscheduled(view: CacheView, plan: CachePlan, facts: CacheFacts, now: datetime) -> Check | None:
    """A claim that is bound where its pod runs, and no node takes the pod."""
    if facts.claim_event is None or not facts.claim_event.waits_for_pod:
        return None  # the pod waits for the claim, not the claim for the pod
    stuck = of_pods(pods_of(plan.job, view.pods), now) if plan.job is not None else None
    if plan.job is None or stuck is None or stuck.reason != "Unschedulable":
        return None
    said = f"its volume is bound where the download runs, but {with_nodes(stuck, plan.job, view).message}"
    return no("Unschedulable", advised(said, DOWNLOADING["Unschedulable"]))


def with_nodes(failure: Failure, job: CacheJob, view: CacheView) -> Failure:
    """Adds which nodes the users of a cache let its Jobs run on, where no node takes one."""
    chosen = chosen_nodes(node_selector(job.child), (user.spec for user in view.users))
    if failure.reason != "Unschedulable" or not chosen:
        return failure
    return replace(failure, message=advised(failure.message, chosen))


def _refused(state: Claim, facts: CacheFacts, now: datetime) -> Check | None:
    """A claim that cannot be bound, in the provisioner's words."""
    event = facts.claim_event
    if event is None or not (event.problem or (event.no_volume and now >= state.created + _NO_VOLUME)):
        return None
    shared = (
        ". Where nodes cannot share a volume, a ModelCache with storage.accessMode ReadWriteOnce keeps all its pods on "
        "one node"
    )
    return no(
        "ProvisioningFailed",
        f"PersistentVolumeClaim {state.name} cannot be bound: {event.message}: provide that StorageClass "
        "or a volume, or choose another with storage.storageClassName"
        f"{shared if state.access_mode == 'ReadWriteMany' else ''}",
    )


def _waiting(state: Claim, facts: CacheFacts) -> Check:
    """A claim that will be bound, as far as anyone knows."""
    name, event = state.name, facts.claim_event
    if event is None:
        return pending("Provisioning", f"PersistentVolumeClaim {name} waits for a volume")
    if event.waits_for_pod:
        return pending("WaitsForPod", f"PersistentVolumeClaim {name} will be bound when its pod is scheduled")
    return pending("Provisioning", f"PersistentVolumeClaim {name} waits for a volume: {event.message}")

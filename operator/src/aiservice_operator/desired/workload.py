"""The Deployment of an AIService: pods that serve its tasks from a cached model."""

from __future__ import annotations

from kubernetes.aio import client

from aiservice_api.v1alpha1 import AIServiceSpec, PodOverrides
from aiservice_operator import names
from aiservice_operator.desired.common import (
    as_in_a_pod,
    controlled_by,
    metadata,
    pod_security,
    pull_secrets,
    scratch,
    tolerations,
)
from aiservice_operator.desired.container import (
    LEAVE_SECONDS,
    MODEL_VOLUME,
    Mount,
    engine_container,
    sidecar_container,
)
from aiservice_operator.desired.placement import affinity, node_selector, spread
from aiservice_operator.engines import Engine
from aiservice_operator.kinds import Json, Kind
from aiservice_operator.observed import Meta

_EXIT_SECONDS = 10
"""How long the process may take to end after the last request."""
_SCHEDULE_SECONDS = 10 * 60
"""How long finding a node and pulling the image may take before a rollout counts as failed."""


def workload(
    owner: Meta,
    spec: AIServiceSpec,
    mount: Mount,
    engine: Engine,
    *,
    surge: bool,
    replicas: int | None,
    references: str,
) -> client.V1Deployment:
    """Builds the Deployment of an AIService.

    Args:
        owner: The AIService.
        spec: What it asks for.
        mount: The files to serve from.
        engine: The server, and what it runs on.
        surge: Whether a rollout starts a new pod before it stops an old one.
        replicas: Number of pods; None: an autoscaler owns it.
        references: Hash of the Secrets and ConfigMaps that the pods name; empty: not looked at.
    """
    template = _template(owner, spec, mount, engine, references)
    digest = names.digest(template.model_dump(mode="json", by_alias=True, exclude_none=True))
    return client.V1Deployment(
        metadata=metadata(
            owner.name,
            owner.namespace,
            names.service_labels(owner.name),
            [controlled_by(Kind.AISERVICE, owner)],
            {names.POD_TEMPLATE_ANNOTATION: digest},
        ),
        spec=client.V1DeploymentSpec(
            replicas=replicas,
            selector=client.V1LabelSelector(match_labels=names.workload_selector(owner.name)),
            strategy=_strategy(surge=surge),
            progress_deadline_seconds=spec.rollout.start_seconds + _SCHEDULE_SECONDS,
            revision_history_limit=3,
            template=template,
        ),
    )


def template_digest(deployment: Json) -> str:
    """Returns the identity of the pods that a Deployment, wanted or live, asks for; empty where it has none.

    Another digest is another rollout. The number of pods and the way they are replaced do not count.
    """
    digest: str = deployment["metadata"].get("annotations", {}).get(names.POD_TEMPLATE_ANNOTATION, "")
    return digest


def _template(
    owner: Meta, spec: AIServiceSpec, mount: Mount, engine: Engine, references: str
) -> client.V1PodTemplateSpec:
    pod = spec.pod or PodOverrides()
    annotations = {names.CACHE_ANNOTATION: mount.cache, names.DIGEST_ANNOTATION: mount.digest}
    if references:
        annotations[names.REFERENCES_ANNOTATION] = references
    labels = {**names.service_labels(owner.name), names.CACHE_LABEL: mount.cache}
    return client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={**pod.labels, **labels}, annotations={**pod.annotations, **annotations}),
        spec=_pod(owner, spec, pod, mount, engine),
    )


def _pod(owner: Meta, spec: AIServiceSpec, pod: PodOverrides, mount: Mount, engine: Engine) -> client.V1PodSpec:
    profile = engine.profile
    secrets = [*engine.pull_secrets, *(secret.name for secret in pod.image_pull_secrets)]
    return client.V1PodSpec(
        service_account_name=owner.name,
        automount_service_account_token=False,
        enable_service_links=False,
        security_context=pod_security(),
        termination_grace_period_seconds=LEAVE_SECONDS + spec.rollout.drain_seconds + _EXIT_SECONDS,
        node_selector=node_selector(profile, pod),
        tolerations=tolerations([*profile.tolerations, *pod.tolerations]),
        affinity=affinity(pod, mount),
        topology_spread_constraints=spread(owner.name, pod.topology_spread_constraints),
        priority_class_name=pod.priority_class_name or profile.priority_class_name,
        runtime_class_name=pod.runtime_class_name or profile.runtime_class_name,
        image_pull_secrets=pull_secrets(secrets),
        resource_claims=[as_in_a_pod(client.V1PodResourceClaim, claim) for claim in spec.resource_claims] or None,
        containers=[
            engine_container(owner, spec, mount, engine),
            *(sidecar_container(sidecar, mount, engine.pull_policy) for sidecar in pod.sidecars),
        ],
        volumes=[
            client.V1Volume(name=MODEL_VOLUME, persistent_volume_claim=_claim(mount)),
            scratch(),
            # Container runtimes give 64 MiB, which PyTorch's worker processes outgrow.
            client.V1Volume(name="shm", empty_dir=client.V1EmptyDirVolumeSource(medium="Memory")),
            *(as_in_a_pod(client.V1Volume, volume) for volume in pod.volumes),
        ],
    )


def _claim(mount: Mount) -> client.V1PersistentVolumeClaimVolumeSource:
    """The volume of the model, which every container sees read-only in any case.

    A disk that several nodes attach has to be attached read-only. Other volumes are not: the kubelet would leave out
    the file group (`fsGroup`), by which pods may read what others have written onto a claim of theirs, and some drivers
    attach a disk once for a node, to be written to or not as its first pod has it, while a Job may write to it beside
    the pods that serve.
    """
    return client.V1PersistentVolumeClaimVolumeSource(
        claim_name=mount.claim, read_only=True if mount.read_only else None
    )


def _strategy(*, surge: bool) -> client.V1DeploymentStrategy:
    """One new pod first, or one old pod away first: a new one would wait for ever for a GPU that the old one holds."""
    extra, missing = (1, 0) if surge else (0, 1)
    return client.V1DeploymentStrategy(
        type="RollingUpdate",
        rolling_update=client.V1RollingUpdateDeployment(max_surge=extra, max_unavailable=missing),
    )

"""The Jobs of a ModelCache: they ask a source for its size, download it onto a volume, and verify what is there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from kubernetes.aio import client

from aiservice_api.v1alpha1 import ModelCacheSpec
from aiservice_operator import names
from aiservice_operator.desired.common import (
    container_security,
    controlled_by,
    metadata,
    pod_security,
    pull_secrets,
    scratch,
    tolerations,
)
from aiservice_operator.desired.credentials import credentials_of
from aiservice_operator.kinds import Kind
from aiservice_operator.names import Mode
from aiservice_operator.observed import Meta
from aiservice_operator.quantities import parse
from aiservice_operator.settings import Settings, Toleration
from aiservice_operator.states import Claim

CACHE_DIR = "/cache"
TERMINATION_LOG = "/dev/termination-log"
HOST = "kubernetes.io/hostname"
"""The label that every node has, with a value of its own."""
GIVE_UP = 2
"""Exit code of the downloader when another try cannot help."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where pods must run for a volume to be one that the users' pods can mount."""

    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: list[Toleration] = field(default_factory=list)
    node_terms: list[client.V1NodeSelectorTerm] = field(default_factory=list)
    """Of which a node meets at least one; none: any node."""
    devices: dict[str, int] = field(default_factory=dict)
    """GPUs that the users' pods get, which a node needs for them and a Job does not hold."""
    one_node: bool = False
    """Whether only one node can mount the volume, so that all its pods go where one is."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a Job is for."""

    mode: Mode
    claim: Claim | None = None
    """The claim that it works on; None where it measures."""
    secret: str = ""
    """Digest of the credentials' content: with other credentials it is another Job."""
    request: str = ""
    """Which wish for verification it answers."""
    since: str = ""
    """When what it verifies was verified before, which tells the Job from the one of that time."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Which try of a task."""

    number: int
    earlier_pods: int
    revision: str = ""
    """The commit or digest to take; empty: what the source's revision or tag names when the Job runs."""
    nodes: tuple[str, ...] = ()
    """Host names of the nodes to run on; none: any. A Job keeps those it was made with: its template never changes."""


def job(
    owner: Meta, spec: ModelCacheSpec, task: Task, *, placement: Placement, attempt: Attempt, settings: Settings
) -> client.V1Job:
    """Builds a Job of a ModelCache."""
    source = names.source_digest(spec)
    claim_uid = task.claim.uid if task.claim is not None else ""
    pod = _pod(owner, spec, task, attempt, placement=placement, settings=settings)
    labels = _labels(owner, task)
    made_from = pod.model_dump(mode="json", by_alias=True, exclude_none=True)
    template = names.digest([made_from, task.secret, task.request])
    kept = {
        names.MODE_ANNOTATION: task.mode.value,
        names.SOURCE_ANNOTATION: source,
        names.CLAIM_UID_ANNOTATION: claim_uid,
        names.TEMPLATE_ANNOTATION: template,
        names.REVISION_ANNOTATION: attempt.revision,
        names.NODES_ANNOTATION: ",".join(attempt.nodes),
        names.REQUEST_ANNOTATION: task.request,
        names.ATTEMPT_ANNOTATION: str(attempt.number),
        names.EARLIER_PODS_ANNOTATION: str(attempt.earlier_pods),
    }
    return client.V1Job(
        metadata=metadata(
            names.job_name(owner.name, [source, claim_uid, template, task.since, attempt.number]),
            owner.namespace,
            names.cache_labels(owner.name),
            [controlled_by(Kind.MODEL_CACHE, owner)],
            {name: value for name, value in kept.items() if value},
        ),
        spec=client.V1JobSpec(
            backoff_limit=settings.download.backoff_limit,
            parallelism=1,
            completions=1,
            pod_failure_policy=_failure_policy(),
            template=client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels=labels), spec=pod),
        ),
    )


def _labels(owner: Meta, task: Task) -> dict[str, str]:
    mounts = {names.CACHE_LABEL: owner.name} if task.claim is not None else {}
    return {**names.cache_labels(owner.name), **mounts}


def _failure_policy() -> client.V1PodFailurePolicy:
    gave_up = client.V1PodFailurePolicyOnExitCodesRequirement(
        container_name=names.DOWNLOAD_CONTAINER, operator="In", values=[GIVE_UP]
    )
    disrupted = client.V1PodFailurePolicyOnPodConditionsPattern(type="DisruptionTarget", status="True")
    return client.V1PodFailurePolicy(
        rules=[
            client.V1PodFailurePolicyRule(action="FailJob", on_exit_codes=gave_up),
            # A drained node is no fault of the download: it does not use up a retry.
            client.V1PodFailurePolicyRule(action="Ignore", on_pod_conditions=[disrupted]),
        ]
    )


def _pod(
    owner: Meta, spec: ModelCacheSpec, task: Task, attempt: Attempt, *, placement: Placement, settings: Settings
) -> client.V1PodSpec:
    download, volumes, mounts = settings.download, [scratch()], [_mount("tmp", "/tmp")]  # noqa: S108 - scratch volume
    if task.claim is not None:
        source = client.V1PersistentVolumeClaimVolumeSource(claim_name=task.claim.name)
        volumes.append(client.V1Volume(name="cache", persistent_volume_claim=source))
        mounts.append(_mount("cache", CACHE_DIR))
    return client.V1PodSpec(
        restart_policy="Never",
        automount_service_account_token=False,
        enable_service_links=False,
        security_context=pod_security(),
        node_selector=placement.node_selector or None,
        tolerations=tolerations(placement.tolerations),
        affinity=_affinity(owner, placement, attempt.nodes, mounts_volume=task.claim is not None),
        image_pull_secrets=pull_secrets(settings.image_pull_secrets),
        containers=[
            client.V1Container(
                name=names.DOWNLOAD_CONTAINER,
                image=download.image,
                image_pull_policy=settings.image_pull_policy,
                env=_environment(spec, task, attempt.revision, settings),
                resources=client.V1ResourceRequirements(
                    requests=download.resources.requests or None, limits=download.resources.limits or None
                ),
                security_context=container_security(),
                termination_message_path=TERMINATION_LOG,
                termination_message_policy="File",
                volume_mounts=mounts,
            )
        ],
        volumes=volumes,
    )


def _mount(name: str, path: str) -> client.V1VolumeMount:
    return client.V1VolumeMount(name=name, mount_path=path)


def _affinity(
    owner: Meta, placement: Placement, hosts: Sequence[str], *, mounts_volume: bool
) -> client.V1Affinity | None:
    nodes = beside = None
    if terms := _on_hosts(placement.node_terms, hosts):
        required = client.V1NodeSelector(node_selector_terms=terms)
        nodes = client.V1NodeAffinity(required_during_scheduling_ignored_during_execution=required)
    if placement.one_node and mounts_volume:
        # The first pod of all may go anywhere: it carries the label itself.
        selector = client.V1LabelSelector(match_labels={names.CACHE_LABEL: owner.name})
        near = client.V1PodAffinityTerm(label_selector=selector, topology_key=HOST)
        beside = client.V1PodAffinity(required_during_scheduling_ignored_during_execution=[near])
    return client.V1Affinity(node_affinity=nodes, pod_affinity=beside) if nodes or beside else None


def _on_hosts(terms: Sequence[client.V1NodeSelectorTerm], hosts: Sequence[str]) -> list[client.V1NodeSelectorTerm]:
    """The terms, each for these nodes only, where there are such."""
    if not hosts:
        return list(terms)
    on_them = client.V1NodeSelectorRequirement(key=HOST, operator="In", values=list(hosts))
    return [
        client.V1NodeSelectorTerm(
            match_expressions=[*(term.match_expressions or ()), on_them], match_fields=term.match_fields
        )
        for term in terms or [client.V1NodeSelectorTerm()]
    ]


def _environment(spec: ModelCacheSpec, task: Task, revision: str, settings: Settings) -> list[client.V1EnvVar]:
    variables = {
        **{str(name): value for name, value in settings.download.env.items()},
        "AISERVICE_MODE": task.mode.value,
        "AISERVICE_SOURCE": _compact(names.source_wire(spec)),
        "AISERVICE_ALLOWED_HOSTS": _compact(settings.download.allowed_hosts),
        "AISERVICE_DENIED_NETWORKS": _compact(settings.download.denied_networks),
        "TERMINATION_LOG": TERMINATION_LOG,
        "HOME": "/tmp",  # noqa: S108 - the volume for scratch files
    }
    if revision:
        variables["AISERVICE_REVISION"] = revision
    if task.claim is not None:
        variables["AISERVICE_CACHE_DIR"] = CACHE_DIR
        variables["AISERVICE_CAPACITY_BYTES"] = str(int(parse(task.claim.requested)))
    plain = [client.V1EnvVar(name=name, value=value) for name, value in variables.items()]
    secret = credentials_of(spec)
    return plain + (secret.variables() if secret is not None else [])


def _compact(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

"""The Job that downloads a model onto its volume."""

from __future__ import annotations

import json
from dataclasses import dataclass

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
from aiservice_operator.kinds import Kind
from aiservice_operator.observed import Meta
from aiservice_operator.quantities import parse
from aiservice_operator.settings import Settings, Toleration
from aiservice_operator.states import Claim

CACHE_DIR = "/cache"
TERMINATION_LOG = "/dev/termination-log"
GIVE_UP = 2
"""Exit code of the downloader when another try cannot help."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the download must run for its volume to be one that the users' pods can mount."""

    node_selector: dict[str, str]
    tolerations: list[Toleration]


@dataclass(frozen=True, slots=True)
class Attempt:
    """Which try of which download."""

    number: int
    earlier_pods: int


def job(
    owner: Meta, spec: ModelCacheSpec, claim: Claim, *, placement: Placement, attempt: Attempt, settings: Settings
) -> client.V1Job:
    """Builds the download Job of a ModelCache."""
    source = names.source_digest(spec)
    labels = names.cache_labels(owner.name)
    pod = _pod(spec, claim, placement, settings)
    template = names.digest(pod.model_dump(mode="json", by_alias=True, exclude_none=True))
    return client.V1Job(
        metadata=metadata(
            names.job_name(owner.name, [source, claim.uid, template, attempt.number]),
            owner.namespace,
            labels,
            [controlled_by(Kind.MODEL_CACHE, owner)],
            {
                names.SOURCE_ANNOTATION: source,
                names.CLAIM_UID_ANNOTATION: claim.uid,
                names.TEMPLATE_ANNOTATION: template,
                names.ATTEMPT_ANNOTATION: str(attempt.number),
                names.EARLIER_PODS_ANNOTATION: str(attempt.earlier_pods),
            },
        ),
        spec=client.V1JobSpec(
            backoff_limit=settings.download.backoff_limit,
            parallelism=1,
            completions=1,
            suspend=False,
            pod_failure_policy=client.V1PodFailurePolicy(
                rules=[
                    client.V1PodFailurePolicyRule(
                        action="FailJob",
                        on_exit_codes=client.V1PodFailurePolicyOnExitCodesRequirement(
                            container_name=names.DOWNLOAD_CONTAINER, operator="In", values=[GIVE_UP]
                        ),
                    ),
                    # A drained node is no fault of the download: it does not use up a retry.
                    client.V1PodFailurePolicyRule(
                        action="Ignore",
                        on_pod_conditions=[
                            client.V1PodFailurePolicyOnPodConditionsPattern(type="DisruptionTarget", status="True")
                        ],
                    ),
                ]
            ),
            template=client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels=labels), spec=pod),
        ),
    )


def _pod(spec: ModelCacheSpec, claim: Claim, placement: Placement, settings: Settings) -> client.V1PodSpec:
    download = settings.download
    return client.V1PodSpec(
        restart_policy="Never",
        automount_service_account_token=False,
        enable_service_links=False,
        security_context=pod_security(),
        node_selector=placement.node_selector or None,
        tolerations=tolerations(placement.tolerations),
        image_pull_secrets=pull_secrets(settings.image_pull_secrets),
        containers=[
            client.V1Container(
                name=names.DOWNLOAD_CONTAINER,
                image=download.image,
                image_pull_policy=settings.image_pull_policy,
                env=_environment(spec, claim),
                resources=client.V1ResourceRequirements(
                    requests=download.resources.requests or None, limits=download.resources.limits or None
                ),
                security_context=container_security(),
                termination_message_path=TERMINATION_LOG,
                termination_message_policy="File",
                volume_mounts=[
                    client.V1VolumeMount(name="cache", mount_path=CACHE_DIR),
                    client.V1VolumeMount(name="tmp", mount_path="/tmp"),  # noqa: S108 - the volume for scratch files
                ],
            )
        ],
        volumes=[
            client.V1Volume(
                name="cache",
                persistent_volume_claim=client.V1PersistentVolumeClaimVolumeSource(claim_name=claim.name),
            ),
            scratch(),
        ],
    )


def _environment(spec: ModelCacheSpec, claim: Claim) -> list[client.V1EnvVar]:
    source = json.dumps(names.source_wire(spec), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    variables = {
        "AISERVICE_SOURCE": source,
        "AISERVICE_CACHE_DIR": CACHE_DIR,
        "AISERVICE_CAPACITY_BYTES": str(int(parse(claim.requested))),
        "TERMINATION_LOG": TERMINATION_LOG,
        "HOME": "/tmp",  # noqa: S108 - the volume for scratch files
    }
    built = [client.V1EnvVar(name=name, value=value) for name, value in variables.items()]
    token = spec.hugging_face.token_secret_ref if spec.hugging_face is not None else None
    if token is not None:
        selector = client.V1SecretKeySelector(name=token.name, key=token.key)
        built.append(client.V1EnvVar(name="HF_TOKEN", value_from=client.V1EnvVarSource(secret_key_ref=selector)))
    return built

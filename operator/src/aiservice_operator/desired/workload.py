"""The Deployment of an AIService: pods that serve its tasks from a cached model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kubernetes.aio import client

from aiservice_api.tasks import PORTS, Task
from aiservice_api.v1alpha1 import AIServiceSpec, EnvVar
from aiservice_operator import names
from aiservice_operator.desired.common import (
    container_security,
    controlled_by,
    metadata,
    node_selector,
    pod_security,
    pull_secrets,
    scratch,
    tolerations,
)
from aiservice_operator.kinds import Kind
from aiservice_operator.observed import Meta
from aiservice_operator.settings import Profile

MODEL_DIR = "/models"
DRAIN_SECONDS = 30
_LEAVE_SECONDS = 5
"""A pod serves this long after it was told to stop: load balancers notice only then that it goes."""
_STOP_SECONDS = _LEAVE_SECONDS + DRAIN_SECONDS + 10
_PROBE_SECONDS = 5
START_SECONDS = 30 * 60
"""How long loading and warming up may take."""
_ROLLOUT_SECONDS = START_SECONDS + 10 * 60


@dataclass(frozen=True, slots=True)
class Mount:
    """Which files pods serve from."""

    cache: str
    digest: str
    claim: str
    sub_path: str
    """Folder of the model on the volume; empty: its root."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Which server runs, and on what."""

    image: str
    pull_policy: str
    pull_secrets: list[str]
    profile: Profile


def workload(owner: Meta, spec: AIServiceSpec, mount: Mount, engine: Engine) -> client.V1Deployment:
    """Builds the Deployment of an AIService."""
    labels = names.service_labels(owner.name)
    resources = _resources(spec, engine.profile)
    on_gpu = _accelerated(resources, engine.profile)
    return client.V1Deployment(
        metadata=metadata(owner.name, owner.namespace, labels, [controlled_by(Kind.AISERVICE, owner)]),
        spec=client.V1DeploymentSpec(
            replicas=1 if spec.replicas is None else spec.replicas,
            selector=client.V1LabelSelector(match_labels=names.workload_selector(owner.name)),
            strategy=_strategy(on_gpu=on_gpu),
            progress_deadline_seconds=_ROLLOUT_SECONDS,
            revision_history_limit=3,
            template=client.V1PodTemplateSpec(
                metadata=client.V1ObjectMeta(
                    labels=labels,
                    annotations={names.CACHE_ANNOTATION: mount.cache, names.DIGEST_ANNOTATION: mount.digest},
                ),
                spec=_pod(owner, spec, mount, engine, resources, on_gpu=on_gpu),
            ),
        ),
    )


def _pod(
    owner: Meta,
    spec: AIServiceSpec,
    mount: Mount,
    engine: Engine,
    resources: client.V1ResourceRequirements,
    *,
    on_gpu: bool,
) -> client.V1PodSpec:
    return client.V1PodSpec(
        service_account_name=owner.name,
        automount_service_account_token=False,
        enable_service_links=False,
        security_context=pod_security(),
        termination_grace_period_seconds=_STOP_SECONDS,
        node_selector=node_selector(engine.profile),
        tolerations=tolerations(engine.profile.tolerations),
        runtime_class_name=engine.profile.runtime_class_name,
        image_pull_secrets=pull_secrets(engine.pull_secrets),
        containers=[
            client.V1Container(
                name=names.ENGINE_CONTAINER,
                image=engine.image,
                image_pull_policy=engine.pull_policy,
                args=spec.engine.args or None,
                env=_environment(owner, spec, on_gpu=on_gpu),
                ports=[
                    client.V1ContainerPort(name=task.value, container_port=PORTS[task], protocol="TCP")
                    for task in spec.tasks
                ],
                resources=resources,
                security_context=container_security(),
                startup_probe=_probe("/ready", spec.tasks[0], failures=START_SECONDS // _PROBE_SECONDS),
                readiness_probe=_probe("/ready", spec.tasks[0], failures=2),
                liveness_probe=_probe("/health", spec.tasks[0], failures=6),
                lifecycle=client.V1Lifecycle(
                    pre_stop=client.V1LifecycleHandler(sleep=client.V1SleepAction(seconds=_LEAVE_SECONDS))
                ),
                termination_message_policy="FallbackToLogsOnError",
                volume_mounts=[
                    client.V1VolumeMount(
                        name="model", mount_path=MODEL_DIR, sub_path=mount.sub_path or None, read_only=True
                    ),
                    client.V1VolumeMount(name="tmp", mount_path="/tmp"),  # noqa: S108 - the volume for scratch files
                    client.V1VolumeMount(name="shm", mount_path="/dev/shm"),  # noqa: S108 - see below
                ],
            )
        ],
        volumes=[
            client.V1Volume(
                name="model",
                persistent_volume_claim=client.V1PersistentVolumeClaimVolumeSource(claim_name=mount.claim),
            ),
            scratch(),
            # Container runtimes give 64 MiB, which PyTorch's worker processes outgrow.
            client.V1Volume(name="shm", empty_dir=client.V1EmptyDirVolumeSource(medium="Memory")),
        ],
    )


def _environment(owner: Meta, spec: AIServiceSpec, *, on_gpu: bool) -> list[client.V1EnvVar]:
    """The operator's variables, and the user's, which win where a name is in both."""
    ours: Mapping[str, str] = {
        "AISERVICE_NAME": owner.name,
        "AISERVICE_NAMESPACE": owner.namespace,
        "AISERVICE_TASKS": ",".join(task.value for task in spec.tasks),
        "AISERVICE_MODEL_DIR": MODEL_DIR,
        "AISERVICE_PRECISION": spec.precision.value,
        "AISERVICE_DEVICE": "cuda" if on_gpu else "cpu",
        "AISERVICE_DRAIN_SECONDS": str(DRAIN_SECONDS),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        # Libraries keep caches below the home folder, and the root is read-only.
        "HOME": "/tmp",  # noqa: S108 - the volume for scratch files
    }
    theirs = {variable.name for variable in spec.engine.env}
    return [client.V1EnvVar(name=name, value=value) for name, value in ours.items() if name not in theirs] + [
        _variable(variable) for variable in spec.engine.env
    ]


def _variable(variable: EnvVar) -> client.V1EnvVar:
    source = variable.value_from
    if source is None:
        return client.V1EnvVar(name=variable.name, value=variable.value or "")
    secret, config = source.secret_key_ref, source.config_map_key_ref
    return client.V1EnvVar(
        name=variable.name,
        value_from=client.V1EnvVarSource(
            secret_key_ref=client.V1SecretKeySelector(name=secret.name, key=secret.key) if secret else None,
            config_map_key_ref=client.V1ConfigMapKeySelector(name=config.name, key=config.key) if config else None,
        ),
    )


def _resources(spec: AIServiceSpec, profile: Profile) -> client.V1ResourceRequirements:
    """The profile's resources, its GPUs, and over them the spec's, name by name."""
    requests, limits = dict(profile.resources.requests), dict(profile.resources.limits)
    if profile.gpu is not None:
        limits[profile.gpu.resource] = str(profile.gpu.count)
    if spec.resources is not None:
        requests |= spec.resources.requests
        limits |= spec.resources.limits
    return client.V1ResourceRequirements(requests=requests or None, limits=limits or None)


def _accelerated(resources: client.V1ResourceRequirements, profile: Profile) -> bool:
    """Whether the container gets a GPU: the profile's resource, or one that the spec names itself."""
    accelerators = {name for name in resources.limits or {} if name.startswith("nvidia.com/")}
    if profile.gpu is not None:
        accelerators.add(profile.gpu.resource)
    return any((resources.limits or {}).get(name, "0") != "0" for name in accelerators)


def _strategy(*, on_gpu: bool) -> client.V1DeploymentStrategy:
    """A new pod beside the old one would wait for ever for a GPU that the old one holds; CPUs are there for both."""
    surge, unavailable = (0, 1) if on_gpu else (1, 0)
    return client.V1DeploymentStrategy(
        type="RollingUpdate",
        rolling_update=client.V1RollingUpdateDeployment(max_surge=surge, max_unavailable=unavailable),
    )


def _probe(path: str, task: Task, *, failures: int) -> client.V1Probe:
    return client.V1Probe(
        http_get=client.V1HTTPGetAction(path=path, port=task.value),
        period_seconds=_PROBE_SECONDS,
        timeout_seconds=_PROBE_SECONDS,
        failure_threshold=failures,
    )

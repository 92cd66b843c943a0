"""The containers of serving pods: the engine, and the sidecars that the spec puts beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kubernetes.aio import client

from aiservice_api.tasks import PORTS, Task
from aiservice_api.v1alpha1 import AIServiceSpec, EnvVar, Resources, Sidecar, VolumeMount
from aiservice_operator import names
from aiservice_operator.desired.common import as_in_a_pod, container_security, resources
from aiservice_operator.engines import Engine
from aiservice_operator.observed import Meta
from aiservice_operator.refusals import MODEL_DIR

LEAVE_SECONDS = 5
"""A pod serves this long after it was told to stop: load balancers notice only then that it goes."""
MODEL_VOLUME = "model"
_PROBE_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Mount:
    """Which files pods serve from."""

    cache: str
    digest: str
    claim: str
    sub_path: str
    """Folder of the model on the volume; empty: its root."""
    one_node: bool
    """Whether the volume can be mounted on one node only, so that all pods that use it must run there."""
    read_only: bool = False
    """Whether nobody can write to the volume."""


def engine_container(owner: Meta, spec: AIServiceSpec, mount: Mount, engine: Engine) -> client.V1Container:
    """Builds the container that serves."""
    overrides = spec.pod.volume_mounts if spec.pod is not None else []
    compute = resources(engine.hardware.requests, engine.hardware.limits)
    compute.claims = [client.CoreV1ResourceClaim(name=claim.name) for claim in spec.resource_claims] or None
    return client.V1Container(
        name=names.ENGINE_CONTAINER,
        image=engine.image,
        image_pull_policy=engine.pull_policy,
        command=spec.engine.command or None,
        args=spec.engine.args or None,
        env=_environment(owner, spec, engine),
        ports=[_port(task.value, PORTS[task]) for task in spec.tasks],
        resources=compute,
        security_context=container_security(),
        startup_probe=_probe(spec.engine.ready_path, spec.tasks[0], failures=_periods(spec.rollout.start_seconds)),
        readiness_probe=_probe(spec.engine.ready_path, spec.tasks[0], failures=2),
        liveness_probe=_probe(spec.engine.health_path, spec.tasks[0], failures=6),
        lifecycle=client.V1Lifecycle(
            pre_stop=client.V1LifecycleHandler(sleep=client.V1SleepAction(seconds=LEAVE_SECONDS))
        ),
        termination_message_policy="FallbackToLogsOnError",
        volume_mounts=[
            _model(mount, MODEL_DIR),
            client.V1VolumeMount(name="tmp", mount_path="/tmp"),  # noqa: S108 - the volume for scratch files
            client.V1VolumeMount(name="shm", mount_path="/dev/shm"),  # noqa: S108 - the volume for shared memory
            *_mounts(overrides, mount),
        ],
    )


def sidecar_container(sidecar: Sidecar, mount: Mount, pull_policy: str) -> client.V1Container:
    """Builds a container beside the engine, as confined as the engine is."""
    stated = sidecar.resources or Resources()
    return client.V1Container(
        name=sidecar.name,
        image=sidecar.image,
        image_pull_policy=pull_policy,
        command=sidecar.command or None,
        args=sidecar.args or None,
        env=[_variable(variable) for variable in sidecar.env] or None,
        ports=[_port(port.name, port.container_port) for port in sidecar.ports] or None,
        resources=resources(stated.requests, stated.limits),
        security_context=container_security(),
        termination_message_policy="FallbackToLogsOnError",
        volume_mounts=_mounts(sidecar.volume_mounts, mount) or None,
    )


def _environment(owner: Meta, spec: AIServiceSpec, engine: Engine) -> list[client.V1EnvVar]:
    """The operator's variables, and the user's, which win where a name is in both."""
    ours: Mapping[str, str] = {
        "AISERVICE_NAME": owner.name,
        "AISERVICE_NAMESPACE": owner.namespace,
        "AISERVICE_TASKS": ",".join(task.value for task in spec.tasks),
        "AISERVICE_MODEL_DIR": MODEL_DIR,
        "AISERVICE_PRECISION": engine.precision.value,
        "AISERVICE_DEVICE": "cuda" if engine.hardware.on_gpu else "cpu",
        "AISERVICE_DRAIN_SECONDS": str(spec.rollout.drain_seconds),
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
    return as_in_a_pod(client.V1EnvVar, variable)


def _port(name: str, number: int) -> client.V1ContainerPort:
    return client.V1ContainerPort(name=name, container_port=number, protocol="TCP")


def _mounts(stated: Sequence[VolumeMount], mount: Mount) -> list[client.V1VolumeMount]:
    return [
        _model(mount, item.mount_path, item.sub_path or "")
        if item.name == MODEL_VOLUME
        else as_in_a_pod(client.V1VolumeMount, item)
        for item in stated
    ]


def _model(mount: Mount, path: str, below: str = "") -> client.V1VolumeMount:
    """The cache is shared with other services: it is read-only, and nothing else of the volume is seen."""
    folder = "/".join(part for part in (mount.sub_path, below) if part)
    return client.V1VolumeMount(name=MODEL_VOLUME, mount_path=path, sub_path=folder or None, read_only=True)


def _periods(seconds: int) -> int:
    return math.ceil(seconds / _PROBE_SECONDS)


def _probe(path: str, task: Task, *, failures: int) -> client.V1Probe:
    return client.V1Probe(
        http_get=client.V1HTTPGetAction(path=path, port=task.value),
        period_seconds=_PROBE_SECONDS,
        timeout_seconds=_PROBE_SECONDS,
        failure_threshold=failures,
    )

"""Every builder against a golden manifest. After a change that is meant: UPDATE_GOLDEN=1 pytest FILE; read the diff."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from kubernetes.aio.client import V1NodeSelectorRequirement, V1NodeSelectorTerm
from pydantic import BaseModel

from aiservice_api.v1alpha1 import AIServiceSpec, ModelCacheSpec
from aiservice_operator import names
from aiservice_operator.desired.autoscaler import autoscaler
from aiservice_operator.desired.cache import hold, inline_cache
from aiservice_operator.desired.common import wire
from aiservice_operator.desired.container import Mount
from aiservice_operator.desired.disruption_budget import disruption_budget
from aiservice_operator.desired.job import Attempt, Placement, Task, job
from aiservice_operator.desired.network_policy import network_policy
from aiservice_operator.desired.pod_monitor import pod_monitor
from aiservice_operator.desired.pvc import Memory, pvc
from aiservice_operator.desired.service import endpoints
from aiservice_operator.desired.service import service as build_service
from aiservice_operator.desired.service_account import service_account
from aiservice_operator.desired.workload import template_digest, workload
from aiservice_operator.downloads import Measurement, Proof, Verification
from aiservice_operator.engines import Engine, choose_engine
from aiservice_operator.kinds import Json, Kind
from aiservice_operator.names import Mode
from aiservice_operator.observed import Service
from aiservice_operator.settings import Monitoring, Toleration
from aiservice_operator.states import claim
from support.cluster import REPOSITORY
from support.operator_objects import MODEL, SETTINGS, cache, live, service
from support.operator_specs import FULL

GOLDEN = REPOSITORY / "tests/data/operator"
MOUNT = Mount(cache="mc-1", digest="d1", claim="mc-1", sub_path="model", one_node=False)
GATED: Json = {
    "huggingFace": {"repo": "o/m", "revision": "main", "include": ["*.safetensors"], "tokenSecretRef": {"name": "hub"}},
    "storage": {"size": "40Gi", "storageClassName": "fast", "accessMode": "ReadWriteMany"},
}
MONITORED = SETTINGS.model_copy(update={"monitoring": Monitoring(labels={"release": "prometheus"}, interval="15s")})
CLAIM = claim(
    live(
        Kind.CLAIM,
        {"metadata": {"name": "mine"}, "spec": {"resources": {"requests": {"storage": "40Gi"}}}},
        {"phase": "Bound"},
        uid="uid-claim",
    )
)


def build_workload(
    built: Service,
    mount: Mount = MOUNT,
    *,
    surge: bool = False,
    replicas: int | None = 1,
    references: str = "",
) -> Json:
    assert built.spec is not None
    engine = choose_engine(built.spec, SETTINGS)
    assert isinstance(engine, Engine), engine
    return wire(workload(built.meta, built.spec, mount, engine, surge=surge, replicas=replicas, references=references))


def full() -> Service:
    return service("sdxl", FULL)


def full_workload() -> Json:
    mount = Mount(cache="mine", digest="d2", claim="disk", sub_path="models/sdxl", one_node=True)
    return build_workload(full(), mount, surge=True, replicas=None, references="r1")


def built(child: BaseModel | Json | None) -> Json:
    assert child is not None
    return wire(child)


def spec_of(one: Service) -> AIServiceSpec:
    assert one.spec is not None
    return one.spec


def cpu_workload() -> Json:
    return build_workload(service(), surge=True)


def gpu_workload() -> Json:
    two = {
        "tasks": ["text-to-image", "image-to-image"],
        "profile": "nvidia-l4",
        "precision": "fp16",
        "replicas": 3,
        "resources": {"requests": {"memory": "24Gi"}, "limits": {"memory": "32Gi"}},
        "engine": {
            "image": "example.test/own:7",
            "args": ["--compile"],
            "env": [
                {"name": "HF_HUB_OFFLINE", "value": "0"},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "m"}}},
            ],
        },
    }
    return build_workload(
        service("sdxl", two),
        Mount(cache="mine", digest="d2", claim="disk", sub_path="", one_node=True),
        replicas=3,
    )


def by_cpu() -> Service:
    return service(spec={"autoscaling": {"max": 3, "metric": "CPU", "targetCpuUtilization": 60}})


def job_of(spec: Json, task: Task, placement: Placement, attempt: Attempt) -> Json:
    owner, stated = cache("mine", spec).meta, ModelCacheSpec.model_validate(spec)
    settings = SETTINGS.model_copy(
        update={
            "download": SETTINGS.download.model_copy(
                update={
                    "allowed_hosts": ["minio.storage.svc", "10.1.0.0/16"],
                    "denied_networks": ["2001:db8:42::/48"],
                    "env": {"HTTPS_PROXY": "http://proxy.test:3128", "NO_PROXY": ".svc"},
                }
            )
        }
    )
    return wire(job(owner, stated, task, placement=placement, attempt=attempt, settings=settings))


def download_job() -> Json:
    tolerations = [Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")]
    in_zone = [V1NodeSelectorRequirement(key="zone", operator="In", values=["a", "b"])]
    placement = Placement({"disk": "ssd"}, tolerations, [V1NodeSelectorTerm(match_expressions=in_zone)], one_node=True)
    return job_of(GATED, Task(Mode.DOWNLOAD, CLAIM, "secret"), placement, Attempt(2, 6, "c" * 40))


def measuring_job() -> Json:
    source: Json = {"s3": {"bucket": "models", "prefix": "whisper", "credentialsSecretRef": {"name": "minio"}}}
    return job_of(source, Task(Mode.MEASURE, secret="s"), Placement(one_node=True), Attempt(1, 0))


def verifying_job() -> Json:
    source: Json = {"oci": {"image": "registry.test/models/sdxl:1", "pullSecretRef": {"name": "registry"}}}
    task = Task(Mode.VERIFY, CLAIM, request="r1", since="2026-11-23T12:00:00Z")
    return job_of(source, task, Placement(one_node=True), Attempt(1, 0, f"sha256:{'d' * 64}"))


def claim_before() -> Json:
    measured = Memory(Measurement(source="s1", bytes=6_900_000_000))
    return wire(pvc(cache().meta, ModelCacheSpec.model_validate(MODEL), measured))


def claim_after() -> Json:
    at = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
    known = Memory(
        proof=Proof(source="s1", bytes=10, files=1, revision="c0ffee"),
        verification=Verification(at=at, request="r1", always=True, repaired=("a.bin",)),
    )
    return wire(pvc(cache("mine", GATED).meta, ModelCacheSpec.model_validate(GATED), known, CLAIM))


def shared_cache() -> Json:
    users = [service("one").meta, service("two").meta]
    return wire(inline_cache("team", "mc-1", ModelCacheSpec.model_validate(MODEL), users))


BUILT: dict[str, Callable[[], Json]] = {
    "deployment-cpu": cpu_workload,
    "deployment-gpu": gpu_workload,
    "deployment-full": full_workload,
    "autoscaler-concurrency": lambda: built(autoscaler(full().meta, spec_of(full()), scale_down=True)),
    "autoscaler-cpu": lambda: built(autoscaler(service().meta, spec_of(by_cpu()), scale_down=False)),
    "disruption-budget": lambda: built(disruption_budget(service().meta, spec_of(service()), one_node=False)),
    "network-policy": lambda: built(network_policy(full().meta, spec_of(full()), SETTINGS)),
    "pod-monitor": lambda: built(pod_monitor(full().meta, spec_of(full()), MONITORED)),
    "service": lambda: wire(build_service(service().meta, spec_of(service()).tasks)),
    "service-two-tasks": lambda: wire(build_service(full().meta, spec_of(full()).tasks)),
    "service-account": lambda: wire(service_account(service().meta)),
    "job": download_job,
    "job-measure": measuring_job,
    "job-verify": verifying_job,
    "claim-before-download": claim_before,
    "claim-after-download": claim_after,
    "model-cache-inline": shared_cache,
    "model-cache-held": lambda: hold(cache().meta, in_use=True),
}


@pytest.mark.parametrize("name", BUILT)
def test_builds_the_golden_manifest(name: str) -> None:
    golden, built = GOLDEN / f"{name}.yaml", BUILT[name]()
    if os.environ.get("UPDATE_GOLDEN"):
        Path(golden).write_text(yaml.safe_dump(built, sort_keys=True))
    assert built == yaml.safe_load(golden.read_text())


def test_only_what_decides_the_pods_changes_the_pods() -> None:
    """Another number of pods or another way to replace them is no rollout; what the pods read is one."""
    template, digest = cpu_workload()["spec"]["template"], template_digest(cpu_workload())
    assert digest
    for same in (build_workload(service(spec={"replicas": 5})), build_workload(service(), surge=False, replicas=None)):
        assert same["spec"]["template"] == template
        assert template_digest(same) == digest
    for other in (
        build_workload(service(), replace(MOUNT, digest="d2")),
        build_workload(service(), references="r1"),
        build_workload(service(spec={"pod": {"labels": {"team": "a"}}})),
    ):
        assert other["spec"]["template"] != template
        assert template_digest(other) != digest


def test_a_deployment_of_before_has_no_digest_of_its_pods() -> None:
    assert template_digest({"metadata": {"name": "x"}}) == ""


def test_a_volume_never_shrinks() -> None:
    spec = ModelCacheSpec.model_validate({**MODEL, "storage": {"size": "10Gi"}})
    body = wire(pvc(cache().meta, spec, Memory(), CLAIM))
    assert body["spec"]["resources"]["requests"]["storage"] == "40Gi"


def test_jobs_of_different_downloads_have_different_names() -> None:
    owner, placement = cache().meta, Placement({}, [])
    spec = ModelCacheSpec.model_validate(MODEL)

    def name(**changes: object) -> str:
        values: dict[str, object] = {
            "spec": spec,
            "task": Task(Mode.DOWNLOAD, CLAIM),
            "attempt": Attempt(1, 0),
            "settings": SETTINGS,
            **changes,
        }
        body = wire(job(owner, placement=placement, **values))  # type: ignore[arg-type] # by name
        return str(body["metadata"]["name"])

    other_image = SETTINGS.model_copy(update={"download": SETTINGS.download.model_copy(update={"image": "other:2"})})
    named = {
        name(),
        name(attempt=Attempt(2, 0)),
        name(settings=other_image),
        name(task=Task(Mode.DOWNLOAD, replace(CLAIM, uid="uid-2"))),
        name(task=Task(Mode.DOWNLOAD, CLAIM, secret="other")),
        name(task=Task(Mode.VERIFY, CLAIM)),
        name(task=Task(Mode.VERIFY, CLAIM, request="r1")),
        name(task=Task(Mode.VERIFY, CLAIM, request="r1", since="yesterday")),
        name(spec=ModelCacheSpec.model_validate(GATED)),
    }
    assert len(named) == 9
    assert name() == name(attempt=Attempt(1, 9)), "how many pods tried before is no other download"


def test_endpoints_name_the_port_of_each_task() -> None:
    built = service("sdxl", {"tasks": ["text-to-image", "image-to-image"]})
    assert built.spec is not None
    assert endpoints(built.meta, built.spec.tasks) == {
        "text-to-image": "http://sdxl.team.svc:7860",
        "image-to-image": "http://sdxl.team.svc:7863",
    }


def test_a_body_carries_its_own_hash() -> None:
    body = cpu_workload()
    applied = body["metadata"]["annotations"][names.APPLIED_ANNOTATION]
    other = build_workload(service(spec={"engine": {"args": ["x"]}}))
    assert other["metadata"]["annotations"][names.APPLIED_ANNOTATION] != applied
    assert cpu_workload()["metadata"]["annotations"][names.APPLIED_ANNOTATION] == applied

"""Every builder against a golden manifest. After a change that is meant: UPDATE_GOLDEN=1 pytest FILE; read the diff."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from aiservice_api.v1alpha1 import ModelCacheSpec
from aiservice_operator import names
from aiservice_operator.desired.cache import hold, inline_cache
from aiservice_operator.desired.common import wire
from aiservice_operator.desired.job import Attempt, Placement, job
from aiservice_operator.desired.pvc import pvc
from aiservice_operator.desired.service import endpoints
from aiservice_operator.desired.service import service as build_service
from aiservice_operator.desired.service_account import service_account
from aiservice_operator.desired.workload import Engine, Mount, workload
from aiservice_operator.downloads import Proof
from aiservice_operator.kinds import Json, Kind
from aiservice_operator.observed import Service
from aiservice_operator.plan.service import choose_engine
from aiservice_operator.settings import Toleration
from aiservice_operator.states import claim
from support.cluster import REPOSITORY
from support.operator_objects import MODEL, SETTINGS, cache, live, service

GOLDEN = REPOSITORY / "tests/data/operator"
MOUNT = Mount(cache="mc-1", digest="d1", claim="mc-1", sub_path="model")
GATED: Json = {
    "huggingFace": {"repo": "o/m", "revision": "main", "include": ["*.safetensors"], "tokenSecretRef": {"name": "hub"}},
    "storage": {"size": "40Gi", "storageClassName": "fast", "accessMode": "ReadWriteMany"},
}
CLAIM = claim(
    live(
        Kind.CLAIM,
        {"metadata": {"name": "mine"}, "spec": {"resources": {"requests": {"storage": "40Gi"}}}},
        {"phase": "Bound"},
        uid="uid-claim",
    )
)


def build_workload(built: Service, mount: Mount = MOUNT) -> Json:
    assert built.spec is not None
    engine = choose_engine(built.spec, SETTINGS)
    assert isinstance(engine, Engine)
    return wire(workload(built.meta, built.spec, mount, engine))


def cpu_workload() -> Json:
    return build_workload(service())


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
    return build_workload(service("sdxl", two), Mount(cache="mine", digest="d2", claim="disk", sub_path=""))


def download_job() -> Json:
    owner = cache("mine", GATED).meta
    tolerations = [Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")]
    placement = Placement({"zone": "a"}, tolerations)
    spec = ModelCacheSpec.model_validate(GATED)
    return wire(job(owner, spec, CLAIM, placement=placement, attempt=Attempt(2, 6), settings=SETTINGS))


def claim_before() -> Json:
    return wire(pvc(cache().meta, ModelCacheSpec.model_validate(MODEL), "", None))


def claim_after() -> Json:
    proof = Proof(source="s1", bytes=10, files=1, revision="c0ffee").to_json()
    return wire(pvc(cache("mine", GATED).meta, ModelCacheSpec.model_validate(GATED), proof, CLAIM))


def shared_cache() -> Json:
    users = [service("one").meta, service("two").meta]
    return wire(inline_cache("team", "mc-1", ModelCacheSpec.model_validate(MODEL), users))


BUILT: dict[str, Callable[[], Json]] = {
    "deployment-cpu": cpu_workload,
    "deployment-gpu": gpu_workload,
    "service": lambda: wire(build_service(service().meta, service("w", {"tasks": ["speech-to-text"]}).spec.tasks)),  # type: ignore[union-attr] # it was parsed
    "service-account": lambda: wire(service_account(service().meta)),
    "job": download_job,
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


def test_restricted_pod_security_holds_for_every_pod() -> None:
    for body in (cpu_workload(), gpu_workload(), download_job()):
        pod = body["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}


def test_a_pod_on_gpus_replaces_the_old_one_and_another_stands_beside_it() -> None:
    strategies = [body["spec"]["strategy"]["rollingUpdate"] for body in (gpu_workload(), cpu_workload())]
    assert strategies == [{"maxSurge": 0, "maxUnavailable": 1}, {"maxSurge": 1, "maxUnavailable": 0}]


def test_gpus_that_the_spec_names_itself_make_a_gpu_pod() -> None:
    body = build_workload(service(spec={"profile": None, "resources": {"limits": {"nvidia.com/mig-1g.5gb": "1"}}}))
    env = {item["name"]: item.get("value") for item in body["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["AISERVICE_DEVICE"] == "cuda"
    assert body["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0


def test_only_what_decides_the_pods_changes_the_pods() -> None:
    """Another number of pods is no rollout; another digest of the model is one."""
    template = cpu_workload()["spec"]["template"]
    assert build_workload(service(spec={"replicas": 5}))["spec"]["template"] == template
    assert build_workload(service(), Mount("mc-1", "d2", "mc-1", "model"))["spec"]["template"] != template


def test_a_volume_never_shrinks() -> None:
    spec = ModelCacheSpec.model_validate({**MODEL, "storage": {"size": "10Gi"}})
    body = wire(pvc(cache().meta, spec, "", CLAIM))
    assert body["spec"]["resources"]["requests"]["storage"] == "40Gi"


def test_jobs_of_different_downloads_have_different_names() -> None:
    owner, placement = cache().meta, Placement({}, [])
    spec = ModelCacheSpec.model_validate(MODEL)

    def name(**changes: object) -> str:
        values: dict[str, object] = {
            "spec": spec,
            "claim": CLAIM,
            "attempt": Attempt(1, 0),
            "settings": SETTINGS,
            **changes,
        }
        body = wire(job(owner, values.pop("spec"), values.pop("claim"), placement=placement, **values))  # type: ignore[arg-type] # by name
        return str(body["metadata"]["name"])

    other_image = SETTINGS.model_copy(update={"download": SETTINGS.download.model_copy(update={"image": "other:2"})})
    named = {
        name(),
        name(attempt=Attempt(2, 0)),
        name(settings=other_image),
        name(claim=replace(CLAIM, uid="uid-2")),
        name(spec=ModelCacheSpec.model_validate(GATED)),
    }
    assert len(named) == 5
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

"""What each field of an AIService does to its children, one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from aiservice_api.v1alpha1 import AIServiceSpec
from aiservice_operator import names
from aiservice_operator.desired.common import wire
from aiservice_operator.desired.container import Mount
from aiservice_operator.desired.workload import workload
from aiservice_operator.engines import Engine, choose_engine
from aiservice_operator.kinds import Json
from aiservice_operator.settings import Settings
from support.operator_objects import SETTINGS, service

MOUNT = Mount(cache="mc-1", digest="d1", claim="mc-1", sub_path="model", one_node=False)
CONFIGURED = Settings.model_validate(
    {
        "images": {"speech-recognition": "example.test/speech:1"},
        "imagePullSecrets": ["registry"],
        "profiles": {
            "cpu": {
                "resources": {"requests": {"cpu": "2"}},
                "nodeSelector": {"pool": "inference", "disk": "slow"},
                "tolerations": [{"key": "inference", "operator": "Exists"}],
                "priorityClassName": "normal",
                "runtimeClassName": "runc",
            }
        },
    }
)


def parsed(**fields: Any) -> AIServiceSpec:
    spec = service(spec=fields).spec
    assert spec is not None
    return spec


def deployment(mount: Mount = MOUNT, *, settings: Settings = CONFIGURED, **fields: Any) -> Json:
    spec = parsed(**fields)
    engine = choose_engine(spec, settings)
    assert isinstance(engine, Engine), engine
    return wire(workload(service().meta, spec, mount, engine, surge=True, replicas=1, references=""))


def pod(mount: Mount = MOUNT, **fields: Any) -> Json:
    built: Json = deployment(mount, **fields)["spec"]["template"]["spec"]
    return built


def engine(mount: Mount = MOUNT, **fields: Any) -> Json:
    built: Json = pod(mount, **fields)["containers"][0]
    return built


def variables(container: Json) -> dict[str, str]:
    return {item["name"]: item["value"] for item in container["env"] if "value" in item}


def sidecar(**fields: Any) -> Json:
    built: Json = pod(pod={"sidecars": [{"name": "helper", "image": "example.test/helper:1", **fields}]})["containers"][
        1
    ]
    return built


def test_the_command_and_arguments_of_the_engine() -> None:
    built = engine(engine={"command": ["serve"], "args": ["--fast"]})
    assert (built["command"], built["args"]) == (["serve"], ["--fast"])
    assert not {"command", "args"} & engine().keys(), "else the image's own count"


def test_the_image_of_the_engine() -> None:
    assert engine(engine={"image": "own:1"})["image"] == "own:1"
    assert engine()["image"] == "example.test/speech:1"


def test_variables_of_the_user_win_over_those_of_the_operator() -> None:
    built = engine(engine={"env": [{"name": "HF_HUB_OFFLINE", "value": "0"}, {"name": "EMPTY"}]})
    assert [item for item in built["env"] if item["name"] == "HF_HUB_OFFLINE"] == [
        {"name": "HF_HUB_OFFLINE", "value": "0"}
    ]
    assert {"name": "EMPTY"} in built["env"]


def test_the_paths_of_the_probes() -> None:
    built = engine(engine={"readyPath": "/r", "healthPath": "/h"})
    assert built["startupProbe"]["httpGet"] == {"path": "/r", "port": "speech-to-text"}
    assert built["readinessProbe"]["httpGet"] == {"path": "/r", "port": "speech-to-text"}
    assert built["livenessProbe"]["httpGet"] == {"path": "/h", "port": "speech-to-text"}


@pytest.mark.parametrize("seconds", [30, 601, 86400])
def test_the_time_to_start_is_probed_to_its_end_and_in_the_deadline(seconds: int) -> None:
    built = deployment(rollout={"startSeconds": seconds})
    probe = built["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
    assert seconds <= probe["failureThreshold"] * probe["periodSeconds"] < seconds + probe["periodSeconds"]
    assert built["spec"]["progressDeadlineSeconds"] > seconds


def test_the_time_to_drain_is_told_and_waited_for() -> None:
    built = pod(rollout={"drainSeconds": 120})
    assert variables(built["containers"][0])["AISERVICE_DRAIN_SECONDS"] == "120"
    leaving = built["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert built["terminationGracePeriodSeconds"] > leaving + 120


def test_a_surge_starts_the_new_pod_first() -> None:
    spec = parsed()
    found = choose_engine(spec, SETTINGS)
    assert isinstance(found, Engine)

    def strategy(*, surge: bool) -> Json:
        built = workload(service().meta, spec, MOUNT, found, surge=surge, replicas=1, references="")
        rolling: Json = wire(built)["spec"]["strategy"]["rollingUpdate"]
        return rolling

    assert strategy(surge=True) == {"maxSurge": 1, "maxUnavailable": 0}
    assert strategy(surge=False) == {"maxSurge": 0, "maxUnavailable": 1}


def test_an_autoscaler_owns_the_number_of_pods() -> None:
    spec = parsed()
    found = choose_engine(spec, SETTINGS)
    assert isinstance(found, Engine)
    built = wire(workload(service().meta, spec, MOUNT, found, surge=True, replicas=None, references=""))
    assert "replicas" not in built["spec"]
    built = wire(workload(service().meta, spec, MOUNT, found, surge=True, replicas=0, references=""))
    assert built["spec"]["replicas"] == 0


def test_the_precision_and_device_that_the_engine_is_told() -> None:
    assert variables(engine())["AISERVICE_PRECISION"] == "fp32"
    assert variables(engine())["AISERVICE_DEVICE"] == "cpu"
    claimed = engine(resourceClaims=[{"name": "gpu", "resourceClaimTemplateName": "one"}])
    assert variables(claimed)["AISERVICE_PRECISION"] == "fp16"
    assert variables(claimed)["AISERVICE_DEVICE"] == "cuda"
    assert variables(engine(gpu={}))["AISERVICE_DEVICE"] == "cuda"


def test_claimed_devices_are_the_engines() -> None:
    built = pod(
        resourceClaims=[
            {"name": "gpu", "resourceClaimTemplateName": "one"},
            {"name": "nic", "resourceClaimName": "shared"},
        ]
    )
    assert built["resourceClaims"] == [
        {"name": "gpu", "resourceClaimTemplateName": "one"},
        {"name": "nic", "resourceClaimName": "shared"},
    ]
    assert built["containers"][0]["resources"]["claims"] == [{"name": "gpu"}, {"name": "nic"}]


def test_labels_and_annotations_are_added_and_never_replace_the_operators() -> None:
    built = deployment(
        pod={
            "labels": {"team": "a", names.INSTANCE_LABEL: "x"},
            "annotations": {"note": "b", names.CACHE_ANNOTATION: "x"},
        }
    )
    metadata = built["spec"]["template"]["metadata"]
    assert metadata["labels"]["team"] == "a"
    assert metadata["labels"][names.INSTANCE_LABEL] == "whisper"
    assert metadata["annotations"]["note"] == "b"
    assert metadata["annotations"][names.CACHE_ANNOTATION] == "mc-1"
    assert "team" not in built["spec"]["selector"]["matchLabels"], "a Deployment's selector never changes"


def test_node_labels_and_tolerations_come_beside_the_profiles() -> None:
    built = pod(pod={"nodeSelector": {"disk": "fast"}, "tolerations": [{"operator": "Exists"}]})
    assert built["nodeSelector"] == {"pool": "inference", "disk": "fast"}
    assert built["tolerations"] == [{"key": "inference", "operator": "Exists"}, {"operator": "Exists"}]


def test_priority_and_runtime_class_are_the_users_or_else_the_profiles() -> None:
    assert (pod()["priorityClassName"], pod()["runtimeClassName"]) == ("normal", "runc")
    built = pod(pod={"priorityClassName": "urgent", "runtimeClassName": "sandbox"})
    assert (built["priorityClassName"], built["runtimeClassName"]) == ("urgent", "sandbox")


def test_pull_secrets_come_beside_the_operators_each_once() -> None:
    built = pod(pod={"imagePullSecrets": [{"name": "own"}, {"name": "registry"}]})
    assert built["imagePullSecrets"] == [{"name": "registry"}, {"name": "own"}]


def test_pods_are_spread_among_themselves() -> None:
    (built,) = pod(pod={"topologySpreadConstraints": [{"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]})[
        "topologySpreadConstraints"
    ]
    assert built == {
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": names.workload_selector("whisper")},
    }


NEAR: Json = {"labelSelector": {"matchLabels": {names.CACHE_LABEL: "mc-1"}}, "topologyKey": "kubernetes.io/hostname"}
AWAY: Json = {"labelSelector": {}, "topologyKey": "zone"}


def test_pods_go_where_a_volume_is_that_one_node_can_mount() -> None:
    built = deployment(replace(MOUNT, one_node=True))
    template = built["spec"]["template"]
    assert template["spec"]["affinity"] == {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [NEAR]}}
    assert template["metadata"]["labels"][names.CACHE_LABEL] == "mc-1"
    assert names.CACHE_LABEL not in built["spec"]["selector"]["matchLabels"]
    assert "affinity" not in pod()


def test_the_volume_comes_beside_the_affinity_of_the_user() -> None:
    stated = {
        "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [AWAY]},
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [AWAY]},
    }
    assert pod(pod={"affinity": stated})["affinity"] == stated, "an empty selector is one that selects all"
    built = pod(replace(MOUNT, one_node=True), pod={"affinity": stated})["affinity"]
    assert built["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] == [AWAY, NEAR]
    assert built["podAntiAffinity"] == stated["podAntiAffinity"]


def test_volumes_and_where_the_engine_sees_them() -> None:
    built = pod(
        pod={
            "volumes": [{"name": "work", "emptyDir": {}}, {"name": "keys", "secret": {"secretName": "s"}}],
            "volumeMounts": [{"name": "keys", "mountPath": "/keys", "readOnly": True, "subPath": "a"}],
        }
    )
    assert built["volumes"][3:] == [
        {"name": "work", "emptyDir": {}},
        {"name": "keys", "secret": {"secretName": "s"}},
    ]
    assert built["containers"][0]["volumeMounts"][3:] == [
        {"name": "keys", "mountPath": "/keys", "readOnly": True, "subPath": "a"}
    ]


def test_the_model_is_read_only_whoever_mounts_it() -> None:
    assert engine()["volumeMounts"][0] == {
        "name": "model",
        "mountPath": "/models",
        "subPath": "model",
        "readOnly": True,
    }
    built = sidecar(volumeMounts=[{"name": "model", "mountPath": "/m", "readOnly": False, "subPath": "vae"}])
    assert built["volumeMounts"] == [{"name": "model", "mountPath": "/m", "subPath": "model/vae", "readOnly": True}]
    at_the_root = engine(replace(MOUNT, sub_path=""))["volumeMounts"][0]
    assert at_the_root == {"name": "model", "mountPath": "/models", "readOnly": True}


def test_a_sidecar_is_as_confined_as_the_engine() -> None:
    built = sidecar()
    assert built["securityContext"] == engine()["securityContext"]
    assert built == {
        "name": "helper",
        "image": "example.test/helper:1",
        "imagePullPolicy": "IfNotPresent",
        "resources": {},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def test_what_a_sidecar_runs_on_and_serves() -> None:
    built = sidecar(
        command=["a"],
        args=["b"],
        env=[{"name": "X", "value": "1"}],
        ports=[{"name": "http", "containerPort": 9100}],
        resources={"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
    )
    assert (built["command"], built["args"], built["env"]) == (["a"], ["b"], [{"name": "X", "value": "1"}])
    assert built["ports"] == [{"name": "http", "containerPort": 9100, "protocol": "TCP"}]
    assert built["resources"] == {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}


def test_only_a_volume_that_nobody_writes_to_is_attached_read_only() -> None:
    """Of any other the kubelet would leave the file group as it is, and pods could not read what others wrote."""
    assert pod()["volumes"][0]["persistentVolumeClaim"] == {"claimName": "mc-1"}
    shared = replace(MOUNT, read_only=True)
    assert pod(shared)["volumes"][0]["persistentVolumeClaim"] == {"claimName": "mc-1", "readOnly": True}
    for mount in (MOUNT, shared):
        assert engine(mount)["volumeMounts"][0]["readOnly"] is True

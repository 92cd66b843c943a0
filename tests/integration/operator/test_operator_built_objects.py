"""What the builders build, in the judgement of a real API server that takes only pods of the restricted profile."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from aiservice_api.v1alpha1 import AIServiceSpec
from aiservice_operator.compare import differs
from aiservice_operator.desired.autoscaler import autoscaler
from aiservice_operator.desired.common import wire
from aiservice_operator.desired.container import Mount
from aiservice_operator.desired.disruption_budget import disruption_budget
from aiservice_operator.desired.network_policy import network_policy
from aiservice_operator.desired.service import service as desired_service
from aiservice_operator.desired.service_account import service_account
from aiservice_operator.desired.workload import workload
from aiservice_operator.engines import Engine, choose_engine
from aiservice_operator.kinds import RESOURCES, Json, Kind
from aiservice_operator.observed import Meta
from support.cluster import ControlPlane
from support.kube_api import ApiError, KubeApi, wait_for
from support.operator_objects import SETTINGS, service
from support.operator_specs import FULL, unowned
from support.operator_world import make_namespace

MOUNT = Mount(cache="mine", digest="d", claim="disk", sub_path="model", one_node=True)
NAME = "everything"


@dataclass(frozen=True)
class Built:
    """The children of one AIService, built for a namespace of the cluster."""

    meta: Meta
    spec: AIServiceSpec

    def children(self, *, scale_down: bool = True) -> dict[Kind, Json]:
        engine = choose_engine(self.spec, SETTINGS)
        assert isinstance(engine, Engine), engine
        deployment = workload(self.meta, self.spec, MOUNT, engine, surge=True, replicas=None, references="r")
        wanted = {
            Kind.SERVICE_ACCOUNT: service_account(self.meta),
            Kind.SERVICE: desired_service(self.meta, self.spec.tasks),
            Kind.DEPLOYMENT: deployment,
            Kind.AUTOSCALER: autoscaler(self.meta, self.spec, scale_down=scale_down),
            Kind.DISRUPTION_BUDGET: disruption_budget(self.meta, self.spec, one_node=False),
            Kind.NETWORK_POLICY: network_policy(self.meta, self.spec, SETTINGS),
        }
        return {kind: unowned(wire(child)) for kind, child in wanted.items() if child is not None}


@pytest.fixture(scope="module")
def classes(control_plane: ControlPlane) -> Iterator[str]:
    """The name of a PriorityClass and of a RuntimeClass."""
    name = f"built-{uuid.uuid4().hex[:8]}"
    metadata = {"metadata": {"name": name}}
    control_plane.apply(
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 7, **metadata},
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": "sandbox", **metadata},
    )
    yield name
    control_plane.kubectl("delete", "priorityclass,runtimeclass", name)


@pytest.fixture
def api(control_plane: ControlPlane) -> Iterator[KubeApi]:
    api = make_namespace(control_plane)
    api.patch(
        "Namespace", api.namespace, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    )
    yield api
    api.delete("Namespace", api.namespace)
    api.close()


@pytest.fixture
def build(api: KubeApi, classes: str) -> Callable[..., Built]:
    def building(**fields: Any) -> Built:
        spec = {**copy.deepcopy(FULL), **fields}
        spec["pod"] = {**spec["pod"], "priorityClassName": classes, "runtimeClassName": classes}
        found = service(NAME, spec, namespace=api.namespace)
        assert found.spec is not None
        return Built(found.meta, found.spec)

    return building


def apply(api: KubeApi, kind: Kind, body: Json) -> Json:
    """As the operator does, with unknown fields refused."""
    resource = RESOURCES[kind]
    answer: Json = api.request(
        "PATCH",
        resource.path(api.namespace, body["metadata"]["name"]),
        {"apiVersion": resource.api_version, "kind": kind.value, **body},
        "application/apply-patch+yaml",
        {"fieldManager": "aiservice-operator", "force": "true", "fieldValidation": "Strict"},
    )
    return answer


def try_pod(api: KubeApi, template: Json) -> Json:
    query = {"dryRun": "All", "fieldValidation": "Strict"}
    body = {"metadata": {"name": "try", "labels": template["metadata"]["labels"]}, "spec": template["spec"]}
    answer: Json = api.request("POST", RESOURCES[Kind.POD].path(api.namespace), body, query=query)
    return answer


def test_a_pod_with_every_field_passes_the_restricted_profile(api: KubeApi, build: Callable[..., Built]) -> None:
    children = build().children()
    apply(api, Kind.SERVICE_ACCOUNT, children[Kind.SERVICE_ACCOUNT])
    template = children[Kind.DEPLOYMENT]["spec"]["template"]
    created = try_pod(api, template)
    assert [container["name"] for container in created["spec"]["containers"]] == ["engine", "exporter"]
    assert created["spec"]["priority"] == 7


def test_the_profile_is_enforced_there(api: KubeApi, build: Callable[..., Built]) -> None:
    """What the test above shows, it shows only if a pod that is less confined is refused."""
    children = build().children()
    apply(api, Kind.SERVICE_ACCOUNT, children[Kind.SERVICE_ACCOUNT])
    template = children[Kind.DEPLOYMENT]["spec"]["template"]
    del template["spec"]["containers"][1]["securityContext"]
    with pytest.raises(ApiError, match="violates PodSecurity"):
        try_pod(api, template)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {
            "autoscaling": {"max": 3, "metric": "CPU", "targetCpuUtilization": 50},
            "disruption": {"maxUnavailable": 1},
            "gpu": None,
            "gpuMemory": None,
            "resourceClaims": None,
        },
    ],
    ids=["full", "otherwise"],
)
def test_every_child_is_kept_as_it_was_built(api: KubeApi, build: Callable[..., Built], fields: dict[str, Any]) -> None:
    """Nothing that is applied comes back otherwise, or the operator would write it again and again."""
    built = build(**fields)
    for kind, body in built.children().items():
        kept = apply(api, kind, body)
        assert differs(body, kept) is None, kind
        again = apply(api, kind, body)
        assert again["metadata"].get("generation") == kept["metadata"].get("generation"), kind


def test_pods_of_it_come_into_being(api: KubeApi, build: Callable[..., Built]) -> None:
    for kind, body in build().children().items():
        apply(api, kind, body)
    (pod,) = wait_for(lambda: api.list("Pod"), "a pod that the ReplicaSet made")
    assert pod["metadata"]["labels"]["aiservice.dev/model-cache"] == "mine"


def test_scaling_down_is_stopped_and_allowed_again(api: KubeApi, build: Callable[..., Built]) -> None:
    built = build()
    policies = []
    for scale_down in (False, True):
        body = built.children(scale_down=scale_down)[Kind.AUTOSCALER]
        kept = apply(api, Kind.AUTOSCALER, body)
        assert differs(body, kept) is None
        policies.append(kept["spec"]["behavior"]["scaleDown"]["selectPolicy"])
    assert policies == ["Disabled", "Max"]


def test_fields_that_are_dropped_go(api: KubeApi, build: Callable[..., Built]) -> None:
    """From every field to few: server-side apply takes away what is no longer stated."""
    apply(api, Kind.DEPLOYMENT, build().children()[Kind.DEPLOYMENT])
    few = build(resourceClaims=None, engine={"image": "example.test/diffusion:8"})
    plain = Built(few.meta, few.spec.model_copy(update={"pod": None}))
    kept = apply(api, Kind.DEPLOYMENT, plain.children()[Kind.DEPLOYMENT])
    pod = kept["spec"]["template"]["spec"]
    assert [container["name"] for container in pod["containers"]] == ["engine"]
    assert [volume["name"] for volume in pod["volumes"]] == ["model", "tmp", "shm"]
    assert not {"resourceClaims", "topologySpreadConstraints", "priorityClassName"} & pod.keys()
    assert set(pod["affinity"]) == {"podAffinity"}
    assert "command" not in pod["containers"][0]


def test_a_network_policy_never_lets_everybody_in(api: KubeApi, build: Callable[..., Built]) -> None:
    kept = apply(api, Kind.NETWORK_POLICY, build().children()[Kind.NETWORK_POLICY])
    rules = kept["spec"]["ingress"]
    assert rules, "somebody may connect"
    assert all(rule.get("from") for rule in rules)

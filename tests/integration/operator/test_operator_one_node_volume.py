"""Pods that share a volume which one node can mount meet on one node, by the real scheduler."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

import pytest

from aiservice_operator import names
from aiservice_operator.desired.common import wire
from aiservice_operator.desired.container import Mount
from aiservice_operator.desired.service_account import service_account
from aiservice_operator.desired.workload import workload
from aiservice_operator.engines import Engine, choose_engine
from support.cluster import ControlPlane
from support.kube_api import KubeApi, wait_for
from support.operator_objects import SETTINGS, service
from support.operator_specs import unowned
from support.operator_world import make_namespace


@pytest.fixture
def pool(control_plane: ControlPlane) -> Iterator[str]:
    """A label that two nodes have, and no others."""
    name = f"pool-{uuid.uuid4().hex[:8]}"
    nodes = [f"{name}-{number}" for number in (1, 2)]
    for node in nodes:
        control_plane.add_node(node, labels={"pool": name})
    yield name
    for node in nodes:
        control_plane.remove_node(node)


@pytest.fixture
def api(control_plane: ControlPlane) -> Iterator[KubeApi]:
    with contextlib.closing(make_namespace(control_plane)) as api:
        yield api
        control_plane.kubectl("delete", "deployments,pods", "--all", "-n", api.namespace, "--force", "--grace-period=0")
        api.delete("Namespace", api.namespace)


def serve(api: KubeApi, name: str, pool: str, *, one_node: bool, away_from: str) -> str:
    """Makes the Deployment of a service that would rather not be where another's pods are; returns its node."""
    rival = {
        "labelSelector": {"matchLabels": {names.INSTANCE_LABEL: away_from}},
        "topologyKey": "kubernetes.io/hostname",
    }
    apart = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": rival}]}
    overrides = {"nodeSelector": {"pool": pool}, "affinity": {"podAntiAffinity": apart}}
    made = service(name, {"pod": overrides}, namespace=api.namespace)
    assert made.spec is not None
    engine = choose_engine(made.spec, SETTINGS)
    assert isinstance(engine, Engine)
    mount = Mount(cache="shared", digest="d", claim="shared", sub_path="model", one_node=one_node)
    deployment = wire(workload(made.meta, made.spec, mount, engine, surge=True, replicas=1, references=""))
    # Without the volume, which would decide in place of the affinity.
    deployment["spec"]["template"]["spec"]["volumes"][0] = {"name": "model", "emptyDir": {}}
    api.create("ServiceAccount", unowned(wire(service_account(made.meta))))
    api.create("Deployment", unowned(deployment))

    def look() -> str:
        return str(api.list("Pod", f"{names.INSTANCE_LABEL}={name}")[0]["spec"]["nodeName"])

    return wait_for(look, f"a node for the pod of {name}")


def test_pods_of_one_volume_meet_on_one_node(api: KubeApi, pool: str) -> None:
    first = serve(api, "first", pool, one_node=True, away_from="second")
    assert serve(api, "second", pool, one_node=True, away_from="first") == first


def test_pods_of_a_volume_for_many_nodes_go_where_they_like(api: KubeApi, pool: str) -> None:
    first = serve(api, "first", pool, one_node=False, away_from="second")
    assert serve(api, "second", pool, one_node=False, away_from="first") != first

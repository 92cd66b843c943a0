"""What an operator serves: namespaces, labels, and the APIs that a cluster has."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localcluster.commands import tool
from localcluster.control_plane import ControlPlane as Components
from localcluster.layout import Layout
from localcluster.network import is_free
from localcluster.processes import kill, spawn, wait_until_ready
from localcluster.settings import load
from support.cluster import ControlPlane, cluster_command
from support.fake_kubelet import FakeKubelet
from support.kube_api import KubeApi, wait_for
from support.operator import OperatorProcess
from support.operator_world import World, condition, make_namespace, model, remove_namespace, spec

ZONES = ("blue", "green")


@pytest.fixture
def two_operators(
    control_plane: ControlPlane, crds: None, node: str, tmp_path: Path
) -> Iterator[tuple[World, OperatorProcess, OperatorProcess]]:
    """Two that share a namespace, each with a label of its own."""
    with contextlib.closing(make_namespace(control_plane)) as api, contextlib.ExitStack() as stack:
        kubelet = stack.enter_context(FakeKubelet(control_plane.kubeconfig, api.namespace))
        blue, green = (
            stack.enter_context(
                OperatorProcess(
                    control_plane.kubeconfig,
                    tmp_path,
                    {"watch": {"namespaces": [api.namespace], "labels": {"zone": zone, "team": "models"}}},
                    name=zone,
                )
            )
            for zone in ZONES
        )
        yield World(api, kubelet, blue), blue, green
        kubelet.reset()
        remove_namespace(api)
    for operator in (blue, green):
        assert "Traceback" not in operator.log.read_text(), operator.log.read_text()


def labelled(name: str, zone: str, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"zone": zone, "team": "models"}}, "spec": spec(name, **fields)}


def test_each_serves_what_has_its_labels(two_operators: tuple[World, OperatorProcess, OperatorProcess]) -> None:
    world, blue, green = two_operators
    world.api.create("AIService", labelled("sky", "blue"))
    world.api.create("AIService", labelled("leaf", "green"))
    world.api.create("AIService", {"metadata": {"name": "half", "labels": {"zone": "blue"}}, "spec": spec("half")})
    world.api.create("ModelCache", {"metadata": {"name": "nobody"}, "spec": model("nobody")})
    for name, zone, own, other in (("sky", "blue", blue, green), ("leaf", "green", green, blue)):
        world.until_serving(name)
        cache = world.api.get("ModelCache", world.cache_of(name))
        assert {key: cache["metadata"]["labels"][key] for key in ("zone", "team")} == {"zone": zone, "team": "models"}
        assert f"/{name}" in own.output()
        assert f"/{name}" not in other.output()
    # Both have been busy since these were made.
    assert "status" not in world.api.get("AIService", "half")
    assert "status" not in world.api.get("ModelCache", "nobody")

    world.api.delete("Deployment", "leaf")
    wait_for(lambda: world.api.find("Deployment", "leaf"), "it is back")
    assert "Deployment" in green.output().rpartition("applied")[2]
    assert "leaf" not in blue.output()


def test_a_cache_that_another_operator_made(two_operators: tuple[World, OperatorProcess, OperatorProcess]) -> None:
    """It is left alone, the AIService says so, and is served when the other has let it go."""
    world, _, green = two_operators
    shared = model("shared")
    world.api.create("AIService", labelled("first", "blue", model=shared))
    world.until_serving("first")
    name = world.cache_of("first")
    before = world.api.get("ModelCache", name)
    world.api.create("AIService", labelled("second", "green", model=shared))
    wait_for(lambda: "zone=green that this operator serves" in green.output(), "it is refused")
    assert world.api.get("ModelCache", name)["metadata"]["ownerReferences"] == before["metadata"]["ownerReferences"]
    assert world.api.get("ModelCache", name)["metadata"]["labels"] == before["metadata"]["labels"]

    world.api.delete("AIService", "first")
    world.until_serving("second", 60)
    assert world.api.get("ModelCache", name)["metadata"]["labels"]["zone"] == "green"


def is_ready(api: KubeApi, name: str) -> bool:
    return bool(condition(api.get("AIService", name), "Ready")["status"] == "True")


def test_several_namespaces(control_plane: ControlPlane, crds: None, node: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        apis = [stack.enter_context(contextlib.closing(make_namespace(control_plane))) for _ in range(3)]
        served, others = apis[:2], apis[2:]
        for api in apis:
            stack.enter_context(FakeKubelet(control_plane.kubeconfig, api.namespace))
        watch = {"watch": {"namespaces": [api.namespace for api in served]}}
        operator = stack.enter_context(OperatorProcess(control_plane.kubeconfig, tmp_path, watch))
        for api in apis:
            api.create("AIService", {"metadata": {"name": "here"}, "spec": spec("here")})
        for api in served:
            wait_for(functools.partial(is_ready, api, "here"), "it is served")
        for api in others:
            assert "status" not in api.get("AIService", "here")
            api.delete("AIService", "here")
        # A watch of each kind in each namespace has begun, and is compared again when it breaks.
        assert operator.metric("aiservice_operator_watches_total") >= 2 * 11
        for api in served:
            remove_namespace(api)


MONITORS = "podmonitors.monitoring.coreos.com"


def monitor_crd() -> dict[str, Any]:
    """What the Prometheus Operator installs, as far as the API server needs it."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": "PodMonitor", "listKind": "PodMonitorList", "plural": "podmonitors", "singular": "podmonitor"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": MONITORS,
            "annotations": {"api-approved.kubernetes.io": "https://github.com/prometheus-operator/prometheus-operator"},
        },
        "spec": {"group": "monitoring.coreos.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }


def watched(operator: OperatorProcess, kind: str) -> bool:
    try:
        return f'aiservice_operator_watches_total{{kind="{kind}"}}' in operator.ask("/metrics")[1]
    except OSError:  # it is just beginning anew
        return False


def test_an_api_that_comes_and_goes(own_plane: ControlPlane, tmp_path: Path) -> None:
    """The Prometheus Operator is installed and removed while the operator runs: no restart by hand is needed."""
    with contextlib.closing(make_namespace(own_plane)) as api:
        operator = OperatorProcess(own_plane.kubeconfig, tmp_path, {"watch": {"namespaces": [api.namespace]}})
        with FakeKubelet(own_plane.kubeconfig, api.namespace) as kubelet, operator:
            world = World(api, kubelet, operator)
            world.serve("before")
            world.until_serving("before")
            assert not watched(operator, "PodMonitor")

            own_plane.kubectl("apply", "-f", "-", stdin=json.dumps(monitor_crd()))
            wait_for(lambda: watched(operator, "PodMonitor"), "it is watched", 90, 0.5)
            world.serve("meanwhile")
            world.until_serving("meanwhile")

            own_plane.kubectl("delete", "crd", MONITORS)
            wait_for(lambda: operator.output().count("beginning anew") == 2, "it is watched no more", 90, 0.5)
            wait_for(lambda: operator.output().count("the store holds") == 3, "the store is filled again", 60)
            assert not watched(operator, "PodMonitor")
            world.serve("after")
            for name in ("before", "meanwhile", "after"):
                world.until_serving(name)
            assert operator.exit_code() is None
            remove_namespace(api)


CLAIMS = [{"name": "gpu", "resourceClaimTemplateName": "one-device"}]


def devices(driver: str, node: str, namespace: str) -> list[dict[str, Any]]:
    """Two devices of a node, as a driver publishes them, and a template that claims one of them."""
    group = {"apiVersion": "resource.k8s.io/v1"}
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    listed = [{"name": "device-0"}, {"name": "device-1"}]
    selector = {"cel": {"expression": f'device.driver == "{driver}"'}}
    request = {"name": "device", "exactly": {"deviceClassName": driver}}
    template = {"spec": {"devices": {"requests": [request]}}}
    return [
        {**group, "kind": "DeviceClass", "metadata": {"name": driver}, "spec": {"selectors": [selector]}},
        {
            **group,
            "kind": "ResourceSlice",
            "metadata": {"name": driver},
            "spec": {"driver": driver, "nodeName": node, "pool": pool, "devices": listed},
        },
        {
            **group,
            "kind": "ResourceClaimTemplate",
            "metadata": {"name": "one-device", "namespace": namespace},
            "spec": template,
        },
    ]


def test_devices_that_are_claimed(control_plane: ControlPlane, crds: None, node: str, tmp_path: Path) -> None:
    """Dynamic resource allocation, with the real scheduler and devices on paper: two pods, a device each."""
    driver = f"gpu-{uuid.uuid4().hex[:8]}.example.test"
    with contextlib.closing(make_namespace(control_plane)) as api:
        operator = OperatorProcess(control_plane.kubeconfig, tmp_path, {"watch": {"namespaces": [api.namespace]}})
        with FakeKubelet(control_plane.kubeconfig, api.namespace) as kubelet, operator:
            world = World(api, kubelet, operator)
            try:
                control_plane.apply(*devices(driver, node, api.namespace))
                world.serve("claiming", profile=None, resourceClaims=CLAIMS, replicas=2)
                world.until("AIService", "claiming", "Accepted", "True", "Accepted")
                world.until_serving("claiming")
                claims = control_plane.get("resourceclaims", "-n", api.namespace)["items"]
                given = [claim["status"]["allocation"]["devices"]["results"] for claim in claims]
                assert sorted(result["device"] for [result] in given) == ["device-0", "device-1"]

                # There is no third one: the scheduler's words say so.
                world.api.patch("AIService", "claiming", {"spec": {"replicas": 3}})
                world.until("AIService", "claiming", "Scheduled", "False", "Unschedulable", 60)
            finally:
                remove_namespace(api)
                control_plane.kubectl("delete", "deviceclass,resourceslice", driver, "--ignore-not-found")


@contextlib.contextmanager
def without_group(plane: ControlPlane, group: str) -> Iterator[None]:
    """The API server begins anew and serves no version of a group; at the end it serves it again.

    Meanwhile it has no authorizer of nodes, which would wait for the group before the server is ready.
    """
    layout = Layout(plane.name)
    settings = load(layout)
    assert settings is not None
    components = Components(layout, settings, tool("hyperkube").parent).components()
    [server] = [component for together in components for component in together if component.name == "kube-apiserver"]
    kill(layout, server.name)
    wait_for(lambda: is_free(settings.ports.apiserver), "its port is free")  # the kernel closes it a moment later
    argv = [argument.replace("=Node,RBAC", "=RBAC") for argument in server.argv]
    changed = dataclasses.replace(server, argv=(*argv, f"--runtime-config={group}/v1=false"))
    process = spawn(layout, changed)
    try:
        wait_until_ready(layout, changed)
        yield
    finally:
        kill(layout, server.name)
        process.wait(timeout=30)
        cluster_command(plane.name, "up", "--control-plane-only")


def test_claims_where_the_cluster_has_no_devices_to_claim(own_plane: ControlPlane, tmp_path: Path) -> None:
    """Last of this module: the other components of its control plane take their time to find the API server again."""
    with contextlib.closing(make_namespace(own_plane)) as api:
        operator = OperatorProcess(own_plane.kubeconfig, tmp_path, {"watch": {"namespaces": [api.namespace]}})
        with FakeKubelet(own_plane.kubeconfig, api.namespace) as kubelet, contextlib.ExitStack() as stack:
            world = World(api, kubelet, operator)
            with without_group(own_plane, "resource.k8s.io"):
                assert "resource.k8s.io" not in own_plane.kubectl("api-versions")
                stack.enter_context(operator)
                world.serve("claiming", profile=None, resourceClaims=CLAIMS)
                service = world.until("AIService", "claiming", "Accepted", "False", "NoDynamicResources")
                assert "choose a profile or set spec.gpu instead" in condition(service, "Accepted")["message"]
                world.until("AIService", "claiming", "Ready", "False", "NoDynamicResources")
                assert world.api.find("Deployment", "claiming") is None
            assert "resource.k8s.io/v1" in own_plane.kubectl("api-versions").split()
            world.until("AIService", "claiming", "Accepted", "True", "Accepted", 120)
            assert operator.output().count("beginning anew") == 1
            remove_namespace(api)

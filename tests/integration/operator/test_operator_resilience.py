"""Operators killed in the middle of work, watches cut, API servers restarted; and quiet when nothing happens."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localcluster.layout import Layout
from localcluster.processes import kill, log_end
from support.cluster import REPOSITORY, ControlPlane, cluster_command, remove
from support.fake_kubelet import FakeKubelet
from support.gate import Gate
from support.kube_api import KubeApi, wait_for
from support.operator import OperatorProcess
from support.operator_world import World, condition, make_namespace, model, remove_namespace, spec

CHILDREN = ("ModelCache", "PersistentVolumeClaim", "Job", "Deployment", "Service", "ServiceAccount", "AIService")


_QUIET_SECONDS = 65
"""The minute that is promised, and a moment for what is looked at once a minute."""


def versions(api: KubeApi) -> dict[str, str]:
    """The resourceVersion of everything that the operator has to do with."""
    return {
        f"{kind}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
        for kind in CHILDREN
        for item in api.list(kind)
    }


def test_killed_at_any_moment(control_plane: ControlPlane, crds: None, node: str, tmp_path: Path) -> None:
    """Twenty services; the operator dies six times while it makes them. In the end all are as they should be."""
    chance = random.Random(7)
    with contextlib.closing(make_namespace(control_plane)) as api:
        operator = OperatorProcess(control_plane.kubeconfig, tmp_path, {"watch": {"namespaces": [api.namespace]}})
        with FakeKubelet(control_plane.kubeconfig, api.namespace) as kubelet, operator:
            world = World(api, kubelet, operator)
            for number in range(20):
                world.serve(f"s{number}", model=model(f"m{number // 2}"))
            for _ in range(6):
                time.sleep(chance.uniform(0.02, 0.6))
                operator.kill()
                operator.start()
            for number in range(20):
                world.until_serving(f"s{number}", 120)
            caches = api.list("ModelCache")
            assert len(caches) == 10
            assert [len(cache["metadata"]["ownerReferences"]) for cache in caches] == [2] * 10
            assert len(api.list("Job")) == 10

            # A restart with everything in place writes nothing.
            before = versions(api)
            operator.stop()
            operator.start()
            wait_for(lambda: operator.metric("aiservice_operator_reconcile_seconds_count") >= 30, "all were looked at")
            assert operator.metric("aiservice_operator_writes_total") == 0
            assert versions(api) == before

            # Killed while it takes them away again.
            for number in range(20):
                api.delete("AIService", f"s{number}")
            operator.kill()
            operator.start()
            wait_for(lambda: not api.list("ModelCache"), "no cache is left", 60)
            kinds = ("PersistentVolumeClaim", "Job", "Deployment", "Service")
            wait_for(lambda: not [item for kind in kinds for item in api.list(kind)], "nothing is left", 60)
            remove_namespace(api)


@pytest.fixture
def many(control_plane: ControlPlane, crds: None, tmp_path: Path) -> Iterator[World]:
    """An operator with a Lease, and a node with room for hundreds of pods."""
    name = f"wide-{os.getpid()}"
    control_plane.add_node(name, {"pods": "1000", "cpu": "1000"})
    with contextlib.closing(make_namespace(control_plane)) as api:
        changes = {"watch": {"namespaces": [api.namespace]}, "leaderElection": {"enabled": True}}
        operator = OperatorProcess(control_plane.kubeconfig, tmp_path, changes, namespace=api.namespace)
        with FakeKubelet(control_plane.kubeconfig, api.namespace, hands=4) as kubelet, operator:
            wait_for(lambda: operator.metric("aiservice_operator_leader") == 1, "it leads")
            yield World(api, kubelet, operator)
            remove_namespace(api)
    control_plane.remove_node(name)


def test_nothing_is_written_while_nothing_happens(many: World) -> None:
    """Two hundred services, most on one model, and a minute in which nobody changes anything."""
    world = many
    for number in range(200):
        world.serve(f"quiet{number}", model=model(f"m{max(number - 195, 0)}"))
    world.serve("refused", profile="none-such")
    wait_for(lambda: sum(is_serving(body) for body in world.api.list("AIService")) == 200, "all serve", 600, 1)
    world.until("AIService", "refused", "Ready", "False", "UnknownProfile")
    written = metrics_of(world)
    for _ in range(60):  # what is on its way arrives
        time.sleep(2)
        if (now := metrics_of(world)) == written:
            break
        written = now
    before, lease = versions(world.api), world.api.get("Lease", "aiservice-operator")["metadata"]["resourceVersion"]
    time.sleep(_QUIET_SECONDS)
    assert metrics_of(world) == written
    assert versions(world.api) == before
    assert world.api.get("Lease", "aiservice-operator")["metadata"]["resourceVersion"] != lease, "it was at work"


def metrics_of(world: World) -> float:
    return world.operator.metric("aiservice_operator_writes_total")


def is_serving(body: Any) -> bool:
    return bool(condition(body, "Ready").get("reason") == "Serving")


def test_a_namespace_goes_with_all_that_is_in_it(
    control_plane: ControlPlane, crds: None, node: str, tmp_path: Path
) -> None:
    with contextlib.closing(make_namespace(control_plane)) as api:
        operator = OperatorProcess(control_plane.kubeconfig, tmp_path, {"watch": {"namespaces": [api.namespace]}})
        with FakeKubelet(control_plane.kubeconfig, api.namespace) as kubelet, operator:
            world = World(api, kubelet, operator)
            world.serve("inhabitant")
            api.create("ModelCache", {"metadata": {"name": "own"}, "spec": model("own")})
            world.serve("guest", model=None, modelCacheRef={"name": "own"})
            for name in ("inhabitant", "guest"):
                world.until_serving(name)
            assert api.get("ModelCache", "own")["metadata"]["finalizers"]
            api.delete("Namespace", api.namespace)
            world.until_gone("Namespace", api.namespace, 90)


@pytest.fixture
def gated(control_plane: ControlPlane, crds: None, node: str, tmp_path: Path) -> Iterator[tuple[World, Gate]]:
    """An operator whose way to the API server can be closed."""
    with contextlib.closing(make_namespace(control_plane)) as api, Gate(control_plane.kubeconfig, tmp_path) as gate:
        operator = OperatorProcess(gate.kubeconfig, tmp_path, {"watch": {"namespaces": [api.namespace]}})
        with FakeKubelet(control_plane.kubeconfig, api.namespace) as kubelet, operator:
            yield World(api, kubelet, operator), gate
            gate.open()
            remove_namespace(api)


def test_what_happened_while_the_api_server_was_away(gated: tuple[World, Gate]) -> None:
    world, gate = gated
    world.serve("cut")
    world.until_serving("cut")
    gate.close()
    world.api.delete("Service", "cut")
    world.api.delete("ServiceAccount", "cut")
    world.api.patch("AIService", "cut", {"spec": {"replicas": 2}})
    wait_for(lambda: world.operator.metric("aiservice_operator_watch_lost_seconds") > 1, "the loss is noticed")
    assert world.operator.ask("/healthz")[0] == 200, "a short outage is no reason for a restart"
    gate.open()
    wait_for(lambda: world.api.find("Service", "cut") and world.api.find("ServiceAccount", "cut"), "both are back", 30)
    world.until_serving("cut")
    wait_for(lambda: world.operator.metric("aiservice_operator_watch_lost_seconds") == 0, "every watch is back")


def has_a_pod(api: KubeApi, name: str) -> bool:
    """Whether the Deployment controller has seen what it is to do, and that it is done."""
    body = api.get("Deployment", name)
    status, generation = body.get("status", {}), body["metadata"]["generation"]
    return (status.get("observedGeneration"), status.get("readyReplicas")) == (generation, 1)


@contextlib.contextmanager
def told_on_failure(world: World, layout: Layout) -> Iterator[None]:
    """Says who was late, should something be: the operator, or what it waits for."""
    try:
        yield
    except AssertionError as error:
        for deployment in world.api.list("Deployment"):
            error.add_note(json.dumps({key: deployment.get(key) for key in ("metadata", "status")}))
        error.add_note(f"operator:\n{world.operator.output()}")
        error.add_note(log_end(layout, "kube-controller-manager", 40))
        raise


def test_an_api_server_that_was_restarted(tmp_path: Path) -> None:
    """It has forgotten its watches, and never tells what was deleted before they came back."""
    name = f"operator-{os.getpid()}"
    cluster_command(name, "up", "--control-plane-only")
    try:
        control_plane = ControlPlane(name, Path(cluster_command(name, "kubeconfig").strip()))
        control_plane.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
        control_plane.kubectl("wait", "--for=condition=Established", "-f", str(REPOSITORY / "crds"), "--timeout=30s")
        control_plane.add_node("restarted")
        with contextlib.closing(make_namespace(control_plane)) as api:
            operator = OperatorProcess(control_plane.kubeconfig, tmp_path)
            with FakeKubelet(control_plane.kubeconfig, api.namespace) as kubelet, operator:
                world = World(api, kubelet, operator)
                world.serve("survivor")
                world.until_serving("survivor")
                kill(Layout(name), "kube-apiserver")
                cluster_command(name, "up", "--control-plane-only")
                # Before the operator's watches are back, if this is fast enough.
                api.delete("Service", "survivor")
                api.create("AIService", {"metadata": {"name": "late"}, "spec": spec("late")})
                wait_for(lambda: api.find("Service", "survivor"), "the Service is back", 30)
                with told_on_failure(world, Layout(name)):
                    # The controller manager looks for the API server later and later: up to a minute after the last
                    # time in vain. The operator waits two seconds at most, so the rest is its own.
                    for service in ("survivor", "late"):
                        wait_for(functools.partial(has_a_pod, api, service), f"{service} has a pod that is ready", 180)
                        world.until_serving(service)
                remove_namespace(api)
    finally:
        remove(name)

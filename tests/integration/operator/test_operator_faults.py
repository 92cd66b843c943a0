"""What an API server can do to its clients: slow storage, lost history, throttling, conflicts, rights that go."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localcluster.layout import Layout
from localcluster.processes import kill, main_process
from support.cluster import REPOSITORY, ControlPlane, cluster_command
from support.fake_kubelet import FakeKubelet, loading
from support.gate import Gate
from support.kube_api import ApiError, KubeApi, wait_for
from support.operator import OperatorProcess
from support.operator_world import World, condition, make_namespace, model, remove_namespace


@pytest.fixture
def frail(own_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[World, Gate]]:
    """An operator on a control plane of its own, behind a gate."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY / "tests"), str(REPOSITORY / "scripts/lib")]))
    with contextlib.closing(make_namespace(own_plane)) as api, Gate(own_plane.kubeconfig, tmp_path) as gate:
        operator = OperatorProcess(
            gate.kubeconfig,
            tmp_path,
            {"watch": {"namespaces": [api.namespace]}},
            module="support.talkative_operator",
        )
        with FakeKubelet(own_plane.kubeconfig, api.namespace) as kubelet, operator:
            yield World(api, kubelet, operator), gate
            gate.open()
            remove_namespace(api)
        assert "Traceback" not in operator.log.read_text(), operator.log.read_text()


@contextlib.contextmanager
def frozen(plane: ControlPlane, component: str) -> Iterator[None]:
    pid = main_process(Layout(plane.name), component)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_storage_that_is_slow(own_plane: ControlPlane, frail: tuple[World, Gate]) -> None:
    """etcd stands still in the middle of work: requests hang, and go on."""
    world, _ = frail
    world.serve("before")
    world.until_serving("before")
    for _ in range(2):
        with frozen(own_plane, "etcd"):
            created = threading.Thread(target=create_when_possible, args=(own_plane, world.namespace))
            created.start()
            time.sleep(4)
            assert world.operator.ask("/healthz")[0] == 200
        created.join(timeout=60)
        assert not created.is_alive()
    for number in range(3):
        world.until_serving(f"slow{number}", 90)
    assert world.operator.exit_code() is None


def create_when_possible(plane: ControlPlane, namespace: str) -> None:
    with contextlib.closing(KubeApi(plane.kubeconfig, namespace)) as api:
        world = World(api, None, None)  # type: ignore[arg-type] # only creates
        for number in range(3):
            wait_for(lambda name=f"slow{number}": is_there(world, name), "it is created", 60)  # type: ignore[misc]


def is_there(world: World, name: str) -> bool:
    try:
        world.serve(name)
    except ApiError as error:
        return error.status == 409
    except OSError:
        return False
    return True


def test_an_api_server_that_answers_nobody(own_plane: ControlPlane, frail: tuple[World, Gate]) -> None:
    """Its requests hang, and more ModelCaches than the operator has workers are to be looked at: the queue shows it."""
    world, _ = frail
    world.kubelet.download = loading
    for number in range(30):
        world.api.create("ModelCache", {"metadata": {"name": f"held{number}"}, "spec": model(f"held{number}")})
    wait_for(lambda: [item for item in world.api.list("ModelCache") if not downloads(item)] == [], "downloads", 90, 0.5)
    with frozen(own_plane, "kube-apiserver"):
        wait_for(lambda: world.operator.metric("aiservice_operator_queue_depth") > 3, "they wait")
        wait_for(lambda: world.operator.metric("aiservice_operator_queue_age_seconds") > 2, "and have for long")
        assert world.operator.ask("/healthz")[0] == 200
    world.kubelet.reset()
    wait_for(lambda: all(map(cached, world.api.list("ModelCache"))), "all are cached", 90, 0.5)
    wait_for(lambda: world.operator.metric("aiservice_operator_queue_age_seconds") == 0, "nothing waits")


def downloads(cache: Any) -> bool:
    return bool(condition(cache, "Downloaded").get("reason") == "Downloading")


def cached(cache: Any) -> bool:
    return bool(condition(cache, "Ready").get("status") == "True")


def test_history_that_is_gone(own_plane: ControlPlane, frail: tuple[World, Gate]) -> None:
    """The watches ask for versions that the API server no longer has: 410 Gone."""
    world, gate = frail
    for name in ("first", "second"):
        world.serve(name)
        world.until_serving(name)
    seen = world.api.request("GET", world.api.path("AIService"))["metadata"]["resourceVersion"]
    gate.close()
    world.api.delete("Deployment", "first")
    world.api.delete("AIService", "second")
    world.api.patch("AIService", "first", {"spec": {"replicas": 2}})
    kill(Layout(own_plane.name), "kube-apiserver")  # what it remembers of the past goes with it
    cluster_command(own_plane.name, "up", "--control-plane-only")
    wait_for(lambda: world.api.find("AIService", "first"), "the API server is back", 60)
    with contextlib.closing(KubeApi(own_plane.kubeconfig, world.namespace)) as watching:
        told = next(watching.watch("AIService", seen))
        assert (told["type"], told["object"]["code"]) == ("ERROR", 410)
    assert begun_anew(world) == set()
    gate.open()
    assert world.until_serving("first", 180)["status"]["readyReplicas"] == 2
    world.until_gone("AIService", "second")
    wait_for(lambda: not world.api.list("ModelCache", "app.kubernetes.io/instance=second"), "nothing is left of it")
    assert begun_anew(world) >= {"aiservices", "deployments"}
    assert world.operator.exit_code() is None


def begun_anew(world: World) -> set[str]:
    """What the operator watches from the present on, because it was told that the versions it knew are gone: 410."""
    return set(re.findall(r"Restarting the watch-stream for (\w+)\.", world.operator.output()))


def flow_control(namespace: str) -> list[dict[str, Any]]:
    """Rejects every request of the operator's account."""
    group = "flowcontrol.apiserver.k8s.io/v1"
    account = {"kind": "ServiceAccount", "serviceAccount": {"name": "operator", "namespace": namespace}}
    everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
    limited = {"nominalConcurrencyShares": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}}
    name = f"reject-{namespace}"
    return [
        {
            "apiVersion": group,
            "kind": "PriorityLevelConfiguration",
            "metadata": {"name": name},
            "spec": {"type": "Limited", "limited": limited},
        },
        {
            "apiVersion": group,
            "kind": "FlowSchema",
            "metadata": {"name": name},
            "spec": {
                "priorityLevelConfiguration": {"name": name},
                "matchingPrecedence": 2,
                "rules": [{"subjects": [account], "resourceRules": [everything]}],
            },
        },
    ]


def errors(operator: OperatorProcess, name: str) -> bool:
    return f'reconcile_errors_total{{error="{name}"' in operator.ask("/metrics")[1]


def test_an_api_server_that_throttles(control_plane: ControlPlane, shared_world: World) -> None:
    world, objects = shared_world, flow_control(shared_world.namespace)
    world.serve("early")
    world.until_serving("early")
    try:
        control_plane.apply(*objects)
        # Flow control takes effect in a moment: until then the operator still works.
        for number in range(60):
            if errors(world.operator, "ThrottledError"):
                break
            world.serve(f"throttled{number}")
            time.sleep(0.5)
        assert errors(world.operator, "ThrottledError")
        assert world.operator.ask("/healthz")[0] == 200
    finally:
        for each in reversed(objects):
            control_plane.kubectl("delete", each["kind"].lower(), each["metadata"]["name"], "--ignore-not-found")
    for throttled in range(number):
        world.until_serving(f"throttled{throttled}", 90)
    assert world.operator.exit_code() is None


def test_objects_that_change_all_the_time(shared_world: World, control_plane: ControlPlane) -> None:
    """Someone edits a ModelCache without end while it is to be deleted as it is known: conflicts, and the end.

    Not each time: what is edited may be known by the time that it is deleted. So it is tried until one is seen.
    """
    world = shared_world
    world.serve("busy")
    world.until_serving("busy")
    before = conflicts(world.operator)
    for number in range(20):
        replace_model_while_it_is_edited(world, control_plane, number)
        if conflicts(world.operator) > before:
            break
    assert conflicts(world.operator) > before


def replace_model_while_it_is_edited(world: World, control_plane: ControlPlane, number: int) -> None:
    cache, stop = world.cache_of("busy"), threading.Event()

    def edit() -> None:
        with contextlib.closing(KubeApi(control_plane.kubeconfig, world.namespace)) as api:
            number = 0
            while not stop.is_set():
                number += 1
                with contextlib.suppress(ApiError):  # it is gone
                    api.patch("ModelCache", cache, {"metadata": {"annotations": {"edited": str(number)}}})

    editor = threading.Thread(target=edit)
    editor.start()
    try:
        world.api.patch("AIService", "busy", {"spec": {"model": model(f"busy-{number}")}})
        world.until_serving("busy", 60)
        world.until_gone("ModelCache", cache, 60)
    finally:
        stop.set()
        editor.join(timeout=30)


def conflicts(operator: OperatorProcess) -> float:
    return operator.metric('aiservice_operator_reconcile_errors_total{error="ConflictError",kind="ModelCache"}')


def test_rights_that_are_taken_away_and_given_back(
    control_plane: ControlPlane, crds: None, node: str, restricted_world: tuple[World, Gate]
) -> None:
    world, gate = restricted_world
    world.serve("kept")
    world.until_serving("kept")
    binding = control_plane.get("rolebinding", "operator", "-n", world.namespace)
    control_plane.kubectl("delete", "rolebinding", "operator", "-n", world.namespace)
    world.serve("refused")
    wait_for(lambda: "is forbidden" in world.operator.output(), "it is told so")
    # Watches that have to begin anew are forbidden, too.
    gate.close()
    gate.open()
    wait_for(lambda: world.operator.metric("aiservice_operator_watch_lost_seconds") > 3, "the watches are lost", 60)
    world.api.delete("Service", "kept")
    assert world.operator.exit_code() is None
    for field in ("resourceVersion", "uid", "creationTimestamp", "managedFields"):
        binding["metadata"].pop(field, None)
    control_plane.kubectl("create", "-f", "-", stdin=json.dumps(binding))
    wait_for(lambda: world.api.find("Service", "kept"), "the Service is back", 30)
    world.until_serving("refused", 90)
    wait_for(lambda: world.operator.metric("aiservice_operator_watch_lost_seconds") == 0, "every watch is back")

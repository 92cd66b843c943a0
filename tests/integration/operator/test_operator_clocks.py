"""Clocks that jump, health that tells the truth, and one poisoned object among others."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.cluster import REPOSITORY, ControlPlane
from support.fake_kubelet import FakeKubelet
from support.gate import Gate
from support.kube_api import wait_for
from support.operator import OperatorProcess
from support.operator_world import World, condition, make_namespace, remove_namespace

HOUR = 3600


@dataclass
class Skewed:
    """A world whose operator's clocks can be moved, and its way to the API server closed."""

    world: World
    gate: Gate
    skew: Path

    def move(self, *, steady: float = 0, wall: float = 0) -> None:
        draft = self.skew.with_suffix(".new")
        draft.write_text(f"{steady} {wall}")
        draft.replace(self.skew)

    def health(self) -> tuple[int, str]:
        return self.world.operator.ask("/healthz")


@pytest.fixture
def skewed(
    control_plane: ControlPlane, crds: None, node: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Skewed]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY / "tests"), str(REPOSITORY / "scripts/lib")]))
    with contextlib.closing(make_namespace(control_plane)) as api, Gate(control_plane.kubeconfig, tmp_path) as gate:
        operator = OperatorProcess(
            gate.kubeconfig,
            tmp_path,
            {"watch": {"namespaces": [api.namespace]}, "leaderElection": {"enabled": True}},
            namespace=api.namespace,
            module="support.skewed_operator",
        )
        with FakeKubelet(control_plane.kubeconfig, api.namespace) as kubelet:
            found = Skewed(World(api, kubelet, operator), gate, tmp_path / "skew")
            found.move()
            with operator:
                wait_for(lambda: operator.metric("aiservice_operator_leader") == 1, "it leads")
                yield found
                gate.open()
                found.move()
                if operator.exit_code() is not None:
                    operator.start()
                remove_namespace(api)


def test_a_wall_clock_that_jumps(skewed: Skewed) -> None:
    world = skewed.world
    world.serve("first")
    world.until_serving("first")
    holder = world.api.get("Lease", "aiservice-operator")["spec"]["holderIdentity"]
    for number, jump in enumerate((-HOUR, HOUR)):
        skewed.move(wall=jump)
        world.serve(f"later{number}")
        world.until_serving(f"later{number}")
        world.api.patch("AIService", "first", {"spec": {"replicas": 2 + number}})
        body = world.until_serving("first")
        assert body["status"]["readyReplicas"] == 2 + number
    assert world.operator.exit_code() is None
    assert world.api.get("Lease", "aiservice-operator")["spec"]["holderIdentity"] == holder
    assert world.operator.output().count(": leading") == 1


def test_health_fails_when_the_watch_is_lost(skewed: Skewed) -> None:
    assert skewed.health() == (200, "ok\n")
    skewed.gate.close()
    wait_for(lambda: skewed.world.operator.metric("aiservice_operator_watch_lost_seconds") > 0.2, "the loss is noticed")
    assert skewed.health()[0] == 200, "a short outage is no reason for a restart"
    lease = skewed.world.api.get("Lease", "aiservice-operator")
    assert lease["spec"]["holderIdentity"] == "operator"
    skewed.move(steady=120)
    code, words = skewed.health()
    assert code == 503
    assert "watches are lost: AIService in" in words


def test_health_fails_when_the_lease_is_lost(skewed: Skewed) -> None:
    skewed.gate.close()
    skewed.move(steady=20)  # more than the Lease's 15 s; watches may be gone for longer
    assert skewed.health() == (503, "the Lease is lost\n")
    assert skewed.world.operator.ask("/readyz")[0] == 503
    wait_for(lambda: skewed.world.operator.exit_code() == 1, "it makes way for another")


def test_one_poisoned_object_blocks_no_other(skewed: Skewed) -> None:
    world = skewed.world
    for number in range(4):
        world.serve(f"poisoned{number}")
        world.serve(f"sound{number}")
    for number in range(4):
        world.until_serving(f"sound{number}")
    errors = 'aiservice_operator_reconcile_errors_total{error="KeyError",kind="AIService"}'
    wait_for(lambda: errors in world.operator.ask("/metrics")[1], "the mishap is counted")
    assert "poisoned0: again in" in world.operator.output()
    assert not condition(world.api.get("AIService", "poisoned0"), "Ready")
    world.api.patch("AIService", "sound0", {"spec": {"replicas": 2}})
    world.until_serving("sound0")
    assert skewed.health()[0] == 200

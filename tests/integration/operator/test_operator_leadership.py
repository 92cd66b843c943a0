"""Two replicas: one acts. What ends it, and how soon the other takes over."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from support.cluster import ControlPlane
from support.fake_kubelet import FakeKubelet
from support.kube_api import KubeApi, wait_for
from support.operator import OperatorProcess
from support.operator_world import World, make_namespace, remove_namespace

PATIENCE = 90
"""Seconds until what follows a takeover must be there, on a machine however busy."""


@pytest.fixture
def pair(
    control_plane: ControlPlane, crds: None, node: str, tmp_path: Path
) -> Iterator[tuple[World, OperatorProcess, OperatorProcess]]:
    """The one that leads, in its world, and the one that waits."""
    with contextlib.closing(make_namespace(control_plane)) as api:
        changes = {"watch": {"namespaces": [api.namespace]}, "leaderElection": {"enabled": True}}
        replicas = [
            OperatorProcess(control_plane.kubeconfig, tmp_path, changes, name=name, namespace=api.namespace)
            for name in ("one", "two")
        ]
        with FakeKubelet(control_plane.kubeconfig, api.namespace) as kubelet:
            leader, standby = replicas
            with leader:
                wait_for(lambda: "leading" in leader.output(), "the first leads")
                with standby:
                    yield World(api, kubelet, leader), leader, standby
                    kubelet.reset()
                    for replica in replicas:
                        if replica.exit_code() is not None:
                            replica.start(wait=False)
                    remove_namespace(api)
        for replica in replicas:
            assert "Traceback" not in replica.log.read_text(), replica.log.read_text()


def holder(api: KubeApi) -> str:
    lease: dict[str, Any] = api.get("Lease", "aiservice-operator")["spec"]
    return str(lease.get("holderIdentity", ""))


def lease_time(api: KubeApi, name: str) -> datetime:
    return datetime.fromisoformat(api.get("Lease", "aiservice-operator")["spec"][name])


def applied(replica: OperatorProcess) -> int:
    return replica.output().count(": applied ")


def test_one_acts_and_the_other_takes_over_after_a_kill(
    pair: tuple[World, OperatorProcess, OperatorProcess],
) -> None:
    world, leader, standby = pair
    world.serve("first")
    world.until_serving("first")
    assert holder(world.api) == "one"
    assert (leader.metric("aiservice_operator_leader"), standby.metric("aiservice_operator_leader")) == (1, 0)
    assert applied(standby) == 0
    known = "aiservice_operator_objects"
    wait_for(lambda: standby.metric(known) == leader.metric(known) > 0, "both know the same")
    assert [replica.ask("/readyz")[0] for replica in (leader, standby)] == [200, 200]

    world.api.create(
        "AIService", {"metadata": {"name": "second"}, "spec": {**world.api.get("AIService", "first")["spec"]}}
    )
    leader.kill()
    renewed = lease_time(world.api, "renewTime")
    world.api.delete("Deployment", "first")
    wait_for(
        lambda: world.api.get("Deployment", "first")["metadata"].get("deletionTimestamp") is None,
        "it is back",
        PATIENCE,
    )
    wait_for(lambda: holder(world.api) == "two", "the other leads", PATIENCE)
    world.until_serving("first", PATIENCE)
    world.until_serving("second", PATIENCE)
    # The Lease's 15 s, a poll of 2 s on either side, and something for the requests.
    assert (lease_time(world.api, "acquireTime") - renewed).total_seconds() < 25
    assert standby.metric("aiservice_operator_leader") == 1


def test_a_stop_hands_over_at_once(pair: tuple[World, OperatorProcess, OperatorProcess]) -> None:
    world, leader, standby = pair
    assert leader.stop() == 0
    stopped = time.monotonic()
    wait_for(lambda: "leading" in standby.output(), "the other leads", PATIENCE)
    assert time.monotonic() - stopped < 14, "sooner than the Lease would have run out"
    world.serve("after")
    world.until_serving("after")


def test_a_leader_that_was_frozen_writes_nothing_more(pair: tuple[World, OperatorProcess, OperatorProcess]) -> None:
    world, leader, standby = pair
    leader.signal(signal.SIGSTOP)
    world.serve("frozen")
    wait_for(lambda: holder(world.api) == "two", "the other leads", PATIENCE)
    world.until_serving("frozen", PATIENCE)
    before = applied(leader)
    leader.signal(signal.SIGCONT)
    wait_for(lambda: leader.exit_code() == 1, "it has noticed, and exits", PATIENCE)
    assert applied(leader) == before
    assert holder(world.api) == "two"
    assert standby.exit_code() is None

"""What the operator's benchmark happens in: a control plane with a kubelet, teams' namespaces, and eyes on both."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.report import percentile
from localcluster.layout import Layout
from localcluster.processes import main_process
from support.cluster import REPOSITORY, ControlPlane, cluster_command, own_cluster_name, remove, remove_abandoned
from support.fake_kubelet import FakeKubelet
from support.kube_api import KubeApi, wait_for
from support.operator import OperatorProcess
from support.operator_world import condition, make_namespace
from support.watcher import Watcher

CLIENTS = 4
"""Connections of whoever creates objects, each with one request at a time."""
TEAM = 100
"""How many AIServices a namespace has."""
LEASE_NAMESPACE = "default"
ELECTION = {"enabled": True, "name": "aiservice-operator", "leaseSeconds": 15, "renewSeconds": 10, "retrySeconds": 2}
_CLAIM = "models"
_KUBELET_HANDS = 4
_NODE = {"cpu": "10000", "memory": "100Ti", "pods": "400"}


def say(text: str) -> None:
    """Progress, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


@contextlib.contextmanager
def running_cluster(services: int, controller_qps: int | None = None) -> Iterator[ControlPlane]:
    """A control plane for this run, with the CRDs, a kubelet, and a node for each team, the floor's too."""
    remove_abandoned()
    name = own_cluster_name("bench")
    rate = ["--controller-qps", str(controller_qps)] if controller_qps is not None else []
    try:
        cluster_command(name, "up", "--control-plane-only", *rate)
        plane = ControlPlane(name, Path(cluster_command(name, "kubeconfig").strip()))
        plane.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
        plane.kubectl("wait", "--for=condition=Established", "-f", str(REPOSITORY / "crds"), "--timeout=30s")
        for number in range(2 * _teams(services)):
            plane.add_node(f"bench-{number}", _NODE)
        with FakeKubelet(plane.kubeconfig, "", _KUBELET_HANDS):
            yield plane
    finally:
        remove(name)


def _teams(services: int) -> int:
    return -(-services // TEAM)


@dataclass(frozen=True)
class Teams:
    """Namespaces with `TEAM` AIServices each, which are numbered throughout."""

    plane: ControlPlane
    namespaces: Sequence[str]

    def at(self, api: KubeApi, number: int) -> KubeApi:
        """Turns a client to the namespace of an AIService."""
        api.namespace = self.namespaces[number // TEAM]
        return api

    def client(self, number: int = 0) -> contextlib.closing[KubeApi]:
        """A client of the namespace of an AIService."""
        return contextlib.closing(KubeApi(self.plane.kubeconfig, self.namespaces[number // TEAM]))


def make_teams(plane: ControlPlane, services: int) -> Teams:
    """Makes fresh namespaces, each with a claim that holds the model."""
    return Teams(plane, [_make_team(plane) for _ in range(_teams(services))])


def _make_team(plane: ControlPlane) -> str:
    with contextlib.closing(make_namespace(plane)) as api:
        claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "20Gi"}}}
        api.create("PersistentVolumeClaim", {"metadata": {"name": _CLAIM}, "spec": claim})
        wait_for(lambda: api.get("PersistentVolumeClaim", _CLAIM)["status"]["phase"] == "Bound", "the claim")
        return api.namespace


def service(number: int) -> dict[str, Any]:
    """One AIService; those of a namespace use the same cache."""
    spec = {"tasks": ["speech-to-text"], "profile": "cpu", "model": {"pvc": {"claimName": _CLAIM}}}
    return {"metadata": {"name": name_of(number)}, "spec": spec}


def name_of(number: int) -> str:
    """The name of an AIService and of its children."""
    return f"service-{number:05}"


def is_ready(body: Mapping[str, Any]) -> bool:
    """Whether an AIService is Ready as it is specified now."""
    found = condition(body, "Ready")
    return bool(found.get("status") == "True" and found["observedGeneration"] == body["metadata"]["generation"])


class Eyes:
    """Follows which objects of a kind meet a condition, and since when.

    Args:
        teams: Where to look.
        kind: What to look at.
        holds: The condition.
    """

    def __init__(self, teams: Teams, kind: str, holds: Callable[[Any], bool]) -> None:
        self._namespaces = frozenset(teams.namespaces)
        self._kind = kind
        self._holds = holds
        self._changed = threading.Condition()
        self._since: dict[str, float] = {}
        self._watcher = Watcher(teams.plane.kubeconfig, "", kind, self._see)

    def __enter__(self) -> Eyes:
        self._watcher.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._watcher.__exit__()

    def _see(self, change: str, body: Any) -> None:
        now, name = time.perf_counter(), body["metadata"]["name"]
        if body["metadata"]["namespace"] not in self._namespaces:
            return
        with self._changed:
            if change != "DELETED" and self._holds(body):
                self._since.setdefault(name, now)
            else:
                self._since.pop(name, None)
            self._changed.notify_all()

    def until_one(self, name: str, timeout: float) -> float:
        """Waits until this object meets the condition; returns since when."""
        self._until(lambda: name in self._since, name, timeout)
        return self._since[name]

    def until_all(self, count: int, timeout: float) -> list[float]:
        """Waits until so many objects meet the condition; returns since when each does, in order."""
        self._until(lambda: len(self._since) >= count, str(count), timeout)
        return sorted(self._since.values())

    def _until(self, holds: Callable[[], bool], what: str, timeout: float) -> None:
        with self._changed:
            found = self._changed.wait_for(holds, timeout)
        assert found, f"{what} {self._kind}: not within {timeout:.0f} s; {len(self._since)} are as wanted"


def side_by_side(teams: Teams, count: int, work: Callable[[KubeApi, int], object]) -> None:
    """Does something for each number below `count`, over CLIENTS connections."""

    def share(first: int) -> None:
        with teams.client() as api:
            for number in range(first, count, CLIENTS):
                work(teams.at(api, number), number)

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(share, range(CLIENTS)))


def writes(operator: OperatorProcess) -> Counter[str]:
    """What the operator has written so far, by "Kind verb". The Lease is not among it."""
    _, text = operator.ask("/metrics")
    found = re.findall(r'^aiservice_operator_writes_total\{kind="([^"]+)",verb="([^"]+)"\} (\S+)$', text, re.MULTILINE)
    return Counter({f"{kind} {verb}": int(float(value)) for kind, verb, value in found})


def reconciles(operator: OperatorProcess) -> dict[float, int]:
    """How many reconciles of AIServices took at most so many seconds."""
    _, text = operator.ask("/metrics")
    pattern = r'^aiservice_operator_reconcile_seconds_bucket\{kind="AIService",le="([^"]+)"\} (\S+)$'
    return {float(bound): int(float(value)) for bound, value in re.findall(pattern, text, re.MULTILINE)}


def histogram_percentile(buckets: Mapping[float, int], percent: float) -> float:
    """The percentile that Prometheus' histogram_quantile gives: linear within the bucket that holds it."""
    rank = buckets[float("inf")] * percent / 100
    steps = [(0.0, 0), *sorted(buckets.items())]
    for (low, before), (high, until) in pairwise(steps):
        if until >= rank and until > before:
            return low if high == float("inf") else low + (high - low) * (rank - before) / (until - before)
    return 0.0


def server_pids(plane: ControlPlane) -> dict[str, int]:
    """The process numbers of the control plane's components."""
    names = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
    found = {name: main_process(Layout(plane.name), name) for name in names}
    return {name: pid for name, pid in found.items() if pid is not None}


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, p99 and the largest."""
    return percentile(values, 50), percentile(values, 99), max(values)

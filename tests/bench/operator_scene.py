"""What the operator's benchmark happens in: a control plane, a namespace with a kubelet, and eyes on both."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
LEASE_NAMESPACE = "default"
ELECTION = {"enabled": True, "name": "aiservice-operator", "leaseSeconds": 15, "renewSeconds": 10, "retrySeconds": 2}
_CLAIM = "models"
_KUBELET_HANDS = 4


def say(text: str) -> None:
    """Progress, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


@contextlib.contextmanager
def running_cluster(controller_qps: int | None = None) -> Iterator[ControlPlane]:
    """A control plane for this run, with the CRDs and a node that is large enough."""
    remove_abandoned()
    name = own_cluster_name("bench")
    rate = ["--controller-qps", str(controller_qps)] if controller_qps is not None else []
    try:
        cluster_command(name, "up", "--control-plane-only", *rate)
        plane = ControlPlane(name, Path(cluster_command(name, "kubeconfig").strip()))
        plane.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
        plane.kubectl("wait", "--for=condition=Established", "-f", str(REPOSITORY / "crds"), "--timeout=30s")
        plane.add_node("bench", {"cpu": "100000", "memory": "100Ti", "pods": "100000"})
        yield plane
    finally:
        remove(name)


@contextlib.contextmanager
def prepared_namespace(plane: ControlPlane) -> Iterator[KubeApi]:
    """A fresh namespace with a kubelet and the claim that holds the model."""
    with (
        contextlib.closing(make_namespace(plane)) as api,
        FakeKubelet(plane.kubeconfig, api.namespace, _KUBELET_HANDS),
    ):
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}}
        api.create("PersistentVolumeClaim", {"metadata": {"name": _CLAIM}, "spec": claim})
        wait_for(lambda: api.get("PersistentVolumeClaim", _CLAIM)["status"]["phase"] == "Bound", "the claim")
        yield api


def service(number: int) -> dict[str, Any]:
    """One AIService; all of them use the same cache."""
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
        plane: The cluster.
        namespace: Where to look.
        kind: What to look at.
        holds: The condition.
    """

    def __init__(self, plane: ControlPlane, namespace: str, kind: str, holds: Callable[[Any], bool]) -> None:
        self._kind = kind
        self._holds = holds
        self._changed = threading.Condition()
        self._since: dict[str, float] = {}
        self._watcher = Watcher(plane.kubeconfig, namespace, kind, self._see)

    def __enter__(self) -> Eyes:
        self._watcher.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._watcher.__exit__()

    def _see(self, change: str, body: Any) -> None:
        now, name = time.perf_counter(), body["metadata"]["name"]
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


def side_by_side(plane: ControlPlane, namespace: str, count: int, work: Callable[[KubeApi, int], object]) -> None:
    """Does something for each number below `count`, over CLIENTS connections."""

    def share(first: int) -> None:
        with contextlib.closing(KubeApi(plane.kubeconfig, namespace)) as api:
            for number in range(first, count, CLIENTS):
                work(api, number)

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

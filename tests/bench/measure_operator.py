"""What the operator costs: N AIServices from apply to Ready, its CPU, memory and writes, and what it does when idle.

A real API server, etcd, scheduler and controllers; the operator as a process of its own; no node, so a fake kubelet
writes the statuses of pods. The floor is a bare client that writes the same objects to the same API server.
`scripts/bench operator` runs it; it takes about 2 minutes, at most 4.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.report import cpu_seconds, machine, peak_memory_mib, percentile, publish, table
from support.cluster import REPOSITORY, ControlPlane, cluster_command, own_cluster_name, remove, remove_abandoned
from support.fake_kubelet import FakeKubelet
from support.kube_api import KubeApi, wait_for
from support.operator import OperatorProcess
from support.operator_world import condition, make_namespace

CHANGES = 30
CLIENTS = 4
"""Connections of the bare client, each with one request at a time."""
QUIET_SECONDS = 30.0
_READY_SECONDS = 90.0
_SETTLE_SECONDS = 15.0
_CLAIM = "models"
_CHILDREN = ("ServiceAccount", "Service", "Deployment")
_OWNED = "app.kubernetes.io/managed-by=aiservice-operator"
_ELECTION = {
    "enabled": True, "name": "aiservice-operator", "leaseSeconds": 15, "renewSeconds": 10, "retrySeconds": 2,
}  # fmt: skip
_LEASE_NAMESPACE = "default"

METHOD = (
    "Control plane of scripts/cluster (API server, etcd, scheduler, controllers), one node without a kubelet; a fake "
    "kubelet looks 20 times a second and reports pods as ready. {services} AIServices that share one cache on a claim "
    "are created one after the other; seconds run from the first create to all of them being Ready. CPU and memory are "
    "the operator process's. Then nothing is changed for {quiet:g} s. Then spec.replicas of {changes} AIServices is "
    "changed one after the other; the latency runs from sending the change to seeing it in the Deployment. Floor: with "
    f"the operator stopped, a bare client with {CLIENTS} connections writes, in a fresh namespace, the AIServices, the "
    "same ServiceAccounts, Services and Deployments by server-side apply, and one status patch each; its change is a "
    "patch of the AIService, a patch of the Deployment and a read."
)


@dataclass(frozen=True)
class Brought:
    """From the first create to all being Ready."""

    created: float
    """Seconds until the last create was answered."""
    half: float
    """Seconds until half of them were Ready; far from half of `seconds`: a few are stragglers."""
    seconds: float
    operator_cpu_seconds: float
    operator_peak_memory_mib: float
    writes: dict[str, int]
    """The operator's, by "Kind verb"."""


@dataclass(frozen=True)
class Quiet:
    """A time in which nobody changed anything."""

    seconds: float
    writes: dict[str, int]
    """The operator's by "Kind verb", without the Lease."""
    lease_writes: int
    changed_objects: list[str]
    """Objects whose resourceVersion is another one than before, by anyone's hand."""
    operator_cpu_seconds: float


@dataclass(frozen=True)
class Floor:
    """The bare client's seconds."""

    written: float
    """Until everything was written."""
    available: float
    """Until every Deployment was available, too."""
    changes: list[float]


@contextlib.contextmanager
def running_cluster() -> Iterator[ControlPlane]:
    """A control plane for this run, with the CRDs and a node that is large enough."""
    remove_abandoned()
    name = own_cluster_name("bench")
    try:
        cluster_command(name, "up", "--control-plane-only")
        plane = ControlPlane(name, Path(cluster_command(name, "kubeconfig").strip()))
        plane.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
        plane.kubectl("wait", "--for=condition=Established", "-f", str(REPOSITORY / "crds"), "--timeout=30s")
        plane.add_node("bench", {"cpu": "10000", "memory": "10Ti", "pods": "10000"})
        yield plane
    finally:
        remove(name)


@contextlib.contextmanager
def prepared_namespace(plane: ControlPlane) -> Iterator[KubeApi]:
    """A fresh namespace with a kubelet and the claim that holds the model."""
    with contextlib.closing(make_namespace(plane)) as api, FakeKubelet(plane.kubeconfig, api.namespace):
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}}
        api.create("PersistentVolumeClaim", {"metadata": {"name": _CLAIM}, "spec": claim})
        wait_for(lambda: api.get("PersistentVolumeClaim", _CLAIM)["status"]["phase"] == "Bound", "the claim")
        yield api


def service(number: int) -> dict[str, Any]:
    """One AIService; all of them use the same cache."""
    spec = {"tasks": ["speech-to-text"], "profile": "cpu", "model": {"pvc": {"claimName": _CLAIM}}}
    return {"metadata": {"name": f"service-{number:04}"}, "spec": spec}


def writes(operator: OperatorProcess) -> Counter[str]:
    """What the operator has written so far, by "Kind verb". The Lease is not among it."""
    _, text = operator.ask("/metrics")
    found = re.findall(r'^aiservice_operator_writes_total\{kind="([^"]+)",verb="([^"]+)"\} (\S+)$', text, re.MULTILINE)
    return Counter({f"{kind} {verb}": int(float(value)) for kind, verb, value in found})


def lease_version(api: KubeApi) -> str:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{_LEASE_NAMESPACE}/leases/{_ELECTION['name']}"
    return str(api.request("GET", path)["metadata"]["resourceVersion"])


def versions(api: KubeApi) -> dict[str, str]:
    """The resourceVersion of every object that the operator writes, by "Kind name"."""
    kinds = ("AIService", "ModelCache", *_CHILDREN)
    return {
        f"{kind} {body['metadata']['name']}": body["metadata"]["resourceVersion"]
        for kind in kinds
        for body in api.list(kind)
    }


def bring_up(api: KubeApi, operator: OperatorProcess, count: int) -> Brought:
    pid = operator._running.pid
    cpu, before, begin = cpu_seconds(pid), writes(operator), time.perf_counter()
    for number in range(count):
        api.create("AIService", service(number))
    created = time.perf_counter() - begin
    wait_for(lambda: 2 * ready(api) >= count, "half of the AIServices are Ready", _READY_SECONDS / 2, 0.1)
    half = time.perf_counter() - begin
    wait_for(lambda: ready(api) == count, f"{count} AIServices are Ready", _READY_SECONDS / 2, 0.1)
    seconds = time.perf_counter() - begin
    used = cpu_seconds(pid) - cpu
    return Brought(created, half, seconds, used, peak_memory_mib(pid), dict(writes(operator) - before))


def ready(api: KubeApi) -> int:
    """How many AIServices are Ready as they are specified now."""
    return sum(
        (found := condition(body, "Ready")).get("status") == "True"
        and found["observedGeneration"] == body["metadata"]["generation"]
        for body in api.list("AIService")
    )


def settle(operator: OperatorProcess) -> None:
    """Waits until the operator has written nothing for 3 s; how long it takes is no figure."""
    deadline, last, since = time.monotonic() + _SETTLE_SECONDS, writes(operator), time.monotonic()
    while time.monotonic() - since < 3 and time.monotonic() < deadline:
        time.sleep(0.2)
        if (now := writes(operator)) != last:
            last, since = now, time.monotonic()


def stay_quiet(api: KubeApi, operator: OperatorProcess, seconds: float) -> Quiet:
    pid = operator._running.pid
    cpu, before, objects, lease = cpu_seconds(pid), writes(operator), versions(api), lease_version(api)
    lease_writes, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.5)  # several looks for each renewal
        lease, last = lease_version(api), lease
        lease_writes += lease != last
    used, written, now = cpu_seconds(pid) - cpu, writes(operator) - before, versions(api)
    changed = sorted(name for name in objects.keys() | now.keys() if objects.get(name) != now.get(name))
    return Quiet(seconds, dict(written), lease_writes, changed, used)


def time_change(api: KubeApi, number: int, write: Callable[[str], object]) -> float:
    """Seconds from a change of spec.replicas to 2 until the Deployment says so.

    Args:
        api: Reads the Deployment.
        number: Of the AIService.
        write: Makes the change to the AIService of a name.
    """
    name = service(number)["metadata"]["name"]
    begin = time.perf_counter()
    write(name)
    wait_for(lambda: api.get("Deployment", name)["spec"]["replicas"] == 2, f"{name} is scaled", 10, 0.002)
    return time.perf_counter() - begin


def scale(api: KubeApi, *kinds: str) -> Callable[[str], object]:
    """Sets spec.replicas of the objects of a name."""
    return lambda name: [api.patch(kind, name, {"spec": {"replicas": 2}}) for kind in kinds]


def bare(body: Mapping[str, Any]) -> dict[str, Any]:
    """A child as a client would apply it: without what the server, controllers and the owner added."""
    metadata = {key: body["metadata"][key] for key in ("name", "labels") if key in body["metadata"]}
    spec = {key: value for key, value in body.get("spec", {}).items() if key not in {"clusterIP", "clusterIPs"}}
    return {
        **{key: value for key, value in body.items() if key not in {"metadata", "spec", "status"}},
        "metadata": metadata,
        **({"spec": {**spec, "replicas": 1} if "replicas" in spec else spec} if spec else {}),
    }


def children(api: KubeApi, count: int) -> dict[str, list[dict[str, Any]]]:
    """What the operator made, by the name of the AIService."""
    found: dict[str, list[dict[str, Any]]] = {}
    for kind in _CHILDREN:
        for body in api.list(kind, _OWNED):
            instance = body["metadata"]["labels"]["app.kubernetes.io/instance"]
            found.setdefault(instance, []).append({**_type(api, kind), **bare(body)})
    assert len(found) == count, f"{len(found)} AIServices have children"
    assert all(len(objects) == len(_CHILDREN) for objects in found.values()), "an AIService has other children"
    return found


def _type(api: KubeApi, kind: str) -> dict[str, str]:
    version = api.path(kind).partition("/namespaces/")[0].removeprefix("/apis/").removeprefix("/api/")
    return {"apiVersion": version, "kind": kind}


def write_bare(api: KubeApi, number: int, objects: Sequence[Mapping[str, Any]], status: Mapping[str, Any]) -> None:
    """Writes one AIService, its children and its status."""
    body = service(number)
    api.create("AIService", body)
    for child in objects:
        path = api.path(child["kind"], child["metadata"]["name"])
        api.request("PATCH", path, child, "application/apply-patch+yaml", {"fieldManager": "bench", "force": "true"})
    api.patch("AIService", body["metadata"]["name"], {"status": status}, "status")


def measure_floor(
    plane: ControlPlane, made: Mapping[str, Sequence[Mapping[str, Any]]], status: Mapping[str, Any], changes: int
) -> Floor:
    with prepared_namespace(plane) as api, contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(contextlib.closing(KubeApi(plane.kubeconfig, api.namespace))) for _ in range(CLIENTS)
        ]
        for client in clients:
            client.list("AIService")  # connects, as the operator was connected

        def write_share(first: int) -> None:
            for number in range(first, len(made), CLIENTS):
                write_bare(clients[first], number, made[service(number)["metadata"]["name"]], status)

        begin = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(write_share, range(CLIENTS)))
        written = time.perf_counter() - begin
        wait_for(lambda: available(api) == len(made), "the floor's Deployments", _READY_SECONDS / 2, 0.1)
        until_available = time.perf_counter() - begin
        write = scale(api, "AIService", "Deployment")
        return Floor(written, until_available, [time_change(api, number, write) for number in range(changes)])


def available(api: KubeApi) -> int:
    return sum(body.get("status", {}).get("availableReplicas", 0) >= 1 for body in api.list("Deployment"))


def run(count: int, quiet_seconds: float, output: Path | None) -> None:
    facts, changes = machine(), min(CHANGES, count)
    with tempfile.TemporaryDirectory(prefix="aiservice-bench-") as folder, running_cluster() as plane:
        operator = OperatorProcess(
            plane.kubeconfig, Path(folder), {"leaderElection": _ELECTION}, namespace=_LEASE_NAMESPACE
        )
        with prepared_namespace(plane) as api:
            with operator:
                brought = bring_up(api, operator, count)
                settle(operator)
                quiet = stay_quiet(api, operator, quiet_seconds)
                latencies = [time_change(api, number, scale(api, "AIService")) for number in range(changes)]
            made = children(api, count)
            status = api.get("AIService", service(count - 1)["metadata"]["name"])["status"]
        floor = measure_floor(plane, made, status, changes)
    ratios = {
        "ready_to_written": brought.seconds / floor.written,
        "ready_to_available": brought.seconds / floor.available,
        "change_median": percentile(latencies, 50) / percentile(floor.changes, 50),
        "change_p99": percentile(latencies, 99) / percentile(floor.changes, 99),
    }
    document = {
        "machine": facts,
        "services": count,
        "ready": vars(brought),
        "quiet": vars(quiet),
        "change_seconds": latencies,
        "floor": vars(floor),
        "ratios": ratios,
    }
    method = METHOD.format(services=count, quiet=quiet_seconds, changes=changes)
    tables = [compared(brought, latencies, floor, ratios), spent(brought, quiet, count)]
    publish(f"Operator: {count} AIServices", method, tables, document, output)


def compared(brought: Brought, latencies: Sequence[float], floor: Floor, ratios: Mapping[str, float]) -> str:
    changes = (latencies, floor.changes)
    rows = [
        ["s, all Ready; floor: all written", f"{brought.seconds:.1f}", f"{floor.written:.1f}", "ready_to_written"],
        [
            "s, all Ready; floor: all available",
            f"{brought.seconds:.1f}",
            f"{floor.available:.1f}",
            "ready_to_available",
        ],
        *(
            [f"ms, change to child, {label}", *(f"{percentile(seen, of) * 1000:.0f}" for seen in changes), key]
            for label, of, key in (("median", 50, "change_median"), ("p99", 99, "change_p99"))
        ),
    ]
    return table(["", "operator", "floor", "ratio"], [[*row[:3], f"{ratios[row[3]]:.2f}"] for row in rows])


def spent(brought: Brought, quiet: Quiet, count: int) -> str:
    rows = [
        ["s, the last create is answered", f"{brought.created:.1f}"],
        ["s, half are Ready", f"{brought.half:.1f}"],
        ["operator CPU s, until all are Ready", f"{brought.operator_cpu_seconds:.1f}"],
        ["operator CPU ms a service", f"{brought.operator_cpu_seconds / count * 1000:.0f}"],
        ["operator peak memory MiB", f"{brought.operator_peak_memory_mib:.0f}"],
        ["writes a service, until all are Ready", f"{sum(brought.writes.values()) / count:.1f}"],
        *([f"- {what}", f"{number / count:.2f}"] for what, number in sorted(brought.writes.items())),
        [f"writes in {quiet.seconds:g} quiet s, without the Lease", str(sum(quiet.writes.values()))],
        ["- objects that anyone changed", str(len(quiet.changed_objects))],
        ["- writes of the Lease", str(quiet.lease_writes)],
        ["- operator CPU s", f"{quiet.operator_cpu_seconds:.2f}"],
    ]
    return table(["", "operator"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=100, help="number of AIServices (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="file for the figures as JSON")
    options = parser.parse_args()
    if options.services < 1:
        parser.error("--services must be at least 1")
    run(options.services, QUIET_SECONDS, options.output)


if __name__ == "__main__":
    main()

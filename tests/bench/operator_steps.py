"""The steps of the operator's benchmark: to Ready, quiet, changes, a restart, an outage."""

from __future__ import annotations

import contextlib
import functools
import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.operator_scene import (
    ELECTION,
    LEASE_NAMESPACE,
    Eyes,
    Teams,
    histogram_percentile,
    is_ready,
    name_of,
    reconciles,
    server_pids,
    service,
    side_by_side,
    writes,
)
from bench.report import cpu_seconds, memory_mib, peak_memory_mib
from localcluster.layout import Layout
from localcluster.processes import kill
from support.cluster import cluster_command
from support.gate import Gate
from support.kube_api import ApiError, KubeApi, wait_for
from support.operator import OperatorProcess

_TIMEOUT_SECONDS = 900.0
_SETTLE_SECONDS = 120.0
_TRY_PAUSE_SECONDS = 0.5
_CHURN = ((1, 2), (5, 4))
"""How many other services change in a second, and the spec.replicas that those looked at get meanwhile."""


@dataclass(frozen=True)
class Brought:
    """From the first create to all being Ready."""

    created: float
    """Seconds until the last create was answered."""
    half: float
    """Seconds until half of them were Ready."""
    seconds: float
    operator_cpu_seconds: float
    server_cpu_seconds: float
    """Of API server, etcd, controllers and scheduler together."""
    operator_memory_mib: float
    operator_peak_memory_mib: float
    reconcile_p50: float
    reconcile_p99: float
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
class Restart:
    """A new process in front of everything that the one before had made."""

    synced: float
    """Seconds from its start until its store was filled."""
    settled: float
    """Seconds from its start until every AIService was looked at and nothing waited."""
    slowest_answer: float
    """Seconds that its metrics took to be read meanwhile, at most: how long nothing else got a turn."""
    writes: dict[str, int]
    cpu_seconds: float


def bring_up(teams: Teams, operator: OperatorProcess, count: int) -> Brought:
    """Creates the AIServices and waits until all are Ready and the operator has nothing left to do."""
    pid, servers = operator.pid, server_pids(teams.plane)

    def spent() -> tuple[float, float]:
        return cpu_seconds(pid), sum(cpu_seconds(server) for server in servers.values())

    before, written = spent(), writes(operator)
    with Eyes(teams, "AIService", is_ready) as services:
        begin = time.perf_counter()
        side_by_side(teams, count, lambda client, number: client.create("AIService", service(number)))
        created = time.perf_counter() - begin
        since = services.until_all(count, _TIMEOUT_SECONDS)
    settle(operator)
    own, others = (now - then for now, then in zip(spent(), before, strict=True))
    buckets = reconciles(operator)
    return Brought(
        created=created,
        half=since[(count - 1) // 2] - begin,
        seconds=since[count - 1] - begin,
        operator_cpu_seconds=own,
        server_cpu_seconds=others,
        operator_memory_mib=memory_mib(pid),
        operator_peak_memory_mib=peak_memory_mib(pid),
        reconcile_p50=histogram_percentile(buckets, 50),
        reconcile_p99=histogram_percentile(buckets, 99),
        writes=dict(writes(operator) - written),
    )


def settle(operator: OperatorProcess) -> None:
    """Waits until the operator has written nothing for 3 s; how long that takes is no figure."""
    deadline, last, since = time.monotonic() + _SETTLE_SECONDS, writes(operator), time.monotonic()
    while time.monotonic() - since < 3:
        assert time.monotonic() < deadline, "the operator goes on writing"
        time.sleep(0.2)
        if (now := writes(operator)) != last:
            last, since = now, time.monotonic()


def stay_quiet(teams: Teams, operator: OperatorProcess, kinds: Sequence[str], seconds: float) -> Quiet:
    """Changes nothing for some time."""
    with contextlib.closing(KubeApi(teams.plane.kubeconfig, "")) as everywhere:
        return _stay_quiet(everywhere, operator, kinds, seconds)


def _stay_quiet(api: KubeApi, operator: OperatorProcess, kinds: Sequence[str], seconds: float) -> Quiet:
    cpu, before, objects, lease = cpu_seconds(operator.pid), writes(operator), _versions(api, kinds), _lease(api)
    lease_writes, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.5)  # several looks for each renewal
        lease, last = _lease(api), lease
        lease_writes += lease != last
    used, written, now = cpu_seconds(operator.pid) - cpu, writes(operator) - before, _versions(api, kinds)
    changed = sorted(name for name in objects.keys() | now.keys() if objects.get(name) != now.get(name))
    return Quiet(seconds, dict(written), lease_writes, changed, used)


def _lease(api: KubeApi) -> str:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{LEASE_NAMESPACE}/leases/{ELECTION['name']}"
    return str(api.request("GET", path)["metadata"]["resourceVersion"])


def _versions(api: KubeApi, kinds: Sequence[str]) -> dict[str, str]:
    """The resourceVersion of every object that the operator writes, by "Kind namespace/name"."""
    return {
        f"{kind} {body['metadata']['namespace']}/{body['metadata']['name']}": body["metadata"]["resourceVersion"]
        for kind in ("AIService", "ModelCache", *kinds)
        for body in api.list(kind)
    }


@dataclass(frozen=True)
class Changes:
    """How fast changes took effect while other services changed."""

    churn: int
    """Other changes a second."""
    seconds: list[float]
    """From sending each change to its Deployment having it."""


def change(teams: Teams, count: int, tries: int, kinds: Sequence[str]) -> list[Changes]:
    """Changes spec.replicas of some AIServices, one each half second, while others change slowly, and then fast.

    Args:
        teams: Where they are.
        count: How many AIServices there are.
        tries: How many are changed, at each pace of the others.
        kinds: What is changed: the AIServices, or for the floor their Deployments, too.
    """
    chosen = random.Random(7).sample(range(count), min(tries, count))
    others = sorted(set(range(count)) - set(chosen)) or chosen
    found = []
    for churn, replicas in _CHURN:
        with (
            Eyes(teams, "Deployment", functools.partial(_scaled, replicas)) as deployments,
            _churning(teams, others, churn, kinds),
            teams.client() as api,
        ):
            seconds = [_try(teams.at(api, number), deployments, name_of(number), replicas, kinds) for number in chosen]
        found.append(Changes(churn, seconds))
    return found


def _scaled(replicas: int, deployment: Any) -> bool:
    return bool(deployment["spec"]["replicas"] == replicas)


def _try(api: KubeApi, deployments: Eyes, name: str, replicas: int, kinds: Sequence[str]) -> float:
    time.sleep(_TRY_PAUSE_SECONDS)
    begin = time.perf_counter()
    for kind in kinds:
        api.patch(kind, name, {"spec": {"replicas": replicas}})
    return deployments.until_one(name, 60) - begin


@contextlib.contextmanager
def _churning(teams: Teams, numbers: Sequence[int], churn: int, kinds: Sequence[str]) -> Iterator[None]:
    """Changes the scale of one of these after the other, so many a second."""
    stop, chance = threading.Event(), random.Random(11)

    def work() -> None:
        with teams.client() as api:
            while not stop.wait(1 / churn):
                number, replicas = chance.choice(numbers), chance.choice([0, 1, 3])
                for kind in kinds:
                    teams.at(api, number).patch(kind, name_of(number), {"spec": {"replicas": replicas}})

    thread = threading.Thread(target=work, name="churn")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def restart(operator: OperatorProcess, count: int) -> Restart:
    """Stops the operator, when it has nothing left to do, and starts it again."""
    settle(operator)
    operator.stop()
    begin = time.perf_counter()
    operator.start()
    synced = time.perf_counter() - begin
    slowest = 0.0

    def looked_at_all() -> bool:
        nonlocal slowest
        asked = time.perf_counter()
        done = reconciles(operator).get(float("inf"), 0)
        slowest = max(slowest, time.perf_counter() - asked)
        return done >= count and operator.metric("aiservice_operator_queue_depth") == 0

    wait_for(looked_at_all, "every AIService was looked at", 120, 0.1)
    settled = time.perf_counter() - begin
    settle(operator)
    return Restart(synced, settled, slowest, dict(writes(operator)), cpu_seconds(operator.pid))


def survive_an_outage(gate: Gate, operator: OperatorProcess, teams: Teams, number: int) -> float:
    """Cuts the operator off, deletes a child, and lets the operator through again.

    Returns:
        Seconds from then until the child was there again.
    """
    with teams.client(number) as api:
        name, uid = name_of(number), _uid(api, name_of(number))
        gate.close()
        api.delete("Service", name)
        wait_for(lambda: operator.metric("aiservice_operator_watch_lost_seconds") > 2, "the loss is noticed", 60)
        gate.open()
        return _until_back(api, name, uid)


def survive_a_restart(teams: Teams, number: int) -> float:
    """Kills the API server, starts it, and deletes a child as soon as it answers.

    Returns:
        Seconds from the deletion until the child was there again.
    """
    with teams.client(number) as api:
        name, uid = name_of(number), _uid(api, name_of(number))
        kill(Layout(teams.plane.name), "kube-apiserver")
        cluster_command(teams.plane.name, "up", "--control-plane-only")

        def deleted() -> bool:
            try:
                api.delete("Service", name)
            except (ApiError, OSError):  # the API server is still starting
                return False
            return True

        wait_for(deleted, "the child is deleted", 60)
        return _until_back(api, name, uid)


def _until_back(api: KubeApi, name: str, uid: str) -> float:
    """Waits for another Service of this name; returns the seconds until then."""
    begin = time.perf_counter()
    wait_for(lambda: _uid(api, name) not in {None, uid}, "the child is back", 120)
    return time.perf_counter() - begin


def _uid(api: KubeApi, name: str) -> Any:
    found = api.find("Service", name)
    return found["metadata"]["uid"] if found else None

"""What the operator costs: N AIServices from apply to Ready, its CPU, memory and writes, and what it does afterwards.

A real API server, etcd, scheduler and controllers; the operator as a process of its own; no node, so a fake kubelet
writes the statuses of pods. The floor is a bare client that writes the same objects into the same API server.

  scripts/bench operator                     1,000 AIServices, all steps; about 12 minutes
  scripts/bench operator --services 100      fewer
  scripts/bench operator --scale             also 100, 300, 3,000 and 5,000, and a picture beside the figures
  scripts/bench operator --default-qps       also with the controller manager at its own default of 20 requests/s
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.curve import Curve, draw
from bench.operator_floor import Floor, made_for, measure_floor
from bench.operator_scene import (
    CLIENTS,
    ELECTION,
    LEASE_NAMESPACE,
    TEAM,
    Teams,
    make_teams,
    name_of,
    running_cluster,
    say,
    spread,
)
from bench.operator_steps import (
    Brought,
    Changes,
    Quiet,
    Restart,
    bring_up,
    change,
    restart,
    stay_quiet,
    survive_a_restart,
    survive_an_outage,
)
from bench.report import machine, publish, table
from support.cluster import ControlPlane
from support.gate import Gate
from support.kube_api import wait_for
from support.operator import OperatorProcess

CHANGES = 50
SCALE = (100, 300, 3000, 5000)
_MOST_WITH_FLOOR = 3000
"""Above it only the operator is measured: the floor takes longer than that, and says nothing new."""
_DEFAULT_QPS = 20

METHOD = (
    "Control plane of scripts/cluster (API server, etcd, scheduler, controllers), the controller manager allowed {qps} "
    "requests/s; a fake kubelet for all nodes watches and reports pods as ready with one write each. "
    f"AIServices are created over {CLIENTS} connections, {TEAM} in each namespace, which has one claim with the model "
    "that they share, and there are two nodes for each namespace; seconds run from the first "
    "create to the last being Ready. Writes are the operator's own count once it has nothing left to do. Then nothing "
    "is changed for {quiet:g} s. Then spec.replicas of {changes} AIServices is changed, one each half second, while "
    "one other is scaled each second, and then five; the latency runs from sending the change to a watch of "
    "Deployments telling of it. "
    "Then the operator is stopped and started; then the API server is killed and started, and a Service deleted as "
    "soon as it answers; then the operator's way to the API server is cut, a Service deleted meanwhile. Floor: with "
    "the operator stopped, a bare client with as many connections writes, in fresh namespaces of the same API server, "
    "the AIServices, the same children by server-side apply, and as many "
    "statuses for each as the operator wrote (rounded up); `available` waits for the Deployments, too; its changes are "
    "patches of AIService and Deployment, with the same churn."
)


@dataclass(frozen=True)
class Scene:
    """One run with one number of AIServices."""

    services: int
    brought: Brought
    floor: Floor | None
    """None: not taken, of that many."""


@dataclass(frozen=True)
class Afterwards:
    """What follows in the main run, when all are Ready."""

    quiet: Quiet
    changes: list[Changes]
    restart: Restart
    server_restart_seconds: float
    """From the deletion of a child, right after a restart of the API server, until it was back."""
    outage_seconds: float = 0.0
    """From the end of an outage in which a child was deleted until it was back."""


def run_scene(
    plane: ControlPlane, folder: Path, count: int, quiet_seconds: float | None
) -> tuple[Scene, Afterwards | None]:
    """Measures one number of AIServices, in a fresh cluster; what follows only where a quiet time is given."""
    operator = OperatorProcess(plane.kubeconfig, folder, {"leaderElection": ELECTION}, namespace=LEASE_NAMESPACE)
    teams = make_teams(plane, count)
    with operator:
        say(f"{count} AIServices: from apply to Ready")
        brought = bring_up(teams, operator, count)
        say(f"{count} AIServices: Ready after {brought.seconds:.1f} s")
        kinds = children(brought)
        with teams.client() as api:
            made = made_for(api, name_of(0), kinds)
            status = api.get("AIService", name_of(0))["status"]
        after = go_on(teams, operator, kinds, count, quiet_seconds) if quiet_seconds is not None else None
    if after is not None:
        after = replace(after, outage_seconds=cut_off(teams, folder, count - 2))
    if after is None and count > _MOST_WITH_FLOOR:
        return Scene(count, brought, None), after
    say(f"{count} AIServices: the floor")
    statuses = -(-brought.writes.get("AIService apply-status", 0) // count)
    tries = CHANGES if quiet_seconds is not None else 0
    floor = measure_floor(plane, count, made, status, statuses=statuses, changes=tries)
    say(f"{count} AIServices: the floor took {floor.written:.1f} s, {floor.available:.1f} s until all was available")
    return Scene(count, brought, floor), after


def children(brought: Brought) -> list[str]:
    """The kinds that the operator made for AIServices."""
    applied = (what.removesuffix(" apply") for what in brought.writes if what.endswith(" apply"))
    return sorted(kind for kind in applied if kind not in {"AIService", "ModelCache"})


def go_on(
    teams: Teams, operator: OperatorProcess, kinds: Sequence[str], count: int, quiet_seconds: float
) -> Afterwards:
    say(f"nothing happens for {quiet_seconds:g} s")
    quiet = stay_quiet(teams, operator, kinds, quiet_seconds)
    say("changes")
    changes = change(teams, count, CHANGES, ("AIService",))
    say("a restart of the operator")
    restarted = restart(operator, count)
    say("a restart of the API server")
    server_restart = survive_a_restart(teams, count - 1)
    return Afterwards(quiet, changes, restarted, server_restart)


def cut_off(teams: Teams, folder: Path, number: int) -> float:
    """A child is deleted while an operator cannot reach the API server."""
    say("an outage of the way to the API server")
    with (
        Gate(teams.plane.kubeconfig, folder) as gate,
        OperatorProcess(gate.kubeconfig, folder, {"leaderElection": ELECTION}, namespace=LEASE_NAMESPACE) as late,
    ):
        wait_for(lambda: late.metric("aiservice_operator_leader") == 1, "it leads", 60)
        return survive_an_outage(gate, late, teams, number)


def run(count: int, quiet_seconds: float, *, scale: bool, default_qps: bool, output: Path | None) -> None:
    facts = machine()
    others = [other for other in SCALE if other != count] if scale else []
    with tempfile.TemporaryDirectory(prefix="aiservice-bench-") as folder:
        with running_cluster(count) as plane:
            main_scene, after = run_scene(plane, Path(folder) / "main", count, quiet_seconds)
        assert after is not None
        assert main_scene.floor is not None
        scenes = [main_scene]
        for other in others:
            with running_cluster(other) as plane:
                scenes.append(run_scene(plane, Path(folder) / str(other), other, None)[0])
        slow = None
        if default_qps:
            with running_cluster(count, _DEFAULT_QPS) as plane:
                slow = run_scene(plane, Path(folder) / "slow", count, None)[0]
    scenes.sort(key=lambda scene: scene.services)
    tables = [
        scene_table(scenes, slow),
        after_table(after, main_scene.floor),
        writes_table(main_scene),
    ]
    document: dict[str, Any] = {
        "machine": facts,
        "scenes": [_plain(scene) for scene in scenes],
        "default_qps": _plain(slow) if slow else None,
        "quiet": vars(after.quiet),
        "changes": [asdict(changes) for changes in after.changes],
        "restart": vars(after.restart),
        "server_restart_seconds": after.server_restart_seconds,
        "outage_seconds": after.outage_seconds,
    }
    method = METHOD.format(qps=500, quiet=quiet_seconds, changes=min(CHANGES, count))
    publish(f"Operator: {count} AIServices", method, tables, document, output)
    if scale and output is not None:
        drawn = output.with_suffix(".svg")
        drawn.write_text(picture(scenes))
        print(f"drawn in {drawn}")


def _plain(scene: Scene) -> dict[str, Any]:
    return {
        "services": scene.services,
        "ready": asdict(scene.brought),
        "floor": asdict(scene.floor) if scene.floor else None,
    }


def scene_table(fast: Sequence[Scene], slow: Scene | None) -> str:
    """One column a scene; the last one with the controllers at their own rate, where that was measured."""
    scenes = [*fast, *([slow] if slow else [])]
    floors = [scene.floor for scene in scenes]
    rows: list[tuple[str, list[str]]] = [
        ("s, all Ready", [f"{scene.brought.seconds:.1f}" for scene in scenes]),
        ("s, half Ready", [f"{scene.brought.half:.1f}" for scene in scenes]),
        ("s, floor: all written", [f"{floor.written:.1f}" if floor else "" for floor in floors]),
        ("s, floor: all available", [f"{floor.available:.1f}" if floor else "" for floor in floors]),
        ("ratio to written", [_ratio(scene, scene.floor.written if scene.floor else None) for scene in scenes]),
        ("ratio to available", [_ratio(scene, scene.floor.available if scene.floor else None) for scene in scenes]),
        ("operator CPU s", [f"{scene.brought.operator_cpu_seconds:.1f}" for scene in scenes]),
        ("control plane CPU s", [f"{scene.brought.server_cpu_seconds:.1f}" for scene in scenes]),
        ("operator memory MiB, afterwards", [f"{scene.brought.operator_memory_mib:.0f}" for scene in scenes]),
        ("operator memory MiB, peak", [f"{scene.brought.operator_peak_memory_mib:.0f}" for scene in scenes]),
        ("reconcile p50 ms", [f"{scene.brought.reconcile_p50 * 1000:.1f}" for scene in scenes]),
        ("reconcile p99 ms", [f"{scene.brought.reconcile_p99 * 1000:.1f}" for scene in scenes]),
    ]
    slowly = [f"{slow.services:,} at {_DEFAULT_QPS}/s"] if slow else []
    header = ["AIServices", *(f"{scene.services:,}" for scene in fast), *slowly]
    return table(header, [[label, *cells] for label, cells in rows])


def _ratio(scene: Scene, floor: float | None) -> str:
    return f"{scene.brought.seconds / floor:.2f}" if floor is not None else ""


def after_table(after: Afterwards, floor: Floor) -> str:
    rows = [
        *(row for own, bare in zip(after.changes, floor.changes, strict=True) for row in change_rows(own, bare)),
        ["s, restart: store filled", f"{after.restart.synced:.1f}"],
        ["s, restart: all looked at", f"{after.restart.settled:.1f}"],
        ["- longest that its metrics took to be read", f"{after.restart.slowest_answer:.2f}"],
        ["- writes", str(sum(after.restart.writes.values()))],
        ["- CPU s", f"{after.restart.cpu_seconds:.1f}"],
        ["s, child deleted after a restart of the API server is back", f"{after.server_restart_seconds:.1f}"],
        ["s, child deleted in an outage is back after its end", f"{after.outage_seconds:.1f}"],
        [f"writes in {after.quiet.seconds:g} quiet s, without the Lease", str(sum(after.quiet.writes.values()))],
        ["- objects that anyone changed", str(len(after.quiet.changed_objects))],
        ["- writes of the Lease", str(after.quiet.lease_writes)],
        ["- operator CPU s", f"{after.quiet.operator_cpu_seconds:.2f}"],
    ]
    return table(["then", ""], rows)


def change_rows(own: Changes, bare: Changes) -> list[list[str]]:
    """What changes took while so many others changed, and what they took the bare client."""
    median, late, last = (f"{value * 1000:.0f}" for value in spread(own.seconds))
    bare_median, bare_late, _ = (f"{value * 1000:.0f}" for value in spread(bare.seconds))
    return [
        [f"ms, a change to its Deployment, {own.churn} others a second: median", median],
        [f"- p99 of {len(own.seconds)}", late],
        ["- the slowest", last],
        ["- floor, median", bare_median],
        ["- floor, p99", bare_late],
    ]


def writes_table(scene: Scene) -> str:
    found = sorted(scene.brought.writes.items())
    rows = [[what, f"{number / scene.services:.3f}"] for what, number in found]
    total = sum(scene.brought.writes.values()) / scene.services
    return table(["writes of the operator", "each AIService"], [*rows, ["all", f"{total:.2f}"]])


def picture(scenes: Sequence[Scene]) -> str:
    """Time and memory over the number of AIServices."""
    counts = [scene.services for scene in scenes]
    return draw(
        counts,
        [
            Curve("all Ready", "s", [scene.brought.seconds for scene in scenes]),
            Curve("floor: all written", "s", [scene.floor.written if scene.floor else None for scene in scenes]),
            Curve("floor: all available", "s", [scene.floor.available if scene.floor else None for scene in scenes]),
        ],
        [Curve("operator memory, peak", "MiB", [scene.brought.operator_peak_memory_mib for scene in scenes])],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=1000, help="number of AIServices (default: %(default)s)")
    parser.add_argument(
        "--quiet", type=float, default=60, help="seconds in which nothing happens (default: %(default)s)"
    )
    parser.add_argument("--scale", action="store_true", help="also 100, 300, 3,000 and 5,000, and a picture")
    parser.add_argument("--default-qps", action="store_true", help="also with the controllers at 20 requests/s")
    parser.add_argument("--output", type=Path, help="file for the figures as JSON")
    options = parser.parse_args()
    if options.services < 1:
        parser.error("--services must be at least 1")
    run(
        options.services,
        options.quiet,
        scale=options.scale,
        default_qps=options.default_qps,
        output=options.output,
    )


if __name__ == "__main__":
    main()

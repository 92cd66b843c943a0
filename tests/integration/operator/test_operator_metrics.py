"""Every metric that the operator's documentation names, read from an operator that has served a download."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import partial

from prometheus_client.parser import text_string_to_metric_families

from support.cluster import REPOSITORY
from support.kube_api import wait_for
from support.operator_world import World

_PREFIX = "aiservice_operator"
_ROW = re.compile(r"^\| (`[^|]+`) \| .+ \|$", re.MULTILINE)
_NAME = re.compile(rf"`(?:{_PREFIX})?(_\w+)(?:\{{([\w,]+)\}})?`")
KINDS = {
    "AIService",
    "ModelCache",
    "Deployment",
    "Service",
    "ServiceAccount",
    "PersistentVolumeClaim",
    "Job",
    "Pod",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
    "NetworkPolicy",
}
"""What is watched where the Prometheus Operator is not installed."""


def documented() -> dict[str, set[str]]:
    """The labels of each metric, by name, as docs/operator.md has them."""
    table = (REPOSITORY / "docs/operator.md").read_text().split("| metric | |")[1].split("\n\n")[0]
    found = [name for row in _ROW.findall(table) for name in _NAME.findall(row)]
    return {f"{_PREFIX}{name}": set(filter(None, labels.split(","))) for name, labels in found}


def exposed(text: str) -> dict[str, set[str]]:
    """The labels of each metric that has a value, by name."""
    found: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found[re.sub("_(bucket|count|sum)$", "", sample.name)] |= sample.labels.keys() - {"le"}
    return dict(found)


def test_every_metric_that_is_documented_has_a_value(world: World) -> None:
    """One service whose download is served, and one that somebody else's Service is in the way of."""
    operator = world.operator
    assert operator.metric(f"{_PREFIX}_download_bytes_total") == 0
    assert operator.metric(f"{_PREFIX}_ready_seconds_count") == 0
    world.serve("measured", replicas=2)
    timings = world.until_serving("measured")["status"]["timings"]
    world.api.create("Service", {"metadata": {"name": "taken"}, "spec": {"ports": [{"port": 80}]}})
    world.serve("taken", replicas=0)
    world.until("AIService", "taken", "Ready", "False", "ChildRefused")
    for name in ("reconcile_errors_total", "ready_seconds_count"):  # counted a moment after the status is written
        wait_for(partial(operator.metric, f"{_PREFIX}_{name}"), name)

    assert exposed(operator.ask("/metrics")[1]) == documented()

    def value(name: str, **labels: str) -> float:
        inner = ",".join(f'{label}="{labels[label]}"' for label in sorted(labels))
        return operator.metric(f"{_PREFIX}_{name}" + (f"{{{inner}}}" if inner else ""))

    for kind in ("AIService", "ModelCache"):
        assert value("reconcile_seconds_count", kind=kind) > 0
        assert 0 < value("reconcile_seconds_sum", kind=kind) < 60
        assert value("writes_total", kind=kind, verb="apply-status") > 0
    assert value("reconcile_errors_total", kind="AIService", error="Unsettled") > 0
    wait_for(lambda: value("download_bytes_total") == 2 * 6_900_000_000, "the bytes of both models")
    assert (value("ready_seconds_count"), value("ready_seconds_sum")) == (1, timings["readySeconds"])
    for kind in KINDS:
        assert value("watches_total", kind=kind) >= 1
        assert value("lists_total", kind=kind) >= 1
    assert value("watch_lost_seconds") == 0
    assert value("leader") == 1
    kept = {identity: world.api.list(identity) for identity in ("AIService", "ModelCache", "PersistentVolumeClaim")}
    assert value("objects") > sum(len(found) for found in kept.values())
    wait_for(lambda: value("queue_depth") == value("queue_age_seconds") == 0, "nothing waits")

"""Renders the project's charts with the real Helm, for tests."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from support.cluster import REPOSITORY, run, tool

CHARTS = REPOSITORY / "charts"
NAMESPACE = "aiservice-system"
Manifest = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A chart with one of the value files of its `ci/` folder; none: its default values."""

    chart: str
    name: str

    def __str__(self) -> str:
        return f"{self.chart.removeprefix('aiservice-')}-{self.name}"

    @property
    def path(self) -> Path:
        """Folder of the chart."""
        return CHARTS / self.chart

    @property
    def arguments(self) -> list[str]:
        """What Helm is told besides the chart."""
        return [] if self.name == "default" else ["--values", str(self.path / f"ci/{self.name}-values.yaml")]


def cases() -> list[Case]:
    """Every value file of every chart, and the defaults of those charts that can do without values."""
    found = [
        Case(path.parents[1].name, path.name.removesuffix("-values.yaml"))
        for path in sorted(CHARTS.glob("*/ci/*-values.yaml"))
    ]
    return [Case("aiservice-operator", "default"), *found]


def template(
    case: Case, *arguments: str, values: Mapping[str, Any] | None = None, namespace: str = NAMESPACE
) -> list[Manifest]:
    """The objects that Helm would install.

    Raises:
        CommandError: Helm refuses the values; its `stderr` says why.
    """
    scope = ("--namespace", namespace, "--values", "-")
    text = run(
        tool("helm"),
        "template",
        case.chart,
        case.path,
        *case.arguments,
        *arguments,
        *scope,
        stdin=json.dumps(values or {}),
    )
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


def kinds(manifests: Sequence[Manifest], *wanted: str) -> list[Manifest]:
    """Those of the given kinds."""
    return [manifest for manifest in manifests if manifest["kind"] in wanted]


def only(manifests: Sequence[Manifest], kind: str, name: str | None = None) -> Manifest:
    """The one object of a kind, and of a name where that is given."""
    found = [found for found in kinds(manifests, kind) if name in {None, found["metadata"]["name"]}]
    assert len(found) == 1, f"{len(found)} objects {kind} {name or ''}"
    return found[0]


def pods(manifests: Sequence[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """The pod templates, each with what it is for."""
    for manifest in kinds(manifests, "Deployment", "StatefulSet", "Job"):
        yield f"{manifest['kind']}/{manifest['metadata']['name']}", manifest["spec"]["template"]


def containers(manifests: Sequence[Manifest]) -> list[Manifest]:
    """The containers of all pods."""
    return [
        container
        for _, pod in pods(manifests)
        for key in ("initContainers", "containers")
        for container in pod["spec"].get(key, [])
    ]

"""The floor: a bare client that writes the same objects and as many statuses into the same API server."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.operator_scene import Eyes, make_teams, service, side_by_side
from bench.operator_steps import Changes, change
from support.cluster import ControlPlane
from support.kube_api import KubeApi

_OWNED = "app.kubernetes.io/managed-by=aiservice-operator"
_FROM_OTHERS = frozenset({"clusterIP", "clusterIPs"})
_TIMEOUT_SECONDS = 900.0


@dataclass(frozen=True)
class Floor:
    """The bare client's seconds."""

    written: float
    """Until everything was written."""
    available: float
    """Until every Deployment was available, too."""
    changes: list[Changes]
    """Empty where that was not measured."""


def bare(body: Mapping[str, Any]) -> dict[str, Any]:
    """A child as a client would apply it: without what the server, controllers and the owner added."""
    metadata = {key: body["metadata"][key] for key in ("name", "labels", "annotations") if key in body["metadata"]}
    kept = {key: value for key, value in body.items() if key not in {"metadata", "spec", "status"}}
    spec = {key: value for key, value in body.get("spec", {}).items() if key not in _FROM_OTHERS}
    return {**kept, "metadata": metadata, **({"spec": spec} if spec else {})}


def made_for(api: KubeApi, name: str, kinds: Sequence[str]) -> list[dict[str, Any]]:
    """The children that the operator made for one AIService, as a client would apply them."""
    selector = f"{_OWNED},app.kubernetes.io/instance={name}"
    return [{**api.type_of(kind), **bare(body)} for kind in kinds for body in api.list(kind, selector)]


def measure_floor(
    plane: ControlPlane,
    count: int,
    made: Sequence[Mapping[str, Any]],
    status: Mapping[str, Any],
    *,
    statuses: int,
    changes: int,
) -> Floor:
    """Writes `count` AIServices, for each the children `made`, and its status so many times; then changes some."""
    teams = make_teams(plane, count)
    with Eyes(teams, "Deployment", _available) as deployments:

        def write(client: KubeApi, number: int) -> None:
            body = service(number)
            name = body["metadata"]["name"]
            client.create("AIService", body)
            for child in made:
                renamed = _renamed(child, name)
                path = client.path(child["kind"], name)
                query = {"fieldManager": "bench", "force": "true"}
                client.request("PATCH", path, renamed, "application/apply-patch+yaml", query)
            for turn in range(statuses):
                client.patch("AIService", name, {"status": {**status, "model": f"{turn}"}}, "status")

        begin = time.perf_counter()
        side_by_side(teams, count, write)
        written = time.perf_counter() - begin
        available = deployments.until_all(count, _TIMEOUT_SECONDS)[count - 1] - begin
        changed = change(teams, count, changes, ("AIService", "Deployment")) if changes else []
        return Floor(written, max(written, available), changed)


def _renamed(body: Mapping[str, Any], name: str) -> Any:
    """The same object for another AIService: its name is in labels, selectors and the template."""
    return _replaced(body, str(body["metadata"]["name"]), name)


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, old, new) for item in value]
    return value.replace(old, new) if isinstance(value, str) else value


def _available(body: Any) -> bool:
    return bool(body.get("status", {}).get("availableReplicas", 0) >= 1)

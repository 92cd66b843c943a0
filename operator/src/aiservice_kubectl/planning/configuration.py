"""The operator's configuration: from a file, or from its ConfigMap in the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aiservice_kubectl.cluster import Cluster
from aiservice_kubectl.errors import RefusedError, UsageError
from aiservice_operator.errors import ConfigurationError
from aiservice_operator.kinds import Json
from aiservice_operator.settings import Settings, load, read

_SELECTOR = "app.kubernetes.io/name=aiservice-operator"
_KEY = "config.yaml"


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings, and where they are from."""

    settings: Settings
    source: str


def from_file(path: Path) -> Configuration:
    """Reads a configuration file.

    Raises:
        UsageError: it cannot be used.
    """
    try:
        return Configuration(load(path), str(path))
    except ConfigurationError as error:
        raise UsageError(str(error)) from error


def from_cluster(cluster: Cluster, served: str, operator_namespace: str | None) -> Configuration:
    """Reads the ConfigMap of the operator that serves a namespace.

    Args:
        cluster: Where it is.
        served: The namespace that it is to serve.
        operator_namespace: The operator's own; None: it is looked for in all.

    Raises:
        UsageError: there is none, more than one, or it cannot be read.
    """
    path = f"/api/v1/namespaces/{operator_namespace}/configmaps" if operator_namespace else "/api/v1/configmaps"
    try:
        bodies = cluster.items(path, {"labelSelector": _SELECTOR})
    except RefusedError as error:
        if error.reason != "Forbidden":
            raise
        raise UsageError(
            f"the operator's configuration cannot be read ({error}): name its namespace with --operator-namespace, or "
            "give a copy of it with --config"
        ) from error
    where = f"namespace {operator_namespace}" if operator_namespace else "the cluster"
    found = [_parse(body) for body in bodies if _KEY in (body.get("data") or {})]
    if not found:
        raise UsageError(
            f"{where} has no configuration of the operator (a ConfigMap labelled {_SELECTOR}): install the chart "
            "aiservice-operator, or give a configuration with --config"
        )
    serving = [item for item in found if not (spaces := item.settings.watch.namespaces) or served in spaces]
    if not serving:
        raise UsageError(
            f"no operator serves namespace {served}: add it to the chart value watch.namespaces, or give a "
            "configuration with --config"
        )
    if len(serving) > 1:
        listed = ", ".join(item.source for item in serving)
        raise UsageError(f"several operators serve namespace {served} ({listed}): choose one by --operator-namespace")
    return serving[0]


def _parse(body: Json) -> Configuration:
    source = f"ConfigMap {body['metadata']['namespace']}/{body['metadata']['name']}"
    try:
        return Configuration(read(body["data"][_KEY], source), source)
    except ConfigurationError as error:
        raise UsageError(
            f"{error}; where the operator is of another version than this plugin, use the plugin of that version"
        ) from error

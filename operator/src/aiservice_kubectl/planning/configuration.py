"""The operator's configuration: from a file, or from its ConfigMap in the cluster; and which is meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aiservice_kubectl.cluster import Cluster
from aiservice_kubectl.errors import RefusedError, UsageError
from aiservice_kubectl.planning.manifests import Document
from aiservice_operator.errors import ConfigurationError
from aiservice_operator.kinds import Json
from aiservice_operator.settings import Settings, Watch, load, read

SELECTOR = "app.kubernetes.io/component=configuration,app.kubernetes.io/part-of=aiservice"
"""The labels of the operator's ConfigMap that none of the chart's values changes."""
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


def from_cluster(cluster: Cluster, operator_namespace: str | None) -> tuple[Configuration, ...]:
    """Reads the ConfigMaps of all operators.

    Args:
        cluster: Where they are.
        operator_namespace: The operator's own; None: they are looked for in all.

    Raises:
        UsageError: there is none, or one cannot be read.
    """
    path = f"/api/v1/namespaces/{operator_namespace}/configmaps" if operator_namespace else "/api/v1/configmaps"
    try:
        bodies = cluster.items(path, {"labelSelector": SELECTOR})
    except RefusedError as error:
        if error.reason != "Forbidden":
            raise
        raise UsageError(
            f"the operator's configuration cannot be read ({error}): name its namespace with --operator-namespace, or "
            "give a copy of it with --config"
        ) from error
    found = tuple(_parse(body) for body in bodies if _KEY in (body.get("data") or {}))
    if not found:
        where = f"namespace {operator_namespace}" if operator_namespace else "the cluster"
        raise UsageError(
            f"{where} has no configuration of the operator (a ConfigMap labelled {SELECTOR}): install or upgrade the "
            "chart aiservice-operator, or give a configuration with --config"
        )
    return found


def serving(document: Document, found: Sequence[Configuration]) -> Configuration | None:
    """Returns the configuration of the operator that would look at a document; None where none would.

    Raises:
        UsageError: several would.
    """
    matching = [item for item in found if not _passed_over(document, item.settings.watch)]
    if len(matching) > 1:
        raise UsageError(
            f"several operators serve {document.title} in namespace {document.namespace} "
            f"({', '.join(item.source for item in matching)}), and would undo each other's work: keep them apart by "
            "their chart values watch.namespaces or watch.labels, or give the configuration that is meant with --config"
        )
    return matching[0] if matching else None


def unserved(document: Document, found: Sequence[Configuration]) -> str:
    """Returns why no operator would look at a document."""
    reasons = {item.source: _passed_over(document, item.settings.watch) for item in found}
    if len(reasons) == 1:
        return f"the operator {''.join(reasons.values())}"
    listed = "; ".join(f"that of {source} {reason}" for source, reason in reasons.items())
    return f"no operator would look at it: {listed}"


def _passed_over(document: Document, watch: Watch) -> str:
    """Why an operator would not look at a document; empty where it would."""
    if watch.namespaces and document.namespace not in watch.namespaces:
        served = ", ".join(watch.namespaces)
        return f"does not serve namespace {document.namespace}, only {served} (chart value watch.namespaces)"
    labels = document.body["metadata"].get("labels") or {}
    if any(labels.get(name) != value for name, value in watch.labels.items()):
        return f"serves only what is labelled {watch.selector}: add that to metadata.labels"
    return ""


def _parse(body: Json) -> Configuration:
    source = f"ConfigMap {body['metadata']['namespace']}/{body['metadata']['name']}"
    try:
        return Configuration(read(body["data"][_KEY], source), source)
    except ConfigurationError as error:
        raise UsageError(
            f"{error}; where the operator is of another version than this plugin, use the plugin of that version"
        ) from error

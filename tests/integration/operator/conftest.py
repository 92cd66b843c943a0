"""An operator as a process, a real control plane, and a kubelet that only writes statuses."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.cluster import REPOSITORY, ControlPlane, cluster_command, own_cluster_name, remove
from support.fake_kubelet import FakeKubelet
from support.gate import Gate
from support.operator import OperatorProcess
from support.operator_world import World, make_namespace, remove_namespace


@pytest.fixture(scope="session")
def crds(control_plane: ControlPlane) -> None:
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / "crds"))
    control_plane.kubectl("wait", "--for=condition=Established", "-f", str(REPOSITORY / "crds"), "--timeout=30s")


@pytest.fixture(scope="session")
def node(control_plane: ControlPlane) -> Iterator[str]:
    name = f"operator-{uuid.uuid4().hex[:8]}"
    control_plane.add_node(name, labels={"zone": "a"})
    yield name
    control_plane.remove_node(name)


def chart_rules(name: str) -> list[dict[str, Any]]:
    """The rules that the chart gives a role, as for values that ask for all of them."""
    template = (REPOSITORY / "charts/aiservice-operator/templates/_rules.tpl").read_text()
    defined = template.split(f'{{{{- define "aiservice-operator.{name}" -}}}}\n')[1].split("{{- end -}}")[0]
    rules: list[dict[str, Any]] = yaml.safe_load(
        "".join(line for line in defined.splitlines(True) if not line.startswith("{{"))
    )
    return rules


def restricted(control_plane: ControlPlane, namespace: str, folder: Path) -> Path:
    """A kubeconfig with the rights that the chart gives to the operator, in one namespace, and no others.

    What it may see of nodes, and of the pods of other namespaces, comes with `seeing_nodes`.
    """
    rbac: dict[str, Any] = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    metadata = {"name": "operator", "namespace": namespace}
    account = {"kind": "ServiceAccount", "name": "operator", "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"}
    control_plane.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {**rbac, "kind": "Role", "metadata": metadata, "rules": chart_rules("rules")},
        {**rbac, "kind": "RoleBinding", "metadata": metadata, "roleRef": role, "subjects": [account]},
    )
    token = control_plane.kubectl("create", "token", "operator", "-n", namespace, "--duration=2h").strip()
    config = json.loads(control_plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    kubeconfig = folder / "restricted-kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    return kubeconfig


@contextlib.contextmanager
def seeing_nodes(control_plane: ControlPlane, namespace: str) -> Iterator[None]:
    """Gives the operator of a namespace the rights to nodes that the chart gives with rbac.readNodes."""
    rbac: dict[str, Any] = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    metadata = {"name": f"operator-{namespace}"}
    account = {"kind": "ServiceAccount", "name": "operator", "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": metadata["name"]}
    control_plane.apply(
        {**rbac, "kind": "ClusterRole", "metadata": metadata, "rules": chart_rules("nodeRules")},
        {**rbac, "kind": "ClusterRoleBinding", "metadata": metadata, "roleRef": role, "subjects": [account]},
    )
    try:
        yield
    finally:
        control_plane.kubectl("delete", "clusterrole,clusterrolebinding", metadata["name"])


@pytest.fixture
def nodes_seen(control_plane: ControlPlane, world: World) -> Iterator[None]:
    """The operator may look at nodes."""
    with seeing_nodes(control_plane, world.namespace):
        yield


@pytest.fixture(scope="module")
def configuration() -> dict[str, Any]:
    """What the module's operator is configured with beside its namespace; a module may have its own."""
    return {}


@pytest.fixture(scope="module")
def shared_world(
    control_plane: ControlPlane,
    crds: None,
    node: str,
    configuration: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """One operator for a whole module."""
    folder = tmp_path_factory.mktemp("operator")
    with contextlib.closing(make_namespace(control_plane)) as api:
        kubeconfig = restricted(control_plane, api.namespace, folder)
        changes = {"watch": {"namespaces": [api.namespace]}, **configuration}
        operator = OperatorProcess(kubeconfig, folder, changes)
        with FakeKubelet(control_plane.kubeconfig, api.namespace) as kubelet, operator:
            yield World(api, kubelet, operator)
            kubelet.reset()
            remove_namespace(api)
    assert "Traceback" not in operator.log.read_text(), operator.log.read_text()


@pytest.fixture
def world(shared_world: World) -> World:
    """The module's operator; each test uses names of its own."""
    shared_world.kubelet.reset()
    return shared_world


@pytest.fixture(scope="module")
def own_plane() -> Iterator[ControlPlane]:
    """A control plane that no other module sees: it may be broken."""
    name = own_cluster_name("operator")
    try:
        cluster_command(name, "up", "--control-plane-only")
        plane = ControlPlane(name, Path(cluster_command(name, "kubeconfig").strip()))
        plane.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
        plane.kubectl("wait", "--for=condition=Established", "-f", str(REPOSITORY / "crds"), "--timeout=30s")
        plane.add_node("own", {"pods": "1000", "cpu": "1000"})
        yield plane
    finally:
        remove(name)


@pytest.fixture
def restricted_world(
    control_plane: ControlPlane, crds: None, node: str, tmp_path: Path
) -> Iterator[tuple[World, Gate]]:
    """An operator with the chart's rights, whose way to the API server can be closed."""
    with contextlib.closing(make_namespace(control_plane)) as api:
        kubeconfig = restricted(control_plane, api.namespace, tmp_path)
        with Gate(kubeconfig, tmp_path) as gate:
            operator = OperatorProcess(gate.kubeconfig, tmp_path, {"watch": {"namespaces": [api.namespace]}})
            with FakeKubelet(control_plane.kubeconfig, api.namespace) as kubelet, operator:
                yield World(api, kubelet, operator), gate
                gate.open()
                remove_namespace(api)

"""A namespace with an operator, a kubelet that only writes statuses, nodes with GPUs, and the plugin."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator

import pytest

from support.cluster import REPOSITORY, ControlPlane
from support.fake_kubelet import FakeKubelet
from support.kubelet_logs import KubeletLogs, kubelet_logs
from support.operator import CONFIG, OperatorProcess
from support.operator_world import World, make_namespace, remove_namespace
from support.plugin import CONFIGURATION_LABELS, Plugin

GPU_LABEL = "test.aiservice.dev/kubectl"
"""On the nodes of this run only: other tests share the cluster."""
_RUN = uuid.uuid4().hex[:8]
_HOSTNAME = "kubernetes.io/hostname"
"""Kubelets set it; pods that share a volume are kept together by it."""
_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
_TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}

PROFILES = {
    **CONFIG["profiles"],
    "cpu": {**CONFIG["profiles"]["cpu"], "price": {"hourly": "0.05"}},
    "nvidia-l4": {
        "gpu": {"memoryGiB": 24},
        "resources": {"requests": {"cpu": "2", "memory": "12Gi"}},
        "nodeSelector": {GPU_LABEL: _RUN},
        "tolerations": [_TOLERATION],
        "price": {"hourly": "0.70"},
    },
    "logs": {"nodeSelector": {GPU_LABEL: _RUN}, "tolerations": [_TOLERATION]},
    "small-gpu": {"gpu": {"memoryGiB": 4}, "nodeSelector": {GPU_LABEL: _RUN}, "tolerations": [_TOLERATION]},
}


@pytest.fixture(scope="session")
def crds(control_plane: ControlPlane) -> None:
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / "crds"))
    control_plane.kubectl("wait", "--for=condition=Established", "-f", str(REPOSITORY / "crds"), "--timeout=30s")


@pytest.fixture(scope="session")
def printed(control_plane: ControlPlane) -> Iterator[KubeletLogs]:
    """What containers on the nodes with GPUs have printed."""
    with kubelet_logs(control_plane.kubeconfig) as logs:
        yield logs


@pytest.fixture(scope="session")
def nodes(control_plane: ControlPlane, printed: KubeletLogs) -> Iterator[tuple[str, str]]:
    """Two nodes with two GPUs each, whose kubelet serves logs, and one without that takes everything else."""
    names = (f"gpu-a-{_RUN}", f"gpu-b-{_RUN}")
    for name in names:
        control_plane.add_node(name, {"nvidia.com/gpu": "2"}, {GPU_LABEL: _RUN, _HOSTNAME: name}, printed.port)
        control_plane.kubectl("taint", "node", name, f"{_TAINT['key']}={_TAINT['value']}:{_TAINT['effect']}")
    control_plane.add_node(f"cpu-{_RUN}", labels={_HOSTNAME: f"cpu-{_RUN}"})
    yield names
    for name in (*names, f"cpu-{_RUN}"):
        control_plane.remove_node(name)


@pytest.fixture(scope="session")
def world(
    control_plane: ControlPlane, crds: None, nodes: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """One operator for all tests, its configuration in the cluster as the chart has it, for all tests."""
    folder = tmp_path_factory.mktemp("operator")
    with contextlib.closing(make_namespace(control_plane)) as api:
        changes = {"watch": {"namespaces": [api.namespace]}, "profiles": PROFILES}
        api.create(
            "ConfigMap",
            {
                "metadata": {"name": "operator", "labels": CONFIGURATION_LABELS},
                "data": {"config.yaml": json.dumps({**CONFIG, **changes})},
            },
        )
        operator = OperatorProcess(control_plane.kubeconfig, folder, changes)
        with FakeKubelet(control_plane.kubeconfig, api.namespace) as kubelet, operator:
            yield World(api, kubelet, operator)
            kubelet.reset()
            remove_namespace(api)


@pytest.fixture(autouse=True)
def _all_goes_well(world: World) -> None:
    world.kubelet.reset()


@pytest.fixture(scope="session")
def ais(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Plugin:
    """`kubectl ais` as the cluster's administrator."""
    return Plugin(control_plane, control_plane.kubeconfig, tmp_path_factory.mktemp("plugin"))

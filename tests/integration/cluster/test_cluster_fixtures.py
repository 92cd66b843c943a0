from typing import Any

from support.cluster import ControlPlane, eventually


def test_pod_is_scheduled_by_capacity(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.add_node("gpu-node", {"nvidia.com/gpu": "1"}, {"pool": "gpu"})
    try:
        control_plane.apply(_gpu_pod("first", namespace))
        # The scheduler's first verdict may come before it knows the node.
        eventually(lambda: control_plane.get("pod", "first", "-n", namespace)["spec"].get("nodeName") == "gpu-node")
        second = _scheduled(control_plane, "second", namespace)
        assert "Insufficient nvidia.com/gpu" in second["status"]["conditions"][0]["message"]
    finally:
        control_plane.remove_node("gpu-node")


def _scheduled(control_plane: ControlPlane, name: str, namespace: str) -> Any:
    """A new pod that asks for a GPU, once the scheduler has decided about it."""
    control_plane.apply(_gpu_pod(name, namespace))
    decided = "jsonpath={.status.conditions[?(@.type=='PodScheduled')].status}"
    eventually(lambda: control_plane.kubectl("get", "pod", name, "-n", namespace, "-o", decided))
    return control_plane.get("pod", name, "-n", namespace)


def _gpu_pod(name: str, namespace: str) -> dict[str, object]:
    container = {"name": "main", "image": "localhost/nothing:1", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nodeSelector": {"pool": "gpu"}, "containers": [container]},
    }

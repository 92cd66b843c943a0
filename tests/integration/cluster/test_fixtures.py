from support.cluster import ControlPlane, eventually


def test_pod_is_scheduled_by_capacity(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.add_node("gpu-node", {"nvidia.com/gpu": "1"}, {"pool": "gpu"})
    try:
        for name in ("first", "second"):
            control_plane.apply(_gpu_pod(name, namespace))
            eventually(lambda name=name: control_plane.get("pod", name, "-n", namespace)["status"].get("conditions"))
        assert control_plane.get("pod", "first", "-n", namespace)["spec"]["nodeName"] == "gpu-node"
        second = control_plane.get("pod", "second", "-n", namespace)
        assert "Insufficient nvidia.com/gpu" in second["status"]["conditions"][0]["message"]
    finally:
        control_plane.remove_node("gpu-node")


def _gpu_pod(name: str, namespace: str) -> dict[str, object]:
    container = {"name": "main", "image": "localhost/nothing:1", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nodeSelector": {"pool": "gpu"}, "containers": [container]},
    }

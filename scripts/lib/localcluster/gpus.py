"""GPUs that exist on paper only: the scheduler counts them, and nothing is behind them."""

import json
import time

from localcluster.errors import ClusterError
from localcluster.kubectl import Kubectl

RESOURCE = "nvidia.com/gpu"


def offer_gpus(kubectl: Kubectl, node: str, count: int, timeout: float = 60) -> None:
    """Give a node GPUs, and wait until its kubelet offers them.

    Raises:
        ClusterError: it did not within `timeout` seconds.
    """
    patch = json.dumps({"status": {"capacity": {RESOURCE: str(count)}}})
    kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", patch)
    deadline = time.monotonic() + timeout
    while kubectl.get("node", node)["status"]["allocatable"].get(RESOURCE) != str(count):
        if time.monotonic() > deadline:
            raise ClusterError(f"node {node} did not offer {count} GPUs within {timeout:.0f} s")
        time.sleep(0.5)

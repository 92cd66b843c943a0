"""Asks for nodes and the pods on them, which no watch tells: a thousand nodes are much to keep for a rare question."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aiservice_operator.capacity import Capacity, Load, Node, empty_node
from aiservice_operator.errors import RefusedError
from aiservice_operator.kube import Kube

_FRESH_SECONDS = 2.0
"""So long an answer serves others who ask: rollouts often begin together."""
_RUNNING = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"


class Census:
    """Counts what nodes have left.

    Args:
        kube: The API server.
        clock: Seconds that only grow.
    """

    def __init__(self, kube: Kube, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._clock = clock
        self._lock = asyncio.Lock()
        self._seen: dict[bool, tuple[float, Capacity]] = {}

    async def look(self) -> Capacity:
        """Returns what there is now, or why it cannot be seen.

        Raises:
            KubeError: something failed that another try may mend.
        """
        return await self._fresh(with_pods=True)

    async def look_at_nodes(self) -> Capacity:
        """Returns the nodes as if no pod were on them, or why they cannot be seen: pods are the most of what there is.

        Raises:
            KubeError: something failed that another try may mend.
        """
        return await self._fresh(with_pods=False)

    async def _fresh(self, *, with_pods: bool) -> Capacity:
        async with self._lock:
            known = self._seen.get(with_pods)
            if known is None or self._clock() - known[0] > _FRESH_SECONDS:
                known = self._seen[with_pods] = (self._clock(), await self._count(with_pods=with_pods))
            return known[1]

    async def _count(self, *, with_pods: bool) -> Capacity:
        """Adds up page by page: all pods of a large cluster at once would take gigabytes."""
        load, nodes = Load(), list[Node]()
        try:
            async for page in self._kube.pages_of("/api/v1/nodes", {}):
                nodes += map(empty_node, page.bodies)
            if with_pods:
                async for page in self._kube.pages_of("/api/v1/pods", {"fieldSelector": _RUNNING}):
                    load.add(page.bodies)
        except RefusedError as error:
            return Capacity(refused=error.message)
        return Capacity(tuple(map(load.left, nodes)))

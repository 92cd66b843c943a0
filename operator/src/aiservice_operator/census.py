"""Asks for nodes and the pods on them, which no watch tells: a thousand nodes are much to keep for a rare question."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aiservice_operator.capacity import Capacity, Load, Node
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
        self._seen: tuple[float, Capacity] | None = None

    async def look(self) -> Capacity:
        """Returns what there is now, or why it cannot be seen.

        Raises:
            KubeError: something failed that another try may mend.
        """
        async with self._lock:
            if self._seen is None or self._clock() - self._seen[0] > _FRESH_SECONDS:
                self._seen = (self._clock(), await self._count())
            return self._seen[1]

    async def _count(self) -> Capacity:
        """Adds up page by page: all pods of a large cluster at once would take gigabytes."""
        load, nodes = Load(), list[Node]()
        try:
            async for page in self._kube.pages_of("/api/v1/pods", {"fieldSelector": _RUNNING}):
                load.add(page.bodies)
            async for page in self._kube.pages_of("/api/v1/nodes", {}):
                nodes += (load.left(body) for body in page.bodies)
        except RefusedError as error:
            return Capacity(refused=error.message)
        return Capacity(tuple(nodes))

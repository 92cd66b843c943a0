"""Where services and tenants come from: AIService and AITenant objects of a Kubernetes cluster, or a file."""

from __future__ import annotations

from typing import Protocol


class Discovery(Protocol):
    """A source of services and tenants."""

    @property
    def synced(self) -> bool:
        """Whether the whole lists were there once."""

    @property
    def connected(self) -> bool:
        """Whether changes are being seen now. While they are not, the last known lists serve on."""

    @property
    def pods_followed(self) -> bool:
        """Whether requests go to pods that are known one by one."""

    async def run(self) -> None:
        """Keeps registry and tenants up to date until cancelled."""

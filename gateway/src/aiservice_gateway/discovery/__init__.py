"""Where the list of services comes from: AIService objects of a Kubernetes cluster, or a file."""

from __future__ import annotations

from typing import Protocol


class Discovery(Protocol):
    """A source of services."""

    @property
    def synced(self) -> bool:
        """Whether the registry has had the whole list once."""

    @property
    def connected(self) -> bool:
        """Whether changes are being seen now. While they are not, the last known list serves on."""

    async def run(self) -> None:
        """Keeps the registry up to date until cancelled."""

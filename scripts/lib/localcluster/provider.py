"""What a provider of clusters does; the command line knows no more of one than this."""

from pathlib import Path
from typing import Protocol

from localcluster.status import Line


class Provider(Protocol):
    """One cluster, up or not, of one provider."""

    def up(self, *, with_node: bool, gpus: int | None, controller_qps: int | None) -> None:
        """Bring the cluster up, or whatever of it is missing.

        None leaves the number of GPUs, and of requests a second that the controller manager may send, as it is.
        """

    def down(self) -> None:
        """Remove the cluster and all its files but the logs. Nothing there is fine."""

    def status(self) -> list[Line]:
        """The state of every part; empty where there is no cluster."""

    def load(self, archive: Path) -> list[str]:
        """Load the images of a tar archive into the node and return their names."""

    def address(self) -> str:
        """The node's address, at which this machine reaches NodePorts."""

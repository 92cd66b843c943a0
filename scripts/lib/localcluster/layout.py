"""Where the files of a cluster are."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from localcluster.errors import ClusterError

REPOSITORY = Path(__file__).resolve().parents[3]
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


def cache_root() -> Path:
    """The folder outside the checkout that holds tools, logs and clusters."""
    if configured := os.environ.get("AISERVICE_CACHE"):
        return Path(configured).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "aiservice"


def _clusters() -> Path:
    return cache_root() / "clusters"


@dataclass(frozen=True)
class Layout:
    """The paths of one cluster. Everything but the lock and the logs goes when the cluster goes down."""

    name: str
    clusters: Path = field(default_factory=_clusters)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ClusterError(
                f"{self.name!r} cannot name a cluster: use up to 40 lower-case letters, digits and hyphens"
            )

    @property
    def root(self) -> Path:
        """The folder of the cluster; its path is also what marks the cluster's processes."""
        return self.clusters / self.name

    @property
    def lock(self) -> Path:
        """Held by the command that changes the cluster. Outside its folder, which comes and goes."""
        return self.clusters / f".{self.name}.lock"

    @property
    def settings(self) -> Path:
        """What `settings.py` keeps; where it is, there is a cluster."""
        return self.root / "cluster.json"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.root / "kubeconfig"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.root / "pki"

    @property
    def etcd(self) -> Path:
        """The data of etcd."""
        return self.root / "etcd"

    @property
    def config(self) -> Path:
        """Configuration files and kubeconfigs of the components."""
        return self.root / "config"

    @property
    def node(self) -> Path:
        """What the node keeps on disk: images, volumes, the kubelet's files."""
        return self.root / "node"

    @property
    def logs(self) -> Path:
        """The logs of the present run; those of earlier ones are beside it, numbered."""
        return self.root / "logs"

    def log(self, component: str) -> Path:
        """The log of a component of the present run."""
        return self.logs / f"{component}.log"


def existing() -> Iterator[Layout]:
    """The clusters that are up, or were when they were last heard of."""
    for settings in sorted(_clusters().glob("*/cluster.json")):
        yield Layout(settings.parent.name)

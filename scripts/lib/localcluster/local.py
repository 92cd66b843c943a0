"""The local provider: every component a process of this machine."""

from pathlib import Path

from localcluster import control_plane
from localcluster.commands import need_packages, tool
from localcluster.control_plane import ControlPlane
from localcluster.errors import ClusterError
from localcluster.files import remove_tree, rotate
from localcluster.layout import Layout, cache_root, existing
from localcluster.network import free_ports
from localcluster.pki import Pki
from localcluster.processes import kill, start
from localcluster.progress import say
from localcluster.settings import Ports, Settings, boot_id, load, locked, save
from localcluster.status import Line, component_line


class LocalCluster:
    """One cluster of local processes, up or not."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def up(self, *, with_node: bool, gpus: int | None) -> None:
        """Bring the cluster up, or whatever of it is missing."""
        settings = load(self._layout)
        if settings and settings.boot != boot_id():
            say("this machine was restarted since the cluster was made: making it anew")
            self.down()
            settings = None
        if settings and (settings.network is not None) != with_node:
            kind = "with a node" if settings.network else "as a control plane only"
            raise ClusterError(
                f"cluster {self._layout.name} is up {kind}: run `scripts/cluster down` first to change that"
            )
        need_packages(*control_plane.PACKAGES)
        programs = tool("hyperkube").parent
        if settings is None:
            settings = self._settle()
        started = self._start_control_plane(settings, programs)
        say(f"cluster {self._layout.name} is {'up' if started else 'already up'}: {self._layout.kubeconfig}")

    def _settle(self) -> Settings:
        """Decide and remember what a new cluster needs, while no other cluster does the same."""
        kill(self._layout)
        remove_tree(self._layout.root, keep="logs")
        rotate(self._layout.logs)
        with locked(cache_root() / "clusters" / ".ports.lock"):
            others = [settings for other in existing() if (settings := load(other))]
            taken = {port for other in others for port in other.ports.all()}
            settings = Settings(boot_id(), Ports(*free_ports(5, taken)), network=None)
            save(self._layout, settings)
        return settings

    def _start_control_plane(self, settings: Settings, programs: Path) -> list[str]:
        plane = ControlPlane(self._layout, settings, programs)
        Pki(self._layout.pki).make(plane.certificates())
        plane.write_files()
        started = []
        for group in plane.components():
            say("starting " + " and ".join(component.name for component in group))
            started += start(self._layout, group)
        return started

    def status(self) -> list[Line]:
        """The state of every part; empty where there is no cluster."""
        settings = load(self._layout)
        if settings is None:
            return []
        plane = ControlPlane(self._layout, settings, tool("hyperkube").parent)
        return [component_line(self._layout, component) for group in plane.components() for component in group]

    def down(self) -> None:
        """End every process and remove every file but the logs. Nothing there is fine."""
        kill(self._layout)
        remove_tree(self._layout.root, keep="logs")

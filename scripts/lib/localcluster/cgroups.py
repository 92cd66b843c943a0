"""The control groups of a node: a folder of its own in every hierarchy, under which the kubelet keeps its pods."""

import os
import time
from pathlib import Path

from localcluster.errors import ClusterError


class Cgroups:
    """The folders called `name` at the top of every hierarchy, of version 1, version 2, or both."""

    def __init__(self, name: str) -> None:
        self.name = name

    def make(self) -> None:
        """Make the folders. The kubelet insists on every hierarchy, and on CPUs and memory nodes in version 1's."""
        for mount, unified in _hierarchies():
            folder = mount / self.name
            folder.mkdir(exist_ok=True)
            if unified:
                _hand_down_controllers(mount)
                _hand_down_controllers(folder)
            for setting in ("cpuset.cpus", "cpuset.mems"):
                if not unified and (folder / setting).exists():
                    (folder / setting).write_text((mount / setting).read_text())

    def remove(self) -> None:
        """Remove the folders and all below, from the inside out, once the processes in them are gone.

        Raises:
            ClusterError: something is still in use after ten seconds.
        """
        deadline = time.monotonic() + 10
        for mount, _ in _hierarchies():
            while left := self._remove_once(mount / self.name):
                if time.monotonic() > deadline:
                    raise ClusterError(f"control group {left} is still in use: `cat {left}/cgroup.procs` tells by whom")
                time.sleep(0.05)

    @staticmethod
    def _remove_once(folder: Path) -> Path | None:
        """Remove what can be removed; returns a folder that cannot, or None when nothing is left."""
        left = None
        for inner, _, _ in os.walk(folder, topdown=False):
            try:
                Path(inner).rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                left = Path(inner)
        return left


def _hierarchies() -> list[tuple[Path, bool]]:
    """Where control groups are mounted, and whether that is version 2."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.split()[0] in ("cgroup", "cgroup2"):
            found.append((Path(fields.split()[4]), kind.startswith("cgroup2")))
    return found


def _hand_down_controllers(folder: Path) -> None:
    """Let the groups inside a version 2 group use its controllers. On a hybrid machine, version 1 has them all."""
    controllers = (folder / "cgroup.controllers").read_text().split()
    wanted = [name for name in controllers if name in ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")]
    given = (folder / "cgroup.subtree_control").read_text().split()
    for name in wanted:
        if name not in given:
            (folder / "cgroup.subtree_control").write_text(f"+{name}")

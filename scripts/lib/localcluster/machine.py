"""What the clusters of one machine share, whoever made them and wherever their files are: networks and sysctls.

It is noted under /run, which is as old as the machine's present run, like the things that it is about.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from localcluster.layout import Layout
from localcluster.network import SLOTS, Network, free_slot
from localcluster.processes import processes
from localcluster.settings import locked

_FOLDER = Path("/run/aiservice-clusters")
_SYSCTLS = _FOLDER / "sysctls.json"

# The kubelet writes these for the whole machine.
_CHANGED_BY_KUBELET = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def claim_network(layout: Layout) -> Network:
    """Take a network that no other cluster of the machine has. It stays this cluster's until `release_machine`."""
    with locked(_FOLDER / "lock"):
        network = free_slot(dict(_owners()).keys())
        _slot_file(network.slot).write_text(str(layout.root))
        return network


def claimed_network(layout: Layout) -> Network | None:
    """The network that the cluster has claimed, if it has."""
    slots = [slot for slot in SLOTS if _owner(slot) == layout.root]
    return Network(slots[0]) if slots else None


def save_sysctls() -> None:
    """Remember the machine's own settings, unless another cluster already runs and has changed them."""
    with locked(_FOLDER / "lock"):
        if not _SYSCTLS.exists():
            draft = _SYSCTLS.with_suffix(".new")
            there = [name for name in _CHANGED_BY_KUBELET if _sysctl(name).exists()]  # kernels differ
            draft.write_text(json.dumps({name: _sysctl(name).read_text() for name in there}, indent=2))
            draft.replace(_SYSCTLS)


def release_machine(layout: Layout) -> None:
    """Give the cluster's network back; the last cluster to do so puts the machine's settings back as they were."""
    if os.geteuid() != 0 or not _FOLDER.exists():
        return  # only root can have taken anything
    with locked(_FOLDER / "lock"):
        for slot, owner in dict(_owners()).items():
            if owner == layout.root:
                _slot_file(slot).unlink()
        if not dict(_owners()) and _SYSCTLS.exists():
            for name, value in json.loads(_SYSCTLS.read_text()).items():
                _sysctl(name).write_text(value)
            _SYSCTLS.unlink()


def _owners() -> Iterator[tuple[int, Path]]:
    """Each network that is taken and the folder of its cluster; what an owner left without a trace is free again."""
    for slot in SLOTS:
        root = _owner(slot)
        if root is None:
            continue
        cluster = Layout(root.name, root.parent)
        if cluster.settings.exists() or processes(cluster):
            yield slot, root
        else:
            _slot_file(slot).unlink()


def _owner(slot: int) -> Path | None:
    try:
        return Path(_slot_file(slot).read_text())
    except FileNotFoundError:
        return None


def _slot_file(slot: int) -> Path:
    return _FOLDER / f"network-{slot}"


def _sysctl(name: str) -> Path:
    return Path("/proc/sys") / name

"""What was decided when a cluster was made, and is remembered for as long as it exists."""

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from localcluster.errors import ClusterError
from localcluster.layout import Layout
from localcluster.network import Network

ProviderName = Literal["local", "kind"]


@dataclass(frozen=True)
class Ports:
    """What the components listen on at the loopback address; with a node, the API server at every address."""

    apiserver: int
    controller_manager: int
    scheduler: int
    etcd: int
    etcd_peer: int

    def all(self) -> tuple[int, ...]:
        """Every port."""
        return dataclasses.astuple(self)


@dataclass(frozen=True)
class Settings:
    """The settings of a cluster of the local provider. One without a network is a control plane only.

    `boot` tells the run of the machine in which it was made; `gpus` is how many GPUs the node pretends to have;
    `controller_qps` how many requests a second the controller manager may send.
    """

    boot: str
    ports: Ports
    network: Network | None
    gpus: int = 0
    controller_qps: int = 500


def provider_of(layout: Layout) -> ProviderName | None:
    """Who made the cluster; None where there is none."""
    raw = _read(layout)
    if raw is None:
        return None
    provider = raw.get("provider")
    if provider not in ("local", "kind"):
        raise _unreadable(layout, f"provider is {provider!r}")
    return "kind" if provider == "kind" else "local"


def load(layout: Layout) -> Settings | None:
    """The settings of a local cluster that is up or was left behind; None where there is none."""
    raw = _read(layout)
    if raw is None or raw.get("provider") != "local":
        return None
    try:
        network = raw["network"] and Network(**raw["network"])
        return Settings(
            raw["boot"], Ports(**raw["ports"]), network, raw["gpus"], raw.get("controller_qps", Settings.controller_qps)
        )
    except (KeyError, TypeError) as error:
        raise _unreadable(layout, repr(error)) from error


def save(layout: Layout, settings: Settings) -> None:
    """Write the settings of a local cluster, whole or not at all."""
    _write(layout, {"provider": "local", **dataclasses.asdict(settings)})


def save_kind(layout: Layout) -> None:
    """Note that a cluster is kind's, which remembers everything else itself."""
    _write(layout, {"provider": "kind"})


def _read(layout: Layout) -> dict[str, Any] | None:
    try:
        raw = json.loads(layout.settings.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _unreadable(layout, str(error)) from error
    if not isinstance(raw, dict):
        raise _unreadable(layout, "it is no object")
    return raw


def _write(layout: Layout, raw: dict[str, Any]) -> None:
    layout.root.mkdir(parents=True, exist_ok=True)
    layout.root.chmod(0o700)  # keys of the cluster's administrator are in it
    draft = layout.settings.with_suffix(".new")
    draft.write_text(json.dumps(raw, indent=2) + "\n")
    draft.replace(layout.settings)


def _unreadable(layout: Layout, why: str) -> ClusterError:
    return ClusterError(f"{layout.settings} is damaged ({why}): delete it and run `scripts/cluster down`")


def boot_id() -> str:
    """Differs after every start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file: one command at a time works on what it stands for. Its holder may remove the file."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            # Another holder may have removed it while this one waited; then others lock a new file of that name.
            if path.exists() and path.stat().st_ino == os.fstat(handle.fileno()).st_ino:
                yield
                return

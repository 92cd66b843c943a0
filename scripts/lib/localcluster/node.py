"""The node: a machine within the machine, made of private namespaces, in which containerd and the kubelet run.

Its mounts, links, firewall rules and processes are its own and vanish with its first process. On the machine remain
only its control groups, its folder, and one end of a link with two routes; `remove` takes care of those.
"""

import http.client
import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from localcluster import addons, node_files
from localcluster.cgroups import Cgroups
from localcluster.commands import run
from localcluster.errors import ClusterError
from localcluster.files import write_file
from localcluster.images import archive_digest, write_image
from localcluster.layout import Layout, cache_root
from localcluster.network import Network
from localcluster.pki import Certificate, Pki
from localcluster.processes import Component, kill, main_process, start

PACKAGES = (
    "containerd",
    "containernetworking-plugins",
    "iproute2",
    "mount",
    "nftables",
    "runc",
    "util-linux",
)
_FIRST = "node"
_ARCHIVE = "aiservice.dev/archive"
"""The label that an image carries of the archive that it was loaded from."""
_SET_UP = Path("/run/node-is-set-up")

# What the node sees here is its own, empty at first. The rest of the machine's files it sees as they are.
_PRIVATE = (Path("/run"), Path("/var/lib"), Path("/var/log"))


class Node:
    """The node of one cluster."""

    def __init__(self, layout: Layout, network: Network, programs: Path) -> None:
        """`programs` is the folder that has hyperkube under the name of each component."""
        self._layout = layout
        self._network = network
        self._programs = programs
        self._pki = Pki(layout.pki)
        self._cgroups = _cgroups(network)

    @property
    def name(self) -> str:
        """The name of the Node object."""
        return self._layout.name

    def certificates(self) -> list[Certificate]:
        """The certificates of what runs on the node."""
        return [
            Certificate(
                "kubelet", f"system:node:{self.name}", groups=("system:nodes",), hosts=(self.name, self._network.node)
            ),
            Certificate("kube-proxy", "system:kube-proxy"),
            Certificate("coredns", addons.DNS_USER),
            Certificate("volume-provisioner", addons.PROVISIONER_USER),
        ]

    def write_files(self, server: str) -> None:
        """Write the configuration of what runs on the node. `server` is the API server as it is seen there."""
        for name in ("kubelet", "kube-proxy", "coredns", "volume-provisioner"):
            self._pki.write_kubeconfig(self._kubeconfig(name), name, server)
        config = self._layout.config
        kubelet = node_files.kubelet(
            self._network,
            cgroup=self._cgroups.name,
            authority=self._pki.certificate("ca"),
            certificate=self._pki.certificate("kubelet"),
            key=self._pki.key("kubelet"),
            resolv_conf=config / "resolv.conf",
        )
        proxy = node_files.kube_proxy(self._network, self._kubeconfig("kube-proxy"))
        write_file(config / "cni/pods.conflist", json.dumps(node_files.cni(self._network), indent=2))
        write_file(config / "containerd.toml", node_files.containerd(config / "cni"))
        write_file(config / "resolv.conf", f"nameserver {self._network.dns_service}\n")
        write_file(config / "Corefile", node_files.corefile(self._network, self._kubeconfig("coredns")))
        write_file(config / "kubelet.json", json.dumps(kubelet, indent=2))
        write_file(config / "kube-proxy.json", json.dumps(proxy, indent=2))

    def start_machine(self, pause: Path) -> list[str]:
        """Make the node's namespaces, mounts, link and control groups, where missing; returns what was started."""
        if self._pid() is not None and not self._seen_from_here(_SET_UP).exists():
            kill(self._layout, _FIRST)  # its set-up was interrupted
        started = start(self._layout, [self._first_process(pause)])
        if started:
            self._layout.logs.mkdir(parents=True, exist_ok=True)
            self._mount()
            self._connect()
            self._cgroups.make()
            self.run("touch", str(_SET_UP))
        return started

    def start_runtime(self, pause: Path) -> list[str]:
        """Start containerd, with the image that every pod needs."""
        started = start(self._layout, [self._containerd()])
        if started:
            archive = self._layout.node / "pause.tar"
            with archive.open("wb") as file:
                write_image(file, pause, node_files.PAUSE_IMAGE)
            self.load(archive)
            archive.unlink()
        return started

    def components(self, coredns: Path) -> list[Component]:
        """What runs on the node beside containerd; they start together."""
        config = self._layout.config
        hyperkube = self._programs
        return [
            self._component(
                "kubelet",
                str(hyperkube / "kubelet"),
                f"--config={config}/kubelet.json",
                f"--kubeconfig={self._kubeconfig('kubelet')}",
                f"--hostname-override={self.name}",
                f"--node-ip={self._network.node}",
                ready=lambda: self._says_ok(node_files.KUBELET_HEALTH_PORT, "/healthz"),
            ),
            self._component(
                "kube-proxy",
                str(hyperkube / "kube-proxy"),
                f"--config={config}/kube-proxy.json",
                f"--hostname-override={self.name}",
                ready=lambda: self._says_ok(node_files.PROXY_HEALTH_PORT, "/healthz"),
            ),
            self._component(
                "coredns",
                str(coredns),
                f"-conf={config}/Corefile",
                ready=lambda: self._says_ok(node_files.DNS_READY_PORT, "/ready"),
            ),
            self._component(
                "volume-provisioner",
                str(hyperkube / "volume-provisioner"),
                f"--kubeconfig={self._kubeconfig('volume-provisioner')}",
                f"--provisioner={addons.PROVISIONER}",
                f"--root={node_files.VOLUMES}",
                ready=lambda: True,  # it serves nothing that could be asked
            ),
        ]

    def all_components(self, pause: Path, coredns: Path) -> list[Component]:
        """Everything there is to look at, in the order of starting."""
        return [self._first_process(pause), self._containerd(), *self.components(coredns)]

    def load(self, archive: Path) -> list[str]:
        """Load the images of a tar archive, of docker's or the OCI's format, and return their names.

        An archive whose images are there already is not read again.

        Raises:
            ClusterError: the file is no such archive, or containerd does not run.
        """
        content = archive_digest(archive)
        if content is None:
            raise ClusterError(
                f"containerd could not load {archive}: it is no archive of container images, as `docker save` writes"
            )
        present = self._ctr("list", "--quiet", f'labels."{_ARCHIVE}"=={content}').stdout.split()
        if present:
            return present
        with archive.open("rb") as file:
            done = self._ctr("import", "-", stdin=file)
        if done.returncode != 0:
            raise ClusterError(f"containerd could not load {archive}: {done.stderr.strip()}")
        names = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("unpacking ")]
        for name in names:
            self._ctr("label", name, f"{_ARCHIVE}={content}")
        return names

    def _ctr(self, *arguments: str, stdin: BinaryIO | None = None) -> "subprocess.CompletedProcess[str]":
        """`ctr images ...` on the images that the kubelet sees."""
        command = [*self._enter(), "ctr", "--namespace=k8s.io", "images", *arguments]
        return subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False)

    def run(self, *argv: str) -> str:
        """Run a program on the node and return what it printed."""
        return run([*self._enter(), *argv])

    def _pid(self) -> int | None:
        return main_process(self._layout, _FIRST)

    def _enter(self) -> tuple[str, ...]:
        pid = self._pid()
        if pid is None:
            raise ClusterError(f"the node of cluster {self._layout.name} does not run: `scripts/cluster up` starts it")
        return ("nsenter", f"--target={pid}", "--mount", "--net", "--pid", "--")

    def _seen_from_here(self, path: Path) -> Path:
        """A file of the node, as a path of this machine."""
        return Path(f"/proc/{self._pid()}/root") / path.relative_to("/")

    def _kubeconfig(self, name: str) -> Path:
        return self._layout.config / f"{name}.kubeconfig"

    def _first_process(self, pause: Path) -> Component:
        """It holds the namespaces open and collects orphans, as any machine's first process does."""
        unshare = (
            "unshare",
            "--mount",
            "--propagation=private",
            "--net",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
        )
        return Component(_FIRST, (str(pause),), ready=lambda: True, timeout=10, within=lambda: unshare)

    def _containerd(self) -> Component:
        return self._component(
            "containerd",
            "/usr/bin/containerd",
            f"--config={self._layout.config}/containerd.toml",
            ready=self._containerd_answers,
        )

    def _component(self, name: str, *argv: str, ready: Callable[[], bool]) -> Component:
        # The shell leaves at once, which makes the component a child of the node's first process.
        into_background = ("sh", "-c", '"$@" &', "sh")
        return Component(name, argv, ready, timeout=120, within=lambda: (*self._enter(), *into_background))

    def _containerd_answers(self) -> bool:
        try:
            self.run("ctr", "--connect-timeout=1s", "version")
        except ClusterError:
            return False
        return True

    def _says_ok(self, port: int, path: str) -> bool:
        connection = http.client.HTTPConnection(self._network.node, port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _mount(self) -> None:
        """Hide the folders that the components would write to behind empty ones, and put the node's own in place."""
        cache = cache_root()
        hidden = any(cache.is_relative_to(private) for private in _PRIVATE)
        if hidden:  # the cluster's own files are there: keep them at hand
            self.run("mount", "--bind", str(cache), "/mnt")
        for private in _PRIVATE:
            self.run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(private))
        if hidden:
            self.run("mkdir", "-p", str(cache))
            self.run("mount", "--move", "/mnt", str(cache))
        kept = {
            "/var/lib/containerd": self._layout.node / "containerd",
            "/var/lib/kubelet": self._layout.node / "kubelet",
            node_files.VOLUMES: self._layout.node / "volumes",
            "/var/log/pods": self._layout.logs / "pods",
        }
        for there, here in kept.items():
            here.mkdir(parents=True, exist_ok=True)
            self.run("mkdir", "-p", there)
            self.run("mount", "--bind", str(here), there)

    def _connect(self) -> None:
        """Link the node to the machine. There is no other way out: pods reach each other and this machine."""
        network, pid = self._network, self._pid()
        _remove_link(network)
        interface = network.host_interface
        run(["ip", "link", "add", interface, "type", "veth", "peer", "name", "eth0", "netns", str(pid)])
        run(["ip", "address", "add", f"{network.host}/30", "dev", interface])
        run(["ip", "link", "set", interface, "up"])
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "address", "add", f"{network.node}/30", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        self.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        # kube-proxy turns service addresses into others, but only after the kernel found a way to them.
        self.run("ip", "route", "add", network.services, "dev", "eth0")
        for destination in (network.pods, network.services):
            run(["ip", "route", "add", destination, "via", network.node])


def answers_dns(network: Network, name: str) -> bool:
    """Whether the cluster's DNS service, asked as pods ask it, knows the address of a name."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    identifier = os.urandom(2)
    query = identifier + b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\x00\x00\x01\x00\x01"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        try:
            client.sendto(query, (network.dns_service, 53))
            answer = client.recv(512)
        except OSError:
            return False
    return answer[:2] == identifier and answer[3] & 0x0F == 0 and answer[6:8] != b"\x00\x00"


def remove_from_machine(network: Network) -> None:
    """Remove what a node leaves on the machine after its processes have been ended."""
    _remove_link(network)
    _cgroups(network).remove()


def _remove_link(network: Network) -> None:
    """Removing one end removes both, and the routes. A node that just ended takes its end along, a moment later."""
    if Path("/sys/class/net", network.host_interface).exists():
        subprocess.run(["ip", "link", "delete", network.host_interface], capture_output=True, check=False)


def _cgroups(network: Network) -> Cgroups:
    return Cgroups(f"aiservice-cluster-{network.slot}")

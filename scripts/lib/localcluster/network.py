"""Addresses: which ports and which private network a cluster gets, so that clusters do not meet."""

import ipaddress
import random
import socket
from collections.abc import Container
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from localcluster.errors import ClusterError

SLOTS = range(48)
_FIRST_OCTET = 200
CONTROL_PLANE_SERVICES = "10.96.0.0/16"


@dataclass(frozen=True)
class Network:
    """The network of a cluster with a node: 10.(200 + slot).0.0/16, divided up.

    The machine and the node share a link (a veth pair); the machine routes pods and services over it.
    """

    slot: int

    def _address(self, rest: str) -> str:
        return f"10.{_FIRST_OCTET + self.slot}.{rest}"

    @property
    def whole(self) -> str:
        """All of it."""
        return self._address("0.0/16")

    @property
    def services(self) -> str:
        """Where service addresses are taken from."""
        return self._address("0.0/20")

    @property
    def kubernetes_service(self) -> str:
        """The first of `services`, which the API server takes for itself."""
        return self._address("0.1")

    @property
    def dns_service(self) -> str:
        """The service address of the cluster's DNS."""
        return self._address("0.10")

    @property
    def pods(self) -> str:
        """Where pod addresses are taken from."""
        return self._address("128.0/18")

    @property
    def host(self) -> str:
        """The machine's end of the link."""
        return self._address("255.1")

    @property
    def node(self) -> str:
        """The node's end of the link."""
        return self._address("255.2")

    @property
    def host_interface(self) -> str:
        """The name of the link on the machine, at most 15 characters."""
        return f"aiservice{self.slot}"


def free_slot(taken: Container[int]) -> Network:
    """The first network that no other cluster has and that no route of this machine leads into."""
    routes = _routes()
    for slot in SLOTS:
        network = Network(slot)
        whole = IPv4Network(network.whole)
        # A wide route (10.0.0.0/8 of a company's network) does not matter: ours are more exact.
        if slot not in taken and not any(r.prefixlen >= 16 and r.overlaps(whole) for r in routes):
            return network
    raise ClusterError(f"no free network for another cluster among {Network(SLOTS[0]).whole} and the next {len(SLOTS)}")


def _routes() -> list[IPv4Network]:
    lines = Path("/proc/net/route").read_text().splitlines()[1:]
    return [_route(*line.split()[1:8:6]) for line in lines]


def _route(destination: str, mask: str) -> IPv4Network:
    """A line of /proc/net/route has both as hexadecimal numbers in the machine's byte order."""
    as_address = [ipaddress.IPv4Address(bytes.fromhex(value)[::-1]) for value in (destination, mask)]
    return IPv4Network(f"{as_address[0]}/{as_address[1]}")


def free_ports(count: int, taken: Container[int]) -> list[int]:
    """Ports of this machine that nothing listens on, outside those that the kernel hands to outgoing connections."""
    candidates = list(range(20000, 30000))
    random.shuffle(candidates)
    found: list[int] = []
    for port in candidates:
        if port not in taken and is_free(port):
            found.append(port)
            if len(found) == count:
                return found
    raise ClusterError("no free ports between 20000 and 30000 on this machine")


def is_free(port: int) -> bool:
    """Whether a program could listen on the port, on every address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - never listens
        except OSError:
            return False
    return True

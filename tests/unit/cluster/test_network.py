import ipaddress
import socket

import pytest

from localcluster import network
from localcluster.errors import ClusterError
from localcluster.network import SLOTS, Network, free_ports, free_slot, is_free


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> list[ipaddress.IPv4Network]:
    found: list[ipaddress.IPv4Network] = []
    monkeypatch.setattr(network, "_routes", lambda: found)
    return found


def test_parts_of_a_network_lie_within_it_and_apart() -> None:
    one = Network(3)
    link = ipaddress.IPv4Interface(f"{one.host}/30").network
    parts = [ipaddress.IPv4Network(one.services), ipaddress.IPv4Network(one.pods), link]
    assert all(part.subnet_of(ipaddress.IPv4Network(one.whole)) for part in parts)
    assert ipaddress.IPv4Address(one.node) in link
    assert not any(a.overlaps(b) for a in parts for b in parts if a is not b)
    assert all(ipaddress.ip_address(a) in parts[0] for a in (one.kubernetes_service, one.dns_service))
    assert len(Network(SLOTS[-1]).host_interface) <= 15


def test_first_network_that_nobody_has(routes: list[ipaddress.IPv4Network]) -> None:
    assert free_slot({0, 1}) == Network(2)
    routes.append(ipaddress.IPv4Network("10.202.4.0/24"))
    assert free_slot({0, 1}) == Network(3)


def test_route_to_a_wider_network_does_not_matter(routes: list[ipaddress.IPv4Network]) -> None:
    routes.extend([ipaddress.IPv4Network("10.0.0.0/8"), ipaddress.IPv4Network("0.0.0.0/0")])
    assert free_slot(set()) == Network(0)


def test_no_network_left(routes: list[ipaddress.IPv4Network]) -> None:
    with pytest.raises(ClusterError, match="no free network"):
        free_slot(SLOTS)


def test_line_of_the_kernels_route_table() -> None:
    assert network._route("0000C80A", "0000FFFF") == ipaddress.IPv4Network("10.200.0.0/16")


def test_ports_that_are_listened_on_or_promised_are_not_given() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not is_free(port)
    promised = set(range(20000, 30000)) - {21000, 21001, 21002}
    assert set(free_ports(2, promised)) < {21000, 21001, 21002}

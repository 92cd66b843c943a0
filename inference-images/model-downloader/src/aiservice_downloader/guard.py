"""Which addresses this process may connect to: public ones, and those that the platform team allows.

Who may create a ModelCache says where this process connects to, from inside the cluster. Without a guard, a manifest
could make it read the cloud's metadata service, the Kubernetes API or any internal server, and publish the answer.

The guard looks at each connection as it is made (an audit hook of the interpreter sees the address that is passed to
the system), so that it holds for every client library, for redirects, and for names that change their address between
a check and the use. What does not go through Python's sockets must be kept from running: see `fetch_xet`.
"""

from __future__ import annotations

import ipaddress
import json
import re
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from aiservice_downloader.errors import DownloadError, Reason

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_PROXY_VARIABLES = frozenset({"http_proxy", "https_proxy", "all_proxy"})
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")


@dataclass(frozen=True)
class AllowedHosts:
    """What may be reached besides public addresses."""

    names: frozenset[str] = frozenset()
    domains: tuple[str, ...] = ()
    """Ends of names, each with a leading dot."""
    networks: tuple[Network, ...] = ()

    def has_name(self, host: str) -> bool:
        """Whether a host is allowed by its name, wherever it is."""
        name = host.lower().rstrip(".")
        return name in self.names or name.endswith(self.domains)

    def has_address(self, address: Address) -> bool:
        """Whether an address is allowed, whatever its name."""
        return any(address in network for network in self.networks)


def parse_allowed_hosts(text: str) -> AllowedHosts:
    """Reads a JSON list of host names (`mirror.corp`, `*.corp`), addresses and networks (`10.1.0.0/16`).

    Raises:
        ValueError: Naming the entry that is none of these.
    """
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise ValueError(f"it is no JSON ({error})") from error
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise ValueError("it is no JSON list of strings")
    names, domains, networks = set[str](), list[str](), list[Network]()
    for entry in entries:
        if (network := _network(entry)) is not None:
            networks.append(network)
        elif not _NAME.fullmatch(entry.lower()) or entry.rpartition(".")[2].isdecimal():
            raise ValueError(f"{entry!r} is no host name, '*.' with a domain, address or network in CIDR form")
        elif entry.startswith("*."):
            domains.append(entry[1:].lower())
        else:
            names.add(entry.lower())
    return AllowedHosts(frozenset(names), tuple(domains), tuple(networks))


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


def proxy_hosts(environ: Mapping[str, str]) -> frozenset[str]:
    """The hosts of the proxies that the platform has set for this process."""
    proxies = [value for name, value in environ.items() if value and name.lower() in _PROXY_VARIABLES]
    hosts = (urlsplit(proxy if "://" in proxy else f"http://{proxy}").hostname for proxy in proxies)
    return frozenset(host.lower() for host in hosts if host)


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public Internet: no private, local, shared, special or multicast one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:  # how clusters with IPv6 only reach IPv4
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.sixtofour is not None and not is_public(address.sixtofour):
            return False
        return address in _GLOBAL_UNICAST and address.is_global
    return address.is_global and not address.is_multicast and not address.is_reserved


class Guard:
    """Refuses connections to addresses that are neither public nor allowed. May be used from several threads."""

    def __init__(self, allowed: AllowedHosts, proxies: frozenset[str] = frozenset()) -> None:
        """Starts with nothing looked up.

        Args:
            allowed: What may be reached besides public addresses.
            proxies: Hosts of the proxies, which may be reached too.
        """
        self._allowed = allowed
        self._proxies = proxies
        self._thread = threading.local()

    def install(self) -> None:
        """Puts the guard before every connection of this process, for good."""
        sys.addaudithook(self.audit)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Looks at an event of the interpreter.

        Raises:
            DownloadError: ForbiddenAddress, if it is a connection to where none may go.
        """
        if event == "socket.getaddrinfo":
            # Client libraries look a name up and connect to what was found, both in the same thread.
            host = arguments[0]
            self._thread.host = host.decode(errors="replace") if isinstance(host, bytes) else str(host)
        elif event == "socket.connect":
            self._check_connection(arguments[1])

    def check_target(self, host: str) -> None:
        """Looks at the host of a request that a proxy may carry out in our place.

        Raises:
            DownloadError: ForbiddenAddress, if the host is at an address where no connection may go. A name that
                cannot be resolved here is none of this cluster; whether it may be reached is the proxy's to decide.
        """
        if not self._proxies or self._allowed.has_name(host):
            return
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError:
            return
        for *_, place in found:
            self._check_address(host, str(place[0]))

    def _check_connection(self, place: object) -> None:
        if not isinstance(place, tuple):
            raise DownloadError(
                Reason.FORBIDDEN_ADDRESS, f"{place!r} is no Internet address: downloads go to no others."
            )
        text = str(place[0])
        host = getattr(self._thread, "host", text)
        if self._allowed.has_name(host) or host.lower() in self._proxies:
            return
        self._check_address(host, text)

    def _check_address(self, host: str, text: str) -> None:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            # The system would resolve the name by itself, and to what nobody would know.
            raise _forbidden(host, text) from None
        if not is_public(address) and not self._allowed.has_address(address):
            raise _forbidden(host, text)


def _forbidden(host: str, address: str) -> DownloadError:
    where = address if host == address else f"{host} is at {address}, which"
    return DownloadError(
        Reason.FORBIDDEN_ADDRESS,
        f"{where} is not a public address, and downloads go to public addresses only. If the model is to come from "
        f"there, the platform team can add {host} or {address} to download.allowedHosts, a value of the operator's "
        "Helm chart.",
    )

"""Which addresses this process may connect to: public ones that nobody denies, and those that the platform team allows.

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
_NOT_PUBLIC = "not a public address"
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")


@dataclass(frozen=True)
class Denied:
    """A network that downloads must not reach although its addresses may be public ones."""

    network: Network
    what: str
    """What an address in it is, for people: the end of a sentence."""


_ALWAYS_DENIED = (
    # On Azure this public address is a virtual one of the host: it leads every machine, whatever its network, to the
    # platform's own services, WireServer among them, which hands out the machine's configuration. See
    # https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
    Denied(ipaddress.ip_network("168.63.129.16/32"), "where Azure serves its machines"),
)


@dataclass(frozen=True)
class AllowedHosts:
    """What may be reached besides public addresses, and although it is denied."""

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
    names, domains, networks = set[str](), list[str](), list[Network]()
    for entry in _strings(text):
        if (network := _network(entry)) is not None:
            networks.append(network)
        elif not _NAME.fullmatch(entry.lower()) or entry.rpartition(".")[2].isdecimal():
            raise ValueError(f"{entry!r} is no host name, '*.' with a domain, address or network in CIDR form")
        elif entry.startswith("*."):
            domains.append(entry[1:].lower())
        else:
            names.add(entry.lower())
    return AllowedHosts(frozenset(names), tuple(domains), tuple(networks))


def parse_denied_networks(text: str) -> tuple[Denied, ...]:
    """Reads a JSON list of networks (`2001:db8::/32`).

    Raises:
        ValueError: Naming the entry that is none.
    """
    denied = []
    for entry in _strings(text):
        network = _network(entry)
        if network is None:
            raise ValueError(f"{entry!r} is no network in CIDR form")
        denied.append(Denied(network, f"in {entry}, one of download.deniedNetworks"))
    return tuple(denied)


def api_server(environ: Mapping[str, str]) -> tuple[Denied, ...]:
    """The address of the cluster's API server, which Kubernetes tells every container."""
    network = _network(environ.get("KUBERNETES_SERVICE_HOST", ""))
    return (Denied(network, "the API server of this cluster"),) if network is not None else ()


def _strings(text: str) -> list[str]:
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise ValueError(f"it is no JSON ({error})") from error
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise ValueError("it is no JSON list of strings")
    return entries


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
    inner = _carried(address)
    if inner is not None and not is_public(inner):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        is_other_form = address.ipv4_mapped is not None or address in _NAT64
        return is_other_form or (address in _GLOBAL_UNICAST and address.is_global)
    return address.is_global and not address.is_multicast and not address.is_reserved


def _carried(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address leads to: mapped, by NAT64 (how clusters with IPv6 only reach it), 6to4."""
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


class Guard:
    """Refuses connections to where none may go. May be used from several threads."""

    def __init__(
        self, allowed: AllowedHosts, proxies: frozenset[str] = frozenset(), denied: tuple[Denied, ...] = ()
    ) -> None:
        """Starts with nothing looked up.

        Args:
            allowed: What may be reached wherever it is, also where it is denied.
            proxies: Hosts of the proxies, which may be reached too.
            denied: What may not be reached although it is public, besides what is denied everywhere.
        """
        self._allowed = allowed
        self._proxies = proxies
        self._denied = (*denied, *_ALWAYS_DENIED)
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
            raise _forbidden(host, text, _NOT_PUBLIC) from None
        what = self._what(address)
        if what and not self._allowed.has_address(address):
            raise _forbidden(host, text, what)

    def _what(self, address: Address) -> str:
        """What an address is that speaks against a connection to it; empty: nothing."""
        forms = [form for form in (address, _carried(address)) if form is not None]
        for denied in self._denied:
            if any(form in denied.network for form in forms):
                return denied.what
        return "" if is_public(address) else _NOT_PUBLIC


def _forbidden(host: str, address: str, what: str) -> DownloadError:
    where = address if host == address else f"{host} is at {address}, which"
    return DownloadError(
        Reason.FORBIDDEN_ADDRESS,
        f"{where} is {what}, and downloads do not go there. If the model is to come from there, the platform team can "
        f"add {host} or {address} to download.allowedHosts, a value of the operator's Helm chart.",
    )

"""Which addresses the gateway may connect to where others say what to connect to: those of the public Internet."""

from __future__ import annotations

import ipaddress
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_PLATFORM: Final = ipaddress.IPv4Address("168.63.129.16")
"""Public by its number, and on Azure the host's own services."""


def is_public(address: Address) -> bool:
    """Whether an address, and the IPv4 address that it may carry, is one of the public Internet."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not (address.is_multicast or address.is_reserved or address == _PLATFORM)
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    carried = address.sixtofour
    return address in _UNICAST and address.is_global and (carried is None or is_public(carried))

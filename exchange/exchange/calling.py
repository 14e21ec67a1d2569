"""Addresses that are not called, whoever names them: at a route's service, or a subscriber.

A route leads to a hospital's own network on purpose, so that private addresses and loopback are
called; a subscriber is called on the open network, and inside where the operators name a network.
What is a machine's own, or nobody's, is not: link-local addresses, where clouds tell a machine its
credentials, multicast and reserved ones. A name may resolve to another address each time: what
counts is the address of the connection, before a byte is sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Network = IPv4Network | IPv6Network

_NEVER = tuple(
    ip_network(one)
    for one in (
        "0.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "100.100.100.200/32",  # what a cloud tells its machines
        "::/128",
        "fe80::/10",
        "ff00::/8",
        "fd00:ec2::254/128",
    )
)
_TRANSLATED = ip_network("64:ff9b::/96")
_ELSEWHERE = (
    _TRANSLATED,
    *(ip_network(one) for one in ("64:ff9b:1::/48", "2002::/16", "2001::/32")),
)
"""IPv6 addresses that stand for IPv4 ones elsewhere."""


def may_be_called(address: str) -> bool:
    """Whether a service at this IP address is called at all."""
    return not within(_of_ipv4(ip_address(address.partition("%")[0])), _NEVER)


def is_open(address: str) -> bool:
    """Whether this IP address is one of the open network itself."""
    told = ip_address(address)
    if isinstance(told, IPv6Address) and told.ipv4_mapped is not None:
        told = told.ipv4_mapped
    return told.is_global and not told.is_multicast and not within(told, _ELSEWHERE)


def within(address: IPv4Address | IPv6Address, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of the networks, as it is or as the IPv4 one that it maps."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    told = mapped or address
    return any(told.version == one.version and told in one for one in networks)


def _of_ipv4(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address for which one of IPv6 stands (RFC 4291, RFC 3056, RFC 6052), or itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address

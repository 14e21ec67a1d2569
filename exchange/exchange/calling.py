"""Addresses that a route's DICOMweb service is not called at, whoever names them.

A route leads to a hospital's own network on purpose, so that private addresses and loopback are
called. What is a machine's own, or nobody's, is not: link-local addresses, where clouds tell a
machine its credentials, multicast and reserved ones. A name may resolve to another address each
time: what counts is the address of the connection, before a byte is sent.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

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


def may_be_called(address: str) -> bool:
    """Whether a route's service is called at this IP address."""
    told = _of_ipv4(ip_address(address.partition("%")[0]))
    return not any(told.version == one.version and told in one for one in _NEVER)


def _of_ipv4(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address for which one of IPv6 stands (RFC 4291, RFC 3056, RFC 6052), or itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address

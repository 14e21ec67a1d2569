"""Calling subscribers: one POST to an address that somebody else has chosen, and no further.

Whoever writes a Subscription chooses where the exchange connects to. So a host is resolved once,
the connection goes to the very address that was looked at, and that address is one of the open
network, or of those networks that the operators have named; nothing is followed, and nothing is
read of an answer but its status.
"""

from __future__ import annotations

import http.client
import queue
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from exchange import calling
from exchange.calling import Network

_HEADERS = {"User-Agent": "imaging-exchange", "Accept": "*/*", "Connection": "close"}


class NotTaken(Exception):
    """The subscriber has not taken a notification; says why, without what was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """How subscribers are called."""

    plain_http: bool = False
    """Whether notifications may go unencrypted."""
    networks: Sequence[Network] = ()
    """Networks that are called though they are not part of the open network."""
    ca: Path | None = None
    """PEM certificates of a CA that is trusted instead of those of the system."""

    def post(
        self,
        url: str,
        content: bytes,
        headers: Sequence[tuple[str, str]],
        media_type: str,
        timeout: int,
    ) -> None:
        """POST a notification; `timeout` seconds are for all of it. Raises NotTaken."""
        try:
            found = urlsplit(url)
            host, port = found.hostname or "", found.port
        except ValueError:
            raise NotTaken("the address of the endpoint is none") from None
        if found.scheme != "https" and not (self.plain_http and found.scheme == "http"):
            raise NotTaken(
                "the endpoint is not called over https; EXCHANGE_HOOK_HTTP=true allows it"
            )
        secure = found.scheme == "https"
        begun = time.monotonic()
        address = self.address(host, port or (443 if secure else 80), timeout)
        target = (found.path or "/") + (f"?{found.query}" if found.query else "")
        given: dict[str, str] = {}
        for name, value in headers:
            given[name] = f"{given[name]}, {value}" if name in given else value
        sent = {**_HEADERS, **given, "Host": found.netloc, "Content-Type": media_type}
        connection = self._connection(address, host, port, secure=secure, timeout=timeout)
        # Each read has a time limit of its own, so that a trickle would never end.
        was_late = threading.Event()
        left = max(0.0, timeout - (time.monotonic() - begun))
        late = threading.Timer(left, _cut, [connection, was_late])
        late.start()
        try:
            status = _posted(connection, target, content, sent)
        finally:
            late.cancel()
            connection.close()
        if was_late.is_set():
            raise NotTaken("the endpoint does not answer in time")
        if not 200 <= status < 300:
            raise NotTaken(f"the endpoint answers HTTP {status}")

    def address(self, host: str, port: int, timeout: float = 10) -> str:
        """The address that a host is called at: each that it resolves to must be allowed, and the
        first of them is called. Raises NotTaken, also where none is known after `timeout` seconds.
        """
        resolved = _resolved(host, port, timeout)
        addresses = [str(one[4][0]).partition("%")[0] for one in resolved]
        if not addresses or not all(self.is_allowed(ip_address(one)) for one in addresses):
            raise NotTaken(
                "the host of the endpoint is at an address that is not called;"
                " EXCHANGE_HOOK_NETWORKS names private networks that are"
            )
        return addresses[0]

    def is_allowed(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether an address is called."""
        if not calling.may_be_called(str(address)):
            return False
        return calling.within(address, self.networks) or calling.is_open(str(address))

    def _connection(
        self, address: str, host: str, port: int | None, *, secure: bool, timeout: int
    ) -> HTTPConnection:
        if not secure:
            return HTTPConnection(address, port or 80, timeout=timeout)
        try:
            trusting = ssl.create_default_context(cafile=self.ca)
        except OSError:  # ssl.SSLError is one
            told = "the certificates that EXCHANGE_HOOK_CA names cannot be read"
            raise NotTaken(told) from None
        return HTTPSConnection(
            address,
            port or 443,
            timeout=timeout,
            server_hostname=host,
            assert_hostname=host,
            ssl_context=trusting,
        )


def _resolved(host: str, port: int, timeout: float) -> list[Any]:
    """What the system's resolver says of a host; it has no time limit of its own. Raises NotTaken.

    A thread that is waited for no longer ends once the resolver gives up.
    """
    answer: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError):
            answer.put(None)

    threading.Thread(target=ask, name="resolving", daemon=True).start()
    try:
        found = answer.get(timeout=timeout)
    except queue.Empty:
        raise NotTaken("the host of the endpoint is not resolved in time") from None
    if found is None:
        raise NotTaken("the host of the endpoint is not known")
    return found


def _posted(
    connection: HTTPConnection, target: str, content: bytes, headers: Mapping[str, str]
) -> int:
    try:
        connection.request("POST", target, body=content, headers=headers, preload_content=False)
        return connection.getresponse().status
    except (HTTPError, http.client.HTTPException, OSError, ValueError) as error:
        # urllib3 puts other errors around what went wrong, and its texts name the address.
        if isinstance(error.__cause__ or error, ssl.SSLCertVerificationError):
            raise NotTaken(
                "the certificate of the endpoint is not trusted, or is not the host's;"
                " EXCHANGE_HOOK_CA names the CA of private ones"
            ) from None
        raise NotTaken(f"the endpoint does not answer: {type(error).__name__}") from None


def _cut(connection: HTTPConnection, was_late: threading.Event) -> None:
    was_late.set()
    sock = connection.sock
    if sock is not None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

"""The acceptor's transport connections, a thread for each (PS3.8 section 9.1).

An `Acceptor` knows how many associations there are and how to end them; what an association is
about is known to the `handle` it is given.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from time import monotonic
from typing import Any

from exchange_dicom.association import Association
from exchange_dicom.connection import LAST_WORD
from exchange_dicom.negotiation import Conduct, Peer
from exchange_dicom.pdu import AssociateReject, AssociateRequest, RejectReason
from exchange_dicom.states import AssociationEnded, AssociationLost, AssociationStopped
from exchange_dicom.transport_security import Contexts, words

log = logging.getLogger(__name__)

REFUSALS = 64
"""Connections beyond the limit that are told so at a time; further ones are closed unheard."""

BREATH = 0.1
"""Seconds to wait when the system has no more sockets to give."""

LAST_BREATH = 1.0
"""Seconds that a handler has to discard what was staged, once its connection was broken, and that a
round under way has to end."""


@dataclass(slots=True)
class Incoming:
    """A connection being served; `association` is None until a TLS handshake has been done."""

    socket: socket.socket
    refused: bool
    """It came when there were too many, and will be told so."""
    broken: bool = False
    association: Association | None = None

    @property
    def silent(self) -> bool:
        """Whether it keeps the place of an association, and is none: nobody relies on it."""
        established = self.association is not None and self.association.request is not None
        return not (self.refused or self.broken or established)

    @property
    def ended(self) -> bool:
        """Whether its association is over, and its thread about to be."""
        return self.association is not None and self.association.ended

    def break_off(self) -> None:
        """From another thread: its own thread sees it closed."""
        self.broken = True
        if self.association is not None:
            self.association.kill()
        else:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


class Acceptor:
    """Listens on `addresses`: hosts (IPv4, IPv6 or a name) and ports, 0 for any free one.

    Each accepted connection gets a thread that runs `handle(association)`, which is to call
    `negotiate` first, and closes the association after it, whatever happens. From
    `maximum_associations` on, the connection that has been silent for longest makes way for a new
    one; where each has its association, the peer is rejected as transient, local limit exceeded,
    once its request is read. With `share_port`, several processes can listen on one port
    (SO_REUSEPORT). `refused` is told who could not agree with us on TLS, and why; who only connects
    and closes, as a probe does, has not tried. `rounds` is called every `round_seconds`, by one
    thread, for what is to be seen to while associations are idle. Sockets are bound by the
    constructor, which raises OSError if one cannot be.
    """

    def __init__(
        self,
        addresses: Sequence[tuple[str, int]],
        handle: Callable[[Association], None],
        *,
        conduct: Conduct | None = None,
        tls: Contexts | None = None,
        maximum_associations: int = 200,
        backlog: int = 1024,
        share_port: bool = False,
        refused: Callable[[Peer, str], None] | None = None,
        rounds: Callable[[], None] | None = None,
        round_seconds: float = 2.0,
    ) -> None:
        self._handle = handle
        self._refused = refused
        self._rounds = rounds
        self._round_seconds = round_seconds
        self._over = threading.Event()
        self._conduct = conduct or Conduct()
        self._tls = tls
        self._maximum = maximum_associations
        self._lock = threading.Lock()
        self._threads: dict[threading.Thread, Incoming] = {}
        self._stopping = False
        self._waker, self._wake = socket.socketpair()
        self._listeners: list[socket.socket] = []
        try:
            for host, port in addresses:
                self._listeners.append(_listen(host, port, backlog, share_port))
        except BaseException:
            self._close_listeners()
            self._waker.close()
            self._wake.close()
            raise

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Hosts and ports that are listened on, as bound."""
        return tuple(listener.getsockname()[:2] for listener in self._listeners)

    @property
    def associations(self) -> int:
        """Connections being served now, those being rejected included."""
        return len(self._threads)

    def serve_forever(self) -> None:
        """Accept connections until `stop` is called from another thread."""
        going = threading.Thread(target=self._go_round, name="rounds", daemon=True)
        if self._rounds is not None:
            going.start()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            for listener in self._listeners:
                selector.register(listener, selectors.EVENT_READ, listener)
            while not self._stopping:
                for key, _ in selector.select():
                    if key.data is not None:
                        self._accept(key.data)
        self._close_listeners()
        self._wake.close()
        if self._rounds is not None:
            going.join(LAST_BREATH)

    def stop(self, grace_seconds: float) -> None:
        """Accept no more; let operations under way end, at most for `grace_seconds`; then break
        what is left and return. Associations between two messages are aborted at once."""
        with self._lock:
            self._stopping = True
            running = dict(self._threads)
        self._over.set()
        self._waker.close()
        deadline = monotonic() + grace_seconds
        for one in running.values():
            if one.association is not None:
                one.association.finish()
            else:
                one.break_off()
        for thread in running:
            thread.join(max(0.0, deadline - monotonic()))
        with self._lock:
            left = dict(self._threads)
        for one in left.values():
            one.break_off()
        for thread in left:
            thread.join(LAST_BREATH)
        if left:
            log.warning("stopped with %d associations in the middle of an operation", len(left))

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()

    def _go_round(self) -> None:
        rounds = self._rounds
        while rounds is not None and not self._over.wait(self._round_seconds):
            try:
                rounds()
            except Exception:
                log.exception("the round of the associations failed")

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, address = listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # gone before we came to it, or taken by another process
        except OSError as error:
            log.error("cannot accept a connection: %s", error.strerror)
            threading.Event().wait(BREATH)
            return
        with self._lock:
            if self._stopping or len(self._threads) >= self._maximum + REFUSALS:
                connection.close()
                return
            served = Incoming(connection, refused=not self._has_room())
            thread = threading.Thread(
                target=self._serve,
                args=(served, address, self._reject if served.refused else self._handle),
                name=f"association {address}",
                daemon=True,
            )
            try:
                thread.start()
            except RuntimeError:
                log.error("cannot start a thread for another association")
                connection.close()
                return
            self._threads[thread] = served

    def _has_room(self) -> bool:
        """Whether there is a place for another association, or one is made: who trickles its
        request, or sends none, cannot keep out those who call in earnest. The eldest is the
        likeliest of them."""
        if len(self._threads) < self._maximum:
            return True
        if sum(not one.ended for one in self._threads.values()) < self._maximum:
            return True
        eldest = next((one for one in self._threads.values() if one.silent), None)
        if eldest is not None:
            eldest.break_off()
        return eldest is not None

    def _serve(
        self,
        served: Incoming,
        address: Any,
        handle: Callable[[Association], None],
    ) -> None:
        association: Association | None = None
        peer: Peer | str = self._caller(address)
        try:
            association = self._introduced(served, address)
            peer = association.peer
            with self._lock:
                served.association = association
                stopping = self._stopping
            if stopping:
                association.finish()
            handle(association)
        except AssociationLost as error:
            # Before a request it is a port probe, as load balancers send them every few seconds.
            level = logging.DEBUG if association and association.request is None else logging.INFO
            log.log(level, "association from %s: %s", peer, error)
        except AssociationEnded as error:
            # That we shut down is no fault of the peer's.
            level = logging.INFO if isinstance(error, AssociationStopped) else logging.WARNING
            log.log(level, "association from %s ended: %s", peer, error)
        except OSError as error:
            # Who hangs up before the TLS handshake is a port probe too. Python 3.11.2 as Debian has
            # it says of one that was reset that it has closed properly.
            hung_up = error.errno == errno.ENOTCONN or isinstance(
                error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionError
            )
            level = logging.DEBUG if hung_up else logging.INFO
            log.log(level, "connection from %s: %s", peer, words(error))
        except Exception:
            log.exception("association from %s: its handler failed", peer)
        finally:
            if association is not None:
                association.close()
            served.socket.close()
            with self._lock:
                del self._threads[threading.current_thread()]

    def _caller(self, address: Any) -> Peer | str:
        """What is known of who calls, before it has said anything."""
        return _peer(address)

    def _introduced(self, served: Incoming, address: Any) -> Association:
        """What is to be an association, on a connection that was accepted. Raises OSError."""
        peer = _peer(address)
        if self._tls is not None:
            context = self._tls()
            served.socket.getpeername()  # wrap_socket would lose sight of one that was reset
            with self._lock:
                served.socket = secured = context.wrap_socket(
                    served.socket, server_side=True, do_handshake_on_connect=False
                )
            # For the handshake this is one deadline, not a timeout for each of its reads.
            secured.settimeout(self._conduct.artim_timeout)
            self._shake_hands(secured, peer)
            peer = _peer(address, secured.getpeercert(binary_form=True))
        return Association(served.socket, peer, self._conduct)

    @staticmethod
    def _reject(association: Association) -> None:
        """Say that there are too many, to one that was accepted for that alone."""

        def decide(_request: AssociateRequest, _peer: Peer) -> AssociateReject:
            return AssociateReject(RejectReason.LOCAL_LIMIT_EXCEEDED, transient=True)

        with contextlib.suppress(AssociationEnded):
            association.negotiate(decide)

    def _shake_hands(self, connection: ssl.SSLSocket, peer: Peer) -> None:
        try:
            connection.do_handshake()
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            raise
        except ssl.SSLError as error:
            if self._refused is not None:
                self._refused(peer, f"TLS: {words(error)}")
            _let_hear(connection)
            raise


def _let_hear(connection: ssl.SSLSocket) -> None:
    """Let the peer read why its handshake failed: a socket that is closed over unread bytes is
    reset, which overtakes the alert. For a second at most."""
    until = monotonic() + LAST_WORD
    with contextlib.suppress(OSError, ValueError):
        connection.settimeout(LAST_WORD)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 14) and monotonic() < until:
            pass


def _listen(host: str, port: int, backlog: int, share_port: bool) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # So that "::" and "0.0.0.0" can stand side by side, each bound by its own line.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(backlog)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _peer(address: tuple[str, int], certificate: bytes | None = None) -> Peer:
    host = ip_address(address[0])
    if isinstance(host, IPv6Address) and host.ipv4_mapped is not None:
        host = host.ipv4_mapped
    return Peer(host, address[1], certificate)

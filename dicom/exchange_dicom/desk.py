"""The desk: a process beside the node that answers those who only ask, while the node receives.

Of one process one thread runs Python at a time, so that a question would wait for the images that
arrive. So the node hands an association in which things are asked over to the desk: the socket and
what was agreed on, through a Unix-domain socket (unix(7), SCM_RIGHTS), once its first message has
come. It stays counted at the node until the desk has ended it. Where there is no desk, or it cannot
take one more, the node answers by itself; so it does over TLS, whose session is in its process.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import pickle
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from exchange.admission import Admission
from exchange.policy import Requester
from exchange_dicom.association import Association
from exchange_dicom.listener import Acceptor, Incoming
from exchange_dicom.negotiation import Accepted, Conduct, Peer
from exchange_dicom.pdu import AssociateRequest

log = logging.getLogger(__name__)

MOMENT = 1.0
"""Seconds within which the desk takes an association, or the node keeps it."""

AGAIN = 30.0
"""Seconds for which a desk that took longer is asked no more."""

_NAME = "desk"
"""The socket's, in its directory."""
_TAKEN = b"+"
_LENGTH = struct.Struct("!I")
_CREDENTIALS = struct.Struct("3i")
"""Of who connects: process, user and group (unix(7), SO_PEERCRED)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """What the node knows of an association that it hands over."""

    peer: Peer
    request: AssociateRequest
    accepted: Accepted
    requester: Requester
    admission: Admission
    revision: int
    """Of the registry, when the requester was looked up there."""


class WayToDesk:
    """The node's way to the desk whose socket is in `directory`. Safe for many threads."""

    def __init__(self, directory: Path, clock: Callable[[], float] = monotonic) -> None:
        self._directory = directory
        self._clock = clock
        self._not_before = -math.inf

    def hand_over(self, association: Association, handed: Handed) -> bool:
        """Have the desk take an association of which nothing is read ahead, and wait until it has
        ended. False, soon, where no desk takes it."""
        if self._clock() < self._not_before:
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            if not self._taken(channel, association, handed):
                return False
            association.give_away(channel)
        return True

    def _taken(self, channel: socket.socket, association: Association, handed: Handed) -> bool:
        channel.settimeout(MOMENT)
        try:
            with address(self._directory) as desk:
                channel.connect(desk)
            content = pickle.dumps(handed)
            socket.send_fds(channel, [_LENGTH.pack(len(content))], [association.fileno()])
            channel.sendall(content)
            try:
                return channel.recv(1) == _TAKEN
            except TimeoutError:
                channel.shutdown(socket.SHUT_RD)  # what it has said before that counts
                if channel.recv(1) == _TAKEN:
                    return True
                raise
        except TimeoutError:
            self._not_before = self._clock() + AGAIN
            log.warning("the desk takes no association within %s s: the node answers", MOMENT)
        except (FileNotFoundError, ConnectionError):
            pass  # it is not there, or has just ended
        except OSError as error:
            log.warning("the desk takes no association: %s", error.strerror)
        return False


class Desk(Acceptor):
    """Takes associations that a node has negotiated, at a socket in `directory`.

    It is an `Acceptor` in all else. Where it has `maximum_associations` it takes no more, and the
    node answers.
    """

    def __init__(
        self,
        directory: Path,
        handle: Callable[[Association, Handed], None],
        *,
        conduct: Conduct | None = None,
        maximum_associations: int = 200,
        rounds: Callable[[], None] | None = None,
        round_seconds: float = 2.0,
    ) -> None:
        """Listen there. Raises OSError, of EADDRINUSE where another desk does."""
        listener = _listening(directory)
        super().__init__(
            (),
            lambda association: handle(association, self._handed.pop(association)),
            conduct=conduct,
            maximum_associations=maximum_associations,
            rounds=rounds,
            round_seconds=round_seconds,
        )
        self._handed: dict[Association, Handed] = {}
        self._listeners.append(listener)

    def _caller(self, address: Any) -> str:  # noqa: ARG002 - a socket's name, which is empty
        return "a node"

    def _introduced(self, served: Incoming, address: Any) -> Association:  # noqa: ARG002
        channel = served.socket
        channel.settimeout(MOMENT)
        head, descriptors, _, _ = socket.recv_fds(channel, _LENGTH.size, 1)
        connections = [socket.socket(fileno=one) for one in descriptors]
        try:
            if served.refused or not connections:
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            _, user, _ = _CREDENTIALS.unpack(
                channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )
            if user != os.geteuid():
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            content = _exactly(channel, _LENGTH.unpack(head)[0])
            handed: Handed = pickle.loads(content)  # noqa: S301 - of a process of our own user
            association = Association(connections[0], handed.peer, self._conduct)
            association.go_on(handed.request, handed.accepted)
            channel.sendall(_TAKEN)  # or the node has given it up, and goes on itself
        except BaseException:
            for one in connections:
                one.close()
            raise
        self._handed[association] = handed
        return association


def _listening(directory: Path) -> socket.socket:
    """A listening socket in `directory`. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with address(directory) as place:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
                try:
                    other.connect(place)
                except FileNotFoundError:
                    pass
                except ConnectionRefusedError:  # of one that was killed
                    Path(place).unlink()
                else:
                    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            listener.bind(place)
            Path(place).chmod(0o600)
        listener.listen(1024)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


@contextmanager
def address(directory: Path) -> Iterator[str]:
    """The socket's, however long the path of its directory: an address has at most 107 bytes."""
    place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{place}/{_NAME}"
    finally:
        os.close(place)


def _exactly(channel: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        piece = channel.recv(count - len(content))
        if not piece:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        content += piece
    return content

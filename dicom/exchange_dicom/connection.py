"""The transport connection under an association: deadlines, one buffer, A-ABORT, the end (PS3.8 9).

One thread owns it and blocks in the kernel: no reactor, no polling. What arrives lies in one buffer
of about the size of a PDU, and is handed out as views of it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import NoReturn, TypeVar

from exchange_dicom.negotiation import Conduct
from exchange_dicom.pdu import Abort, AbortReason, AbortSource, PDUType
from exchange_dicom.rate import Rate
from exchange_dicom.states import (
    AssociationEnded,
    AssociationLost,
    AssociationStopped,
    Event,
    ProtocolViolation,
    State,
    TimedOut,
)
from exchange_dicom.transport_security import words

T = TypeVar("T")

TOLERANCE = 1024
"""Bytes a peer may send beyond our maximum length: some count the PDU header, some the PDVs'."""

LAST_WORD = 1.0
"""Seconds we give the peer to take an A-ABORT, and to close once we are shutting down."""

ABORT_LENGTH = 4
"""Bytes of the variable field of A-ABORT and A-RELEASE; no PDU has fewer."""


RECEIVABLE: Mapping[int, Event] = {kind: Event[kind.name] for kind in PDUType}


class Connection:
    """A connection and the state of its association.

    Not thread-safe, but for `idle`, `finish`, `dismiss` and `kill`.
    """

    def __init__(self, connection: socket.socket, conduct: Conduct) -> None:
        self._socket = connection
        self._tls = isinstance(connection, ssl.SSLSocket)
        self._conduct = conduct
        self._state = State.STA2
        # One PDU at its longest, and the header of the one after it.
        self._buffer = bytearray(conduct.maximum_length + TOLERANCE + 64)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._deadline = 0.0
        self._timeout = -1.0
        self._shortest = min(conduct.network_timeout, conduct.pdu_timeout)
        self._rate = Rate(conduct.minimum_rate)
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._lock = threading.Lock()
        self._idle = False
        self._finishing = False
        self._dismissed: AssociationEnded | None = None
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if not self._tls:
            # Blocking, with timeouts kept by the kernel: MSG_WAITALL needs it, and it saves Python
            # a poll before every read.
            connection.settimeout(None)

    @property
    def established(self) -> bool:
        """Whether messages can still be exchanged."""
        return self._state is State.STA6

    @property
    def secured(self) -> bool:
        """Whether it is one of TLS, whose session lives in this process."""
        return self._tls

    @property
    def ended(self) -> bool:
        """Whether the association is over, from before the peer can know: all that is left to do is
        to close the connection."""
        return self._state in (State.STA8, State.STA13)

    @property
    def idle(self) -> bool:
        """Whether its owner waits for the peer to say something, and nothing is under way."""
        return self._idle

    def abort(
        self,
        source: AbortSource = AbortSource.SERVICE_USER,
        reason: AbortReason = AbortReason.NOT_SPECIFIED,
    ) -> None:
        """Send A-ABORT, if the association has not ended already (PS3.8 7.3, 7.4). Never raises."""
        if self._state is State.STA13:
            return
        self._state = State.STA13
        with contextlib.suppress(OSError):
            # A peer that reads nothing shall not hold us up, now that we have nothing to say.
            self._within(min(LAST_WORD, self._conduct.artim_timeout))
            self._socket.sendall(Abort(source, reason).encode())

    def close(self) -> None:
        """End the association, if need be by A-ABORT, and close the connection. Never raises.

        Waits, up to `artim_timeout`, for the peer to close first: a socket closed over unread bytes
        is reset, and a reset overtakes the rejection or abort that the peer should have read. Not
        so long, where it was silent when it should have spoken, or nobody has time.
        """
        self.abort()
        with contextlib.suppress(OSError, ValueError):
            artim = self._conduct.artim_timeout
            self._within(min(LAST_WORD, artim) if self._finishing else artim)
            if isinstance(self._socket, ssl.SSLSocket):
                self._socket = self._socket.unwrap()
            self._socket.shutdown(socket.SHUT_WR)
            while self._socket.recv_into(self._view) and monotonic() < self._deadline:
                pass
        self._socket.close()

    def finish(self) -> None:
        """From another thread: let the operation under way end, then abort instead of waiting for
        the next."""
        with self._lock:
            self._finishing = True
            if self._idle:
                self._shutdown(socket.SHUT_RD)

    def dismiss(self, ended: AssociationEnded) -> None:
        """From another thread: as `finish`, but the peer is aborted by the service-provider, and
        the owner sees `ended`."""
        self._dismissed = ended
        self.finish()

    def kill(self) -> None:
        """From another thread: break the connection now; the owner sees AssociationLost."""
        self._shutdown(socket.SHUT_RDWR)

    def _shutdown(self, how: int) -> None:
        with contextlib.suppress(OSError):
            # Not SSLSocket.shutdown, which takes the TLS session from under its owner's feet.
            socket.socket.shutdown(self._socket, how)

    def fileno(self) -> int:
        """The descriptor of the connection."""
        return self._socket.fileno()

    def give_away(self, channel: socket.socket) -> None:
        """Wait until another process, which has the connection now, closes `channel`: nothing more
        is said here. `finish` and `kill` end the waiting."""
        own = self._socket
        with self._lock:
            self._socket = channel
            self._idle = waits = not self._finishing
        own.close()
        if waits:
            channel.settimeout(None)
            with contextlib.suppress(OSError):
                channel.recv(1)
        self._state = State.STA13

    def _peek_when_idle(self) -> int:
        """The next byte, which is read once more, at the point where `finish` may interrupt it."""

        def peek() -> int:
            if self._start == self._end:
                self._refill(1, 1, flags=socket.MSG_PEEK)
                self._start = self._end = 0
            return self._buffer[self._start]

        return self._while_idle(peek)

    def _take_when_idle(self, count: int) -> bytes:
        """`_take`, at the one point where `finish` may interrupt it."""
        return self._while_idle(lambda: self._take(count))

    def _while_idle(self, take: Callable[[], T]) -> T:
        state, taken = self._state, None
        with self._lock:
            self._idle = waits = not self._finishing
        if waits:
            try:
                taken = take()
            except AssociationLost:
                if not self._finishing:
                    raise
                self._state = state  # only our reading was shut: the peer can still be told
            finally:
                with self._lock:
                    self._idle = False
        if taken is None or self._finishing:
            if self._dismissed is not None:
                self.abort(AbortSource.SERVICE_PROVIDER)
                raise self._dismissed
            self.abort()
            raise AssociationStopped("stopped between two messages")
        return taken

    def _take(self, count: int) -> bytes:
        """The next `count` bytes."""
        start = self._start
        if self._end - start >= count:
            self._start = start + count
            return bytes(self._view[start : self._start])
        taken = bytearray()
        while len(taken) < count:
            if self._start == self._end:
                self._refill(1, len(self._buffer))
            stop = min(self._end, self._start + count - len(taken))
            taken += self._view[self._start : stop]
            self._start = stop
        return bytes(taken)

    def _have(self, count: int) -> None:
        """Have the next `count` bytes in the buffer, in one piece."""
        kept = self._end - self._start
        if kept < count:
            self._view[:kept] = bytes(self._view[self._start : self._end])
            self._refill(count, len(self._buffer), kept)

    def _refill(self, least: int, most: int, kept: int = 0, flags: int = 0) -> None:
        """Fill the buffer, of which the first `kept` bytes are to stay, with `least` to `most`
        bytes before the deadline.

        Looked at before each call, for the timeout of the socket begins anew with every byte.
        """
        view, received = self._view, kept
        if least == most and not self._tls:
            flags |= socket.MSG_WAITALL
        self._start = self._end = 0
        while received < least:
            now = monotonic()
            left = self._deadline - now
            if left <= 0:
                if self._state is State.STA2:  # AA-2: who is no peer yet is told nothing
                    self._state = State.STA13
                self._finishing = True  # who says nothing is not waited for as long once more
                self.abort(AbortSource.SERVICE_PROVIDER)
                raise TimedOut("the peer took too long")
            if left < self._timeout / 2:
                self._limit_calls(left)
            try:
                # Acknowledge at once what came so far: peers that leave Nagle's algorithm on, as
                # DCMTK does, hold their next write back until then, 40 ms each time otherwise.
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                count = self._socket.recv_into(view[received:most], 0, flags)
            except (BlockingIOError, TimeoutError):
                continue
            except OSError as error:
                self._lost(error)
            if not count:
                self._lost(None)
            received += count
            if not self._rate.suffices(count, monotonic() - now):
                self.abort(AbortSource.SERVICE_PROVIDER)
                raise TimedOut("the peer sends less of a message in a minute than it must")
        self._end = received

    def _transmit(self, pdus: bytes) -> None:
        self._within(self._conduct.pdu_timeout)
        if self._timeout < self._conduct.pdu_timeout:  # what is sent early is not sent again
            self._limit_calls(self._conduct.pdu_timeout)
        try:
            self._socket.sendall(pdus)
        except (BlockingIOError, TimeoutError):
            self.abort(AbortSource.SERVICE_PROVIDER)
            raise TimedOut("the peer does not read") from None
        except OSError as error:
            self._lost(error)

    def _readable(self, seconds: float = 0.0) -> bool:
        if self._start < self._end:
            return True
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0:
            return True
        return bool(self._poll.poll(seconds * 1000))

    def _within(self, seconds: float) -> None:
        """Start a deadline, `seconds` from now, for what is read or written next."""
        self._deadline = monotonic() + seconds
        # A call that returns early is made again: no reason to tell the kernel with each message.
        if not min(seconds, self._shortest) <= self._timeout <= seconds:
            self._limit_calls(seconds)

    def _limit_calls(self, seconds: float) -> None:
        """Have a call to the socket return after `seconds` at most."""
        self._timeout = seconds
        if self._tls:
            self._socket.settimeout(seconds)
            return
        whole = int(seconds)
        timeval = struct.pack("ll", whole, max(int((seconds - whole) * 1_000_000), not whole))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)

    def _violated(self, reason: AbortReason, what: str) -> NoReturn:
        """AA-8."""
        self.abort(AbortSource.SERVICE_PROVIDER, reason)
        raise ProtocolViolation(what)

    def _lost(self, error: OSError | None) -> NoReturn:
        self._state = State.STA13
        if error is None or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            cause = "closed by the peer"
        elif isinstance(error, ssl.SSLError):  # with TLS 1.3 the peer judges us after the handshake
            cause = words(error)
        else:
            cause = error.strerror or type(error).__name__
        raise AssociationLost(f"connection lost: {cause}") from None

"""An established association, and the acceptor's way to one (PS3.8 7 and 9.2, PS3.7 annex D).

One thread owns an association and blocks in the kernel: no reactor, no polling, no queue between
the socket and who handles the message. A data set is never assembled here. It is handed out piece
by piece, as views into one buffer of about the size of a PDU, whatever the size of the object.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from time import monotonic
from typing import NoReturn

from exchange_dicom.dimse import (
    COMMAND_SET_LENGTH,
    Command,
    CommandField,
    MalformedCommand,
)
from exchange_dicom.negotiation import Accepted, Conduct, Context, Decide, Peer
from exchange_dicom.pdu import (
    APPLICATION_CONTEXT,
    ASSOCIATE_LENGTH,
    COMMAND,
    LAST,
    PDU_HEADER,
    PDV_HEADER,
    PDV_OVERHEAD,
    PROTOCOL_VERSION,
    RELEASE_RP,
    Abort,
    AbortReason,
    AbortSource,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    ContextResult,
    MalformedPDU,
    PDUType,
    RejectReason,
    UpperLayerError,
    UserInformation,
    p_data_header,
)
from exchange_dicom.rate import Rate
from exchange_dicom.states import (
    TRANSITIONS,
    Action,
    AssociationAborted,
    AssociationLost,
    AssociationStopped,
    Event,
    ProtocolViolation,
    State,
    TimedOut,
)
from exchange_dicom.transport_security import words

TOLERANCE = 1024
"""Bytes a peer may send beyond our maximum length: some count the PDU header, some the PDVs'."""

LONGEST_SENT = 1 << 18
"""Bytes of the longest P-DATA-TF we send, also to peers that set no limit."""

BATCH = 1 << 19
"""Bytes gathered before they are handed to the kernel in one call."""

LAST_WORD = 1.0
"""Seconds we give the peer to take an A-ABORT, and to close once we are shutting down."""

ABORT_LENGTH = 4
"""Bytes of the variable field of A-ABORT and A-RELEASE; no PDU has fewer."""


class TooLarge(UpperLayerError):
    """A data set that should be small, such as an identifier, is not. The association goes on."""


_RECEIVABLE: Mapping[int, Event] = {kind: Event[kind.name] for kind in PDUType}


class DataStream:
    """The data set of a message while it arrives.

    It can be read once, in pieces or whole. What a handler leaves unread is read past before the
    next message. Both ways of reading raise AssociationEnded if the data set does not arrive to its
    end; only a stream that ran out by itself was complete.
    """

    __slots__ = ("_association", "_context_id", "_last", "_left", "_passed_over", "complete")

    def __init__(self, association: Association, context_id: int) -> None:
        self._association = association
        self._context_id = context_id
        self._left = 0
        self._last = False
        self._passed_over = False
        self.complete = False

    def pieces(self) -> Iterator[memoryview]:
        """The bytes of the data set, in order. A piece is valid until the next one is asked for."""
        while (piece := self._next()) is not None:
            yield piece

    def read(self, limit: int) -> bytes:
        """The bytes of the whole data set, at most `limit`. Raises TooLarge."""
        data = bytearray()
        while (piece := self._next()) is not None:
            data += piece
            if len(data) > limit:
                raise TooLarge(f"a data set of more than {limit} bytes where a small one belongs")
        return bytes(data)

    def _pass_over(self) -> None:
        self._passed_over = not self.complete
        while self._receive() is not None:
            pass

    def _next(self) -> memoryview | None:
        if self._passed_over:
            raise RuntimeError("the association has gone on: the rest of this data set is lost")
        return self._receive()

    def _receive(self) -> memoryview | None:
        association = self._association
        while not self._left:
            if self._last:
                self.complete = True
                return None
            length, context_id, control = association._next_value(_Awaiting.REST)
            if context_id != self._context_id or control & COMMAND:
                association._violated(
                    AbortReason.UNEXPECTED_PDU_PARAMETER,
                    "a data set interrupted by another message",
                )
            self._left, self._last = length, bool(control & LAST)
        piece = association._next_piece(self._left, self._last)
        self._left -= len(piece)
        return piece


@dataclass(frozen=True, slots=True)
class Message:
    """One DIMSE message; `data` is None where the command says that no data set follows."""

    context: Context
    command: Command
    data: DataStream | None


class _Awaiting(Enum):
    """What the next P-DATA-TF would be, which says how long to wait and what else may come."""

    MESSAGE = "a new operation"
    ANSWER = "a message within an operation of ours or the peer's"
    REST = "the rest of a message"


class _Released(Exception):
    """The peer asked to release the association, and has been answered."""


class Association:
    """A connection. Not thread-safe, but for `finish` and `kill`.

    An acceptor calls `negotiate` first, a requestor `requestor.connect`; then `messages` or
    `next_message`, and `send` for the answers.
    """

    def __init__(self, connection: socket.socket, peer: Peer, conduct: Conduct) -> None:
        self.peer = peer
        self.request: AssociateRequest | None = None
        self.accepted: Accepted | None = None
        self.contexts: dict[int, Context] = {}
        self._socket = connection
        self._tls = isinstance(connection, ssl.SSLSocket)
        self._conduct = conduct
        self._state = State.STA2
        self._fragment = 0
        # One PDU at its longest, and the header of the one after it.
        self._buffer = bytearray(conduct.maximum_length + TOLERANCE + 64)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._pdu_left = 0
        self._deadline = 0.0
        self._timeout = -1.0
        self._shortest = min(conduct.network_timeout, conduct.pdu_timeout)
        self._rate = Rate(conduct.minimum_rate)
        self._stream: DataStream | None = None
        self._waiting: deque[Message] = deque()
        self._cancelled: set[int] = set()
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._lock = threading.Lock()
        self._idle = False
        self._finishing = False
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
    def ended(self) -> bool:
        """Whether the association is over, from before the peer can know: all that is left to do is
        to close the connection."""
        return self._state in (State.STA8, State.STA13)

    def negotiate(self, decide: Decide) -> bool:
        """Read the A-ASSOCIATE-RQ, have `decide` answer it, send the answer (PS3.8 7.1).

        A wrong protocol version or application context is rejected without asking. Returns whether
        the association is established. Raises AssociationEnded if no request came in time, or bytes
        that are not one.
        """
        request = self._read_request()
        self._state = State.STA3
        decision: Accepted | AssociateReject
        if not request.protocol_version & PROTOCOL_VERSION:
            decision = AssociateReject(RejectReason.PROTOCOL_VERSION_NOT_SUPPORTED)
        elif request.application_context != APPLICATION_CONTEXT:
            decision = AssociateReject(RejectReason.APPLICATION_CONTEXT_NAME_NOT_SUPPORTED)
        else:
            decision = decide(request, self.peer)
        if isinstance(decision, AssociateReject):
            self._transmit(decision.encode())
            self._state = State.STA13
            return False
        self.request, self.accepted = request, decision
        proposed = {context.context_id: context for context in request.contexts}
        self.contexts = {
            a.context_id: Context(
                a.context_id, proposed[a.context_id].abstract_syntax, a.transfer_syntax
            )
            for a in decision.contexts
            if a.result is ContextResult.ACCEPTANCE
        }
        self._limit_fragments(request.user.maximum_length)
        conduct = self._conduct
        user = UserInformation(
            maximum_length=conduct.maximum_length,
            implementation_class_uid=conduct.implementation_class_uid,
            implementation_version=conduct.implementation_version,
            roles=decision.roles,
            extended=decision.extended,
            identity_response=decision.identity_response,
        )
        answer = AssociateAccept(echoed=request.echoed, contexts=decision.contexts, user=user)
        self._transmit(answer.encode())
        self._state = State.STA6
        return True

    def messages(self) -> Iterator[Message]:
        """The peer's messages, until it releases the association. Raises as `next_message`."""
        while (message := self.next_message()) is not None:
            yield message

    def next_message(self) -> Message | None:
        """The next message, or None when the peer has released the association.

        Raises AssociationEnded when the association ends in any other way. A C-CANCEL-RQ is not a
        message of its own: `cancelled` tells of it.
        """
        self._finish_stream()
        while not self._waiting:
            try:
                self._receive(_Awaiting.MESSAGE)
            except _Released:
                return None
        return self._handed_out(self._waiting.popleft())

    def next_response(self, message_id: int) -> Message:
        """The response to the request that we sent with `message_id` (sub-operations of a C-GET).

        Raises AssociationEnded; a peer that sends another request meanwhile is in the wrong, since
        no asynchronous operations are negotiated (PS3.7 D.3.3.3).
        """
        self._finish_stream()
        while not self._waiting:
            self._receive_within_operation()
        message = self._waiting.popleft()
        command = message.command
        if not command.command_field.is_response or command.message_id != message_id:
            self._violated(AbortReason.NOT_SPECIFIED, "not the response that was due")
        return self._handed_out(message)

    def cancelled(self, message_id: int) -> bool:
        """Whether a C-CANCEL-RQ for this operation has arrived; does not wait for one.

        Another message that arrived is kept for `next_message`. Raises AssociationEnded.
        """
        self._finish_stream()
        # A request before its time is kept, though no asynchronous operations are negotiated
        # (PS3.7 D.3.3.3), but no more than one: what lies behind it stays unread.
        while not self._waiting and self._readable():
            self._receive_within_operation()
        return message_id in self._cancelled

    def silent(self, seconds: float) -> bool:
        """Whether the peer says nothing for so long, and nobody wants this to end meanwhile.

        Raises AssociationEnded.
        """
        self._finish_stream()
        heard = self._waiting or self._pdu_left or self._readable(seconds)
        return not heard and not self._finishing

    def send(
        self,
        context_id: int,
        command: bytes,
        data: bytes | Iterable[bytes | memoryview] | None = None,
    ) -> None:
        """Send one message, cut to the peer's maximum length; small ones leave in one packet.

        `data` may be produced while it is sent. If producing it fails, the association is aborted,
        since half a message cannot be taken back, and the error passed on. Raises AssociationEnded.
        """
        if self._state is not State.STA6:
            raise AssociationLost("the association has ended")
        batch: list[bytes | memoryview] = []
        size = 0
        try:
            for part in self._fragments(context_id, command, data):
                batch.append(part)
                size += len(part)
                if size >= BATCH:
                    self._transmit(b"".join(batch))
                    batch.clear()
                    size = 0
        except BaseException:
            self.abort()
            raise
        self._transmit(b"".join(batch))

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
        is reset, and a reset overtakes the rejection or abort that the peer should have read.
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

    def kill(self) -> None:
        """From another thread: break the connection now; the owner sees AssociationLost."""
        self._shutdown(socket.SHUT_RDWR)

    def _shutdown(self, how: int) -> None:
        with contextlib.suppress(OSError):
            # Not SSLSocket.shutdown, which takes the TLS session from under its owner's feet.
            socket.socket.shutdown(self._socket, how)

    def _limit_fragments(self, maximum_length: int) -> None:
        """Send fragments that fit the peer's maximum length, 0 for none."""
        longest = min(maximum_length or LONGEST_SENT, LONGEST_SENT)
        # An even length, so that no fragment ends inside a 16-bit word.
        self._fragment = (longest - PDV_OVERHEAD) & ~1

    def _read_request(self) -> AssociateRequest:
        self._within(self._conduct.artim_timeout)
        kind, length = PDU_HEADER.unpack(self._take_when_idle(PDU_HEADER.size))
        event = _RECEIVABLE.get(kind, Event.INVALID_PDU)
        match TRANSITIONS[State.STA2, event]:
            case Action.AE_6 if length <= ASSOCIATE_LENGTH:
                try:
                    return AssociateRequest.decode(self._take(length))
                except MalformedPDU as error:
                    what = str(error)
            case Action.AE_6:
                what = "an A-ASSOCIATE-RQ too long to be one"
            case Action.AA_2:
                self._state = State.STA13
                raise AssociationAborted("aborted before it was requested")
            case _:
                what = f"{event.name} where A-ASSOCIATE-RQ was due"
        # AA-1: before there is an association, the abort is the service-user's.
        self.abort(AbortSource.SERVICE_USER)
        raise ProtocolViolation(what)

    def _handed_out(self, message: Message) -> Message:
        if not message.command.command_field.is_response:
            # A cancel that came too late for an earlier operation of this number is void.
            self._cancelled.discard(message.command.message_id)
        self._stream = message.data
        return message

    def _finish_stream(self) -> None:
        if (stream := self._stream) is not None:
            self._stream = None
            if self._state is not State.STA6:
                raise AssociationLost("the association has ended")
            stream._pass_over()

    def _receive_within_operation(self) -> None:
        try:
            self._receive(_Awaiting.ANSWER)
        except _Released:
            raise AssociationLost("released in the middle of an operation") from None

    def _receive(self, awaiting: _Awaiting) -> None:
        """Read one command set; note it if it is a C-CANCEL-RQ, else queue its message."""
        command_set = bytearray()
        length, context_id, control = self._next_value(awaiting)
        context = self.contexts.get(context_id)
        if context is None:
            self._violated(
                AbortReason.INVALID_PDU_PARAMETER_VALUE, "a presentation context not accepted"
            )
        while True:
            if context_id != context.context_id or not control & COMMAND:
                self._violated(
                    AbortReason.UNEXPECTED_PDU_PARAMETER, "something else where a command was due"
                )
            if len(command_set) + length > COMMAND_SET_LENGTH or not (length or control & LAST):
                self._violated(AbortReason.INVALID_PDU_PARAMETER_VALUE, "an endless command set")
            command_set += self._take(length)
            if control & LAST:
                break
            length, context_id, control = self._next_value(_Awaiting.REST)
        try:
            command = Command.decode(command_set)
        except MalformedCommand as error:
            self._violated(AbortReason.INVALID_PDU_PARAMETER_VALUE, str(error))
        if command.command_field is CommandField.C_CANCEL_RQ:
            self._cancelled.add(command.message_id)
            return
        data = DataStream(self, context_id) if command.data_set_present else None
        self._waiting.append(Message(context, command, data))

    def _next_value(self, awaiting: _Awaiting) -> tuple[int, int, int]:
        """The next presentation data value: length of its fragment, context id, control header."""
        if self._pdu_left:
            # Anew for each, since what the handler took for the one before is not the peer's time.
            self._within(self._conduct.pdu_timeout)
        else:
            self._next_pdu(awaiting)
        if self._pdu_left < PDV_OVERHEAD:
            self._violated(
                AbortReason.INVALID_PDU_PARAMETER_VALUE, "a P-DATA-TF that ends in a PDV"
            )
        length, context_id, control = PDV_HEADER.unpack(self._take(PDV_OVERHEAD))
        if length < 2 or length + 4 > self._pdu_left:
            self._violated(
                AbortReason.INVALID_PDU_PARAMETER_VALUE, "a PDV longer than its P-DATA-TF"
            )
        self._pdu_left -= length + 4
        return length - 2, context_id, control

    def _next_pdu(self, awaiting: _Awaiting) -> None:
        """Read the header of the P-DATA-TF that is due.

        Raises _Released after answering A-RELEASE-RQ, AssociationEnded on all else.
        """
        if self._state is not State.STA6:
            raise AssociationLost("the association has ended")
        conduct = self._conduct
        rest = awaiting is _Awaiting.REST
        if not rest:
            self._rate.pause()
        self._within(conduct.pdu_timeout if rest else conduct.network_timeout)
        if awaiting is _Awaiting.MESSAGE:
            header = self._take_when_idle(PDU_HEADER.size)
        else:
            header = self._take(PDU_HEADER.size)
        kind, length = PDU_HEADER.unpack(header)
        self._within(conduct.pdu_timeout)
        if not rest:
            self._rate.begin()
        event = _RECEIVABLE.get(kind, Event.INVALID_PDU)
        match TRANSITIONS[State.STA6, event]:
            case Action.DT_2 if PDV_OVERHEAD <= length <= conduct.maximum_length + TOLERANCE:
                self._pdu_left = length
            case Action.DT_2:
                self._violated(
                    AbortReason.INVALID_PDU_PARAMETER_VALUE,
                    "a P-DATA-TF longer than our maximum length, or empty",
                )
            case Action.AR_2 if rest:
                self._violated(AbortReason.UNEXPECTED_PDU, "a release in the middle of a message")
            case Action.AR_2 if length == ABORT_LENGTH:
                self._take(length)
                self._state = State.STA8
                self._transmit(RELEASE_RP)
                self._state = State.STA13
                raise _Released
            case Action.AA_3:
                self._state = State.STA13
                raise AssociationAborted("the peer aborted the association")
            case _ if event is Event.INVALID_PDU:
                self._violated(AbortReason.UNRECOGNIZED_PDU, "a PDU of unknown type")
            case _:
                self._violated(AbortReason.UNEXPECTED_PDU, f"{event.name} was not due")

    def _take_when_idle(self, count: int) -> bytes:
        """`_take`, at the one point where `finish` may interrupt it."""
        state, taken = self._state, b""
        with self._lock:
            self._idle = waits = not self._finishing
        if waits:
            try:
                taken = self._take(count)
            except AssociationLost:
                if not self._finishing:
                    raise
                self._state = state  # only our reading was shut: the peer can still be told
            finally:
                with self._lock:
                    self._idle = False
        if self._finishing:
            self.abort()
            raise AssociationStopped("stopped between two messages")
        return taken

    def _next_piece(self, left: int, last: bool) -> memoryview:
        """Some of the `left` bytes of a fragment, straight out of the buffer."""
        if self._start == self._end:
            # Behind a fragment that is not the last another header must come, or at least an
            # A-ABORT: asking for that much too saves a call for each PDU.
            ahead = min(self._pdu_left, PDV_OVERHEAD)
            if not ahead and not last:
                ahead = PDU_HEADER.size + ABORT_LENGTH
            self._within(self._conduct.pdu_timeout)
            self._refill(left + ahead, left + ahead)
        start = self._start
        self._start = min(self._end, start + left)
        return self._view[start : self._start]

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

    def _refill(self, least: int, most: int) -> None:
        """Fill the buffer, which is empty, with `least` to `most` bytes before the deadline.

        Looked at before each call, for the timeout of the socket begins anew with every byte.
        """
        view, received = self._view, 0
        flags = socket.MSG_WAITALL if least == most and not self._tls else 0
        self._start = self._end = 0
        while received < least:
            now = monotonic()
            left = self._deadline - now
            if left <= 0:
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

    def _fragments(
        self, context_id: int, command: bytes, data: bytes | Iterable[bytes | memoryview] | None
    ) -> Iterator[bytes | memoryview]:
        """Headers and fragments of a message, each fragment as long as the peer takes it."""
        yield from self._cut(context_id, COMMAND, (command,))
        if data is not None:
            yield from self._cut(context_id, 0, (data,) if isinstance(data, bytes) else data)

    def _cut(
        self, context_id: int, control: int, chunks: Iterable[bytes | memoryview]
    ) -> Iterator[bytes | memoryview]:
        fragment = self._fragment
        header = p_data_header(context_id, control, fragment)
        rest = b""
        for chunk in chunks:
            view = memoryview(rest + chunk if rest else chunk)
            start = 0
            while len(view) - start > fragment:
                yield header
                yield view[start : start + fragment]
                start += fragment
            # Kept back, since only the end of the chunks tells which fragment is the last.
            rest = bytes(view[start:])
        yield p_data_header(context_id, control | LAST, len(rest))
        yield rest

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

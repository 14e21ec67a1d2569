"""An established association, and the acceptor's way to one (PS3.8 7 and 9.2, PS3.7 annex D).

There is no queue between the socket and who handles the message. A data set is never assembled
here. It is handed out piece by piece, as views into the buffer of the connection, whatever the size
of the object.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from time import monotonic

from exchange_dicom.connection import ABORT_LENGTH, RECEIVABLE, TOLERANCE, Connection
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
    P_DATA_HEADER,
    PDU_HEADER,
    PDV_HEADER,
    PDV_OVERHEAD,
    PROTOCOL_VERSION,
    RELEASE_RP,
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
from exchange_dicom.states import (
    TRANSITIONS,
    Action,
    AssociationAborted,
    AssociationLost,
    Event,
    ProtocolViolation,
    State,
)

LONGEST_SENT = 1 << 18
"""Bytes of the longest P-DATA-TF we send, also to peers that set no limit."""

BATCH = 1 << 19
"""Bytes gathered before they are handed to the kernel in one call."""

GATHERING = 0.005
"""Seconds for which a message waits for others that follow it at once."""


class TooLarge(UpperLayerError):
    """A data set that should be small, such as an identifier, is not. The association goes on."""


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


class Association(Connection):
    """What two application entities say. Not thread-safe, as `Connection` says.

    An acceptor calls `negotiate` first, a requestor `requestor.connect`; then `messages` or
    `next_message`, and `send` for the answers.
    """

    def __init__(self, connection: socket.socket, peer: Peer, conduct: Conduct) -> None:
        super().__init__(connection, conduct)
        self.peer = peer
        self.request: AssociateRequest | None = None
        self.accepted: Accepted | None = None
        self.contexts: dict[int, Context] = {}
        self._fragment = 0
        self._pdu_left = 0
        self._stream: DataStream | None = None
        self._waiting: deque[Message] = deque()
        self._cancelled: set[int] = set()
        self._gathered: list[bytes | memoryview] = []
        self._gathered_size = 0
        self._gathered_since = 0.0

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
        self._agree(request, decision)
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

    def go_on(self, request: AssociateRequest, accepted: Accepted) -> None:
        """Be the association that another process has negotiated so on this connection."""
        self._agree(request, accepted)
        self._state = State.STA6

    def message_comes(self) -> bool:
        """Whether the next that the peer says is a message, and nothing of it has been read. Waits
        for it as `next_message` does, and raises as it does."""
        self._rate.pause()
        self._within(self._conduct.network_timeout)
        return self._start == self._end and self._peek_when_idle() == PDUType.P_DATA_TF

    def _agree(self, request: AssociateRequest, decision: Accepted) -> None:
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
        if self._gathered:
            self._send_gathered()
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
        if self._gathered:  # the peer has not been told yet of what it might have had enough of
            return message_id in self._cancelled
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

    def offered(self, abstract_syntax: str) -> list[tuple[int, str]]:
        """The accepted contexts of an abstract syntax: ID and transfer syntax of each."""
        return [
            (context.context_id, context.transfer_syntax)
            for context in self.contexts.values()
            if context.abstract_syntax == abstract_syntax
        ]

    def send(
        self,
        context_id: int,
        command: bytes,
        data: bytes | Iterable[bytes | memoryview] | None = None,
        *,
        more: bool = False,
    ) -> None:
        """Send one message, cut to the peer's maximum length; small ones leave in one packet.

        `data` may be produced while it is sent. If producing it fails, the association is aborted,
        since half a message cannot be taken back, and the error passed on. With `more`, which says
        that another message follows at once, it may wait for that. Raises AssociationEnded.
        """
        if self._state is not State.STA6:
            raise AssociationLost("the association has ended")
        try:
            for part in self._fragments(context_id, command, data):
                self._gathered.append(part)
                self._gathered_size += len(part)
                if self._gathered_size >= BATCH:
                    self._send_gathered()
        except BaseException:
            self.abort()
            raise
        now = monotonic() if more else 0.0
        if not more or (self._gathered_since and now > self._gathered_since + GATHERING):
            self._send_gathered()
        elif not self._gathered_since:
            self._gathered_since = now

    def _send_gathered(self) -> None:
        gathered = b"".join(self._gathered)
        self._gathered.clear()
        self._gathered_size, self._gathered_since = 0, 0.0
        self._transmit(gathered)

    def _limit_fragments(self, maximum_length: int) -> None:
        """Send fragments that fit the peer's maximum length, 0 for none."""
        longest = min(maximum_length or LONGEST_SENT, LONGEST_SENT)
        # An even length, so that no fragment ends inside a 16-bit word.
        self._fragment = (longest - PDV_OVERHEAD) & ~1

    def _read_request(self) -> AssociateRequest:
        self._within(self._conduct.artim_timeout)
        kind, length = PDU_HEADER.unpack(self._take_when_idle(PDU_HEADER.size))
        event = RECEIVABLE.get(kind, Event.INVALID_PDU)
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
        if awaiting is _Awaiting.REST and (found := self._value_at_hand()) is not None:
            return found
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

    def _value_at_hand(self) -> tuple[int, int, int] | None:
        """The same where it begins a P-DATA-TF of which something is in the buffer already: both
        headers at once, as they come for each stretch of an image. None for anything else, and for
        what is wrong with them."""
        if self._pdu_left or self._start == self._end or self._state is not State.STA6:
            return None
        if self._buffer[self._start] != PDUType.P_DATA_TF:
            return None
        self._within(self._conduct.pdu_timeout)
        self._have(P_DATA_HEADER.size)
        start = self._start
        _, length, value, context_id, control = P_DATA_HEADER.unpack_from(self._buffer, start)
        if length > self._conduct.maximum_length + TOLERANCE or not 2 <= value <= length - 4:
            return None
        self._start = start + P_DATA_HEADER.size
        self._pdu_left = length - value - 4
        return value - 2, context_id, control

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
        event = RECEIVABLE.get(kind, Event.INVALID_PDU)
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

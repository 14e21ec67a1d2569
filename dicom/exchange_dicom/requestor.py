"""The requestor's side of an association, as PS3.8 sections 7.1 and 9.2 define it.

    with requestor.connect(address, [Proposal(CT_IMAGE_STORAGE, SYNTAXES)]) as association:
        context = association.context_for(CT_IMAGE_STORAGE, EXPLICIT_VR_LITTLE_ENDIAN)
        association.send(context.context_id, command, data_set)
        answer = association.next_response(message_id)

Left without an exception the block releases the association; with one it aborts it.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from time import monotonic

from exchange_dicom.association import Association
from exchange_dicom.connection import ABORT_LENGTH, TOLERANCE
from exchange_dicom.negotiation import Conduct, Context, Peer
from exchange_dicom.pdu import (
    ASSOCIATE_LENGTH,
    CONTEXTS,
    PDU_HEADER,
    RELEASE_RP,
    RELEASE_RQ,
    AbortReason,
    AbortSource,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    ContextResult,
    MalformedPDU,
    PDUType,
    ProposedContext,
    RoleSelection,
    UpperLayerError,
    UserIdentity,
    UserInformation,
)
from exchange_dicom.states import (
    TRANSITIONS,
    Action,
    AssociationAborted,
    AssociationEnded,
    AssociationRejected,
    Event,
    ProtocolViolation,
    State,
)
from exchange_dicom.transport_security import words

CONNECT_SECONDS = 10.0
"""How long the connection and the TLS handshake may take, each."""


class Unreachable(UpperLayerError):
    """No connection, or no TLS, to the address; says why in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where an acceptor listens, and the AE titles of the two ends."""

    host: str
    port: int
    called: str
    calling: str
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    fingerprint: str = ""
    """SHA-256 of the DER certificate that the acceptor must show; "" for any that `tls` trusts."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.called}@{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Proposal:
    """An abstract syntax, and the transfer syntaxes offered for it in one context, best first."""

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


class Requested(Association):
    """An association that we asked for."""

    def __init__(self, connection: socket.socket, peer: Peer, conduct: Conduct) -> None:
        super().__init__(connection, peer, conduct)
        self.roles: Mapping[str, RoleSelection] = {}
        self.extended: Mapping[str, bytes] = {}
        self._last_id = 0

    def next_message_id(self) -> int:
        """A number for the next request (PS3.7 9.1): 1 to 65535, and round again."""
        self._last_id = self._last_id % 65535 + 1
        return self._last_id

    def context_for(
        self, abstract_syntax: str, transfer_syntax: str | None = None
    ) -> Context | None:
        """An accepted context of the abstract syntax, in that transfer syntax if one is named."""
        for context in self.contexts.values():
            if context.abstract_syntax == abstract_syntax and transfer_syntax in {
                None,
                context.transfer_syntax,
            }:
                return context
        return None

    def accepted_syntaxes(self, abstract_syntax: str) -> tuple[str, ...]:
        """The transfer syntaxes in which the peer takes the abstract syntax."""
        return tuple(
            context.transfer_syntax
            for context in self.contexts.values()
            if context.abstract_syntax == abstract_syntax
        )

    def ask(self, request: AssociateRequest) -> None:
        """Send the A-ASSOCIATE-RQ and read its answer.

        Raises AssociationRejected, or another AssociationEnded.
        """
        self._transmit(request.encode())
        self._state = State.STA5
        self._within(self._conduct.artim_timeout)
        kind, length = PDU_HEADER.unpack(self._take(PDU_HEADER.size))
        event = Event[PDUType(kind).name] if kind in _KINDS else Event.INVALID_PDU
        limits = {Action.AE_3: ASSOCIATE_LENGTH, Action.AE_4: 4, Action.AA_3: ABORT_LENGTH}
        action = TRANSITIONS[State.STA5, event]
        if event is Event.INVALID_PDU:
            self._violated(AbortReason.UNRECOGNIZED_PDU, "what answers does not speak DICOM")
        if length > limits.get(action, 0):
            self._violated(AbortReason.UNEXPECTED_PDU, f"{event.name} was not due, or too long")
        body = self._take(length)
        try:
            match action:
                case Action.AE_3:
                    self._confirmed(request, AssociateAccept.decode(body))
                case Action.AE_4:
                    self._state = State.STA13
                    raise AssociationRejected(AssociateReject.decode(body))
                case _:
                    self._state = State.STA13
                    raise AssociationAborted("the peer aborted instead of answering")
        except MalformedPDU as error:
            self._state = State.STA5
            self.abort(AbortSource.SERVICE_PROVIDER, AbortReason.INVALID_PDU_PARAMETER_VALUE)
            raise ProtocolViolation(str(error)) from error

    def release(self) -> None:
        """End the association in order (PS3.8 7.2). Raises AssociationEnded when it is broken."""
        self._finish_stream()
        self._transmit(RELEASE_RQ)
        self._state = State.STA7
        self._within(self._conduct.artim_timeout)
        until = monotonic() + self._conduct.artim_timeout
        while self._state is State.STA7:
            kind, length = PDU_HEADER.unpack(self._take(PDU_HEADER.size))
            event = Event[PDUType(kind).name] if kind in _KINDS else Event.INVALID_PDU
            match TRANSITIONS[State.STA7, event]:
                case Action.AR_3 if length == ABORT_LENGTH:
                    self._take(length)
                    self._state = State.STA13
                case Action.AR_8 if length == ABORT_LENGTH:
                    self._take(length)
                    self._transmit(RELEASE_RP)
                case Action.AR_6 if (
                    length <= self._conduct.maximum_length + TOLERANCE and monotonic() < until
                ):
                    self._take(length)  # answers that nobody waits for any more
                case Action.AA_3:
                    self._state = State.STA13
                    raise AssociationAborted("the peer aborted instead of releasing")
                case _:
                    self._violated(AbortReason.UNEXPECTED_PDU, f"{event.name} was not due")

    def _confirmed(self, request: AssociateRequest, answer: AssociateAccept) -> None:
        proposed = {context.context_id: context for context in request.contexts}
        for context in answer.contexts:
            if context.context_id not in proposed:
                raise MalformedPDU("an answer to a context that was not proposed")
            if context.result is not ContextResult.ACCEPTANCE:
                continue
            offered = proposed[context.context_id]
            if context.transfer_syntax not in offered.transfer_syntaxes:
                raise MalformedPDU("a context accepted in a transfer syntax that was not offered")
            self.contexts[context.context_id] = Context(
                context.context_id, offered.abstract_syntax, context.transfer_syntax
            )
        self.request = request
        self.roles = {role.sop_class: role for role in answer.user.roles}
        self.extended = answer.user.extended
        self._limit_fragments(answer.user.maximum_length)
        self._state = State.STA6


@contextmanager
def connect(
    address: Address,
    proposals: Sequence[Proposal],
    *,
    roles: Sequence[RoleSelection] = (),
    extended: Mapping[str, bytes] | None = None,
    identity: UserIdentity | None = None,
    conduct: Conduct | None = None,
) -> Iterator[Requested]:
    """An association with the acceptor at `address`, for the block.

    Contexts get their numbers in the order of `proposals`, of which there may be 128. Raises
    Unreachable, AssociationRejected or another AssociationEnded, ValueError for too many proposals
    or an AE title that is none.
    """
    behaviour = conduct or Conduct()
    if not 0 < len(proposals) <= CONTEXTS:
        raise ValueError(f"an association has 1 to {CONTEXTS} presentation contexts")
    for title in (address.called, address.calling):
        if not 0 < len(title) <= 16 or not title.isascii() or not title.isprintable():
            raise ValueError("an AE title has 1 to 16 printable ASCII characters")
    request = AssociateRequest(
        called_ae=address.called,
        calling_ae=address.calling,
        contexts=tuple(
            ProposedContext(2 * at + 1, one.abstract_syntax, one.transfer_syntaxes)
            for at, one in enumerate(proposals)
        ),
        user=UserInformation(
            maximum_length=behaviour.maximum_length,
            implementation_class_uid=behaviour.implementation_class_uid,
            implementation_version=behaviour.implementation_version,
            roles=tuple(roles),
            extended=extended or {},
            identity=identity,
        ),
    )
    connection, peer = _open(address)
    association = Requested(connection, peer, behaviour)
    try:
        association.ask(request)
        yield association
        if association.established:
            association.release()
    finally:
        association.close()


def _open(address: Address) -> tuple[socket.socket, Peer]:
    if address.fingerprint and address.tls is None:
        raise Unreachable(f"{address} is known by its certificate, and TLS is not set up")
    try:
        connection = socket.create_connection((address.host, address.port), CONNECT_SECONDS)
    except OSError as error:
        reason = error.strerror or "no answer in time"
        raise Unreachable(f"{address} does not answer: {reason}") from error
    certificate: bytes | None = None
    try:
        # Before the handshake: behind one that is refused there may be no peer any more.
        host, port = connection.getpeername()[:2]
        if address.tls is not None:
            connection = address.tls.wrap_socket(connection, server_hostname=address.host)
            certificate = connection.getpeercert(binary_form=True)
            _check(address, certificate)
    except (OSError, Unreachable) as error:
        connection.close()
        if isinstance(error, Unreachable):
            raise
        raise Unreachable(f"no TLS with {address}: {words(error)}") from error
    return connection, Peer(ip_address(host.partition("%")[0]), port, certificate)


def _check(address: Address, certificate: bytes | None) -> None:
    if address.fingerprint:
        shown = hashlib.sha256(certificate or b"").hexdigest()
        if not hmac.compare_digest(shown, address.fingerprint):
            raise Unreachable(f"{address} shows another certificate than the registered one")


_KINDS = frozenset(PDUType)

__all__ = [
    "Address",
    "AssociationEnded",
    "AssociationRejected",
    "Proposal",
    "Requested",
    "Unreachable",
    "connect",
]

"""The requestor's side: what an acceptor may answer, rightly and wrongly (PS3.8 9.2 and 9.3)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pynetdicom import AE, evt
from real_parts import LOOPBACK, free_port

from exchange_dicom import dimse, requestor
from exchange_dicom.connection import LAST_WORD
from exchange_dicom.dimse import CommandField
from exchange_dicom.negotiation import Conduct
from exchange_dicom.pdu import (
    PDU_HEADER,
    RELEASE_RP,
    RELEASE_RQ,
    Abort,
    AnsweredContext,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    ContextResult,
    PDUType,
    RejectReason,
    UpperLayerError,
    UserInformation,
)
from exchange_dicom.requestor import Address, Proposal, Unreachable
from exchange_dicom.states import (
    TRANSITIONS,
    Action,
    AssociationAborted,
    AssociationEnded,
    AssociationRejected,
    Event,
    ProtocolViolation,
    State,
    TimedOut,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
PROPOSALS = [Proposal(VERIFICATION, (EXPLICIT, IMPLICIT))]
IMPATIENT = Conduct(artim_timeout=0.3, network_timeout=0.3, pdu_timeout=0.3)
PATIENCE = 180

Answer = Callable[[socket.socket], None]


@contextmanager
def acceptor(answer: Answer) -> Iterator[Address]:
    """Somebody who listens, and does to each connection what a test says."""
    listener = socket.create_server((LOOPBACK, 0))
    listener.settimeout(PATIENCE)

    def serve() -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(PATIENCE)
            try:
                answer(connection)
                while connection.recv(65536):
                    pass
            except OSError:
                pass  # the requestor was done with it

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield Address(
            host=LOOPBACK, port=listener.getsockname()[1], called="ARCHIVE", calling="EXCHANGE"
        )
    finally:
        listener.close()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def asked(connection: socket.socket) -> AssociateRequest:
    kind, length = PDU_HEADER.unpack(_exactly(connection, PDU_HEADER.size))
    assert kind == PDUType.A_ASSOCIATE_RQ
    return AssociateRequest.decode(_exactly(connection, length))


def _exactly(connection: socket.socket, count: int) -> bytes:
    taken = b""
    while len(taken) < count:
        more = connection.recv(count - len(taken))
        if not more:
            raise OSError("closed")
        taken += more
    return taken


def accepted(request: AssociateRequest, *, syntax: str = EXPLICIT, number: int = 1) -> bytes:
    return AssociateAccept(
        echoed=request.echoed,
        contexts=(AnsweredContext(number, ContextResult.ACCEPTANCE, syntax),),
        user=UserInformation(maximum_length=16384, implementation_class_uid="1.2.3"),
    ).encode()


def sends(*answers: bytes) -> Answer:
    def answer(connection: socket.socket) -> None:
        request = asked(connection)
        for one in answers or (accepted(request),):
            connection.sendall(one)

    return answer


def associate(address: Address, conduct: Conduct | None = None) -> None:
    with requestor.connect(address, PROPOSALS, conduct=conduct or IMPATIENT):
        pass


def test_an_association_is_asked_for_and_released_in_order() -> None:
    told: list[AssociateRequest] = []

    def answer(connection: socket.socket) -> None:
        told.append(asked(connection))
        connection.sendall(accepted(told[0]))
        assert _exactly(connection, len(RELEASE_RQ)) == RELEASE_RQ
        connection.sendall(RELEASE_RP)

    with acceptor(answer) as address, requestor.connect(address, PROPOSALS) as association:
        context = association.context_for(VERIFICATION)
        assert context is not None
        assert context.transfer_syntax == EXPLICIT
        assert association.context_for(CT) is None
    assert (told[0].called_ae, told[0].calling_ae) == ("ARCHIVE", "EXCHANGE")


@pytest.mark.parametrize("reason", RejectReason, ids=lambda one: one.name)
def test_a_rejection_is_told_with_its_reason(reason: RejectReason) -> None:
    rejection = AssociateReject(reason, transient=True)
    with (
        acceptor(sends(rejection.encode())) as address,
        pytest.raises(AssociationRejected) as told,
    ):
        associate(address)
    assert told.value.told == rejection


def test_both_ends_may_release_at_once() -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(accepted(asked(connection)))
        _exactly(connection, len(RELEASE_RQ))
        connection.sendall(RELEASE_RQ)
        assert _exactly(connection, len(RELEASE_RP)) == RELEASE_RP
        connection.sendall(RELEASE_RP)

    with acceptor(answer) as address:
        associate(address, Conduct())


@pytest.mark.parametrize(
    ("answers", "ending"),
    [
        ((Abort(0).encode(),), AssociationAborted),
        ((PDU_HEADER.pack(PDUType.A_ASSOCIATE_AC, 1 << 30),), ProtocolViolation),
        ((PDU_HEADER.pack(PDUType.A_ASSOCIATE_AC, 80) + bytes(80),), None),
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), ProtocolViolation),
        ((PDU_HEADER.pack(PDUType.A_ASSOCIATE_AC, 500) + b"\0",), TimedOut),
        ((b"\2",), TimedOut),
    ],
)
def test_an_acceptor_that_answers_anything_else_is_left(
    answers: tuple[bytes, ...], ending: type[AssociationEnded] | None
) -> None:
    with acceptor(sends(*answers)) as address:
        if ending is None:  # an acceptance of nothing
            with pytest.raises(AssociationEnded):
                associate(address)
        else:
            with pytest.raises(ending):
                associate(address)


@pytest.mark.parametrize("wrong", [{"syntax": CT}, {"number": 3}])
def test_what_was_not_proposed_cannot_be_accepted(wrong: dict[str, Any]) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(accepted(asked(connection), **wrong))

    with acceptor(answer) as address, pytest.raises(ProtocolViolation):
        associate(address)


def test_nobody_there_is_unreachable_and_says_where() -> None:
    address = Address(host=LOOPBACK, port=free_port(), called="A", calling="B")
    with pytest.raises(Unreachable, match=r"A@127\.0\.0\.1:"):
        associate(address)
    with pytest.raises(ValueError, match="16"):
        associate(Address(host=LOOPBACK, port=1, called="A" * 17, calling="B"))
    with (
        pytest.raises(ValueError, match="128"),
        requestor.connect(address, PROPOSALS * 129),
    ):
        pass


RECEIVED = {kind.name: kind for kind in PDUType}


@pytest.mark.parametrize("event", [one for one in Event if one.name in RECEIVED])
def test_the_requestor_does_what_the_state_table_says(event: Event) -> None:
    body = AssociateReject(RejectReason.NO_REASON_GIVEN).encode()
    if event is not Event.A_ASSOCIATE_RJ:
        body = PDU_HEADER.pack(RECEIVED[event.name], 4) + bytes(4)
    with acceptor(sends(*([] if event is Event.A_ASSOCIATE_AC else [body]))) as address:
        match TRANSITIONS[State.STA5, event]:
            case Action.AE_3:
                with pytest.raises(TimedOut):  # it is established, and its release not answered
                    associate(address)
            case Action.AE_4:
                with pytest.raises(AssociationRejected):
                    associate(address)
            case Action.AA_3:
                with pytest.raises(AssociationAborted):
                    associate(address)
            case _:
                with pytest.raises(ProtocolViolation):
                    associate(address)


@given(st.binary(max_size=200), st.sampled_from(list(PDUType)), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_answer_makes_the_requestor_do_anything_but_end(
    body: bytes, kind: PDUType, framed: bool
) -> None:
    answer = PDU_HEADER.pack(kind, len(body)) + body if framed else body
    quick = Conduct(artim_timeout=0.02, network_timeout=0.02, pdu_timeout=0.02)
    with acceptor(sends(answer)) as address, pytest.raises(UpperLayerError):
        associate(address, quick)


@pytest.mark.parametrize("maximum_length", [0, 4096, 131072])
def test_a_data_set_is_cut_to_what_the_receiver_takes(maximum_length: int) -> None:
    received: list[bytes] = []

    def keep(event: Any) -> int:
        received.append(event.request.DataSet.getvalue())
        return 0

    entity = AE("ARCHIVE")
    entity.maximum_pdu_size = maximum_length
    entity.add_supported_context(CT, EXPLICIT)
    server = entity.start_server((LOOPBACK, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    assert server is not None
    sent = bytes(range(256)) * 3000
    try:
        address = Address(
            host=LOOPBACK, port=server.server_address[1], called="ARCHIVE", calling="EXCHANGE"
        )
        with requestor.connect(address, [Proposal(CT, (EXPLICIT,))]) as association:
            context = association.context_for(CT)
            assert context is not None
            number = association.next_message_id()
            command = dimse.request(
                CommandField.C_STORE_RQ, number, CT, "1.2.3", data_set_present=True
            )
            pieces = (sent[at : at + 1000] for at in range(0, len(sent), 1000))
            association.send(context.context_id, command, pieces)
            assert association.next_response(number).command.status == 0
    finally:
        server.shutdown()
    assert received == [sent]


def test_who_takes_the_connection_and_says_nothing_is_waited_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []
    within = requestor.Requested._within

    def noted(self: requestor.Requested, seconds: float) -> None:
        waited.append(seconds)
        within(self, seconds)

    monkeypatch.setattr(requestor.Requested, "_within", noted)
    over = threading.Event()
    conduct = Conduct(artim_timeout=2.0, pdu_timeout=0.5)

    def silent(_: socket.socket) -> None:
        over.wait(PATIENCE)

    with acceptor(silent) as address:
        with (
            pytest.raises(TimedOut),
            requestor.connect(address, PROPOSALS, conduct=conduct),
        ):
            pass
        over.set()
    assert waited.count(2.0) == 1  # not again for the connection to be closed
    assert waited[-1] == LAST_WORD

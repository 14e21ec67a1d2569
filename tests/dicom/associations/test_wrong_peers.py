"""Peers that break the protocol are told so, and the exchange goes on: PS3.8 section 9.2."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from itertools import product

import pytest
from associating import (
    CT,
    DATA,
    EXPLICIT,
    IMPLICIT,
    Archive,
    RawPeer,
    abort_of,
    echo,
    fragment,
    request_pdu,
    store_command,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exchange_dicom import dimse
from exchange_dicom.connection import TOLERANCE
from exchange_dicom.dimse import CommandField
from exchange_dicom.pdu import (
    COMMAND,
    LAST,
    PDU_HEADER,
    PDV_HEADER,
    RELEASE_RP,
    RELEASE_RQ,
    AbortReason,
    AbortSource,
    PDUType,
    ProposedContext,
    RejectReason,
)
from exchange_dicom.states import (
    TRANSITIONS,
    Action,
    AssociationAborted,
    AssociationEnded,
    AssociationLost,
    Event,
    ProtocolViolation,
    State,
)

# The state table


def test_every_event_has_an_action_in_the_states_that_listen() -> None:
    listening = (State.STA2, State.STA5, State.STA6, State.STA7)
    # ARTIM runs in Sta2 alone: elsewhere a deadline of ours stands in for it.
    impossible = set(product(listening[1:], [Event.ARTIM_EXPIRED]))
    assert set(TRANSITIONS) == set(product(listening, Event)) - impossible


RECEIVED = {event: kind for kind in PDUType for event in Event if kind.name == event.name}


@pytest.mark.parametrize(
    ("state", "event"),
    [
        key
        for key in TRANSITIONS
        if key[0] in {State.STA2, State.STA6}
        and (key[1] in RECEIVED or key[1] is Event.INVALID_PDU)
    ],
    ids=lambda value: value.name,
)
def test_the_acceptor_does_what_the_state_table_says(
    archive: Archive, port: int, state: State, event: Event
) -> None:
    with RawPeer(port) as peer:
        if state is State.STA6:
            peer.associate()
        match event:
            case Event.A_ASSOCIATE_RQ:
                peer.send(request_pdu())
            case Event.P_DATA_TF:
                peer.send(echo())
            case _:
                peer.send(PDU_HEADER.pack(RECEIVED.get(event, 9), 4) + bytes(4))
        match TRANSITIONS[state, event]:
            case Action.AE_6:
                answer = peer.pdu()
                assert answer is not None
                assert answer[0] == PDUType.A_ASSOCIATE_AC
            case Action.DT_2:
                assert peer.message()[0].command_field is CommandField.C_ECHO_RSP
            case Action.AR_2:
                assert peer.exactly(len(RELEASE_RP)) == RELEASE_RP
                assert peer.pdu() is None
                assert archive.ending() is None
            case Action.AA_1:
                assert peer.aborted() == (AbortSource.SERVICE_USER, 0)
                assert isinstance(archive.ending(), ProtocolViolation)
            case Action.AA_8:
                unknown = event is Event.INVALID_PDU
                reason = AbortReason.UNRECOGNIZED_PDU if unknown else AbortReason.UNEXPECTED_PDU
                assert peer.aborted() == abort_of(reason)
                assert isinstance(archive.ending(), ProtocolViolation)
            case Action.AA_2 | Action.AA_3:
                assert peer.pdu() is None
                assert isinstance(archive.ending(), AssociationAborted)


# Peers that do wrong


BEFORE_ASSOCIATION = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: exchange\r\n\r\n",
    "a TLS hello on the plain port": bytes.fromhex("1603010200010001fc0303") + bytes(500),
    "a request of 4 GB": PDU_HEADER.pack(PDUType.A_ASSOCIATE_RQ, 0xFFFFFFFF),
    "a request of noise": PDU_HEADER.pack(PDUType.A_ASSOCIATE_RQ, 200) + bytes(range(200)),
    "a request of 300 contexts": request_pdu(
        *(ProposedContext(2 * n % 256 | 1, CT, (EXPLICIT,)) for n in range(300))
    ),
}


@pytest.mark.parametrize("what", BEFORE_ASSOCIATION)
def test_a_stranger_who_does_not_speak_dicom_is_aborted(
    archive: Archive, port: int, what: str
) -> None:
    with RawPeer(port) as peer:
        peer.send(BEFORE_ASSOCIATION[what])
        assert peer.aborted() == (AbortSource.SERVICE_USER, 0)
    assert isinstance(archive.ending(), ProtocolViolation)


@pytest.mark.parametrize(
    ("damage", "rejection"),
    [
        ((b"\0\1\0\0", b"\0\2\0\0"), RejectReason.PROTOCOL_VERSION_NOT_SUPPORTED),
        ((b"3.1.1.1", b"3.1.1.9"), RejectReason.APPLICATION_CONTEXT_NAME_NOT_SUPPORTED),
    ],
)
def test_another_version_or_application_is_rejected_without_asking(
    archive: Archive, port: int, damage: tuple[bytes, bytes], rejection: RejectReason
) -> None:
    with RawPeer(port) as peer:
        peer.send(request_pdu().replace(*damage, 1))
        assert peer.pdu() == (PDUType.A_ASSOCIATE_RJ, bytes((0, 1, *rejection.value)))
        assert peer.pdu() is None
    assert archive.ending() is None
    assert not archive.requests


def test_all_128_contexts_can_be_used(archive: Archive, port: int) -> None:
    contexts = [ProposedContext(2 * n + 1, CT, (EXPLICIT, IMPLICIT)) for n in range(128)]
    with RawPeer(port) as peer:
        peer.associate(*contexts)
        peer.send(RELEASE_RQ)
        assert peer.pdu() == (PDUType.A_RELEASE_RP, bytes(4))
    assert archive.ending() is None


PARAMETER = AbortReason.INVALID_PDU_PARAMETER_VALUE
UNEXPECTED = AbortReason.UNEXPECTED_PDU_PARAMETER

WITHIN_ASSOCIATION = {
    "data before the command": (fragment(3, DATA | LAST, b"ab"), UNEXPECTED),
    "a context that nobody proposed": (fragment(9, COMMAND | LAST, b"ab"), PARAMETER),
    "a command that is none": (fragment(1, COMMAND | LAST, b"abcdefghijkl"), PARAMETER),
    "a command of 1 MB": (
        b"".join(fragment(1, COMMAND, bytes(32768)) for _ in range(32)),
        PARAMETER,
    ),
    "a command of empty fragments": (fragment(1, COMMAND, b""), PARAMETER),
    "a command on two contexts": (
        fragment(1, COMMAND, b"ab") + fragment(3, COMMAND | LAST, b"cd"),
        UNEXPECTED,
    ),
    "a command within a data set": (
        store_command() + fragment(3, DATA, b"ab") + echo(),
        UNEXPECTED,
    ),
    "a data set on another context": (store_command() + fragment(5, LAST, b"ab"), UNEXPECTED),
    "a data set that is released": (
        store_command() + fragment(3, DATA, b"ab") + RELEASE_RQ,
        AbortReason.UNEXPECTED_PDU,
    ),
    "a data set followed by noise": (
        store_command() + fragment(3, DATA, b"ab") + b"\x77" + bytes(9),
        AbortReason.UNRECOGNIZED_PDU,
    ),
    "a PDU longer than agreed": (
        PDU_HEADER.pack(PDUType.P_DATA_TF, 131072 + TOLERANCE + 1),
        PARAMETER,
    ),
    "a PDU of 4 GB": (PDU_HEADER.pack(PDUType.P_DATA_TF, 0xFFFFFFFF), PARAMETER),
    "a PDU of nothing": (PDU_HEADER.pack(PDUType.P_DATA_TF, 0), PARAMETER),
    "a PDV longer than its PDU": (
        PDU_HEADER.pack(PDUType.P_DATA_TF, 8) + PDV_HEADER.pack(99, 1, 3) + b"ab",
        PARAMETER,
    ),
    "a PDV shorter than its header": (
        PDU_HEADER.pack(PDUType.P_DATA_TF, 8) + PDV_HEADER.pack(1, 1, 3) + b"ab",
        PARAMETER,
    ),
    "a PDU that ends in a PDV header": (
        PDU_HEADER.pack(PDUType.P_DATA_TF, 9) + PDV_HEADER.pack(3, 1, 1) + b"a" + b"\0\0",
        PARAMETER,
    ),
    "a release of the wrong length": (
        PDU_HEADER.pack(PDUType.A_RELEASE_RQ, 0),
        AbortReason.UNEXPECTED_PDU,
    ),
}


@pytest.mark.parametrize("what", WITHIN_ASSOCIATION)
def test_a_peer_that_breaks_the_protocol_is_told_why(
    archive: Archive, port: int, what: str
) -> None:
    sent, reason = WITHIN_ASSOCIATION[what]
    with RawPeer(port) as peer:
        peer.associate()
        with contextlib.suppress(ConnectionError):
            peer.send(sent)
        assert peer.aborted() == abort_of(reason)
    assert isinstance(archive.ending(), ProtocolViolation)
    assert not archive.digests


@pytest.mark.parametrize(
    ("sent", "ending"),
    [
        (b"", AssociationLost),
        (store_command()[:40], AssociationLost),
        (store_command(), AssociationLost),
        (store_command() + fragment(3, DATA, b"ab"), AssociationLost),
        (store_command() + fragment(3, DATA | LAST, b"abcd")[:-1], AssociationLost),
        (
            store_command() + fragment(3, DATA, b"ab") + b"\7\0\0\0\0\4" + bytes(4),
            AssociationAborted,
        ),
    ],
)
def test_a_data_set_that_does_not_arrive_to_its_end_is_not_kept(
    archive: Archive, port: int, sent: bytes, ending: type[AssociationEnded]
) -> None:
    with RawPeer(port) as peer:
        peer.associate()
        peer.send(sent)
    assert isinstance(archive.ending(), ending)
    assert not archive.digests


def test_a_data_set_in_many_values_of_one_pdu_arrives_whole(archive: Archive, port: int) -> None:
    values = b"".join(
        PDV_HEADER.pack(2 + len(value), 3, control) + value
        for control, value in ((DATA, b"abc"), (DATA, b""), (DATA, b"d"), (DATA | LAST, b"efg"))
    )
    with RawPeer(port) as peer:
        peer.associate()
        both = store_command()[6:] + values
        peer.send(PDU_HEADER.pack(PDUType.P_DATA_TF, len(both)) + both)
        assert peer.message()[0].status == dimse.SUCCESS
    assert archive.digests["1.2.3"] == hashlib.sha256(b"abcdefg").hexdigest()


@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_messages_damaged_on_the_way_never_break_the_exchange(
    archive: Archive, port: int, data: st.DataObject
) -> None:
    whole = echo() + store_command() + fragment(3, DATA, b"ab") + fragment(3, LAST, b"cd") + echo()
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with RawPeer(port) as peer:
        peer.associate()
        with contextlib.suppress(ConnectionError):
            peer.send(bytes(damaged))
            peer.socket.shutdown(socket.SHUT_WR)
        while peer.pdu() is not None:
            pass
    assert isinstance(archive.ending(), AssociationEnded | None)

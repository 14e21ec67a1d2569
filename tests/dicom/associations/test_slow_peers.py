"""Peers that take their time cannot hold a thread; slow lines are waited for."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import ssl
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from associating import (
    DATA,
    IMPATIENT,
    PATIENCE,
    Archive,
    RawPeer,
    accepting,
    echo,
    fragment,
    request_pdu,
    store_command,
)
from certificates import party

from exchange_dicom import dimse
from exchange_dicom.association import Association
from exchange_dicom.dimse import response
from exchange_dicom.negotiation import Conduct
from exchange_dicom.pdu import COMMAND, LAST, PDU_HEADER, PDV_HEADER, AbortSource, PDUType
from exchange_dicom.states import AssociationEnded, TimedOut


@pytest.mark.parametrize("sent", [b"", b"\1", request_pdu()[:100]])
def test_a_stranger_who_dawdles_is_let_go(
    archive: Archive, impatient_port: int, sent: bytes
) -> None:
    with RawPeer(impatient_port) as peer:
        peer.send(sent)
        assert peer.pdu() is None  # closed and no more: PS3.8 Table 9-10, AA-2
    assert isinstance(archive.ending(), TimedOut)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\4",
        echo()[:20],
        store_command(),
        store_command() + fragment(3, DATA, bytes(999))[:99],
    ],
    ids=["silence", "a byte", "half a command", "no data set", "half a data set"],
)
def test_a_peer_that_falls_silent_is_aborted(
    archive: Archive, impatient_port: int, sent: bytes
) -> None:
    with RawPeer(impatient_port) as peer:
        peer.associate()
        peer.send(sent)
        assert peer.aborted()[0] == AbortSource.SERVICE_PROVIDER
    assert isinstance(archive.ending(), TimedOut)
    assert not archive.digests


def trickle(peer: RawPeer, sent: Iterable[bytes], ended: Callable[[], bool]) -> bool:
    """Send each, all well within the timeout, and tell whether we were stopped."""
    pause = threading.Event()
    with contextlib.suppress(ConnectionError):
        for one in sent:
            if ended():
                return True
            peer.send(one)
            pause.wait(0.02)
    return ended()


def singly(sent: bytes) -> list[bytes]:
    return [bytes((byte,)) for byte in sent]


@pytest.mark.parametrize("at_once", [0, 3, 100], ids=["all", "half a header", "its end"])
def test_a_stranger_that_trickles_cannot_hold_a_thread(
    archive: Archive, impatient_port: int, at_once: int
) -> None:
    long_request = PDU_HEADER.pack(PDUType.A_ASSOCIATE_RQ, 9999) + bytes(9999)
    with RawPeer(impatient_port) as peer:
        peer.send(long_request[:at_once])
        rest = long_request[at_once : at_once + 300]
        assert trickle(peer, singly(rest), lambda: not archive.endings.empty())
    assert isinstance(archive.ending(), TimedOut)


def test_a_stranger_that_trickles_its_tls_hello_cannot_hold_a_thread(
    archive: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    exchange = party(tmp_path, "exchange")
    hello = bytes.fromhex("1603014000010003fffc0303") + bytes(300)
    tls = exchange.context(ssl.Purpose.CLIENT_AUTH, exchange)
    with (
        accepting(archive, conduct=IMPATIENT, tls=lambda: tls) as acceptor,
        RawPeer(acceptor.addresses[0][1]) as peer,
    ):
        peer.send(hello[:1])
        assert trickle(peer, singly(hello[1:]), lambda: bool(caplog.records))
    (told,) = caplog.messages
    assert "no answer in time" in told
    assert archive.endings.empty()


@pytest.mark.parametrize(
    "sent",
    [
        fragment(1, COMMAND | LAST, bytes(9999))[:20],
        store_command() + fragment(3, DATA, bytes(9999))[:100],
    ],
    ids=["a command set", "a data set"],
)
def test_a_peer_that_trickles_cannot_hold_a_thread(
    archive: Archive, impatient_port: int, sent: bytes
) -> None:
    """Each byte comes within the timeout, the PDU does not."""
    with RawPeer(impatient_port) as peer:
        peer.associate()
        peer.send(sent)
        assert trickle(peer, singly(bytes(300)), lambda: not archive.endings.empty())
    assert isinstance(archive.ending(), TimedOut)


def test_a_peer_whose_fragments_come_in_time_and_never_end_cannot_hold_a_thread(
    archive: Archive, impatient_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange_dicom.rate.RATE_SECONDS", 0.2)
    with RawPeer(impatient_port) as peer:
        peer.associate()
        peer.send(store_command())
        assert trickle(peer, [fragment(3, DATA, b"x")] * 1000, lambda: not archive.endings.empty())
    ending = archive.ending()
    assert isinstance(ending, TimedOut)
    assert "less of a message in a minute" in str(ending)


def test_a_slow_line_is_waited_for_as_long_as_it_brings_enough(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wait for it brings more than is due, however long; silence before a message is none."""
    monkeypatch.setattr("exchange_dicom.rate.RATE_SECONDS", 0.02)
    conduct = Conduct(minimum_rate=4)
    with (
        accepting(archive, conduct=conduct) as acceptor,
        RawPeer(acceptor.addresses[0][1]) as peer,
    ):
        peer.associate()
        for _ in range(2):
            peer.send(store_command())
            slowly = [fragment(3, DATA, b"x" * 40)] * 20
            assert not trickle(peer, slowly, lambda: not archive.endings.empty())
            peer.send(fragment(3, DATA | LAST, b""))
            assert peer.message()[0].status == dimse.SUCCESS
            threading.Event().wait(0.1)
    assert archive.digests["1.2.3"] == hashlib.sha256(b"x" * 800).hexdigest()


def test_silence_between_messages_may_be_longer_than_within_one(archive: Archive) -> None:
    """The kernel's timeout stays that of a PDU: a wait that it ends is gone on with."""
    conduct = Conduct(network_timeout=60, pdu_timeout=0.05)
    with (
        accepting(archive, conduct=conduct) as acceptor,
        RawPeer(acceptor.addresses[0][1]) as peer,
    ):
        peer.associate()
        for _ in range(2):
            peer.send(echo())
            assert peer.message()[0].status == dimse.SUCCESS
            threading.Event().wait(0.2)
        assert archive.endings.empty()


def test_an_exchange_that_is_slow_itself_does_not_blame_the_peer(archive: Archive) -> None:
    """Command and data set in one PDU: what the handler takes for itself is not the peer's time."""
    begun, busy = threading.Event(), threading.Event()

    def dawdle(association: Association) -> None:
        assert association.negotiate(archive.decide)
        for message in association.messages():
            begun.set()
            busy.wait(2 * IMPATIENT.pdu_timeout)
            archive.answer(association, message)

    values = b"".join(
        PDV_HEADER.pack(2 + len(value), 3, control) + value
        for control, value in ((DATA, bytes(60_000)), (DATA | LAST, bytes(60_000)))
    )
    with (
        accepting(dawdle, conduct=IMPATIENT) as acceptor,
        RawPeer(acceptor.addresses[0][1]) as peer,
    ):
        peer.associate()
        command = store_command()[6:]
        peer.send(PDU_HEADER.pack(PDUType.P_DATA_TF, len(command) + len(values)) + command)
        assert begun.wait(PATIENCE)
        peer.send(values)
        assert peer.message()[0].status == dimse.SUCCESS
    assert archive.digests["1.2.3"] == hashlib.sha256(bytes(120_000)).hexdigest()


def test_a_peer_that_does_not_read_cannot_hold_a_thread() -> None:
    endings: queue.Queue[Exception] = queue.Queue()

    def flood(association: Association) -> None:
        association.negotiate(Archive().decide)
        message = association.next_message()
        assert message is not None
        try:
            while True:
                association.send(1, response(message.command, dimse.SUCCESS), bytes(1 << 20))
        except AssociationEnded as ended:
            endings.put(ended)

    with accepting(flood, conduct=IMPATIENT) as acceptor, RawPeer(acceptor.addresses[0][1]) as peer:
        peer.associate()
        peer.send(echo())
        assert isinstance(endings.get(timeout=PATIENCE), TimedOut)

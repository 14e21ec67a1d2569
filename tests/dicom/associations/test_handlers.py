"""What handles an association reads, answers and fails as it likes; and how an acceptor stops."""

from __future__ import annotations

import gc
import hashlib
import os
import queue
import resource
import threading
import tracemalloc
from collections.abc import Iterator

import pytest
from associating import (
    DATA,
    PATIENCE,
    Archive,
    RawPeer,
    accepting,
    echo,
    find_command,
    fragment,
    request_pdu,
    store_command,
)

from exchange_dicom import dimse
from exchange_dicom.association import Association, Message, TooLarge
from exchange_dicom.dimse import CommandField, response
from exchange_dicom.listener import Acceptor
from exchange_dicom.pdu import COMMAND, LAST, PDV_HEADER, AbortSource, PDUType
from exchange_dicom.states import AssociationLost, AssociationStopped

# Handlers


def test_an_object_of_300_mb_leaves_memory_flat(archive: Archive, port: int) -> None:
    size, chunk = 300 << 20, bytes(131072 - 6)
    whole, rest = divmod(size, len(chunk))
    with RawPeer(port) as peer:
        peer.associate()
        piece = fragment(3, DATA, chunk)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        tracemalloc.start()
        try:
            peer.send(store_command())
            for _ in range(whole):
                peer.socket.sendall(piece)
            peer.send(fragment(3, DATA | LAST, bytes(rest)))
            assert peer.message()[0].status == dimse.SUCCESS
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert list(archive.digests) == ["1.2.3"]
    assert peak < 20 << 20
    assert grown * 1024 < 20 << 20


def test_a_handler_need_not_read_what_it_refuses() -> None:
    complaints: list[str] = []

    def refuse(association: Association) -> None:
        association.negotiate(Archive().decide)
        for message in association.messages():
            if message.data is not None:
                try:
                    message.data.read(1000)
                except TooLarge as error:
                    complaints.append(str(error))
            association.send(message.context.context_id, response(message.command, 0xA700))

    with accepting(refuse) as acceptor, RawPeer(acceptor.addresses[0][1]) as peer:
        peer.associate()
        large = b"".join(fragment(3, DATA, bytes(50_000)) for _ in range(40))
        for _ in range(2):
            peer.send(store_command(), large, fragment(3, DATA | LAST, b""))
            assert peer.message()[0].status == 0xA700
        peer.send(echo())
        assert peer.message()[0].command_field is CommandField.C_ECHO_RSP
    assert len(complaints) == 2


def test_reading_a_data_set_that_was_passed_over_is_a_mistake() -> None:
    mistakes: queue.Queue[BaseException] = queue.Queue()

    def keep_the_first(association: Association) -> None:
        association.negotiate(Archive().decide)
        first = association.next_message()
        association.next_message()
        assert first is not None
        assert first.data is not None
        try:
            next(first.data.pieces())
        except RuntimeError as error:
            mistakes.put(error)

    with accepting(keep_the_first) as acceptor, RawPeer(acceptor.addresses[0][1]) as peer:
        peer.associate()
        peer.send(store_command(), fragment(3, LAST, bytes(50_000)), echo())
        assert "has gone on" in str(mistakes.get(timeout=PATIENCE))


def test_a_query_ends_when_it_is_cancelled_and_its_neighbours_do_not() -> None:
    pending, cancelled = 0xFF00, 0xFE00

    def find(association: Association) -> None:
        association.negotiate(Archive().decide)
        for message in association.messages():
            command, context_id = message.command, message.context.context_id
            if message.data is None:
                association.send(context_id, response(command, dimse.SUCCESS))
                continue
            while not association.cancelled(command.message_id):
                answer = response(command, pending, data_set_present=True)
                association.send(context_id, answer, b"\x08\0\x05\0\0\0\0\0")
            association.send(context_id, response(command, cancelled))

    with accepting(find) as acceptor, RawPeer(acceptor.addresses[0][1]) as peer:
        peer.associate()
        for message_id in (7, 7, 8):
            peer.send(find_command(message_id), fragment(5, LAST, bytes(8)))
            assert peer.message()[0].status == pending
            # One for another operation, an echo out of turn, and the one that counts.
            for other in (message_id + 1, message_id):
                peer.send(fragment(5, COMMAND | LAST, dimse.cancel_request(other)))
            peer.send(echo(99))
            while (answer := peer.message()[0]).status == pending:
                pass
            assert (answer.status, answer.message_id) == (cancelled, message_id)
            assert peer.message()[0].message_id == 99


def test_answers_that_follow_one_another_leave_together() -> None:
    """Each packet costs both sides a turn of the processor."""
    left, slow = list[int](), threading.Event()

    def find(association: Association) -> None:
        association.negotiate(Archive().decide)
        transmit = association._transmit
        association._transmit = lambda told: (left.append(len(told)), transmit(told))  # type: ignore[assignment,func-returns-value]
        for message in association.messages():
            pending = response(message.command, 0xFF00, data_set_present=True)
            for number in range(20):
                association.send(5, pending, bytes(8), more=True)
                if message.command.message_id == 8 and number == 4:
                    assert slow.wait(PATIENCE)
            if message.command.message_id == 9:
                raise ZeroDivisionError
            if (
                message.command.message_id != 10
            ):  # who forgets to end it has them leave all the same
                association.send(5, response(message.command, dimse.SUCCESS))

    with accepting(find) as acceptor, RawPeer(acceptor.addresses[0][1]) as peer:
        peer.associate()
        peer.send(echo(7))
        assert [peer.message()[0].status for _ in range(21)] == [0xFF00] * 20 + [0]
        assert len(left) == 1

        peer.send(echo(8))
        threading.Timer(0.05, slow.set).start()
        assert [peer.message()[0].status for _ in range(21)] == [0xFF00] * 20 + [0]
        assert len(left) == 3  # those of before the pause with the next, and the others

        peer.send(echo(10))
        assert [peer.message()[0].status for _ in range(20)] == [0xFF00] * 20
        peer.send(echo(9))
        told = peer.pdu()
        assert told is not None
        assert told[0] == PDUType.A_ABORT


def test_a_peer_that_floods_a_query_with_requests_fills_no_memory() -> None:
    """No asynchronous operations are negotiated (PS3.7 D.3.3.3): what comes early waits outside."""
    early = range(1000, 1300)
    flooded = threading.Event()
    held: queue.Queue[int] = queue.Queue()

    def find(association: Association) -> None:
        association.negotiate(Archive().decide)
        for message in association.messages():
            if message.data is not None:
                assert message.data.read(8) == bytes(8)
                assert flooded.wait(PATIENCE)
                for _ in range(3):
                    assert not association.cancelled(message.command.message_id)
                read = [one for one in gc.get_objects() if isinstance(one, Message)]
                held.put(sum(one.command.message_id in early for one in read))
            answer = response(message.command, dimse.SUCCESS)
            association.send(message.context.context_id, answer)

    with accepting(find) as acceptor, RawPeer(acceptor.addresses[0][1]) as peer:
        peer.associate()
        peer.send(find_command(7), fragment(5, LAST, bytes(8)))
        peer.send(*map(echo, early))
        flooded.set()
        answered = [peer.message()[0].message_id for _ in range(1 + len(early))]
        assert answered == [7, *early]
    assert held.get(timeout=PATIENCE) <= 1


@pytest.mark.parametrize("maximum_length", [16, 128, 16384, 1 << 20, 0])
@pytest.mark.parametrize("size", [0, 1, 4096, 1_000_001])
def test_answers_are_cut_to_what_the_peer_takes(maximum_length: int, size: int) -> None:
    answer = os.urandom(min(size, 20_000 if maximum_length == 16 else size))

    def reply(association: Association) -> None:
        association.negotiate(Archive().decide)
        for message in association.messages():
            command = response(message.command, dimse.SUCCESS, data_set_present=True)
            association.send(1, command, answer)
            thirds = len(answer) // 3
            parts = (answer[:thirds], memoryview(answer)[thirds:])
            association.send(1, command, iter(parts))

    with accepting(reply) as acceptor, RawPeer(acceptor.addresses[0][1]) as peer:
        peer.associate(maximum_length=maximum_length)
        peer.send(echo())
        received = []
        for _ in range(2):
            data, last = b"", False
            while not last:
                pdu = peer.pdu()
                assert pdu is not None
                assert not maximum_length or len(pdu[1]) <= maximum_length
                _, _, control = PDV_HEADER.unpack_from(pdu[1])
                last = bool(control & LAST)
                assert last or len(pdu[1]) % 2 == 0
                if control & COMMAND:
                    last = False
                else:
                    data += pdu[1][6:]
            received.append(data)
    assert received == [answer, answer]


def test_half_a_message_is_taken_back_by_an_abort() -> None:
    def broken_disk() -> Iterator[bytes]:
        yield bytes(2_000_000)
        raise OSError("I/O error")

    def reply(association: Association) -> None:
        association.negotiate(Archive().decide)
        message = association.next_message()
        assert message is not None
        with pytest.raises(OSError, match="I/O error"):
            association.send(1, response(message.command, 0, data_set_present=True), broken_disk())

    with accepting(reply) as acceptor, RawPeer(acceptor.addresses[0][1]) as peer:
        peer.associate()
        peer.send(echo())
        while (pdu := peer.pdu()) is not None and pdu[0] == PDUType.P_DATA_TF:
            pass
        assert pdu == (PDUType.A_ABORT, bytes(4))


def test_a_handler_that_fails_aborts_its_association_and_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(association: Association) -> None:
        association.negotiate(Archive().decide)
        for _ in association.messages():
            raise LookupError("a mistake of ours")

    with accepting(fail) as acceptor:
        for _ in range(2):
            with RawPeer(acceptor.addresses[0][1]) as peer:
                peer.associate()
                peer.send(echo())
                assert peer.aborted() == (AbortSource.SERVICE_USER, 0)
    assert sum("its handler failed" in record.message for record in caplog.records) == 2


# The acceptor as a whole


def test_beyond_its_limit_the_exchange_asks_to_try_again_later(archive: Archive) -> None:
    with (
        accepting(archive, maximum_associations=1) as acceptor,
        RawPeer(acceptor.addresses[0][1]) as first,
    ):
        first.associate()
        with RawPeer(acceptor.addresses[0][1]) as second:
            second.send(request_pdu())
            assert second.pdu() == (PDUType.A_ASSOCIATE_RJ, bytes((0, 2, 3, 2)))
            assert second.pdu() is None
        first.send(echo())
        assert first.message()[0].status == dimse.SUCCESS


def test_a_port_probe_leaves_no_trace_in_the_log(
    archive: Archive, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        for _ in range(5):
            RawPeer(port).socket.close()
        for _ in range(5):
            assert isinstance(archive.ending(), AssociationLost)
    assert not caplog.records


def stopping(acceptor: Acceptor, grace_seconds: float) -> threading.Thread:
    thread = threading.Thread(target=acceptor.stop, args=(grace_seconds,))
    thread.start()
    return thread


def test_a_stop_ends_associations_that_only_wait(archive: Archive) -> None:
    with accepting(archive) as acceptor:
        port = acceptor.addresses[0][1]
        with RawPeer(port) as idle, RawPeer(port) as unassociated:
            idle.associate()
            idle.send(echo())
            idle.message()
            stopper = stopping(acceptor, PATIENCE)
            assert idle.aborted() == (AbortSource.SERVICE_USER, 0)
            while unassociated.pdu() is not None:
                pass
            stopper.join(PATIENCE)
        assert not acceptor.associations
        with pytest.raises(ConnectionRefusedError):
            RawPeer(port)
    assert isinstance(archive.ending(), AssociationStopped)


def test_a_stop_lets_an_image_under_way_arrive(archive: Archive) -> None:
    with accepting(archive) as acceptor, RawPeer(acceptor.addresses[0][1]) as peer:
        peer.associate()
        peer.send(store_command(), fragment(3, DATA, b"ab"))
        assert archive.under_way.wait(PATIENCE)
        stopper = stopping(acceptor, PATIENCE)
        peer.send(fragment(3, DATA | LAST, b"cd"))
        assert peer.message()[0].status == dimse.SUCCESS
        assert peer.aborted() == (AbortSource.SERVICE_USER, 0)
    stopper.join(PATIENCE)
    assert archive.digests["1.2.3"] == hashlib.sha256(b"abcd").hexdigest()
    assert isinstance(archive.ending(), AssociationStopped)


def test_a_stop_does_not_wait_for_ever(archive: Archive) -> None:
    with accepting(archive) as acceptor, RawPeer(acceptor.addresses[0][1]) as peer:
        peer.associate()
        peer.send(store_command(), fragment(3, DATA, bytes(1000)))
        assert archive.under_way.wait(PATIENCE)
        acceptor.stop(0.05)
        assert peer.pdu() is None
    assert isinstance(archive.ending(), AssociationLost)
    assert not archive.digests

"""A hospital hands over the responsibility for its images: the Push Model, PS3.4 annex J."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from caller import CT, EXPLICIT, SUCCESS, VERIFICATION, Caller, calling, element, image, value
from finding_out import one_finds_out
from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_role, evt
from pynetdicom.pdu import A_RELEASE_RQ, P_DATA_TF
from real_parts import free_port
from region import ADMINISTRATOR, WORKER
from serving import Served, serving

from exchange import commitment, jobs, membership, organizations
from exchange.errors import Unavailable
from exchange.organizations import Entity
from exchange_dicom import dimse, scu, scu_commitment
from exchange_dicom.commitment import report
from exchange_dicom.contexts import STORAGE_COMMITMENT_INSTANCE as WELL_KNOWN
from exchange_dicom.contexts import STORAGE_COMMITMENT_PUSH as PUSH
from exchange_dicom.dimse import CommandField
from exchange_dicom.pdu import COMMAND, LAST
from exchange_storage.carried import LARGEST
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.objects import MemoryStore
from exchange_storage.spool import SpooledStore

MR = "1.2.840.10008.5.1.4.1.1.4"
ALL, SOME_FAILED = 1, 2
NO_SUCH_INSTANCE, NOT_SUPPORTED, CLASS_CONFLICT, DUPLICATE = 0x0112, 0x0122, 0x0119, 0x0131
INVALID_ARGUMENT, RESOURCE_LIMITATION = 0x0115, 0x0213


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as made:
        yield made


def kept(served: Served, *instances: str, size: int = 4096) -> None:
    pixels = element(0x7FE00010, "OW", bytes(size))
    with calling(served.port) as pacs:
        for uid in instances:
            assert pacs.store(image(instance=uid, pixels=pixels), uid).status == SUCCESS


def wanted(*references: tuple[str, str], transaction: str | None = None) -> Dataset:
    asked = Dataset()
    asked.TransactionUID = generate_uid() if transaction is None else transaction
    asked.ReferencedSOPSequence = []
    for sop_class, instance in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
        asked.ReferencedSOPSequence.append(item)
    return asked


class Sender:
    """A PACS that asks for commitments, and takes the reports wherever they come."""

    def __init__(self, title: str = "BEICHENG") -> None:
        self.title = title
        self.reports: list[tuple[int, Dataset]] = []
        self.answered = threading.Event()
        self.answering: Any = None
        self.answer = SUCCESS

    def told(self, event: Any) -> tuple[int, None]:
        self.reports.append((event.event_type, event.event_information))
        self.answering = event.assoc
        return self.answer, None

    def sent(self, event: Any) -> None:
        """What follows a report on its association is the answer to it.

        pynetdicom serves N-EVENT-REPORT in a thread of its own, so that a release by another one
        would overtake the answer.
        """
        if self.answering is event.assoc and isinstance(event.pdu, P_DATA_TF):
            self.answered.set()

    def hung_up(self, event: Any) -> None:
        """Who breaks the connection where a release is asked for."""
        if isinstance(event.pdu, A_RELEASE_RQ):
            event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def listening(self, port: int, *, hangs_up: bool = False) -> Iterator[None]:
        entity = AE(self.title)
        entity.add_supported_context(PUSH, scu_role=True, scp_role=True)
        heard = [(evt.EVT_PDU_RECV, self.hung_up)] if hangs_up else []
        server = entity.start_server(
            ("127.0.0.1", port),
            block=False,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.told), *heard],
        )
        assert server is not None
        try:
            yield
        finally:
            server.shutdown()

    def ask(
        self, served: Served, asked: Dataset, *, action: int = 1, instance: str = WELL_KNOWN
    ) -> int:
        entity = AE(self.title)
        entity.add_requested_context(PUSH)
        association = entity.associate(
            "127.0.0.1",
            served.port,
            ae_title="EXCHANGE",
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.told), (evt.EVT_PDU_SENT, self.sent)],
            ext_neg=[build_role(PUSH, scu_role=True, scp_role=False)],
        )
        assert association.is_established
        status, _ = association.send_n_action(asked, action, PUSH, instance)
        if not self.listens(served):
            self.answered.wait(180)
        association.release()
        return int(status.Status)

    def listens(self, served: Served) -> bool:
        with served.city.exchange.database.reading() as session:
            return any(
                one.title == self.title and one.port for one in organizations.entities(session)
            )


def registered(served: Served, title: str, port: int) -> None:
    """The hospital's own entity listens at a port from now on."""
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        entity = Entity(title=title, address="127.0.0.1")
        organizations.remove_entity(access, "beicheng", entity)
        organizations.add_entity(
            access, "beicheng", Entity(title=title, address="127.0.0.1", port=port)
        )


def worked(served: Served) -> list[Exception]:
    """Do the commitment jobs that are due, as the worker does; what they raised."""
    raised: list[Exception] = []
    database = served.city.exchange.database
    for job in jobs.claim(database, [jobs.COMMIT]):
        try:
            report(served.city.exchange, WORKER, int(job.subject), calling="EXCHANGE")
        except (Unavailable, jobs.Later) as error:
            raised.append(error)
            jobs.fail(database, job, type(error).__name__)
        else:
            jobs.finish(database, [job])
    return raised


def references(told: Dataset, keyword: str) -> list[str]:
    return [item.ReferencedSOPInstanceUID for item in told.get(keyword, ())]


def test_the_report_comes_over_an_association_of_the_exchanges_own(served: Served) -> None:
    kept(served, "1.4.1", "1.4.2")
    sender, port = Sender(), free_port()
    registered(served, "BEICHENG", port)
    asked = wanted((CT, "1.4.1"), (CT, "1.4.2"))
    with sender.listening(port):
        assert sender.ask(served, asked) == SUCCESS
        assert sender.reports == []  # the answer first; the worker has not worked yet
        assert worked(served) == []

    ((kind, told),) = sender.reports
    assert kind == ALL
    assert told.TransactionUID == asked.TransactionUID
    assert references(told, "ReferencedSOPSequence") == ["1.4.1", "1.4.2"]
    assert "FailedSOPSequence" not in told
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (listed,) = commitment.latest(access)
    assert listed.reported is not None


def test_an_asker_without_a_port_is_told_where_it_asked(served: Served) -> None:
    kept(served, "1.4.1")
    sender = Sender()

    assert sender.ask(served, wanted((CT, "1.4.1"))) == SUCCESS

    ((kind, told),) = sender.reports
    assert (kind, references(told, "ReferencedSOPSequence")) == (ALL, ["1.4.1"])
    assert worked(served) == []
    assert len(sender.reports) == 1


def test_an_asker_that_is_known_by_its_network_cannot_be_called_and_is_told_where_it_asked(
    served: Served,
) -> None:
    kept(served, "1.4.1")
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.remove_entity(
            access, "beicheng", Entity(title="BEICHENG", address="127.0.0.1")
        )
        network = Entity(title="BEICHENG", address="127.0.0.0/8", port=free_port())
        organizations.add_entity(access, "beicheng", network)
    with bare(served) as pacs:
        context, _ = pacs.contexts[PUSH]
        pacs.send(action(pacs, "1.2.3.4"))
        assert pacs.message()[0].status == SUCCESS
        told, _ = pacs.message()
        pacs.send(value(context, COMMAND | LAST, dimse.response(told, SUCCESS)))
        pacs.release()
    assert reported(served) == [True]


def test_every_reference_is_in_one_of_the_two_lists(served: Served) -> None:
    kept(served, "1.4.1", "1.4.2")
    served.city.exchange.objects.put_down()
    damaged = next((served.root / "objects").rglob("1.4.2.*.dcm"))
    damaged.write_bytes(damaged.read_bytes()[:-2] + b"!!")
    sender = Sender()

    sender.ask(
        served,
        wanted(
            *((CT, "1.4.1"), (CT, "1.4.2"), (MR, "1.4.1"), (CT, "9.9.9"), (VERIFICATION, "1.4.1"))
        ),
    )

    ((kind, told),) = sender.reports
    assert kind == SOME_FAILED
    assert references(told, "ReferencedSOPSequence") == ["1.4.1"]
    assert [
        (item.ReferencedSOPInstanceUID, item.FailureReason) for item in told.FailedSOPSequence
    ] == [
        ("1.4.2", 0x0110),
        ("1.4.1", CLASS_CONFLICT),
        ("9.9.9", NO_SUCH_INSTANCE),
        ("1.4.1", NOT_SUPPORTED),
    ]


def test_another_hospitals_images_are_not_answered_for(served: Served) -> None:
    kept(served, "1.4.1")
    stranger = Sender("NANHU")
    stranger.ask(served, wanted((CT, "1.4.1")))
    ((kind, told),) = stranger.reports
    assert kind == SOME_FAILED
    assert [item.FailureReason for item in told.FailedSOPSequence] == [NO_SUCH_INSTANCE]


def test_a_report_that_nobody_takes_is_brought_again(served: Served) -> None:
    kept(served, "1.4.1")
    sender, port = Sender(), free_port()
    registered(served, "BEICHENG", port)
    assert sender.ask(served, wanted((CT, "1.4.1"))) == SUCCESS

    (nobody,) = worked(served)
    assert isinstance(nobody, Unavailable)
    sender.answer = 0x0110
    with served.city.exchange.database.reading() as session:
        assert jobs.backlog(session)["commit", False] == 1
    with sender.listening(port):
        with pytest.raises(Unavailable, match="0110"):
            report(served.city.exchange, WORKER, 1, calling="EXCHANGE")
        sender.answer = SUCCESS
        report(served.city.exchange, WORKER, 1, calling="EXCHANGE")
    assert [kind for kind, _ in sender.reports] == [ALL, ALL]


def test_an_answer_counts_however_the_association_ends_after_it(served: Served) -> None:
    kept(served, "1.4.1")
    sender, port = Sender(), free_port()
    registered(served, "BEICHENG", port)
    assert sender.ask(served, wanted((CT, "1.4.1"))) == SUCCESS
    with sender.listening(port, hangs_up=True):
        assert worked(served) == []
    assert [kind for kind, _ in sender.reports] == [ALL]


def test_of_an_asker_that_is_down_one_report_finds_out_whether_it_is_up_again(
    served: Served,
) -> None:
    kept(served, "1.4.1")
    sender, port = Sender(), free_port()
    registered(served, "BEICHENG", port)
    for _ in range(2):
        assert sender.ask(served, wanted((CT, "1.4.1"))) == SUCCESS

    def do(subject: str) -> None:
        report(served.city.exchange, WORKER, int(subject), calling="EXCHANGE")

    one_finds_out(served, jobs.COMMIT, do, sender.listening(port))
    assert [kind for kind, _ in sender.reports] == [ALL, ALL]


def test_an_asker_that_answers_again_is_told_all_else_also_where_it_refuses_the_first(
    served: Served,
) -> None:
    kept(served, "1.4.1")
    sender, port = Sender(), free_port()
    registered(served, "BEICHENG", port)
    for _ in range(2):
        assert sender.ask(served, wanted((CT, "1.4.1"))) == SUCCESS
    database = served.city.exchange.database
    (job,) = jobs.claim(database, [jobs.COMMIT], 1)
    with pytest.raises(Unavailable):
        report(served.city.exchange, WORKER, int(job.subject), calling="EXCHANGE")
    assert jobs.claim(database, [jobs.COMMIT]) == []
    sender.answer = 0x0110
    with sender.listening(port), pytest.raises(Unavailable, match="0110"):
        report(served.city.exchange, WORKER, int(job.subject), calling="EXCHANGE")
    jobs.fail(database, job, "refused")
    (other,) = jobs.claim(database, [jobs.COMMIT])
    assert other.id != job.id


def test_a_report_that_a_deactivated_hospital_was_owed_comes_when_it_takes_part_again(
    served: Served,
) -> None:
    kept(served, "1.4.1")
    sender, port = Sender(), free_port()
    registered(served, "BEICHENG", port)
    assert sender.ask(served, wanted((CT, "1.4.1"))) == SUCCESS
    with sender.listening(port):
        with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            membership.deactivate(access, "beicheng")
        assert worked(served) == []
        assert sender.reports == []
        with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            membership.activate(access, "beicheng")
        assert worked(served) == []
        assert [kind for kind, _ in sender.reports] == [ALL]
        with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            membership.activate(access, "beicheng")
        assert worked(served) == []  # once
    assert len(sender.reports) == 1


@pytest.mark.parametrize(
    ("asked", "more", "status"),
    [
        (wanted((CT, "1.4.1")), {"action": 2}, 0x0123),
        (wanted((CT, "1.4.1")), {"instance": "1.2.3"}, 0x0112),
        (wanted(), {}, INVALID_ARGUMENT),
        (wanted((CT, "")), {}, INVALID_ARGUMENT),
        (wanted((CT, "1.4.1"), transaction=""), {}, INVALID_ARGUMENT),
    ],
)
def test_a_request_that_asks_for_nothing_that_can_be_done_is_refused(
    served: Served, asked: Dataset, more: dict[str, Any], status: int
) -> None:
    sender = Sender()
    sender.answered.set()
    assert sender.ask(served, asked, **more) == status
    assert worked(served) == []


def test_another_request_under_a_uid_that_was_used_fails_as_a_whole(served: Served) -> None:
    kept(served, "1.4.1", "1.4.2")
    for sender in (Sender(), Sender("NANHU")):  # each hospital has UIDs of its own
        asked = wanted((CT, "1.4.1"), transaction="1.2.3.4")
        assert sender.ask(served, asked) == SUCCESS
        sender.answered.clear()
        asked = wanted((CT, "1.4.1"), (CT, "1.4.2"), transaction="1.2.3.4")
        assert sender.ask(served, asked) == SUCCESS
        _, (kind, told) = sender.reports
        assert kind == SOME_FAILED
        assert told.TransactionUID == "1.2.3.4"
        assert "ReferencedSOPSequence" not in told
        assert [item.FailureReason for item in told.FailedSOPSequence] == [DUPLICATE, DUPLICATE]


def test_a_request_that_is_repeated_since_its_answer_was_lost_is_the_same_one(
    served: Served,
) -> None:
    kept(served, "1.4.1")
    sender, port = Sender(), free_port()
    registered(served, "BEICHENG", port)
    asked = wanted((CT, "1.4.1"))
    assert sender.ask(served, asked) == sender.ask(served, asked) == SUCCESS
    with sender.listening(port):
        assert worked(served) == []
    assert [kind for kind, _ in sender.reports] == [ALL]


def test_more_instances_than_one_transaction_may_have_are_refused(served: Served) -> None:
    sender = Sender()
    sender.answered.set()
    many = wanted(*((CT, f"1.4.{number}") for number in range(commitment.REFERENCES + 1)))
    assert sender.ask(served, many) == RESOURCE_LIMITATION


def test_what_lies_in_the_spool_is_not_committed_before_it_is_in_the_store(
    tmp_path: Path,
) -> None:
    store = SpooledStore(FilesystemStore(tmp_path / "spool"), MemoryStore())
    with serving(tmp_path, objects=store) as served:
        kept(served, "1.4.1", size=LARGEST)
        sender, port = Sender(), free_port()
        registered(served, "BEICHENG", port)
        assert sender.ask(served, wanted((CT, "1.4.1"))) == SUCCESS
        with sender.listening(port):
            (later,) = worked(served)
            assert isinstance(later, jobs.Later)
            assert sender.reports == []
            store.drain()
            report(served.city.exchange, WORKER, 1, calling="EXCHANGE")
    assert [kind for kind, _ in sender.reports] == [ALL]


# On the association of the request


def bare(served: Served) -> Caller:
    return Caller(served.port, (PUSH, (EXPLICIT,)), (VERIFICATION, (EXPLICIT,)))


def action(pacs: Caller, transaction: str) -> bytes:
    """An N-ACTION-RQ for 1.4.1, as it goes over the wire."""
    context, _ = pacs.contexts[PUSH]
    command = dimse.request(
        CommandField.N_ACTION_RQ, 1, PUSH, WELL_KNOWN, data_set_present=True, action_type=1
    )
    item = element(0x00081150, "UI", CT) + element(0x00081155, "UI", "1.4.1")
    item = b"\xfe\xff\x00\xe0" + len(item).to_bytes(4, "little") + item
    body = element(0x00081195, "UI", transaction) + element(0x00081199, "SQ", item)
    return value(context, COMMAND | LAST, command) + value(context, LAST, body)


def reported(served: Served) -> list[bool]:
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        return [one.reported is not None for one in commitment.latest(access)]


def test_the_asker_may_go_on_before_it_has_answered_the_report(served: Served) -> None:
    kept(served, "1.4.1")
    with bare(served) as pacs:
        context, _ = pacs.contexts[PUSH]
        echo, _ = pacs.contexts[VERIFICATION]
        pacs.send(
            action(pacs, "1.2.3.4"),
            value(echo, COMMAND | LAST, dimse.request(CommandField.C_ECHO_RQ, 2, VERIFICATION)),
            action(pacs, "1.2.3.5"),
        )
        came = [pacs.message()[0] for _ in range(4)]
        assert [one.command_field for one in came] == [
            CommandField.N_ACTION_RSP,
            CommandField.N_EVENT_REPORT_RQ,
            CommandField.C_ECHO_RSP,
            CommandField.N_ACTION_RSP,  # its report waits until the first one is answered
        ]
        assert reported(served) == [False, False]
        pacs.send(value(context, COMMAND | LAST, dimse.response(came[1], SUCCESS)))
        second, _ = pacs.message()
        assert second.command_field is CommandField.N_EVENT_REPORT_RQ
        pacs.send(value(context, COMMAND | LAST, dimse.response(second, 0x0110)))
        pacs.release()
    assert reported(served) == [False, True]


def test_an_asker_without_a_port_is_told_when_the_spool_has_been_emptied(tmp_path: Path) -> None:
    store = SpooledStore(FilesystemStore(tmp_path / "spool"), MemoryStore())
    with serving(tmp_path, objects=store) as served:
        kept(served, "1.4.1", size=LARGEST)
        with bare(served) as pacs:
            context, _ = pacs.contexts[PUSH]
            echo, _ = pacs.contexts[VERIFICATION]
            ping = dimse.request(CommandField.C_ECHO_RQ, 2, VERIFICATION)
            pacs.send(action(pacs, "1.2.3.4"), value(echo, COMMAND | LAST, ping))
            came = [pacs.message()[0].command_field for _ in range(2)]
            assert came == [CommandField.N_ACTION_RSP, CommandField.C_ECHO_RSP]
            store.drain()
            told, _ = pacs.message()
            assert told.command_field is CommandField.N_EVENT_REPORT_RQ
            pacs.send(value(context, COMMAND | LAST, dimse.response(told, SUCCESS)))
            pacs.release()
        assert reported(served) == [True]


def test_who_leaves_without_hearing_the_report_hears_it_when_it_asks_again(
    served: Served,
) -> None:
    kept(served, "1.4.1")
    with bare(served) as pacs:
        pacs.send(action(pacs, "1.2.3.4"))
        assert pacs.message()[0].status == SUCCESS
        pacs.message()
        pacs.release()
    assert reported(served) == [False]
    with bare(served) as pacs:
        context, _ = pacs.contexts[PUSH]
        pacs.send(action(pacs, "1.2.3.4"))
        assert pacs.message()[0].status == SUCCESS
        told, _ = pacs.message()
        pacs.send(value(context, COMMAND | LAST, dimse.response(told, SUCCESS)))
        pacs.release()
    assert reported(served) == [True]


def test_our_own_command_asks_and_takes_the_report_either_way(served: Served) -> None:
    kept(served, "1.4.1")
    wanted_ones = [(CT, "1.4.1"), (CT, "9.9.9")]
    node = scu.Node(host="127.0.0.1", port=served.port, called="EXCHANGE", calling="BEICHENG")

    told = scu_commitment.ask_commitment(node, wanted_ones, listen=None, seconds=30)
    assert told == scu_commitment.Report(((CT, "1.4.1"),), (((CT, "9.9.9"), NO_SUCH_INSTANCE),))

    port = free_port()
    registered(served, "BEICHENG", port)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            worked(served)
            stop.wait(0.1)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        assert scu_commitment.ask_commitment(node, wanted_ones, listen=port, seconds=30) == told
    finally:
        stop.set()
        worker.join()

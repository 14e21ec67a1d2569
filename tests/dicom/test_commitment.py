"""A hospital hands over the responsibility for its images: the Push Model, PS3.4 annex J."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from caller import CT, SUCCESS, calling, image
from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_role, evt
from real_parts import free_port
from region import ADMINISTRATOR, WORKER
from serving import Served, serving

from exchange import commitment, jobs, organizations
from exchange.errors import Unavailable
from exchange.organizations import Entity
from exchange_dicom import scu
from exchange_dicom.commitment import report
from exchange_dicom.contexts import STORAGE_COMMITMENT_INSTANCE as WELL_KNOWN
from exchange_dicom.contexts import STORAGE_COMMITMENT_PUSH as PUSH

MR = "1.2.840.10008.5.1.4.1.1.4"
ALL, SOME_FAILED = 1, 2
NO_SUCH_INSTANCE, CLASS_CONFLICT, DUPLICATE = 0x0112, 0x0119, 0x0131


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as made:
        yield made


def kept(served: Served, *instances: str) -> None:
    with calling(served.port) as pacs:
        for uid in instances:
            assert pacs.store(image(instance=uid), uid).status == SUCCESS


def wanted(*references: tuple[str, str], transaction: str | None = None) -> Dataset:
    asked = Dataset()
    asked.TransactionUID = transaction or generate_uid()
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
        self.came = threading.Event()
        self.answer = SUCCESS

    def told(self, event: Any) -> tuple[int, None]:
        self.reports.append((event.event_type, event.event_information))
        self.came.set()
        return self.answer, None

    @contextmanager
    def listening(self, port: int) -> Iterator[None]:
        entity = AE(self.title)
        entity.add_supported_context(PUSH, scu_role=True, scp_role=True)
        server = entity.start_server(
            ("127.0.0.1", port),
            block=False,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.told)],
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
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.told)],
            ext_neg=[build_role(PUSH, scu_role=True, scp_role=False)],
        )
        assert association.is_established
        status, _ = association.send_n_action(asked, action, PUSH, instance)
        if not self.listens(served):
            self.came.wait(20)
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
            jobs.finish(database, job)
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


def test_every_reference_is_in_one_of_the_two_lists(served: Served) -> None:
    kept(served, "1.4.1", "1.4.2")
    damaged = next((served.root / "objects").rglob("1.4.2.*.dcm"))
    damaged.write_bytes(damaged.read_bytes()[:-2] + b"!!")
    sender = Sender()

    sender.ask(served, wanted((CT, "1.4.1"), (CT, "1.4.2"), (MR, "1.4.1"), (CT, "9.9.9")))

    ((kind, told),) = sender.reports
    assert kind == SOME_FAILED
    assert references(told, "ReferencedSOPSequence") == ["1.4.1"]
    assert [
        (item.ReferencedSOPInstanceUID, item.FailureReason) for item in told.FailedSOPSequence
    ] == [("1.4.2", 0x0110), ("1.4.1", CLASS_CONFLICT), ("9.9.9", NO_SUCH_INSTANCE)]


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


@pytest.mark.parametrize(
    ("asked", "more", "status"),
    [
        (wanted((CT, "1.4.1")), {"action": 2}, 0x0123),
        (wanted((CT, "1.4.1")), {"instance": "1.2.3"}, 0x0112),
        (wanted(), {}, 0x0120),
        (wanted((CT, "")), {}, 0x0106),
    ],
)
def test_a_request_that_asks_for_nothing_that_can_be_done_is_refused(
    served: Served, asked: Dataset, more: dict[str, Any], status: int
) -> None:
    sender = Sender()
    sender.came.set()
    assert sender.ask(served, asked, **more) == status
    assert worked(served) == []


def test_a_transaction_uid_serves_once(served: Served) -> None:
    kept(served, "1.4.1")
    sender = Sender()
    asked = wanted((CT, "1.4.1"), transaction="1.2.3.4")
    assert sender.ask(served, asked) == SUCCESS
    assert sender.ask(served, asked) == DUPLICATE
    assert Sender("NANHU").ask(served, asked) == SUCCESS  # each hospital has UIDs of its own


def test_our_own_command_asks_and_takes_the_report_either_way(served: Served) -> None:
    kept(served, "1.4.1")
    wanted_ones = [(CT, "1.4.1"), (CT, "9.9.9")]
    node = scu.Node(host="127.0.0.1", port=served.port, called="EXCHANGE", calling="BEICHENG")

    told = scu.ask_commitment(node, wanted_ones, listen=None, seconds=30)
    assert told == scu.Report(((CT, "1.4.1"),), (((CT, "9.9.9"), NO_SUCH_INSTANCE),))

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
        assert scu.ask_commitment(node, wanted_ones, listen=port, seconds=30) == told
    finally:
        stop.set()
        worker.join()

"""A hospital's node is told what can be fetched: Instance Availability Notification, annex R."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from caller import CT, SUCCESS, calling, image
from finding_out import one_finds_out
from pydicom import Dataset
from pynetdicom import AE, evt
from real_parts import free_port
from region import ADMINISTRATOR, WORKER
from serving import Served, serving
from sqlalchemy import select

from exchange import audit, availability, jobs, organizations, performed
from exchange.errors import Unavailable
from exchange.organizations import Entity
from exchange.performed import Status, Told
from exchange_dicom.contexts import INSTANCE_AVAILABILITY_NOTIFICATION as IAN
from exchange_dicom.contexts import PERFORMED_PROCEDURE_STEP as MPPS
from exchange_dicom.notification import notify
from exchange_storage.records import Job, Study

STUDY, SERIES = "1.2.1", "1.2.1.1"
PROCESSING_FAILURE, DUPLICATE, WARNING = 0x0110, 0x0111, 0x0001


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as made:
        yield made


@dataclass
class Informed:
    """A hospital's information system, by pynetdicom: what it was told, and what it answers."""

    told: list[tuple[str, Dataset]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    def create(self, event: Any) -> tuple[int, Dataset]:
        self.told.append((event.request.AffectedSOPInstanceUID, event.attribute_list))
        return self.answers.pop(0) if self.answers else SUCCESS, Dataset()


@contextmanager
def informed(port: int, sop_class: str = IAN) -> Iterator[Informed]:
    made = Informed()
    entity = AE("RIS")
    entity.add_supported_context(sop_class)
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_CREATE, made.create)]
    )
    assert server is not None
    try:
        yield made
    finally:
        server.shutdown()


def registered(served: Served, code: str = "beicheng", *, told: bool = True) -> int:
    """The hospital's system listens, at the port that is returned."""
    port = free_port()
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        entity = Entity(title="RIS", address="127.0.0.1", port=port, told_of_availability=told)
        organizations.add_entity(access, code, entity)
    return port


def kept(served: Served, *instances: str) -> None:
    with calling(served.port) as pacs:
        for uid in instances:
            assert pacs.store(image(instance=uid), uid).status == SUCCESS


def planned(served: Served, study: str = STUDY) -> int:
    """The study is quiet."""
    exchange = served.city.exchange
    with exchange.database.reading() as session:
        row = session.scalars(select(Study.id).where(Study.study_instance_uid == study)).one()
    with exchange.on_behalf_of(WORKER) as access:
        return availability.plan(access, [row])


def worked(served: Served) -> list[str]:
    """Do what is due, and what was put off, as the worker does; what failed, in words."""
    failed: list[str] = []
    exchange = served.city.exchange
    with exchange.database.writing() as session:
        for job in session.scalars(select(Job).where(Job.kind == jobs.NOTIFY)):
            job.due = datetime.now(UTC)
    for claimed in jobs.claim(exchange.database, [jobs.NOTIFY]):
        try:
            notify(exchange, WORKER, claimed.subject, calling="EXCHANGE")
        except Unavailable as error:
            failed.append(str(error))
            jobs.fail(exchange.database, claimed, str(error))
        else:
            jobs.finish(exchange.database, [claimed])
    return failed


def references(told: Dataset) -> list[tuple[str, str, str, str, str]]:
    return [
        (
            series.SeriesInstanceUID,
            item.ReferencedSOPClassUID,
            item.ReferencedSOPInstanceUID,
            item.InstanceAvailability,
            item.RetrieveAETitle,
        )
        for series in told.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]


def recorded(served: Served) -> list[dict[str, Any]]:
    """What the audit trail says of notifications, the first one first."""
    with served.city.exchange.database.reading() as session:
        trail = [json.loads(record.content) for record in audit.latest(session, 40)]
    told = [one for one in reversed(trail) if one["detail"].get("what") == availability.TOLD]
    assert all((one["study"], one["detail"]["to"]) == (STUDY, "RIS") for one in told)
    return told


def test_a_registered_node_is_told_what_can_be_fetched_and_again_when_more_has_come(
    served: Served,
) -> None:
    with informed(registered(served)) as ris:
        ris.answers = [WARNING]  # an optional attribute that it does not know: told all the same
        kept(served, "1.4.1", "1.4.2")
        assert planned(served) == planned(served) == 1
        assert worked(served) == []
        ((first, told),) = ris.told
        assert told.StudyInstanceUID == STUDY
        assert references(told) == [
            (SERIES, CT, "1.4.1", "ONLINE", "EXCHANGE"),
            (SERIES, CT, "1.4.2", "ONLINE", "EXCHANGE"),
        ]
        assert told.ReferencedPerformedProcedureStepSequence == []
        assert {element.keyword for element in told} == {
            "ReferencedPerformedProcedureStepSequence",
            "ReferencedSeriesSequence",
            "StudyInstanceUID",
        }  # others are forbidden
        assert worked(served) == []
        assert len(ris.told) == 1

        kept(served, "1.4.3")
        planned(served)
        assert worked(served) == []
        again, told = ris.told[1]
        assert [uid for _, _, uid, _, _ in references(told)] == ["1.4.1", "1.4.2", "1.4.3"]
        assert again != first
    assert [(one["outcome"], one["detail"]["instances"]) for one in recorded(served)] == [
        ("success", 2),
        ("success", 3),
    ]


def test_the_step_that_made_the_study_is_named(served: Served) -> None:
    with served.city.exchange.on_behalf_of(served.city.system("beicheng")) as access:
        performed.begin(
            access, "1.7.1", Told(status=Status.IN_PROGRESS, study_instance_uid=STUDY), {}
        )
    with informed(registered(served)) as ris:
        kept(served, "1.4.1")
        planned(served)
        assert worked(served) == []
    (step,) = ris.told[0][1].ReferencedPerformedProcedureStepSequence
    assert (step.ReferencedSOPClassUID, step.ReferencedSOPInstanceUID) == (MPPS, "1.7.1")
    assert step.PerformedWorkitemCodeSequence == []


def test_a_node_that_is_down_or_does_not_take_it_is_told_later_the_same(served: Served) -> None:
    port = registered(served)
    kept(served, "1.4.1")
    planned(served)
    (down,) = worked(served)
    assert "does not answer" in down
    with informed(port, MPPS):
        (deaf,) = worked(served)
    assert "does not take" in deaf
    with informed(port) as ris:
        ris.answers = [PROCESSING_FAILURE, DUPLICATE]
        assert worked(served) == ["the node answered the notification with 0110"]
        assert worked(served) == []  # it has had it after all
        (one, other) = (uid for uid, _ in ris.told)
        assert one == other
        assert worked(served) == []
    assert len(ris.told) == 2
    assert [(one["outcome"], one["reason"]) for one in recorded(served)] == [
        ("failed", f"not answered: {down}"),
        ("failed", f"not taken: {deaf}"),
        ("failed", "not taken: the node answered the notification with 0110"),
        ("success", "confirmed"),
    ]


def test_of_a_node_that_is_down_one_study_finds_out_whether_it_is_up_again(served: Served) -> None:
    port = registered(served)
    other = "1.2.826.9"
    kept(served, "1.4.1")
    with calling(served.port) as pacs:
        body = image(instance="1.4.2", study=other, series="1.2.826.9.1")
        assert pacs.store(body, "1.4.2").status == SUCCESS
    planned(served)
    planned(served, other)

    def do(subject: str) -> None:
        notify(served.city.exchange, WORKER, subject, calling="EXCHANGE")

    one_finds_out(served, jobs.NOTIFY, do, informed(port))


@pytest.mark.parametrize(("code", "told"), [("beicheng", False), ("nanhu", True)])
def test_nobody_else_is_told(served: Served, code: str, told: bool) -> None:
    registered(served, code, told=told)
    kept(served, "1.4.1")
    assert planned(served) == 0
    assert worked(served) == []


def test_a_node_that_was_removed_meanwhile_is_told_nothing(served: Served) -> None:
    registered(served)
    kept(served, "1.4.1")
    assert planned(served) == 1
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        entity = Entity(title="RIS", address="127.0.0.1")
        organizations.remove_entity(access, "beicheng", entity)
    assert worked(served) == []

"""One order over all hospitals, narrowed as somebody wants it, and what is missing said."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from region import ADMINISTRATOR, HOSPITALS, ID_CARD, Region
from sqlalchemy import update

from exchange import audit, consent, orders, organizations, recording, timeline, trail
from exchange.errors import NotFound
from exchange.orders import Placed
from exchange.recording import Draft
from exchange.timeline import (
    OrderEntry,
    RecordEntry,
    Said,
    StudyEntry,
    Timeline,
    TimelineEntry,
    Wanted,
)
from exchange_storage.records import Order, Patient, Resource


@pytest.fixture
def filled(city: Region) -> Region:
    """A person with three studies at two hospitals, and two orders, one of them performed."""
    sent: list[tuple[str, str, str, str, Any]] = [
        ("beicheng", "B1", "1.2.1", "20260101", {"Modality": "CT", "BodyPartExamined": "CHEST"}),
        ("nanhu", "N1", "1.2.2", "20260301", {"Modality": "MR", "BodyPartExamined": "HEAD"}),
        ("nanhu", "N1", "1.2.3", "20260201", {"Modality": "DX", "BodyPartExamined": "CHEST"}),
    ]
    for code, number, study, date, more in sent:
        city.send(
            code,
            patient=number,
            study=study,
            series=f"{study}.1",
            instance=f"{study}.1.1",
            card=ID_CARD,
            StudyDate=date,
            **more,
        )
    city.identify()
    for code, number, accession, date, study in (
        ("nanhu", "N1", "A1", "20260215", ""),
        ("beicheng", "B1", "A2", "20260101", "1.2.1"),
    ):
        with city.exchange.on_behalf_of(city.system(code)) as access:
            orders.place(
                access,
                Placed(
                    patient_id=number,
                    accession_number=accession,
                    modality="CT",
                    body_part_examined="CHEST",
                    scheduled_date=date,
                    study_instance_uid=study,
                ),
            )
    return city


def record(city: Region, code: str, number: str) -> int:
    with city.exchange.database.reading() as session:
        return (
            session.query(Patient)
            .filter_by(organization_id=city.ids[code], patient_id=number)
            .one()
            .id
        )


def seen(
    city: Region,
    wanted: Wanted | None = None,
    *,
    who: str = "beicheng",
    number: int = 0,
    **page: int,
) -> Timeline:
    with city.exchange.on_behalf_of(city.clinician(who)) as access:
        return timeline.of(
            access,
            number or record(city, "beicheng", "B1"),
            wanted or Wanted(),
            limit=page.get("limit", 10),
            offset=page.get("offset", 0),
            reading=lambda _, content: Said(content.decode(), "result", "", ""),
        )


def told(shown: Timeline) -> list[str]:
    def name(entry: TimelineEntry) -> str:
        match entry:
            case StudyEntry(study=study):
                return study.study_instance_uid
            case OrderEntry(order=order):
                return order.accession_number
            case RecordEntry(said=said):
                return said.title

    return [name(entry) for entry in shown.entries]


def test_studies_and_orders_of_all_hospitals_stand_in_one_order(filled: Region) -> None:
    shown = seen(filled)
    assert told(shown) == ["1.2.2", "A1", "1.2.3", "1.2.1"]
    assert [entry.organization.code for entry in shown.entries] == [
        "nanhu",
        "nanhu",
        "nanhu",
        "beicheng",
    ]
    assert shown.total == 3
    assert isinstance(shown.entries[0], StudyEntry)
    assert shown.entries[0].body_parts == ("HEAD",)
    assert isinstance(shown.entries[1], OrderEntry)
    assert not shown.withheld


def test_it_offers_what_it_can_be_narrowed_to(filled: Region) -> None:
    choices = seen(filled).choices
    assert [one.code for one in choices.organizations] == ["beicheng", "nanhu"]
    assert choices.modalities == ("CT", "DX", "MR")
    assert choices.body_parts == ("CHEST", "HEAD")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(organization="beicheng"), ["1.2.1"]),
        (Wanted(organization="nowhere"), []),
        (Wanted(modality="CT"), ["A1", "1.2.1"]),
        (Wanted(body_part="CHEST"), ["A1", "1.2.3", "1.2.1"]),
        (Wanted(first="20260201", last="20260215"), ["A1", "1.2.3"]),
        (Wanted(organization="nanhu", body_part="CHEST", last="20260210"), ["1.2.3"]),
    ],
)
def test_it_is_narrowed_by_hospital_modality_body_part_and_date(
    filled: Region, wanted: Wanted, expected: list[str]
) -> None:
    assert told(seen(filled, wanted)) == expected


@pytest.mark.parametrize("limit", [1, 2])
def test_pages_have_every_entry_once_and_in_the_same_order(filled: Region, limit: int) -> None:
    pages = [seen(filled, limit=limit, offset=offset) for offset in range(0, 3, limit)]
    assert [one for page in pages for one in told(page)] == told(seen(filled))
    assert [page.more for page in pages] == [True] * (len(pages) - 1) + [False]


@pytest.fixture
def written(filled: Region) -> Region:
    """Nanhu has written a result of 2026-02-10 about the person."""

    def render(_: str, __: int, ___: datetime) -> bytes:
        return b"20260210080000"

    patient = record(filled, "nanhu", "N1")
    made = Draft(
        kind="Observation",
        logical_id=recording.new_id(),
        patients=(patient,),
        values=[],
        render=render,
    )
    with filled.exchange.on_behalf_of(filled.system("nanhu")) as access:
        recording.create(access, made)
    return filled


def test_what_a_hospital_wrote_stands_between_the_studies(written: Region) -> None:
    assert told(seen(written)) == ["1.2.2", "A1", "result", "1.2.3", "1.2.1"]
    assert told(seen(written, Wanted(organization="beicheng"))) == ["1.2.1"]
    assert told(seen(written, Wanted(first="20260205", last="20260220"))) == ["A1", "result"]
    assert "result" not in told(seen(written, Wanted(modality="MR")))


def requested(city: Region, code: str, accession: str) -> None:
    """The hospital has written the order itself, as a ServiceRequest."""
    with city.exchange.database.reading() as session:
        order = session.query(Order).filter_by(accession_number=accession).one()

    def render(_: str, __: int, ___: datetime) -> bytes:
        return f"{order.scheduled_date}080000".encode()

    made = Draft(
        kind="ServiceRequest",
        logical_id=recording.new_id(),
        patients=(order.patient_id,),
        values=[],
        render=render,
    )
    with city.exchange.on_behalf_of(city.system(code)) as access:
        recording.create(access, made)
    with city.exchange.database.writing() as session:
        session.execute(update(Order).where(Order.id == order.id).values(request=made.logical_id))


def test_an_order_that_a_hospital_wrote_stands_once_and_says_what_became_of_it(
    filled: Region,
) -> None:
    requested(filled, "nanhu", "A1")
    requested(filled, "beicheng", "A2")

    shown = seen(filled)

    assert told(shown) == ["1.2.2", "result", "1.2.3", "1.2.1", "result"]
    orders = [one for one in shown.entries if isinstance(one, RecordEntry)]
    assert [one.order.accession_number for one in orders if one.order] == ["A1", "A2"]
    assert [one.said.studies for one in orders] == [(), ("1.2.1",)]
    # Narrowed to a modality, of which records are not, it is an order as before.
    assert told(seen(filled, Wanted(modality="CT"))) == ["A1", "1.2.1"]


def test_a_study_says_that_a_hospital_reported_on_it(written: Region) -> None:
    def reported(status: str) -> list[str]:
        with written.exchange.on_behalf_of(written.clinician("beicheng")) as access:
            shown = timeline.of(
                access,
                record(written, "beicheng", "B1"),
                Wanted(),
                limit=10,
                reading=lambda _, content: Said(content.decode(), "", "", status, ("1.2.3",)),
            )
        return [
            one.study.study_instance_uid
            for one in shown.entries
            if isinstance(one, StudyEntry) and one.is_reported
        ]

    assert reported("final") == []
    with written.exchange.database.writing() as session:
        session.execute(update(Resource).values(kind="DiagnosticReport"))
    assert reported("final") == ["1.2.3"]
    assert reported("entered-in-error") == []


def test_the_trail_says_about_whom_a_timeline_told(written: Region) -> None:
    seen(written)

    with written.exchange.database.reading() as session:
        last = [json.loads(one.content) for one in audit.latest(session, 5)]
    (told_of,) = [one for one in last if one["reason"] == "clinical resources in a timeline"]
    assert told_of["patient"] == record(written, "nanhu", "N1")
    assert told_of["detail"]["patients"] == [told_of["patient"]]


def test_what_a_hospital_wrote_is_withheld_with_its_studies(written: Region) -> None:
    with written.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "nanhu", "N1")
    assert told(seen(written)) == ["1.2.1"]


def test_a_hospital_that_withholds_its_records_is_named_with_the_reason(filled: Region) -> None:
    with filled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "nanhu", "N1")

    shown = seen(filled)

    assert told(shown) == ["1.2.1"]
    assert [(one.organization.name, one.reason) for one in shown.withheld] == [
        (HOSPITALS["nanhu"][0], "the patient has not consented to sharing")
    ]
    with filled.exchange.database.reading() as session:
        last = [json.loads(one.content) for one in audit.latest(session, 5)]
    (recorded,) = [one for one in last if one["reason"] == "told that records are withheld"]
    assert recorded["detail"]["withheld"] == {"nanhu": "the patient has not consented to sharing"}
    assert recorded["requester"] == "dr.beicheng"
    with filled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert recorded in trail.records(access, patient=("nanhu", "N1"))


def test_a_hospital_outside_the_agreement_is_named_too(filled: Region) -> None:
    with filled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.end_agreement(access, "nanhu")
    (one,) = seen(filled).withheld
    assert one.reason == "the owning organization has not joined the sharing agreement"


def test_who_may_not_see_the_person_learns_nothing_of_what_is_withheld(filled: Region) -> None:
    with filled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "nanhu", "N1")
    number = record(filled, "beicheng", "B1")
    for one in (number, 10**6):
        with pytest.raises(NotFound, match="no such patient record"):
            seen(filled, who="dongshan", number=one)

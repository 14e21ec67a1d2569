"""What images say of their patient finds them, and is shown to somebody where it contradicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from region import ADMINISTRATOR, ID_CARD, Region
from sqlalchemy import Connection, select

from exchange import (
    conflicts,
    discrepancies,
    orders,
    query,
    registration,
    rejection,
    restoration,
)
from exchange.discrepancies import Said, Waiting
from exchange.errors import Invalid, NotFound, Refused
from exchange.ingest import Outcome
from exchange.registration import Registration
from exchange_storage.prepared import Prepared
from exchange_storage.records import AuditPatient, AuditRecord, Patient, PatientIdentifier
from exchange_storage.search import Level, Match, Values

FIRST = {"PatientName": "First^Person", "PatientBirthDate": "19700101", "PatientSex": "M"}
OTHER = {"PatientName": "Other^Human", "PatientBirthDate": "19850505", "PatientSex": "F"}
EVERY_NAME = ("First^Person", "Other^Human")


def sent(city: Region, study: str, told: dict[str, Any], **more: Any) -> Outcome:
    """Beicheng sends an image of a study of its patient SAME1."""
    instance = more.pop("instance", f"{study}.9")
    return city.send(
        "beicheng", patient="SAME1", study=study, instance=instance, **told, **more
    ).outcome


def found(city: Region, name: str, code: str = "beicheng") -> list[str]:
    """The studies that a clinician finds by a patient's name."""
    with city.exchange.on_behalf_of(city.clinician(code)) as access:
        named = Match("PatientName", Values((name,)))
        answer = query.find(access, Level.STUDY, [named], limit=100)
    return sorted(one.study.study_instance_uid for one in answer.found if one.study is not None)


def waiting(city: Region, code: str | None = None) -> list[Waiting]:
    asker = replace(ADMINISTRATOR, organization=city.ids[code]) if code else ADMINISTRATOR
    with city.exchange.on_behalf_of(asker) as access:
        return list(discrepancies.waiting(access))


def settled(city: Region, number: int, how: str, code: str | None = None) -> None:
    asker = replace(ADMINISTRATOR, organization=city.ids[code]) if code else ADMINISTRATOR
    with city.exchange.on_behalf_of(asker) as access:
        discrepancies.settle(access, number, how)


def rejected(city: Region, *uids: str, study: str = "", code: str = "113038") -> None:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        rejection.reject(access, "beicheng", code, uids, study=study)


def restored(city: Region, *uids: str, study: str = "") -> None:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        restoration.restore(access, "beicheng", uids, study=study)


def record(city: Region) -> tuple[str, str, str]:
    """What is known of the one patient."""
    with city.exchange.database.reading() as session:
        known = session.scalars(select(Patient)).one()
        return known.name, known.birth_date, known.sex


def registered(city: Region, told: dict[str, str]) -> None:
    """Beicheng's own feed tells of its patient SAME1."""
    with city.exchange.on_behalf_of(city.system("beicheng")) as access:
        registration.register(
            access,
            Registration(
                number="SAME1",
                name=told["PatientName"],
                birth_date=told["PatientBirthDate"],
                sex=told["PatientSex"],
                render=lambda *_: b"{}",
            ),
        )


# By which names a patient is found


def test_a_patient_is_found_by_the_name_before_and_the_name_after_its_correction(
    city: Region,
) -> None:
    sent(city, "1.2.1", FIRST)
    sent(city, "1.2.2", FIRST | {"PatientName": "First^Persson"})
    assert found(city, "First^Person") == found(city, "First^Persson") == ["1.2.1", "1.2.2"]
    assert waiting(city) == []
    assert record(city)[0] == "First^Person"


def test_images_of_one_study_that_write_the_name_differently_are_found_by_either(
    city: Region,
) -> None:
    sent(city, "1.2.1", FIRST)
    sent(city, "1.2.1", FIRST | {"PatientName": "王^小东"}, instance="1.2.1.10")
    assert found(city, "王小东") == found(city, "Wang^Xiaodong") == ["1.2.1"]


def test_a_number_that_a_hospital_gives_everybody_is_not_found_by_any_number_of_names(
    city: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange.demographics.MAX_NAME_KEYS", 12)
    for number, name in enumerate(("Aa^Bb", "Cc^Dd", "Ee^Ff", "Gg^Hh")):
        assert sent(city, f"1.2.{number + 1}", FIRST | {"PatientName": name}) is Outcome.KEPT
    assert found(city, "Cc^Dd") != []
    assert found(city, "Gg^Hh") == []


@pytest.mark.parametrize(
    "name", ["Wang^XiaoDong=王^小东", "王^小东", "WANG^XIAODONG", "Wang^Xiao Dong"]
)
def test_a_name_that_is_only_written_otherwise_costs_no_statement(
    city: Region, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    city.send("beicheng")
    asked: list[Prepared] = []
    run = Prepared._execute

    def told(self: Prepared, connection: Connection, given: Mapping[str, Any]) -> list[Any]:
        asked.append(self)
        return run(self, connection, given)

    def sending(number: int, **attributes: Any) -> list[Prepared]:
        asked.clear()
        city.send("beicheng", instance=f"1.4.{number}", **attributes)
        return list(asked)

    monkeypatch.setattr(Prepared, "_execute", told)
    assert sending(2) == sending(3, PatientName=name)


# Who may be somebody else


@pytest.mark.parametrize(
    ("told", "contradicts"),
    [
        (FIRST, False),
        (OTHER, True),
        (FIRST | {"PatientName": "Other^Human"}, False),
        (FIRST | {"PatientBirthDate": "19700102"}, False),
        (FIRST | {"PatientSex": "F"}, False),
        (FIRST | {"PatientName": "Other^Human", "PatientSex": "F"}, False),
        (FIRST | {"PatientName": "Other^Human", "PatientBirthDate": "19850505"}, True),
        (FIRST | {"PatientBirthDate": "19850505", "PatientSex": "F"}, True),
        (FIRST | {"PatientBirthDate": "19850505", "PatientSex": "O"}, False),
        (FIRST | {"PatientName": "person^first", "PatientBirthDate": "19850505"}, False),
        ({"PatientName": "Other^Human", "PatientSex": "F"}, False),
        ({}, False),
    ],
)
def test_what_cannot_be_a_correction_of_writing_contradicts(
    told: dict[str, str], contradicts: bool
) -> None:
    assert discrepancies.contradicts(Said.of(FIRST), Said.of(told)) is contradicts
    assert discrepancies.contradicts(Said.of(told), Said.of(FIRST)) is contradicts


def test_an_image_of_somebody_else_under_a_used_number_is_kept_found_and_shown_for_review(
    city: Region,
) -> None:
    sent(city, "1.2.1", FIRST)
    assert sent(city, "1.2.2", OTHER) is Outcome.KEPT
    assert sent(city, "1.2.2", OTHER, instance="1.2.2.10") is Outcome.KEPT

    assert [found(city, name) for name in EVERY_NAME] == [["1.2.1", "1.2.2"]] * 2
    (one,) = waiting(city)
    assert (one.organization, one.patient_id, one.study_instance_uid) == (
        "beicheng",
        "SAME1",
        "1.2.2",
    )
    assert (one.known, one.told) == (Said.of(FIRST), Said.of(OTHER))
    assert record(city) == ("First^Person", "19700101", "M")


def test_that_it_was_noticed_and_looked_at_stands_in_the_trail_without_names(
    city: Region,
) -> None:
    sent(city, "1.2.1", FIRST)
    sent(city, "1.2.2", OTHER)
    waiting(city)
    with city.exchange.database.reading() as session:
        records = [
            one
            for one in session.scalars(select(AuditRecord).order_by(AuditRecord.sequence))
            if "discrepanc" in one.content
        ]
        assert [one.action for one in records] == ["store", "review"]
        assert all("Human" not in one.content for one in records)
        patient = session.scalars(select(Patient.id)).one()
        listed = select(AuditPatient.patient_id).where(
            AuditPatient.sequence == records[-1].sequence
        )
        assert session.scalars(listed).all() == [patient]


def test_what_somebody_else_is_said_to_have_completes_nothing_and_links_nobody(
    city: Region,
) -> None:
    other = {"PatientName": "Zhao^Min", "PatientBirthDate": "19700101", "PatientSex": "M"}
    sent(city, "1.2.1", other)
    card = {"PatientName": "Wang^XiaoDong", "PatientBirthDate": "19491231", "PatientSex": "F"}
    sent(city, "1.2.2", card, card=ID_CARD, PatientAddress="3 Lake Road")
    with city.exchange.database.reading() as session:
        known = session.scalars(select(Patient)).one()
        assert (known.address, known.person_id) == ("", None)
        assert session.scalars(select(PatientIdentifier.value)).all() == []


def test_an_order_for_somebody_else_under_a_used_number_is_shown_too(city: Region) -> None:
    sent(city, "1.2.1", FIRST)
    placed = orders.Placed(
        patient_id="SAME1",
        patient_name=OTHER["PatientName"],
        patient_birth_date=OTHER["PatientBirthDate"],
        patient_sex=OTHER["PatientSex"],
        accession_number="A1",
        modality="CT",
        scheduled_date="20261101",
    )
    for number in ("A1", "A2"):
        with city.exchange.on_behalf_of(city.system("beicheng")) as access:
            orders.place(access, replace(placed, accession_number=number))
    assert [one.study_instance_uid for one in waiting(city)] == [""]


# What somebody decides


def test_that_it_is_the_same_person_is_said_once(city: Region) -> None:
    sent(city, "1.2.1", FIRST)
    sent(city, "1.2.2", OTHER)
    (one,) = waiting(city)
    settled(city, one.number, "same")
    assert sent(city, "1.2.3", OTHER, PatientAddress="3 Lake Road") is Outcome.KEPT
    assert waiting(city) == []
    with city.exchange.database.reading() as session:  # and completes what is known again
        assert session.scalars(select(Patient.address)).one() == "3 Lake Road"


def test_of_another_person_the_study_is_rejected_first_and_its_name_leads_there_no_more(
    city: Region,
) -> None:
    sent(city, "1.2.1", FIRST)
    sent(city, "1.2.2", OTHER)
    (one,) = waiting(city)
    with pytest.raises(Invalid, match="reject"):
        settled(city, one.number, "another")
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        rejection.reject(access, "beicheng", "113038", study="1.2.2")
    settled(city, one.number, "another")
    assert waiting(city) == []
    assert [found(city, name) for name in EVERY_NAME] == [["1.2.1"], []]
    assert sent(city, "1.2.3", OTHER) is Outcome.KEPT
    assert [one.study_instance_uid for one in waiting(city)] == ["1.2.3"]
    assert sent(city, "1.2.2", OTHER, instance="1.2.2.10") is Outcome.KEPT  # into the same study
    assert [one.study_instance_uid for one in waiting(city)] == ["1.2.3", "1.2.2"]


def test_what_the_hospitals_own_feed_says_of_the_patient_settles_it(city: Region) -> None:
    sent(city, "1.2.1", FIRST)
    sent(city, "1.2.2", OTHER)
    registered(city, FIRST)
    assert len(waiting(city)) == 1
    assert found(city, "Other^Human") == ["1.2.1", "1.2.2"]
    registered(city, OTHER)
    assert waiting(city) == []
    assert record(city)[0] == "Other^Human"


def test_each_hospitals_administrator_reviews_what_is_the_hospitals_own(city: Region) -> None:
    sent(city, "1.2.1", FIRST)
    sent(city, "1.2.2", OTHER)
    (one,) = waiting(city, "beicheng")
    assert waiting(city, "nanhu") == []
    with pytest.raises(NotFound, match="discrepancy list"):
        settled(city, one.number, "same", "nanhu")
    with pytest.raises(Invalid, match="same or another one"):
        settled(city, one.number, "perhaps", "beicheng")
    with (
        pytest.raises(Refused),
        city.exchange.on_behalf_of(city.clinician("beicheng")) as access,
    ):
        discrepancies.waiting(access)
    settled(city, one.number, "same", "beicheng")
    with pytest.raises(NotFound):
        settled(city, one.number, "same", "beicheng")


def test_whoever_says_the_same_of_the_same_patient_is_settled_with_it(city: Region) -> None:
    sent(city, "1.2.1", FIRST)
    sent(city, "1.2.2", OTHER)
    sent(city, "1.2.3", OTHER)
    sent(city, "1.2.4", OTHER | {"PatientName": "Third^Human"})
    settled(city, waiting(city)[1].number, "same")
    assert [one.study_instance_uid for one in waiting(city)] == ["1.2.4"]


# What is out of use


@pytest.mark.parametrize("code", ["113038", "113039"])
def test_what_only_images_out_of_use_say_waits_for_nobody(city: Region, code: str) -> None:
    sent(city, "1.2.1", FIRST)
    for instance in ("1.2.1.10", "1.2.1.11"):
        sent(city, "1.2.1", OTHER, instance=instance)
    (one,) = waiting(city)
    rejected(city, "1.2.1.10", code=code)
    assert waiting(city) == [one]
    with pytest.raises(Invalid, match="reject"):
        settled(city, one.number, "another")
    rejected(city, "1.2.1.11", code=code)
    assert waiting(city) == []
    assert [found(city, name) for name in EVERY_NAME] == [["1.2.1"], []]
    settled(city, one.number, "another")  # the good ones of the study stay in use


def test_it_waits_again_once_they_are_restored(city: Region) -> None:
    sent(city, "1.2.1", FIRST)
    sent(city, "1.2.1", OTHER, instance="1.2.1.10")
    before = waiting(city)
    rejected(city, "1.2.1.10")
    restored(city, "1.2.1.10")
    assert waiting(city) == before
    assert found(city, "Other^Human") == ["1.2.1"]


def test_it_waits_again_where_the_hospitals_own_feed_has_told_otherwise_meanwhile(
    city: Region,
) -> None:
    sent(city, "1.2.1", FIRST)
    sent(city, "1.2.2", OTHER)
    registered(city, OTHER)
    rejected(city, study="1.2.2")
    registered(city, FIRST)
    assert waiting(city) == []
    restored(city, study="1.2.2")
    assert [(one.study_instance_uid, one.told) for one in waiting(city)] == [
        ("1.2.2", Said.of(OTHER))
    ]


def test_what_was_found_to_be_another_persons_comes_not_back_under_this_patients_number(
    city: Region,
) -> None:
    sent(city, "1.2.1", FIRST)
    sent(city, "1.2.2", OTHER)
    sent(city, "1.2.2", FIRST, instance="1.2.2.10")
    (one,) = waiting(city)
    rejected(city, study="1.2.2")
    settled(city, one.number, "another")
    for named in ({"study": "1.2.2"}, {"uids": ("1.2.2.9",)}):
        with (
            pytest.raises(Invalid, match=f"another person.* discrepancy same {one.number}"),
            city.exchange.on_behalf_of(ADMINISTRATOR) as access,
        ):
            restoration.restore(access, "beicheng", **named)
    assert [found(city, name) for name in EVERY_NAME] == [["1.2.1"], []]
    restored(city, "1.2.2.10")  # which says who the patient is
    assert [found(city, name) for name in EVERY_NAME] == [["1.2.1", "1.2.2"], []]


def test_unless_somebody_finds_that_it_is_the_patient_after_all(city: Region) -> None:
    sent(city, "1.2.1", FIRST)
    sent(city, "1.2.2", OTHER)
    (one,) = waiting(city)
    rejected(city, study="1.2.2")
    settled(city, one.number, "another")
    with pytest.raises(NotFound):
        settled(city, one.number, "another")
    settled(city, one.number, "same")
    restored(city, study="1.2.2")
    assert waiting(city) == []
    assert [found(city, name) for name in EVERY_NAME] == [["1.2.1", "1.2.2"]] * 2


def test_nor_is_what_says_so_promoted(city: Region) -> None:
    sent(city, "1.2.1", FIRST)
    sent(city, "1.2.2", OTHER)
    sent(city, "1.2.2", OTHER, body=b"another one")
    (one,) = waiting(city)
    rejected(city, "1.2.2.9")
    settled(city, one.number, "another")
    sent(city, "1.2.2", FIRST, instance="1.2.2.11")
    sent(city, "1.2.2", OTHER, instance="1.2.2.11", body=b"another one")

    def promoted() -> None:
        with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            last = conflicts.waiting(access)[-1]
            conflicts.promote(access, last.number)

    with pytest.raises(Invalid, match=f"another person.* discrepancy same {one.number}"):
        promoted()
    assert waiting(city) == []
    assert found(city, "Other^Human") == []
    settled(city, one.number, "same")
    promoted()
    assert found(city, "Other^Human") == ["1.2.1", "1.2.2"]


def test_the_name_in_an_order_that_is_another_persons_finds_the_patient_no_more(
    city: Region,
) -> None:
    sent(city, "1.2.1", FIRST)
    placed = orders.Placed(
        patient_id="SAME1",
        patient_name=OTHER["PatientName"],
        patient_birth_date=OTHER["PatientBirthDate"],
        patient_sex=OTHER["PatientSex"],
        accession_number="A1",
        modality="CT",
        scheduled_date="20261101",
    )
    with city.exchange.on_behalf_of(city.system("beicheng")) as access:
        orders.place(access, placed)
    (one,) = waiting(city)
    assert found(city, "Other^Human") == ["1.2.1"]
    settled(city, one.number, "another")
    assert found(city, "Other^Human") == []
    settled(city, one.number, "same")
    assert found(city, "Other^Human") == ["1.2.1"]

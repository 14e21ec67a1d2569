"""A hospital registers its patients: what it says stands, what comes with images completes it."""

from __future__ import annotations

from datetime import datetime

import pytest
from region import ADMINISTRATOR, ID_CARD, Region
from sqlalchemy import select

from exchange import beside, clinical, consent, query, recording, registration
from exchange.clinical import Kept
from exchange.errors import Conflicting, Gone, Invalid, NotFound, Refused, Stale
from exchange.identity import RESIDENT_ID
from exchange.policy import Requester
from exchange.query import Found
from exchange.recording import Draft, Expected
from exchange.registration import Register, Registration, Withdraw
from exchange_storage.records import Link, NameKind, Patient, Person
from exchange_storage.search import Level, NamePart, Number, Prefix, Values

OTHER_CARD = "110105194912310038"
"""Valid, made up; of a man."""


def told(number: str = "P1", **more: object) -> Registration:
    def render(logical_id: str, version: int, at: datetime) -> bytes:
        return f"Patient/{logical_id} {version} {number}".encode()

    known: dict[str, object] = {
        "name": "Zhang^San=张^三",
        "birth_date": "19491231",
        "sex": "F",
        "render": render,
    }
    return Registration(number=number, **(known | more))  # type: ignore[arg-type]


def carrying(card: str) -> tuple[tuple[str, str], ...]:
    return ((RESIDENT_ID, card),)


def register(city: Region, code: str, one: Registration, **conditions: object) -> Kept:
    with city.exchange.on_behalf_of(city.system(code)) as access:
        return recording.several(access, [Register(one, **conditions)])[0]  # type: ignore[arg-type]


def record(city: Region, kept: Kept) -> Patient:
    with city.exchange.database.reading() as session:
        return session.get_one(Patient, int(kept.logical_id))


def find(city: Region, asker: Requester, **name: str) -> list[Found]:
    criteria = [NamePart(NameKind.FAMILY, Prefix(name["family"]))] if name else []
    with city.exchange.on_behalf_of(asker) as access:
        return list(query.find(access, Level.PATIENT, criteria, limit=10).found)


def refused(city: Region, code: str, one: Registration, why: type[Exception], **on: object) -> str:
    with pytest.raises(why) as refusal:
        register(city, code, one, **on)
    return str(refusal.value)


def test_a_registered_patient_is_found_by_name_before_there_is_an_image(city: Region) -> None:
    kept = register(city, "beicheng", told(further_names=("Li^San",)))

    assert (kept.version, kept.interaction, kept.content) == (
        1,
        "create",
        f"Patient/{kept.logical_id} 1 P1".encode(),
    )
    doctor = city.clinician("nanhu")
    for family in ("zhang", "张", "li"):
        (found,) = find(city, doctor, family=family)
        assert str(found.patient.id) == kept.logical_id


def test_what_the_hospital_says_replaces_what_an_image_said_and_images_complete_it(
    city: Region,
) -> None:
    city.send("beicheng", card=ID_CARD, PatientAddress="北城路1号")
    kept = register(city, "beicheng", told(sex="M", birth_date="19500101"))

    assert kept.interaction == "update"
    patient = record(city, kept)
    assert (patient.name, patient.sex, patient.address) == ("Zhang^San=张^三", "M", "")
    assert find(city, city.clinician("beicheng"), family="wang") == []
    city.send(
        "beicheng",
        study="1.2.9",
        instance="1.4.9",
        PatientBirthDate="19500101",
        PatientSex="M",
        PatientAddress="北城路2号",
    )
    patient = record(city, kept)
    assert (patient.name, patient.address) == ("Zhang^San=张^三", "北城路2号")


def test_a_number_is_registered_once_and_updated_from_then_on(city: Region) -> None:
    first = register(city, "beicheng", told(), new=True)

    assert "update it" in refused(city, "beicheng", told(), Conflicting, new=True)
    second = register(city, "beicheng", told(), if_match=Expected(frozenset({1})))
    assert (second.logical_id, second.version) == (first.logical_id, 2)
    refused(city, "beicheng", told(), Stale, if_match=Expected(frozenset({1})))
    refused(city, "beicheng", told(), Stale, if_none=True)
    assert register(city, "nanhu", told(), new=True).logical_id != first.logical_id


@pytest.mark.parametrize("number", ["", " ", "a\\b", "x" * 65])
def test_what_is_no_number_registers_nobody(city: Region, number: str) -> None:
    refused(city, "beicheng", told(number), Invalid)


def test_a_record_keeps_its_number(city: Region) -> None:
    first = register(city, "beicheng", told("P1"))
    register(city, "beicheng", told("P2"))

    row = int(first.logical_id)
    assert "merge them" in refused(city, "beicheng", told("P2"), Conflicting, patient=row)
    assert "merge them" in refused(city, "beicheng", told("P3"), Conflicting, patient=row)
    assert register(city, "beicheng", told("P1"), patient=row).version == 2


def test_no_hospital_registers_another_hospitals_patient(city: Region) -> None:
    theirs = register(city, "beicheng", told())
    row = int(theirs.logical_id)

    refused(city, "nanhu", told(), Refused, patient=row)
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P1")
    unseen = refused(city, "nanhu", told(), NotFound, patient=row)
    assert unseen == refused(city, "nanhu", told(), NotFound, patient=row + 1000)
    with pytest.raises(Refused), city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        registration.register(access, told())


def test_a_registered_card_links_the_person_and_a_corrected_one_links_another(city: Region) -> None:
    city.send("nanhu", card=ID_CARD)
    kept = register(city, "beicheng", told(identifiers=carrying(ID_CARD)))
    assert record(city, kept).person_id is not None

    kept = register(city, "beicheng", told(sex="M", identifiers=carrying(OTHER_CARD)))

    with city.exchange.database.reading() as session:
        person = session.get_one(Person, record(city, kept).person_id)
        decisions = session.scalars(
            select(Link.decision).where(Link.patient_id == int(kept.logical_id)).order_by(Link.id)
        ).all()
    assert person.resident_id == OTHER_CARD
    assert decisions == ["link", "unlink", "link"]


def test_merged_records_are_one_person_and_are_asked_for_under_the_number_that_stands(
    city: Region,
) -> None:
    city.send("nanhu", card=ID_CARD, study="1.2.7", instance="1.4.7")
    old = register(city, "beicheng", told("P1"))
    new = register(city, "beicheng", told("P2", identifiers=carrying(ID_CARD)))
    register(city, "beicheng", told("P1", replaced_by=int(new.logical_id)))

    assert record(city, old).person_id == record(city, new).person_id
    with city.exchange.on_behalf_of(city.system("beicheng")) as access:
        (study,) = query.find(access, Level.STUDY, [], limit=10).found
    assert study.number.value == "P2"  # though P1 is the lower of the two

    register(city, "beicheng", told("P1"))
    assert record(city, old).person_id is None
    assert record(city, new).person_id is not None


def test_merged_records_without_a_card_are_one_person_whose_card_may_come_later(
    city: Region,
) -> None:
    old = register(city, "beicheng", told("P1"))
    new = register(city, "beicheng", told("P2"))
    register(city, "beicheng", told("P1", replaced_by=int(new.logical_id)))
    assert record(city, old).person_id == record(city, new).person_id is not None

    register(city, "beicheng", told("P2", identifiers=carrying(ID_CARD)))

    with city.exchange.database.reading() as session:
        person = session.get_one(Person, record(city, old).person_id)
    assert person.resident_id == ID_CARD


def test_what_was_merged_follows_the_record_that_stands_in_its_place(city: Region) -> None:
    old, new = register(city, "beicheng", told("P1")), register(city, "beicheng", told("P2"))
    carded = told("P2", identifiers=carrying(ID_CARD))
    register(city, "beicheng", carded)
    register(city, "beicheng", told("P1", replaced_by=int(new.logical_id)))

    def person(kept: Kept) -> int:
        found = record(city, kept).person_id
        assert found is not None
        return found

    first = person(new)
    register(city, "beicheng", told("P2", sex="M", identifiers=carrying(OTHER_CARD)))  # corrected
    assert person(old) == person(new) != first

    last = register(city, "beicheng", told("P3", identifiers=carrying(ID_CARD)))
    into = told("P2", sex="M", identifiers=carrying(OTHER_CARD), replaced_by=int(last.logical_id))
    register(city, "beicheng", into)
    assert person(old) == person(new) == person(last) == first

    register(city, "beicheng", told("P2"))  # taken back
    assert person(old) == person(new) != person(last)


def test_records_do_not_replace_each_other_in_a_circle_nor_another_hospitals(city: Region) -> None:
    first, second = register(city, "beicheng", told("P1")), register(city, "beicheng", told("P2"))
    theirs = register(city, "nanhu", told("P1"))
    register(city, "beicheng", told("P1", replaced_by=int(second.logical_id)))

    circle = told("P2", replaced_by=int(first.logical_id))
    assert "replaces itself" in refused(city, "beicheng", circle, Conflicting)
    itself = told("P2", replaced_by=int(second.logical_id))
    refused(city, "beicheng", itself, Conflicting)
    refused(city, "beicheng", told("P2", replaced_by=int(theirs.logical_id)), Refused)


def test_a_record_of_which_something_is_held_is_not_withdrawn(city: Region) -> None:
    kept = register(city, "beicheng", told())
    row = int(kept.logical_id)
    city.send("beicheng")

    with (
        pytest.raises(Conflicting, match="studies, orders or other resources"),
        city.exchange.on_behalf_of(city.system("beicheng")) as access,
    ):
        registration.withdraw(access, row)


def test_a_withdrawn_record_is_not_told_of_until_its_patient_comes(city: Region) -> None:
    kept = register(city, "beicheng", told())
    row = int(kept.logical_id)
    system = city.system("beicheng")
    with city.exchange.on_behalf_of(system) as access:
        assert registration.withdraw(access, row).deleted
        assert not registration.withdraw(access, row).made

    assert find(city, system) == []
    with city.exchange.on_behalf_of(system) as access:
        with pytest.raises(Gone):
            query.patient(access, row)
        assert beside.of(access, [record(city, kept)])[row].written is None
        assert clinical.vread(access, "Patient", kept.logical_id, 1).content == kept.content

    city.send("beicheng")
    (found,) = find(city, system)
    assert found.patient.id == row
    again = register(city, "beicheng", told())
    assert (again.logical_id, again.version) == (kept.logical_id, 3)
    with city.exchange.on_behalf_of(system) as access:
        assert beside.of(access, [record(city, kept)])[row].written == again.content


def test_another_hospitals_record_is_not_withdrawn(city: Region) -> None:
    row = int(register(city, "beicheng", told()).logical_id)

    with pytest.raises(Refused), city.exchange.on_behalf_of(city.system("nanhu")) as access:
        recording.several(access, [Withdraw(row)])


def test_the_first_resources_of_a_patient_come_with_their_registration(city: Region) -> None:
    def observation(done: list[Kept]) -> recording.Create:
        row = int(done[0].logical_id)
        return recording.Create(
            Draft(kind="Observation", patients=(row,), render=lambda *_: f"of {row}".encode())
        )

    with city.exchange.on_behalf_of(city.system("beicheng")) as access:
        patient, observed = recording.several(
            access,
            [Register(told()), recording.After(observation)],  # type: ignore[arg-type]
        )

    assert observed.content == f"of {patient.logical_id}".encode()


def test_the_hospitals_own_number_is_told_from_others(city: Region) -> None:
    with city.exchange.on_behalf_of(city.system("beicheng")) as access:
        card = (RESIDENT_ID, ID_CARD)
        assert registration.own_number(access, [card, ("urn:oid:2.25.101", "P1")]) == "P1"
        for wrong in ([card], [("urn:oid:2.25.102", "P1")], [("2.25.101", "1"), ("2.25.101", "2")]):
            with pytest.raises(Invalid, match=r"urn:oid:2\.25\.101"):
                registration.own_number(access, wrong)


def test_a_search_by_number_finds_what_was_registered(city: Region) -> None:
    kept = register(city, "beicheng", told("P77"))
    with city.exchange.on_behalf_of(city.system("beicheng")) as access:
        own = Number(city.ids["beicheng"], Values(("P77",)))
        (found,) = query.find(access, Level.PATIENT, [own], limit=10).found
    assert str(found.patient.id) == kept.logical_id

"""Person: who the patients of several hospitals are, as far as the asker may see their records."""

from __future__ import annotations

from typing import Any

import pytest
from bundles import newest
from fhir_door import Asker, Door, entries, outcome
from region import ADMINISTRATOR, ID_CARD

from exchange import consent

CARD = f"urn:oid:2.16.156.10011.1.3|{ID_CARD}"
TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"


def found(asker: Asker, query: str) -> list[dict[str, Any]]:
    return [one["resource"] for one in entries(asker.bundle(f"Person?{query}"))]


def links(person: dict[str, Any]) -> dict[str, str]:
    return {one["target"]["reference"]: one["assurance"] for one in person["link"]}


def test_a_person_is_who_the_patients_of_two_hospitals_are(hospital: Door) -> None:
    asker = hospital.clinician("dongshan")

    (person,) = found(asker, f"identifier={CARD}")

    assert links(person) == {"Patient/1": "level3", "Patient/2": "level3"}
    assert {one["value"] for one in person["identifier"]} == {"W1", "W2", ID_CARD}
    assert (person["gender"], person["birthDate"]) == ("female", "1949-12-31")
    assert {one["text"] for one in person["name"]} == {"Wang XiaoDong", "王小东"}
    assert asker.read(f"Person/{person['id']}") == person


@pytest.mark.parametrize(
    "query",
    [
        "name=王",
        "name=wang",
        "name:exact=Wang XiaoDong",
        "phonetic=wang",
        "birthdate=1949",
        "birthdate=1949-12-31&gender=female",
        "identifier=urn:oid:2.25.101|W1",
        f"identifier:of-type={TYPES}|MR|W1",
        f"identifier:of-type={TYPES}|NI|{ID_CARD}",
        "identifier=urn:oid:2.25.101|W1&identifier=urn:oid:2.25.102|W2",
        "patient=Patient/1",
        "link=Patient/2",
        "link:Patient=2",
        "patient=1,2",
        "patient.identifier=urn:oid:2.25.102|W2",
        "link:Patient.name=王",
        "gender:not=male",
        "identifier:missing=false",
        "organization:missing=true",
        "_lastUpdated=gt2000-01-01",
        "_lastUpdated=lt2999",
        "_id=1",
        "_sort=-_id",
    ],
)
def test_it_is_found_by_what_any_of_the_records_says(hospital: Door, query: str) -> None:
    people = found(hospital.clinician("dongshan"), query)
    assert "1" in {one["id"] for one in people}, people


def test_a_record_is_found_by_the_types_that_its_identifiers_are_told_to_have(door: Door) -> None:
    door.city.send("beicheng", patient="W1", card=ID_CARD)
    door.city.send("nanhu", patient="W2", study="1.2.2", instance="1.4.2", card=ID_CARD)
    asker = door.clinician("beicheng")
    own = f"Patient?identifier:of-type={TYPES}|MR|W1"
    assert asker.ids(own) == ["Patient/1"]
    assert asker.ids(f"Patient?identifier:of-type={TYPES}|NI|{ID_CARD}") == [
        "Patient/1",
        "Patient/2",
    ]
    assert asker.ids(f"Patient?identifier:of-type={TYPES}|NI|W1") == []

    number = {"system": "urn:oid:2.25.101", "value": "W1", "type": {"coding": [
        {"system": "urn:types", "code": "PI"}]}}  # fmt: skip
    written = {"resourceType": "Patient", "id": "1", "identifier": [number]}
    assert door.system("beicheng").send("PUT", "Patient/1", written).status_code == 200

    assert asker.ids(own) == []
    assert asker.ids("Patient?identifier:of-type=urn:types|PI|W1") == ["Patient/1"]


@pytest.mark.parametrize(
    "query",
    [
        "name=王&gender=male",
        "identifier=urn:oid:2.25.103|W1",
        f"identifier:of-type={TYPES}|NI|W1",
        f"identifier:of-type={TYPES}|MR|{ID_CARD}",
        "identifier:of-type=urn:types|MR|W1",
        "patient=Patient/999",
        "patient=Practitioner/1",
        "organization=Organization/beicheng",
        "birthdate=1950",
        "name:missing=true",
        "_lastUpdated=lt2000",
        "email=a@example.org",
        "_id=x",
    ],
)
def test_and_not_by_what_none_of_them_says(hospital: Door, query: str) -> None:
    assert found(hospital.clinician("dongshan"), query) == []


def test_persons_come_along_with_patients_and_patients_with_persons(hospital: Door) -> None:
    asker = hospital.clinician("dongshan")

    backwards = asker.ids("Patient?_id=1&_revinclude=Person:patient", "include")
    forwards = asker.ids("Person?_id=1&_include=Person:link", "include")

    assert backwards == ["Person/1"]
    assert sorted(forwards) == ["Patient/1", "Patient/2"]
    assert asker.ids("Patient/1/Person") == ["Person/1"]
    assert asker.ids("Patient?link=Patient/1") == ["Patient/2"]


def test_persons_are_paged_and_counted(door: Door) -> None:
    for at, (card, born) in enumerate(
        [("11010519491231002X", "19491231"), ("440524188001010014", "18800101")]
    ):
        for hospital in ("beicheng", "nanhu"):
            door.city.send(
                hospital, patient=f"P{at}", study=f"1.2.{at}.{hospital == 'nanhu':d}",
                instance=f"1.4.{at}.{hospital == 'nanhu':d}", card=card,
                PatientBirthDate=born, PatientSex="F" if at == 0 else "M",
            )  # fmt: skip
    asker = door.clinician("dongshan")

    pages = list(asker.pages("Person?_count=1&name=wang"))

    told = [entry["resource"]["id"] for page in pages for entry in entries(page)]
    held = asker.bundle("Person?name=wang&_total=accurate&_count=0")
    assert held["total"] == len(told) == len(set(told))


def test_only_what_may_be_seen_makes_a_person(door: Door) -> None:
    """The refusal beside its permit: a record that is withheld is neither told nor found by."""
    door.city.send("beicheng", patient="W1", card=ID_CARD)
    door.city.send("nanhu", patient="W2", study="1.2.2", instance="1.4.2", card=ID_CARD)
    stranger, own = door.clinician("dongshan"), door.clinician("nanhu")
    (person,) = found(stranger, f"identifier={CARD}")
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "nanhu", "W2")

    assert found(stranger, f"identifier={CARD}") == found(stranger, "_id=1") == []
    stranger.refused(f"Person/{person['id']}", 404, "not-found")
    assert links(own.read(f"Person/{person['id']}")) == {"Patient/2": "level3"}
    assert found(own, "identifier=urn:oid:2.25.101|W1") == found(own, "patient=Patient/1") == []
    assert found(own, "patient.identifier=urn:oid:2.25.101|W1") == []
    door.asker(ADMINISTRATOR).refused("Person", 403, "forbidden")


def test_what_a_hospital_merged_is_one_person_on_its_word(hospital: Door) -> None:
    system = hospital.system("beicheng")

    def record(number: str, **more: Any) -> dict[str, Any]:
        told = {"system": "urn:oid:2.25.101", "value": number}
        return {"resourceType": "Patient", "identifier": [told], "name": [{"text": "李四"}]} | more

    kept = system.made(record("M1"))
    old = system.made(record("M2"))
    gone = record(
        "M2",
        id=old["id"],
        active=False,
        link=[{"type": "replaced-by", "other": {"reference": f"Patient/{kept['id']}"}}],
    )
    response = system.send("PUT", f"Patient/{old['id']}", gone)
    assert response.status_code == 200, response.text

    (person,) = found(system, f"patient=Patient/{kept['id']}")
    assert set(links(person).values()) == {"level2"}
    assert set(links(person)) == {f"Patient/{kept['id']}", f"Patient/{old['id']}"}
    told = system.read(f"Patient/{old['id']}")["link"]
    assert [(one["type"], one["other"]["reference"]) for one in told] == [
        ("replaced-by", f"Patient/{kept['id']}")
    ]
    told = system.read(f"Patient/{kept['id']}")["link"]
    assert [(one["type"], one["other"]["reference"]) for one in told] == [
        ("seealso", f"Patient/{old['id']}")
    ]


def test_nobody_writes_a_person_or_asks_through_one(hospital: Door) -> None:
    system = hospital.system("beicheng")
    person = {"resourceType": "Person", "active": True}
    before = newest(system)

    for method, path in (("POST", "Person"), ("PUT", "Person/1"), ("DELETE", "Person/1")):
        outcome(system.send(method, path, person), 405, "not-supported")
    assert newest(system) == before
    for query in ("_has:Provenance:target:agent=x", "_list=1", "_sort=name"):
        system.refused(f"Person?{query}", 400, "invalid")
    system.refused("Person/999", 404, "not-found")
    system.refused("Person/1/_history", 404, "not-supported")

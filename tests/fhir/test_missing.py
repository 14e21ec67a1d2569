""":missing of what the exchange derives: it says what the resource that is served says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from fhir_door import BASE, SHANGHAI, Asker, Door, opened
from region import ID_CARD, region

from exchange_fhir import at_hand, indexing
from exchange_fhir.definitions import search_parameters
from exchange_fhir.values import missing_value
from exchange_storage.resource_criteria import Asked
from exchange_storage.resource_index import Value

ISSUER = "urn:oid:2.25.101"
TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"
DERIVED = ("Patient", "Person", "ImagingStudy", "Endpoint", "Organization", "AuditEvent")

WRITTEN: list[dict[str, Any]] = [
    {"active": True, "name": [{"family": "赵"}], "birthDate": "1980-02-03"},
    {"name": [{"given": ["Na"]}], "telecom": [{"system": "email", "value": "na@example.org"}]},
    {"deceasedDateTime": "2026-01-01", "address": [{"city": "沈阳", "use": "home"}]},
    {"gender": "male", "telecom": [{"system": "phone", "value": "024-1"}], "deceasedBoolean": False,
     "address": [{"line": ["1"], "state": "辽宁", "postalCode": "110000", "country": "CN"}]},
    {"communication": [{"language": {"text": "中文"}}], "identifier": [
        {"system": ISSUER, "value": "4"}, {"system": "urn:other", "value": "x"}],
     "generalPractitioner": [{"display": "李医生"}], "meta": {"tag": [{"code": "ward"}]}},
    {"link": [{"other": {"reference": "Patient/1"}, "type": "seealso"}]},
]  # fmt: skip
"""What hospitals write of their patients, by number."""


@pytest.fixture(scope="module")
def told(lasting_database_url: str) -> Iterator[Door]:
    """Patients of images alone and of what is written; studies with and without what may be."""
    with region(lasting_database_url) as city:
        city.send("beicheng", patient="W1", card=ID_CARD, ReferringPhysicianName="Li^Na")
        city.send(
            "nanhu", patient="W2", study="1.2.2", instance="1.4.2", card=ID_CARD,
            AccessionNumber="A2", BodyPartExamined="CHEST", PatientAddress="沈阳市",
            PatientTelephoneNumbers="024-2", PatientMotherBirthName="Sun^Li",
        )  # fmt: skip
        city.send(
            "nanhu", patient="", study="1.2.3", instance="1.4.3", PatientName="",
            PatientBirthDate="", PatientSex="", StudyDate="", StudyTime="", Modality="",
        )  # fmt: skip
        city.send(
            "nanhu", patient="W4", study="1.2.4", instance="1.4.4", PatientName="Li", card=None
        )
        door = opened(city)
        beicheng = door.system("beicheng")
        for number, elements in enumerate(WRITTEN):
            own = {"resourceType": "Patient", "identifier": [
                {"system": ISSUER, "value": str(number)}]}  # fmt: skip
            beicheng.made(own | elements)
        beicheng.made(
            {
                "resourceType": "ServiceRequest", "status": "active", "intent": "order",
                "identifier": [{"value": "A5", "type": {
                    "coding": [{"system": TYPES, "code": "ACSN"}]}}],
                "category": [{"coding": [
                    {"system": "http://snomed.info/sct", "code": "363679005"}]}],
                "subject": {"reference": "Patient/1"},
                "occurrenceDateTime": "2026-11-27T09:30:00+08:00",
                "code": {"text": "胸部平扫"},
                "orderDetail": [{"coding": [
                    {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"}]}],
            }
        )  # fmt: skip
        city.send(
            "beicheng", patient="W1", study="1.2.5", instance="1.4.5", card=ID_CARD,
            AccessionNumber="A5",
        )  # fmt: skip
        city.identify()
        yield door


@pytest.mark.parametrize("kind", DERIVED)
def test_what_a_derived_resource_says_is_not_missing_and_the_rest_is(told: Door, kind: str) -> None:
    asker = told.administrator() if kind == "AuditEvent" else told.clinician("beicheng")
    values = _values(asker, kind)
    among = f"_count=200&_id={','.join([*values][:100])}" if kind == "AuditEvent" else "_count=200"
    values = dict([*values.items()][:100])
    wrong = []
    for code, parameter in search_parameters.of(kind).items():
        if not parameter.kept_as:
            continue
        present = missing_value(parameter, missing=False)
        says = {name for name, held in values.items() if _holds(present, held)}
        for missing, expected in (("false", says), ("true", set(values) - says)):
            asked = f"{kind}?{among}&{code}:missing={missing}"
            found = {one.partition("/")[2] for one in asker.ids(asked)}
            if found != expected:
                wrong.append((asked, sorted(found - expected), sorted(expected - found)))
    assert wrong == []


def test_a_study_is_found_by_the_type_of_its_accession_number(told: Door) -> None:
    doctor = told.clinician("beicheng")
    asked = f"ImagingStudy?identifier:of-type={TYPES}"

    assert doctor.ids(f"{asked}|ACSN|A2") == ["ImagingStudy/1.2.2"]
    assert doctor.ids("ImagingStudy?identifier:of-type=|ACSN|A2,x|ACSN|A5") == [
        "ImagingStudy/1.2.2"
    ]
    assert doctor.ids(f"{asked}|MR|A2") == doctor.ids(f"{asked}|ACSN|1.2.2") == []
    assert set(doctor.ids(f"{asked}|ACSN|A2,{TYPES}|ACSN|A5")) == {
        "ImagingStudy/1.2.2",
        "ImagingStudy/1.2.5",
    }


def _holds(present: Asked, held: tuple[Value, ...]) -> bool:
    return at_hand.holds(present, "", datetime.now(UTC), lambda: held)


def _values(asker: Asker, kind: str) -> dict[str, tuple[Value, ...]]:
    """What each resource of a type says, read from the JSON that is served."""
    return {
        one["resource"]["id"]: tuple(indexing.values(one["resource"], SHANGHAI, BASE))
        for one in asker.bundle(f"{kind}?_count=200").get("entry", ())
    }


def test_a_study_that_names_no_modality_is_found_by_what_is_told_of_it(told: Door) -> None:
    doctor = told.clinician("beicheng")
    (study,) = doctor.bundle("ImagingStudy?_id=1.2.3")["entry"]

    assert [one["code"] for one in study["resource"]["modality"]] == ["OT"]
    assert doctor.ids("ImagingStudy?modality=OT") == ["ImagingStudy/1.2.3"]
    assert "ImagingStudy/1.2.3" not in doctor.ids("ImagingStudy?modality:not=OT")


def test_what_a_hospital_wrote_of_an_address_is_found_by_its_parts(told: Door) -> None:
    doctor = told.clinician("beicheng")
    two = {"resourceType": "Patient", "identifier": [{"system": ISSUER, "value": "two"}],
           "address": [{"city": "沈阳", "use": "home"}, {"city": "大连", "line": ["海街"]}],
           "telecom": [{"system": "fax", "value": "024-9"}]}  # fmt: skip
    made = f"Patient/{told.system('beicheng').made(two)['id']}"

    for asked in (
        *("address-city=大连", "address-city:exact=大连", "address-city:contains=连"),
        *("address=海街", "address:exact=海街", "telecom=024-9", "telecom=fax|"),
    ):
        assert doctor.ids(f"Patient?{asked}") == [made], asked
    assert doctor.ids("Patient?address-city:exact=连") == []
    assert doctor.ids("Patient?telecom=phone|024-9") == []

"""Searches over what hospitals wrote, what came with images, and what is registered, as one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

import pytest
from crowding import crowded
from fhir_door import Asker, Door, entries, link, name, opened, outcome
from region import ID_CARD, region

from exchange import clinical_search
from exchange.clinical_search import Question
from exchange.errors import Invalid
from exchange_storage.resource_criteria import Every

LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
GENDER = "http://hl7.org/fhir/administrative-gender"
DCM = "http://dicom.nema.org/resources/ontology/DCM"
CARDS = "urn:oid:2.16.156.10011.1.3"


def weight(patient: str, kilos: float, when: str, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": "29463-7", "display": "Body weight"}]},
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": when,
        "valueQuantity": {"value": kilos, "unit": "kg", "system": UCUM, "code": "kg"},
        **more,
    }


def pressure(patient: str, systolic: int, diastolic: int) -> dict[str, Any]:
    def part(code: str, value: int) -> dict[str, Any]:
        return {
            "code": {"coding": [{"system": LOINC, "code": code}]},
            "valueQuantity": {"value": value, "unit": "mmHg", "system": UCUM, "code": "mm[Hg]"},
        }

    return {
        "resourceType": "Observation",
        "status": "preliminary",
        "code": {"coding": [{"system": LOINC, "code": "85354-9"}], "text": "血压"},
        "subject": {"reference": f"Patient/{patient}"},
        "component": [part("8480-6", systolic), part("8462-4", diastolic)],
    }


@pytest.fixture(scope="module")
def door(lasting_database_url: str) -> Iterator[Door]:
    """Wang at beicheng (Patient/1) and nanhu (2), Li at nanhu (3); what beicheng wrote of Wang."""
    with region(lasting_database_url) as city:
        city.send("beicheng", patient="W1", card=ID_CARD, study="1.2.1", instance="1.4.1")
        city.send("nanhu", patient="W2", card=ID_CARD, study="1.2.2", instance="1.4.2")
        city.send(
            "nanhu", patient="L1", study="1.2.3", instance="1.4.3", PatientName="Li^Na=李^娜",
            PatientSex="M", Modality="MR",
        )  # fmt: skip
        city.identify()
        door = opened(city)
        _written(door.system("beicheng"), door.system("nanhu"))
        yield door


IDS: dict[str, str] = {}
"""The ids of what was written, by what the tests call it."""


def _written(beicheng: Asker, nanhu: Asker) -> None:
    def put(asker: Asker, called: str, resource: dict[str, Any]) -> None:
        kind = resource["resourceType"]
        answer = asker.send("PUT", f"{kind}/{called}", resource | {"id": called})
        assert answer.status_code == 201, answer.text

    put(beicheng, "dept", {
        "resourceType": "Organization", "name": "Radiology of 北城", "active": True,
        "partOf": {"reference": "Organization/beicheng"},
    })  # fmt: skip
    put(beicheng, "dr-zhang", {
        "resourceType": "Practitioner", "name": [{"family": "张", "given": ["伟"]}],
        "identifier": [{"system": "urn:staff", "value": "Z1", "type": {
            "coding": [{"system": "urn:types", "code": "EN"}], "text": "employee number"}}],
        "telecom": [{"system": "email", "value": "zhang@example.org"}],
    })  # fmt: skip
    by = {"performer": [{"reference": "Practitioner/dr-zhang"}]}
    meta = {"meta": {"tag": [{"system": "urn:tags", "code": "ward"}], "source": "urn:his"}}
    put(beicheng, "w70", weight("1", 70.5, "2024-03-01T10:00:00+08:00", **by, **meta))
    put(beicheng, "w71", weight("1", 71, "2024-04", **by))
    put(nanhu, "w72", weight("2", 72, "2024-05-02"))
    put(nanhu, "w50", weight("3", 50, "2024-05-02"))
    put(beicheng, "bp", pressure("1", 140, 90))
    put(beicheng, "report", {
        "resourceType": "DiagnosticReport", "status": "final",
        "code": {"coding": [{"system": LOINC, "code": "24627-2"}]},
        "subject": {"reference": "Patient/1"},
        "resultsInterpreter": [{"reference": "Practitioner/dr-zhang"}],
        "result": [{"reference": "Observation/w70"}],
        "identifier": [{"system": "urn:r,eports", "value": "R|1"}],
    })  # fmt: skip
    put(beicheng, "seen", {
        "resourceType": "Observation", "status": "final", "code": {"text": "seen on images"},
        "subject": {"reference": "Patient/1"},
        "derivedFrom": [{"reference": "ImagingStudy/1.2.1"}],
    })  # fmt: skip
    put(beicheng, "logical", {
        "resourceType": "Condition", "subject": {"reference": "Patient/1"},
        "recordedDate": "2024-01-01",
        "asserter": {"identifier": {"system": "urn:staff", "value": "X9"}},
        "onsetPeriod": {"start": "2020-01-01", "end": "2020-06-30"},
    })  # fmt: skip
    put(beicheng, "form", {
        "resourceType": "Questionnaire", "status": "active", "name": "Form",
        "url": "http://forms.example/a/b",
    })  # fmt: skip
    put(beicheng, "list", {
        "resourceType": "List", "status": "current", "mode": "working",
        "subject": {"reference": "Patient/1"},
        "entry": [{"item": {"reference": "Observation/w70"}}],
    })  # fmt: skip


W = ["Observation/w70", "Observation/w71", "Observation/w72", "Observation/w50"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        # Tokens.
        ("Observation?code=29463-7", ["w70", "w71", "w72", "w50"]),
        (f"Observation?code={LOINC}|29463-7", ["w70", "w71", "w72", "w50"]),
        ("Observation?code=|29463-7", []),
        ("Observation?code=urn:other|29463-7", []),
        ("Observation?code=29463-7,85354-9&status=preliminary", ["bp"]),
        ("Observation?combo-code=8480-6", ["bp"]),
        ("Observation?code:not=29463-7", ["bp", "seen"]),
        ("Observation?code:text=body", ["w70", "w71", "w72", "w50"]),
        ("Observation?code:text=血", ["bp"]),
        ("Observation?code:in=http://hl7.org/fhir/ValueSet/observation-status", []),
        (
            "Observation?status:in=http://hl7.org/fhir/ValueSet/observation-status",
            ["w70", "w71", "w72", "w50", "bp", "seen"],
        ),
        ("Observation?status:not-in=http://hl7.org/fhir/ValueSet/observation-status", []),
        ("Observation?_tag=ward", ["w70"]),
        ("Observation?_tag=urn:tags|", ["w70"]),
        ("Observation?_source=urn:his", ["w70"]),
        ("Observation?_id=w70,bp,nothing", ["w70", "bp"]),
        ("Observation?_id:missing=true", []),
        ("Observation?_lastUpdated:missing=false&status=preliminary", ["bp"]),
        ("Endpoint?_lastUpdated:missing=true", []),
        ("Practitioner?identifier:of-type=urn:types|EN|Z1", ["dr-zhang"]),
        ("Practitioner?identifier:of-type=urn:types|MR|Z1", []),
        ("Practitioner?email=zhang@example.org", ["dr-zhang"]),
        ("Practitioner?phone=zhang@example.org", []),
        ("DiagnosticReport?identifier=urn:r\\,eports|R\\|1", ["report"]),
        # Strings.
        ("Practitioner?name=zhang", ["dr-zhang"]),
        ("Practitioner?name=张伟", ["dr-zhang"]),
        ("Practitioner?family=Zhāng", ["dr-zhang"]),
        ("Practitioner?given:exact=伟", ["dr-zhang"]),
        ("Practitioner?given:exact=wei", []),
        ("Practitioner?name:contains=ei", ["dr-zhang"]),
        # References.
        ("Observation?performer=Practitioner/dr-zhang", ["w70", "w71"]),
        ("Observation?performer=dr-zhang", ["w70", "w71"]),
        ("Observation?performer:Practitioner=dr-zhang", ["w70", "w71"]),
        ("Observation?performer:Patient=dr-zhang", []),
        ("Observation?performer:missing=true&code=29463-7", ["w72", "w50"]),
        ("Observation?performer:missing=false", ["w70", "w71"]),
        ("Condition?asserter:identifier=urn:staff|X9", ["logical"]),
        ("Observation?subject=https://exchange.example/fhir/Patient/3", ["w50"]),
        ("Observation?subject=https://elsewhere.example/Patient/3", []),
        # A Patient means the person, at every hospital.
        ("Observation?patient=1&code=29463-7", ["w70", "w71", "w72"]),
        ("Observation?subject=Patient/2&code=29463-7", ["w70", "w71", "w72"]),
        # Dates.
        ("Observation?date=2024-03-01", ["w70"]),
        ("Observation?date=2024-04", ["w71"]),
        ("Observation?date=2024", ["w70", "w71", "w72", "w50"]),
        ("Observation?date=gt2024-03-31", ["w71", "w72", "w50"]),
        ("Observation?date=sa2024-04-15", ["w72", "w50"]),
        ("Observation?date=eb2024-04-15", ["w70"]),
        ("Observation?date=ne2024-04&code=29463-7", ["w70", "w72", "w50"]),
        ("Observation?date=ge2024-03&date=lt2024-04-01", ["w70"]),
        ("Observation?date=2024-03-01T10:00:00%2B08:00", ["w70"]),
        ("Observation?date=lt2016-12-31T23:59:60Z", []),
        ("ImagingStudy?started=lt2016-12-31T23:59:60Z", []),
        ("Patient?_lastUpdated=gt2016-12-31T23:59:60Z", ["1", "2", "3"]),
        ("Condition?onset-date=2020", ["logical"]),
        ("Condition?onset-date=ap2020-05", ["logical"]),
        ("Condition?onset-date=2020-02", []),
        # Quantities.
        ("Observation?value-quantity=70.5", ["w70"]),
        ("Observation?value-quantity=71", ["w70", "w71"]),
        ("Observation?value-quantity=7e1", ["w70", "w71", "w72"]),
        (f"Observation?value-quantity=gt70.5|{UCUM}|kg", ["w71", "w72"]),
        ("Observation?value-quantity=le70.5||kg", ["w70", "w50"]),
        ("Observation?value-quantity=le70.5||g", []),
        ("Observation?combo-value-quantity=140", ["bp"]),
        # Composites.
        ("Observation?code-value-quantity=29463-7$gt71", ["w72"]),
        ("Observation?component-code-value-quantity=8480-6$140", ["bp"]),
        ("Observation?component-code-value-quantity=8480-6$90", []),
        (f"Observation?combo-code-value-quantity={LOINC}|8462-4$lt100||mm[Hg]", ["bp"]),
        ("Observation?combo-code-value-quantity=29463-7$50", ["w50"]),
        # URIs.
        ("Questionnaire?url=http://forms.example/a/b", ["form"]),
        ("Questionnaire?url=http://forms.example/a", []),
        ("Questionnaire?url:below=http://forms.example/a", ["form"]),
        ("Questionnaire?url:above=http://forms.example/a/b/c", ["form"]),
        # Chains and _has.
        ("Observation?performer:Practitioner.name=zhang", ["w70", "w71"]),
        ("Observation?performer.identifier=Z1", ["w70", "w71"]),
        ("Observation?subject:Patient.name=李", ["w50"]),
        ("Observation?patient.gender=male", ["w50"]),
        (f"Observation?patient.identifier={ID_CARD}&code=29463-7", ["w70", "w71", "w72"]),
        ("Observation?patient.organization.name=无名", []),
        ("Observation?derived-from:ImagingStudy.modality=CT", ["seen"]),
        ("Observation?derived-from:ImagingStudy.patient.name=li", []),
        ("DiagnosticReport?result.performer:Practitioner.name=zhang", ["report"]),
        ("DiagnosticReport?result.value-quantity=lt70", []),
        ("Practitioner?_has:Observation:performer:value-quantity=gt70.9", ["dr-zhang"]),
        ("Practitioner?_has:Observation:performer:value-quantity=gt72", []),
        (
            "Practitioner?_has:Observation:performer:_has:DiagnosticReport:result:status=final",
            ["dr-zhang"],
        ),
        ("Practitioner?_has:Observation:performer:patient.name=li", []),
        ("Observation?_has:DiagnosticReport:result:identifier=R\\|1", ["w70"]),
        ("Observation?_list=list", ["w70"]),
        # The directory: registered hospitals and what hospitals wrote.
        ("Organization?partof=beicheng", ["dept"]),
        ("Organization?partof.name:contains=北城", ["dept"]),
        ("Organization?name=radiology", ["dept"]),
        ("Organization?_id=dept,nanhu", ["nanhu", "dept"]),
        ("Organization?_has:Organization:partof:name=radiology", ["beicheng"]),
        ("Organization?_has:Patient:organization:name=li", ["nanhu"]),
        ("Organization?endpoint.status=active", ["beicheng", "nanhu", "dongshan"]),
        ("Endpoint?organization=nanhu", ["dicomweb-nanhu"]),
        ("Endpoint?_has:ImagingStudy:endpoint:modality=MR", ["dicomweb-nanhu"]),
        # What has tables of its own.
        ("Patient?_has:Observation:patient:value-quantity=72", ["2"]),
        ("Patient?_has:ImagingStudy:patient:modality=MR", ["3"]),
        ("Patient?_has:Observation:patient:_has:DiagnosticReport:result:status=final", ["1"]),
        ("Patient?organization.name:contains=nothing", []),
        ("Patient?gender:not=male", ["1", "2"]),
        (f"Patient?gender={GENDER}|male", ["3"]),
        (f"Patient?gender={GENDER}|", ["1", "2", "3"]),
        ("Patient?gender=|male", ["3"]),
        ("Patient?gender=urn:other|male", []),
        ("Patient?identifier=urn:other|", []),
        ("Patient?identifier=urn:oid:2.25.102|", ["2", "3"]),
        (f"Patient?identifier={CARDS}|", ["1", "2"]),
        ("ImagingStudy?identifier=urn:dicom:uid|", ["1.2.1", "1.2.2", "1.2.3"]),
        ("ImagingStudy?identifier=urn:other|,urn:oid:2.25.101|", []),
        ("ImagingStudy?status=urn:other|available", []),
        ("ImagingStudy?status=|available", ["1.2.1", "1.2.2", "1.2.3"]),
        (f"ImagingStudy?modality={DCM}|", ["1.2.1", "1.2.2", "1.2.3"]),
        ("ImagingStudy?modality=urn:other|CT", []),
        ("Patient?birthdate:missing=true", []),
        ("Patient?email=x", []),
        ("Patient?email:missing=true", ["1", "2", "3"]),
        ("Patient?deceased=false", ["1", "2", "3"]),
        ("Patient?deceased=true", []),
        ("Patient?phonetic=wang", ["1", "2"]),
        ("Patient?link=Patient/1", ["2"]),
        ("ImagingStudy?patient.name=li", ["1.2.3"]),
        ("ImagingStudy?_has:Observation:derived-from:status=final", ["1.2.1"]),
        ("ImagingStudy?basedon=ServiceRequest/1", []),
        ("ImagingStudy?modality:not=CT", ["1.2.3"]),
        ("ImagingStudy?endpoint.organization=nanhu", ["1.2.2", "1.2.3"]),
        # Compartments.
        ("Patient/1/Observation?code=29463-7", ["w70", "w71", "w72"]),
        ("Patient/3/Observation", ["w50"]),
        ("Patient/3/ImagingStudy", ["1.2.3"]),
        ("Patient/99/Observation", []),
    ],
)
def test_what_is_asked_is_found(door: Door, asked: str, found: list[str]) -> None:
    _is_found(door, asked, found)
    with crowded():  # and the same where there are many of everything
        _is_found(door, asked, found)


def _is_found(door: Door, asked: str, found: list[str]) -> None:
    asker = door.clinician("dongshan")
    kind = asked.partition("?")[0].rpartition("/")[2]
    bundle = asker.bundle(f"{asked}{'&' if '?' in asked else '?'}_total=accurate")
    told = [one["resource"]["id"] for one in entries(bundle)]
    assert all(one["resource"]["resourceType"] == kind for one in entries(bundle))
    assert (sorted(told), bundle["total"]) == (sorted(found), len(found))
    if kind == "Observation":
        pages = list(asker.pages(f"{asked}{'&' if '?' in asked else '?'}_count=1"))
        told = [one["resource"]["id"] for page in pages for one in entries(page)]
        assert sorted(told) == sorted(found)


@pytest.mark.parametrize(
    "asked",
    [
        "Observation?_filter=code eq x",
        "Observation?_content=x",
        "Observation?_text=x",
        "Location?near=1",
        "Location?near=91|2",
        "Location?near=1|2|3|s",
        "Location?near=1|2|-3|km",
        "Location?near=a|b",
        "Location?near:missing=true",
        "Observation?date:above=2026",
        "Observation?subject:Practitioner=1",
        "Observation?date=yesterday",
        "Observation?date=2026-01-01T10:00:61Z",
        "Patient?_lastUpdated=gt2026-01-01T10:00:61Z",
        "Patient?name=%D5%D4",  # GBK
        "Patient?%ED%A0%80=1",
        "Observation?value-quantity=many",
        "Observation?value-quantity=1|kg",
        "Observation?code-value-quantity=a",
        "Observation?code.name=x",
        "Observation?_has:Condition:subject:code=x",
        "Observation?code:in=urn:unknown",
        "Observation?code:missing=maybe",
        "Observation?_sort=code-value-quantity",
        "Observation?performer.performer.x=1",
        "?_type=Nothing",
        "?_sort=_id",
    ],
)
def test_what_cannot_be_answered_is_refused(door: Door, asked: str) -> None:
    answer = door.clinician("nanhu").get(asked, Prefer="handling=strict")
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("code", ["date", "_lastUpdated", "value-quantity"])
def test_a_value_that_cannot_be_read_is_told_with_its_parameter(door: Door, code: str) -> None:
    told = door.clinician("nanhu").refused(f"Observation?{code}=many", 400, "invalid")

    assert told.startswith(f"{code}: ")


def test_a_form_is_in_utf8_as_an_address_is(door: Door) -> None:
    form = "application/x-www-form-urlencoded"
    for asked in ("name=%D5%D4", b"name=\xd5\xd4"):
        outcome(door.clinician("nanhu").post("Patient/_search", asked, form), 400, "structure")


def test_chains_and_values_have_their_limits(door: Door) -> None:
    asker = door.clinician("nanhu")
    chain = "_has:Observation:has-member:" * 8
    asker.refused(f"Observation?{chain}status=final", 400, "too-costly")
    values = ",".join(str(one) for one in range(101))
    asker.refused(f"Observation?performer.identifier={values}", 400, "too-costly")


@pytest.mark.parametrize(
    ("sort", "found"),
    [
        ("date", ["w70", "w71", "w50", "w72"]),
        ("-date,-value-quantity", ["w72", "w50", "w71", "w70"]),
        ("-value-quantity", ["w72", "w71", "w70", "w50"]),
        ("performer,-_id", ["w71", "w70", "w72", "w50"]),
        ("_lastUpdated", ["w70", "w71", "w72", "w50"]),
        ("-_lastUpdated", ["w50", "w72", "w71", "w70"]),
    ],
)
def test_pages_in_any_order_hold_each_match_once(door: Door, sort: str, found: list[str]) -> None:
    asker = door.clinician("dongshan")
    asked = f"Observation?code=29463-7&_sort={sort}"
    if sort == "date":
        asked += ",value-quantity"
    for count in (1, 2, 3, 10):
        pages = list(asker.pages(f"{asked}&_count={count}"))
        assert [one["resource"]["id"] for page in pages for one in entries(page)] == found


def test_pages_do_not_shift_while_others_write(door: Door) -> None:
    _pages_do_not_shift(door, "completed")
    with crowded():
        _pages_do_not_shift(door, "in-progress")


def _pages_do_not_shift(door: Door, status: str) -> None:
    asker, writer = door.clinician("beicheng"), door.system("beicheng")
    asked = f"Procedure?_count=2&status={status}"
    told = {"resourceType": "Procedure", "status": status, "subject": {"reference": "Patient/1"}}
    first = [writer.made(told)["id"] for _ in range(5)]
    seen: list[str] = []
    for page in asker.pages(asked):
        seen += [one["resource"]["id"] for one in entries(page)]
        if len(seen) <= 4:
            writer.made(told)
    assert seen[:5] == first
    assert len(seen) == len(set(seen)) == 7


def test_a_page_in_an_order_that_is_no_more_is_asked_for_anew(door: Door) -> None:
    earlier = Question(kind="Observation", criterion=Every(()), limit=1, after=(1,))
    asker = door.city.clinician("beicheng")
    with door.city.exchange.on_behalf_of(asker) as access, pytest.raises(Invalid):
        clinical_search.find(access, earlier)


@pytest.mark.parametrize(
    ("once", "again", "found"),
    [
        (
            "_include=DiagnosticReport:result", "_include:{}=Observation:performer",
            ["Observation/w70", "Practitioner/dr-zhang"],
        ),
        (
            "_include=DiagnosticReport:result", "_revinclude:{}=List:item",
            ["List/list", "Observation/w70"],
        ),
    ],
)  # fmt: skip
def test_older_clients_say_recurse_for_iterate(
    door: Door, once: str, again: str, found: list[str]
) -> None:
    """As FHIR STU3 names it; the self link shows what was sent."""
    asker = door.clinician("dongshan")
    for modifier in ("iterate", "recurse"):
        asked = f"DiagnosticReport?_id=report&{once}&{again.format(modifier)}"
        strictly = asker.bundle(asked, Prefer="handling=strict")
        assert sorted(map(name, entries(strictly, "include"))) == found
        assert again.format(modifier) in unquote(link(strictly, "self") or "")


def test_what_is_referred_to_comes_along_and_what_refers_as_well(door: Door) -> None:
    asker = door.clinician("dongshan")

    def along(asked: str) -> list[str]:
        return sorted(asker.ids(asked, "include"))

    one = "Observation?_id=w70"
    assert along(f"{one}&_include=Observation:performer") == ["Practitioner/dr-zhang"]
    assert along(f"{one}&_include=Observation:patient") == ["Patient/1"]
    assert along(f"{one}&_include=Observation:subject:Group") == []
    assert along(f"{one}&_include=*") == ["Patient/1", "Practitioner/dr-zhang"]
    assert along(f"{one}&_revinclude=DiagnosticReport:result") == ["DiagnosticReport/report"]
    assert along("Practitioner?_id=dr-zhang&_include=*") == []  # of which none refers to anything

    report = "DiagnosticReport?_id=report&_include=DiagnosticReport:result"
    assert along(report) == ["Observation/w70"]
    further = f"{report}&_include:iterate=Observation:performer&_include:iterate=Patient:link"
    assert along(further) == ["Observation/w70", "Practitioner/dr-zhang"]
    assert along(f"{one}&_include=Observation:subject&_include:iterate=Patient:organization") == [
        "Organization/beicheng",
        "Patient/1",
    ]
    assert along("Patient?_id=3&_revinclude=Observation:patient") == ["Observation/w50"]
    assert along("Patient?_id=1&_include=Patient:link") == ["Patient/2"]
    assert along("Organization?_id=dept&_include=Organization:partof") == ["Organization/beicheng"]
    assert along("Organization?_id=beicheng&_revinclude=Organization:partof") == [
        "Organization/dept"
    ]
    assert along("Organization?_id=nanhu&_revinclude=Endpoint:organization") == [
        "Endpoint/dicomweb-nanhu"
    ]
    assert along("Practitioner?_revinclude=*") == []
    study = "ImagingStudy?_id=1.2.1&_include=ImagingStudy:endpoint&_include=ImagingStudy:patient"
    assert along(f"{study}&_revinclude=Observation:derived-from") == [
        "Endpoint/dicomweb-beicheng",
        "Observation/seen",
        "Patient/1",
    ]


def test_several_types_are_searched_one_after_another(door: Door) -> None:
    asker = door.clinician("dongshan")
    asked = "?_type=Practitioner,Organization,Condition"
    for count in (1, 2, 50):
        pages = list(asker.pages(f"{asked}&_count={count}&_total=accurate"))
        told = [name(one) for page in pages for one in entries(page)]
        assert sorted(told) == sorted(
            ["Practitioner/dr-zhang", "Condition/logical", "Organization/dept"]
            + [f"Organization/{one}" for one in ("beicheng", "nanhu", "dongshan")]
        )
        assert [page["total"] for page in pages] == [6] * len(pages)
    assert asker.ids("?_tag=ward") == ["Observation/w70"]
    form = asker.post("_search", "_id=w70", "application/x-www-form-urlencoded")
    assert [name(one) for one in entries(form.json())] == ["Observation/w70"], form.text


def test_the_next_page_of_a_compartment_is_one_of_that_compartment(door: Door) -> None:
    asker = door.clinician("dongshan")
    bundle = asker.bundle("Patient/1/Observation?_count=1")
    following = link(bundle, "next")
    assert following is not None
    assert following.startswith("https://exchange.example/fhir/Patient/1/Observation?_page=")
    asker.refused(following.replace("Patient/1", "Patient/3"), 400, "invalid")


def test_the_self_link_of_a_search_shows_what_was_used(door: Door) -> None:
    asker = door.clinician("dongshan")
    asked = "Observation?code:text=body&favourite=colour&_has:DiagnosticReport:result:status=final"
    told = link(asker.bundle(asked), "self")
    assert told is not None
    assert "favourite" not in told
    assert quote("_has:DiagnosticReport:result:status", safe="") in told


def test_whoever_may_not_search_patients_still_looks_up_the_directory(door: Door) -> None:
    administrator = door.administrator()
    assert administrator.ids("Practitioner?name=zhang") == ["Practitioner/dr-zhang"]
    assert "Organization/nanhu" in administrator.ids("Organization")
    administrator.refused("Observation", 403, "forbidden")
    # Not even through what refers to the directory.
    assert administrator.ids("Practitioner?_has:Observation:performer:status=final") == []
    asked = "Practitioner?_revinclude=Observation:performer"
    assert administrator.ids(asked, "include") == []

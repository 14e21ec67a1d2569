"""Operations about a patient: who is meant, everything of a person, the newest of each kind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from bundles import WEIGHT
from fhir_door import Asker, Door, entries, is_fhir, link, name, opened, outcome
from region import ID_CARD, region

from exchange import compartment, identity
from exchange.errors import Unavailable
from exchange_fhir import everything

RESIDENT_ID = f"urn:oid:{identity.RESIDENT_ID}"


@pytest.fixture(scope="module")
def hospital(lasting_database_url: str) -> Iterator[Door]:
    """Wang was at beicheng (Patient/1) and at nanhu (Patient/2), Li at beicheng (Patient/3)."""
    with region(lasting_database_url) as city:
        city.send("beicheng", patient="W1", card=ID_CARD)
        city.send("nanhu", patient="W2", study="1.2.2", instance="1.4.2", card=ID_CARD)
        city.send(
            "beicheng",
            patient="L1",
            study="1.2.3",
            instance="1.4.3",
            PatientName="Li^Na=李^娜",
            PatientBirthDate="19800101",
        )
        city.identify()
        yield opened(city)


def parameters(*given: tuple[str, str, Any]) -> dict[str, Any]:
    told = [{"name": one, kind: value} for one, kind, value in given]
    return {"resourceType": "Parameters"} | ({"parameter": told} if told else {})


def told(asker: Asker, path: str, sent: dict[str, Any]) -> dict[str, Any]:
    response = asker.send("POST", path, sent)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    is_fhir(answer)
    return answer


WANG = {
    "resourceType": "Patient",
    "name": [{"family": "王", "given": ["小东"]}],
    "birthDate": "1949-12-31",
    "gender": "female",
}


def grades(bundle: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (name(one), one["search"]["extension"][0]["valueCode"]) for one in entries(bundle, "match")
    ]


def test_who_is_meant_is_told_with_a_score_and_a_grade(hospital: Door) -> None:
    doctor = hospital.clinician("beicheng")
    carded = WANG | {"identifier": [{"system": RESIDENT_ID, "value": ID_CARD}]}

    by_name = told(doctor, "Patient/$match", parameters(("resource", "resource", WANG)))
    certain = told(doctor, "Patient/$match", carded)

    assert grades(by_name) == [("Patient/1", "probable"), ("Patient/2", "probable")]
    assert {one["search"]["score"] for one in by_name["entry"]} == {0.85}
    assert grades(certain) == [("Patient/1", "certain"), ("Patient/2", "certain")]
    only = (("onlyCertainMatches", "valueBoolean", True), ("count", "valueInteger", 1))
    asked = parameters(("resource", "resource", WANG), *only)
    assert told(doctor, "Patient/$match", asked)["total"] == 0
    asked = parameters(("resource", "resource", carded), *only)
    assert grades(told(doctor, "Patient/$match", asked)) == [("Patient/1", "certain")]
    stranger = WANG | {"name": [{"family": "赵", "given": ["云"]}]}
    assert told(doctor, "Patient/$match", stranger).get("entry") is None


def test_a_match_that_says_too_little_or_nothing_is_refused(hospital: Door) -> None:
    doctor = hospital.clinician("beicheng")
    little = {"resourceType": "Patient", "gender": "female"}

    assert outcome(doctor.send("POST", "Patient/$match", little), 400, "invalid")
    assert outcome(doctor.send("POST", "Patient/$match", parameters()), 400, "required")
    asked = parameters(("resource", "resource", WANG), ("count", "valueInteger", 0))
    assert outcome(doctor.send("POST", "Patient/$match", asked), 400, "invalid")
    # What is not understood would change the answer: R5 has it.
    asked = parameters(("resource", "resource", WANG), ("onlySingleMatch", "valueBoolean", True))
    assert outcome(doctor.send("POST", "Patient/$match", asked), 400, "not-supported")
    administrator = hospital.administrator().send("POST", "Patient/$match", WANG)
    assert outcome(administrator, 403, "forbidden")


def pix(asker: Asker, query: str) -> tuple[list[str], list[str]]:
    """Identifiers and records."""
    answer = asker.read(f"Patient/$ihe-pix?{query}").get("parameter", [])
    numbers = [one["valueIdentifier"] for one in answer if one["name"] == "targetIdentifier"]
    ids = [one["valueReference"]["reference"] for one in answer if one["name"] == "targetId"]
    return sorted(f"{one['system']}|{one['value']}" for one in numbers), ids


def test_a_number_leads_to_the_same_persons_others(hospital: Door) -> None:
    doctor = hospital.clinician("beicheng")
    card, w2 = f"{RESIDENT_ID}|{ID_CARD}", "urn:oid:2.25.102|W2"
    source = "sourceIdentifier=urn:oid:2.25.101|W1"

    assert pix(doctor, source) == (sorted([card, w2]), ["Patient/1", "Patient/2"])
    assert pix(doctor, f"{source}&targetSystem=urn:oid:2.25.102") == ([w2], ["Patient/2"])
    assert pix(doctor, f"{source}&targetSystem=urn:oid:2.25.103") == ([], [])
    numbers, ids = pix(doctor, f"sourceIdentifier={card}")
    assert numbers == ["urn:oid:2.25.101|W1", w2]
    assert ids == ["Patient/1", "Patient/2"]
    identifier = {"system": "urn:oid:2.25.101", "value": "W1"}
    sent = parameters(("sourceIdentifier", "valueIdentifier", identifier))
    assert len(told(doctor, "Patient/$ihe-pix", sent)["parameter"]) == 4
    response = doctor.get(f"Patient/$ihe-pix?{source}", accept="application/fhir+xml")
    assert response.status_code == 200
    assert b"targetIdentifier" in response.content


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("sourceIdentifier=urn:oid:2.25.101|W9", 404, "not-found"),
        ("sourceIdentifier=urn:oid:9.9.9|W1", 400, "code-invalid"),
        (
            "sourceIdentifier=urn:oid:2.25.101|W1&targetSystem=urn:oid:9.9.9",
            403,
            "code-invalid",
        ),
        ("targetSystem=urn:oid:2.25.101", 400, "required"),
        ("sourceIdentifier=W1", 400, "invalid"),
        ("sourceIdentifier=urn:oid:2.25.101|W1&colour=green", 400, "not-supported"),
    ],
)
def test_pix_errors_are_those_of_iti_83(hospital: Door, query: str, status: int, code: str) -> None:
    hospital.clinician("beicheng").refused(f"Patient/$ihe-pix?{query}", status, code)


def weight(system: Asker, patient: str, day: str, code: str = "29463-7", **more: Any) -> str:
    coding = {"coding": [{"system": "http://loinc.org", "code": code}]}
    made = WEIGHT | {
        "subject": {"reference": patient},
        "effectiveDateTime": day,
        "code": coding,
    }
    return f"Observation/{system.made(made | more)['id']}"


def test_everything_of_a_person_comes_from_every_hospital(hospital: Door) -> None:
    beicheng, nanhu = hospital.system("beicheng"), hospital.system("nanhu")
    performer = f"Practitioner/{beicheng.made({'resourceType': 'Practitioner'})['id']}"
    signed = [{"reference": performer}]
    mine = weight(beicheng, "Patient/1", "2026-10-01", performer=signed)
    theirs = weight(nanhu, "Patient/2", "2026-11-01")
    li = weight(beicheng, "Patient/3", "2026-11-01")
    doctor = hospital.clinician("beicheng")

    bundle = doctor.bundle("Patient/1/$everything")

    found = [name(one) for one in entries(bundle)]
    assert found[:4] == ["Patient/1", "Patient/2", "ImagingStudy/1.2.2", "ImagingStudy/1.2.1"]
    assert {mine, theirs} <= set(found)
    assert li not in found
    assert performer in [name(one) for one in entries(bundle, "include")]
    assert doctor.ids("Patient/1/$everything?_type=Patient") == ["Patient/1", "Patient/2"]
    assert doctor.ids("Patient/3/$everything?_type=Observation") == [li]
    dated = doctor.ids(
        "Patient/1/$everything?_type=Observation,ImagingStudy&start=2026-10&end=2026-10-15"
    )
    assert mine in dated
    assert theirs not in dated
    assert "ImagingStudy/1.2.1" not in dated
    assert doctor.ids("Patient/1/$everything?_since=2100-01-01T00:00:00Z") == []
    alone = hospital.clinician("dongshan").bundle("Patient/3/$everything?_type=Observation")
    assert [name(one) for one in entries(alone)] == [li]


@pytest.mark.parametrize("form", ["", "&_count=1", "&_format=xml"])
def test_hospitals_come_along_with_everything_of_their_patients(hospital: Door, form: str) -> None:
    """As Organizations of their records and Endpoints of their studies; no others of the region."""
    doctor = hospital.clinician("nanhu")
    both = {f"{kind}{code}" for kind in ("Organization/", "Endpoint/dicomweb-")
            for code in ("beicheng", "nanhu")}  # fmt: skip

    def along(query: str) -> list[str]:
        """What is included, as Type/id, on all pages."""
        if "xml" in form:
            told = doctor.get(f"Patient/1/$everything?{query}{form}").text
            return re.findall(r"/fhir/((?:Organization|Endpoint)/[\w-]+)\"/><resource>", told)
        pages = doctor.pages(f"Patient/1/$everything?{query}{form}")
        return [name(one) for page in pages for one in entries(page, "include")]

    for query in ("_type=Organization,Endpoint", ""):
        found = along(query)
        assert both <= set(found)
        hospitals = [one for one in found if one.partition("/")[0] in {"Organization", "Endpoint"}]
        assert sorted(hospitals) == sorted(both)
    assert set(along("_type=Endpoint")) == {one for one in both if one.startswith("Endpoint")}
    assert along("_type=Patient,Observation") == []
    assert along("_type=Organization&_since=2100-01-01T00:00:00Z") == []


def test_a_hospital_comes_along_where_only_a_resource_refers_to_it(hospital: Door) -> None:
    beicheng = hospital.system("beicheng")
    weight(beicheng, "Patient/3", "2026-11-01", performer=[{"reference": "Organization/dongshan"}])

    bundle = hospital.clinician("nanhu").bundle("Patient/3/$everything")

    found = [name(one) for one in entries(bundle, "include")]
    assert {"Organization/dongshan", "Organization/beicheng"} <= set(found)
    assert "Organization/nanhu" not in found


def test_everything_is_compressed_for_who_takes_that(hospital: Door) -> None:
    doctor = hospital.clinician("beicheng")

    packed = doctor.get("Patient/1/$everything", Accept_Encoding="gzip")

    assert packed.headers["content-encoding"] == "gzip"
    plain = doctor.get("Patient/1/$everything", Accept_Encoding="identity")
    assert "content-encoding" not in plain.headers
    assert packed.json() == plain.json()


def test_everything_comes_in_pages_as_well(hospital: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    doctor = hospital.clinician("beicheng")
    whole = doctor.ids("Patient/1/$everything")

    paged: list[str] = []
    for page in doctor.pages("Patient/1/$everything?_count=1"):
        assert len(entries(page)) <= 2  # hospitals' records come together
        paged += [name(one) for one in entries(page)]

    assert sorted(paged) == sorted(whole)
    monkeypatch.setattr(everything, "PAGE", 3)
    assert doctor.ids("Patient/1/$everything") == whole
    following = link(doctor.bundle("Patient/1/$everything?_count=2"), "next")
    assert following is not None
    hospital.clinician("nanhu").refused(following, 403, "forbidden")


def test_everything_of_nobody_is_refused(hospital: Door) -> None:
    doctor = hospital.clinician("beicheng")

    doctor.refused("Patient/99999/$everything", 404, "not-found")
    doctor.refused("Patient/1/$everything?_type=Colour", 400, "not-supported")
    doctor.refused("Patient/1/$everything?start=yesterday", 400, "invalid")
    doctor.refused("Patient/$everything", 400, "too-costly")
    hospital.administrator().refused("Patient/1/$everything", 403, "forbidden")


def test_the_newest_observations_of_each_code(hospital: Door) -> None:
    system, doctor = hospital.system("beicheng"), hospital.clinician("nanhu")
    made = [weight(system, "Patient/3", f"2026-0{month}-01", "8302-2") for month in (3, 5, 4)]
    heart = weight(system, "Patient/3", "2026-02-01", "8867-4")

    newest = doctor.ids("Observation/$lastn?patient=Patient/3&code=8302-2,8867-4")
    two = doctor.ids("Observation/$lastn?patient=3&max=2&code=http://loinc.org|8302-2")

    assert newest == [made[1], heart]
    assert two == [made[1], made[2]]
    asked = parameters(("subject", "valueString", "Patient/3"), ("max", "valuePositiveInt", 3))
    assert {heart, *made} <= {
        name(one) for one in entries(told(doctor, "Observation/$lastn", asked))
    }
    doctor.refused("Observation/$lastn", 400, "required")
    doctor.refused("Observation/$lastn?patient=3&max=many", 400, "invalid")
    # Whatever else an Observation is searched by says which are meant.
    newest_of = "Observation/$lastn?patient=3&code=8302-2"
    assert doctor.ids(f"{newest_of}&date=lt2026-04-15") == [made[2]]
    assert doctor.ids(f"{newest_of}&status=amended") == []
    assert doctor.ids("Observation/$lastn?patient=3&code:not=8302-2&date=2026-02") == [heart]
    wanted = parameters(("patient", "valueString", "3"), ("date", "valueDate", "2026-04-01"))
    assert made[2] in {name(one) for one in entries(told(doctor, "Observation/$lastn", wanted))}
    doctor.refused("Observation/$lastn?patient=3&_sort=date", 400, "not-supported")


def test_the_documents_of_a_patient(hospital: Door) -> None:
    system, doctor = hospital.system("beicheng"), hospital.clinician("beicheng")
    report = {
        "resourceType": "DocumentReference",
        "status": "current",
        "subject": {"reference": "Patient/3"},
        "type": {"coding": [{"system": "http://loinc.org", "code": "18748-4"}]},
        "meta": {"profile": ["http://example.org/of-a-report"]},
        "content": [{"attachment": {"contentType": "text/plain", "data": "5L2g5aW9"}}],
        "context": {"period": {"start": "2026-11-01", "end": "2026-11-02"}},
    }
    made = f"DocumentReference/{system.made(report)['id']}"

    path = "DocumentReference/$docref?patient=3"
    assert doctor.ids(path) == [made]
    assert doctor.ids(f"{path}&type=18748-4&start=2026-11-02&end=2026-12-01") == [made]
    assert doctor.ids(f"{path}&type=11502-2") == []
    assert doctor.ids(f"{path}&start=2026-11-03") == []
    assert doctor.ids(f"{path}&profile=http://example.org/of-a-report") == [made]
    assert doctor.ids(f"{path}&profile=http://example.org/another") == []
    doctor.refused("DocumentReference/$docref", 400, "required")


def test_what_a_hospital_states_of_anothers_number_leads_to_nobody(door: Door) -> None:
    door.city.send("nanhu", patient="W2", study="1.2.2", instance="1.4.2", card=ID_CARD)
    door.city.identify()
    liar = {
        "resourceType": "Patient",
        "identifier": [
            {"system": "urn:oid:2.25.101", "value": "X1"},
            {"system": "urn:oid:2.25.102", "value": "W2"},
            {"system": "urn:oid:2.25.102", "value": "W9"},
        ],
        "name": [{"family": "李", "given": ["四"]}],
    }
    system = door.system("beicheng")
    made = system.made(liar)
    door.city.identify()

    stated = [one["value"] for one in system.read(f"Patient/{made['id']}")["identifier"]]
    assert sorted(stated) == ["W2", "W9", "X1"]  # kept as it was stated
    assert pix(system, "sourceIdentifier=urn:oid:2.25.101|X1") == ([], [f"Patient/{made['id']}"])
    _, ids = pix(system, "sourceIdentifier=urn:oid:2.25.102|W2")
    assert ids == ["Patient/1"]
    number = {"system": "urn:oid:2.25.102", "value": "W9"}
    sought = {"resourceType": "Patient", "identifier": [number]}
    graded = system.send("POST", "Patient/$match", sought).json()
    assert graded.get("entry", []) == []


def test_everything_that_breaks_on_the_way_ends_as_a_bundle_that_says_so(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    door.city.send("beicheng", patient="W1")
    system = door.system("beicheng")
    for _ in range(3):
        system.made(WEIGHT | {"subject": {"reference": "Patient/1"}})
    monkeypatch.setattr(everything, "PAGE", 2)
    page = compartment.page
    asked = 0

    def broken(*given: Any, **told: Any) -> compartment.Page:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise Unavailable("the index does not answer; try again later")
        return page(*given, **told)

    monkeypatch.setattr(compartment, "page", broken)
    bundle = system.read("Patient/1/$everything")
    *told, last = bundle["entry"]
    assert 0 < len(told) < 7
    assert last["search"]["mode"] == "outcome"
    issues = [(one["severity"], one["code"]) for one in last["resource"]["issue"]]
    assert issues == [("fatal", "incomplete"), ("error", "transient")]

"""Bundles of interactions: all or nothing, in the standard's order, with names for what is new."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from bundles import WEIGHT, answered, entry, newest, sent, statuses
from fhir_door import Door, is_fhir, link, outcome
from sqlalchemy import func, select

from exchange_storage.records import AuditRecord

ENCOUNTER: dict[str, Any] = {
    "resourceType": "Encounter",
    "status": "finished",
    "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
    "subject": {"reference": "Patient/1"},
}
VISIT = "urn:uuid:7f3c1d8e-0000-4000-8000-000000000001"
MOTHER = "http://hospital.example/mother"
SCALE = "urn:uuid:7f3c1d8e-0000-4000-8000-000000000002"


def test_what_is_made_together_refers_to_each_other_by_the_ids_it_got(hospital: Door) -> None:
    system = hospital.system("beicheng")
    narrative = f'<div xmlns="http://www.w3.org/1999/xhtml"><a href="{VISIT}">visit</a></div>'
    weight = {
        **WEIGHT,
        "text": {"status": "generated", "div": narrative},
        "encounter": {"reference": VISIT},
        "device": {"reference": "Device/scale"},
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": VISIT}],
    }

    response = sent(
        system,
        "transaction",
        entry("POST", "Observation", weight),
        entry("PUT", "Device/scale", {"resourceType": "Device", "id": "scale"}, name=SCALE),
        entry("POST", "Encounter", ENCOUNTER, name=VISIT),
        entry("GET", "Device/scale"),
        Prefer="return=representation",
    )

    observation, _, encounter, read = answered(response)
    assert statuses(response) == ["201", "201", "201", "200"]
    visit = encounter["response"]["location"].rpartition("/fhir/")[2].partition("/_history")[0]
    kept = system.read(f"Observation/{observation['resource']['id']}")
    assert kept == observation["resource"]
    assert kept["encounter"] == {"reference": visit}
    assert f'href="{visit}"' in kept["text"]["div"]
    assert kept["identifier"][0]["value"] == VISIT  # a string, not a link
    assert encounter["response"]["etag"] == 'W/"1"'
    assert read["resource"]["id"] == "scale"
    assert (
        "resource"
        not in answered(
            sent(system, "transaction", entry("POST", "Device", {"resourceType": "Device"}))
        )[0]
    )


def test_of_a_transaction_that_fails_nothing_is_kept_and_the_entry_is_named(
    hospital: Door,
) -> None:
    system = hospital.system("beicheng")
    before = newest(system)
    ward = {"resourceType": "Location", "name": "CT"}
    foreign = {**WEIGHT, "subject": {"reference": "Patient/2"}}
    nobody = {**WEIGHT, "subject": {"reference": "Patient/99"}}
    nothing = {**WEIGHT, "subject": {"reference": "Patient/W1"}}

    for wrong, status, code, place in (
        (entry("POST", "Observation", foreign), 403, "forbidden", "Bundle.entry[1]"),
        (
            entry("POST", "Observation", nobody),
            *(422, "not-found", "Bundle.entry[1].resource.subject"),
        ),
        (
            entry("POST", "Observation", nothing),
            *(422, "not-found", "Bundle.entry[1].resource.subject"),
        ),
        (entry("DELETE", "Location/n", ifMatch="*"), 412, "conflict", "Bundle.entry[1]"),
        (
            entry("PUT", "Location/w", {**ward, "id": "w"}, ifMatch='W/"7"'),
            *(412, "conflict", "Bundle.entry[1]"),
        ),
        (entry("POST", "Location"), 400, "required", "Bundle.entry[1].resource"),
        (entry("POST", "Device", ward), 400, "structure", "Bundle.entry[1]"),
        (entry("POST", "ImagingStudy", ward), 405, "not-supported", "Bundle.entry[1]"),
        (entry("PATCH", "Location", ward), 400, "invalid", "Bundle.entry[1]"),
        (
            entry("POST", "Location", {**ward, "status": "closed"}),
            *(422, "code-invalid", "Bundle.entry[1].resource.status"),
        ),
    ):
        response = sent(system, "transaction", entry("POST", "Location", ward), wrong)

        assert response.status_code == status, response.text
        told = response.json()
        is_fhir(told)
        assert [one["code"] for one in told["issue"]] == [code]
        assert told["issue"][0]["expression"] == [place], response.text
        assert newest(system) == before


def test_a_transaction_deletes_first_and_reads_last_whatever_the_order(hospital: Door) -> None:
    system = hospital.system("beicheng")
    old = system.made({"resourceType": "Location", "name": "old"})

    response = sent(
        system,
        "transaction",
        entry("GET", f"Location/{old['id']}"),
        entry("PUT", "Location/new", {"resourceType": "Location", "id": "new", "name": "a"}),
        entry("GET", "Location/new"),
        entry("DELETE", f"Location/{old['id']}"),
    )

    assert statuses(response) == ["410", "201", "200", "204"]
    assert answered(response)[0]["response"]["outcome"]["issue"][0]["code"] == "deleted"


def test_a_transaction_changes_no_resource_twice(hospital: Door) -> None:
    ward = {"resourceType": "Location", "id": "twice", "name": "a"}
    twice = [entry("PUT", "Location/twice", ward)] * 2

    response = sent(hospital.system("beicheng"), "transaction", *twice)

    assert response.status_code == 400
    assert response.json()["issue"][0]["expression"] == ["Bundle.entry[1]"]


def test_the_entries_of_a_batch_fail_each_for_itself(hospital: Door) -> None:
    system = hospital.system("beicheng")

    response = sent(
        system,
        "batch",
        entry("POST", "Observation", WEIGHT),
        entry("POST", "Observation", {"resourceType": "Observation"}),
        entry("GET", "Patient?identifier=W1"),
        entry("GET", "Patient/1"),
        entry("GET", "Observation/never"),
        entry("DELETE", "ImagingStudy/1.2.1"),
        entry("POST", "Nothing", {"resourceType": "Nothing"}),
        entry("GET", "Patient/$export"),
        entry("GET", "Patient/1/_history/1/and/more"),
    )

    told = answered(response)
    wanted = ["201", "400", "200", "200", "404", "405", "404", "404", "404"]
    assert statuses(response) == wanted
    assert told[1]["response"]["outcome"]["issue"][0]["expression"] == ["Observation.status"]
    assert told[2]["resource"]["type"] == "searchset"
    assert told[3]["resource"]["id"] == "1"


def test_a_patch_may_stand_in_a_bundle(hospital: Door) -> None:
    system = hospital.system("beicheng")
    made = system.made({"resourceType": "Location", "name": "old", "status": "active"})
    named = f"Location/{made['id']}"
    parts = [
        {"name": "type", "valueCode": "delete"},
        {"name": "path", "valueString": "Location.status"},
    ]
    by_path = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}
    by_json = {
        "resourceType": "Binary",
        "contentType": "application/json-patch+json",
        # [{"op":"replace","path":"/name","value":"new"}]
        "data": "W3sib3AiOiJyZXBsYWNlIiwicGF0aCI6Ii9uYW1lIiwidmFsdWUiOiJuZXcifV0=",
    }

    assert statuses(sent(system, "transaction", entry("PATCH", named, by_json))) == ["200"]
    assert statuses(sent(system, "batch", entry("PATCH", named, by_path))) == ["200"]

    patched = system.read(named)
    assert (patched["name"], "status" in patched) == ("new", False)


@pytest.mark.parametrize(
    ("bundle", "status", "place"),
    [
        ({"type": "collection"}, 400, "Bundle.type"),
        ({"type": ["batch"]}, 400, "Bundle.type"),
        ({"type": {}}, 400, "Bundle.type"),
        ({}, 400, "Bundle.type"),
        ({"type": "batch", "entry": []}, 400, "Bundle.entry"),
        ({"type": "batch", "entry": 7}, 400, "Bundle.entry"),
        ({"type": "transaction", "entry": [{}]}, 400, "Bundle.entry[0]"),
        ({"type": "transaction", "entry": [7]}, 400, "Bundle.entry[0]"),
        (
            {"type": "transaction", "entry": [entry("GET", "a/b/c/d")]},
            404,
            "Bundle.entry[0].request",
        ),
        ({"type": "batch", "entry": [entry("SEND", "a")]}, 422, "Bundle.entry[0].request.method"),
    ],
)
def test_what_is_no_batch_or_transaction_is_refused(
    hospital: Door, bundle: dict[str, Any], status: int, place: str
) -> None:
    response = hospital.system("beicheng").send("POST", "", {"resourceType": "Bundle"} | bundle)

    assert response.status_code == status, response.text
    assert response.json()["issue"][0]["expression"][0].startswith(place)


def test_there_is_a_limit_to_what_one_bundle_asks_for(hospital: Door) -> None:
    many = [entry("GET", "Patient/1")] * 1001

    response = sent(hospital.system("beicheng"), "batch", *many)

    assert response.status_code == 413
    assert hospital.system("beicheng").send("POST", "", WEIGHT).status_code == 400


def test_a_name_that_no_entry_has_is_told_and_nothing_is_kept(hospital: Door) -> None:
    system = hospital.system("beicheng")
    before = newest(system)
    lost = WEIGHT | {"encounter": {"reference": VISIT}}

    refused = sent(
        system,
        "transaction",
        entry("POST", "Device", {"resourceType": "Device"}, name=SCALE),
        entry("POST", "Observation", lost),
    )

    assert VISIT in outcome(refused, 400, "not-found")
    assert refused.json()["issue"][0]["expression"] == ["Bundle.entry[1]"]
    assert newest(system) == before


@pytest.mark.parametrize(
    ("method", "url", "operation"),
    [
        ("GET", "Patient/$export", "$export"),
    ],
)
def test_what_is_not_answered_at_once_is_no_entry_of_a_bundle(
    hospital: Door, method: str, url: str, operation: str
) -> None:
    system = hospital.system("beicheng")
    before = newest(system)
    patient = {"resourceType": "Patient", "identifier": [{"system": "urn:oid:2.25.101"}]}
    told = patient if method == "POST" else None

    batch = sent(system, "batch", entry(method, url, told), entry("GET", "Patient/1"))
    together = sent(system, "transaction", entry(method, url, told))

    assert statuses(batch) == ["404", "200"]
    (issue,) = answered(batch)[0]["response"]["outcome"]["issue"]
    assert (issue["code"], issue["expression"]) == ("not-supported", ["Bundle.entry[0].request"])
    assert operation in issue["diagnostics"]
    assert operation in outcome(together, 404, "not-supported")
    assert newest(system) == before


def test_operations_in_a_batch_answer_as_they_do_alone(hospital: Door) -> None:
    system = hospital.system("beicheng")
    patient = system.read("Patient/1")
    asked = {"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": patient}]}
    wrong = {"resourceType": "Observation", "status": "quite final"}

    batch = sent(
        system,
        "batch",
        entry("POST", "Patient/$match", asked),
        entry("POST", "Observation/$validate", wrong),
        entry("GET", "Patient/1/$meta?_format=xml"),
        entry("GET", "Observation/$lastn?patient=1"),
        entry("GET", "Patient/999999/$meta"),
        entry("GET", "Patient/$match"),
        entry("GET", f"Observation/$lastn?patient={'1' * 70_000}"),
        entry("GET", "Patient/1"),
    )

    assert statuses(batch) == ["200", "200", "200", "200", "404", "405", "414", "200"]
    match, validated, meta, latest, unknown, otherwise, *_ = answered(batch)
    assert match["resource"]["entry"][0]["resource"]["id"] == "1"
    assert validated["resource"]["issue"][0]["severity"] == "error"
    assert meta["resource"] == system.read("Patient/1/$meta")
    assert latest["resource"]["type"] == "searchset"
    assert unknown["response"]["outcome"]["issue"][0]["code"] == "not-found"
    assert "$match" in otherwise["response"]["outcome"]["issue"][0]["diagnostics"]


def test_searches_by_post_and_all_of_a_patient_in_a_batch_answer_as_they_do_alone(
    hospital: Door,
) -> None:
    system = hospital.system("beicheng")
    named = {"name": "_id", "valueString": "1"}
    count = {"name": "_count", "valuePositiveInt": 1}
    given = {"resourceType": "Parameters", "parameter": [named]}
    data = base64.b64encode(b"_id=1&_elements=gender").decode()
    form = {"resourceType": "Binary", "contentType": "application/x-www-form-urlencoded"}
    few = {"resourceType": "Parameters", "parameter": [count]}

    batch = sent(
        system,
        "batch",
        entry("POST", "Patient/_search?_id=1"),
        entry("POST", "Patient/_search", given),
        entry("POST", "Patient/_search", form | {"data": data}),
        entry("GET", "Patient/1/$everything"),
        entry("POST", "Patient/1/$everything", few),
        entry("GET", "Patient/_search?_id=1"),
        entry("POST", "Patient/_search", system.read("Patient/1")),
        entry("GET", "Patient/999999/$everything"),
        entry("POST", f"Patient/_search?_id={'1' * 70_000}"),
        entry("POST", "Patient/_search", form | {"data": "/w=="}),
        entry("POST", "Basic/_search?_id=1"),
        entry("POST", "Patient/1/Observation/_search?status=final"),
        entry("POST", "_search?_type=Patient&_id=1"),
        entry("GET", "Patient/$everything"),
    )

    alone = str(system.get("Patient/_search?_id=1").status_code)
    expected = ["200"] * 5 + [alone, "415", "404", "414", "400", "404", "200", "200", "400"]
    assert statuses(batch) == expected
    told = [one.get("resource", {}) for one in answered(batch)]
    for one in told[:3]:
        assert [found["resource"]["id"] for found in one["entry"]] == ["1"]
    assert told[0]["entry"] == system.bundle("Patient?_id=1")["entry"]
    whole = system.bundle("Patient/1/$everything")
    assert told[3]["entry"] == whole["entry"]
    assert len(told[4]["entry"]) < len(whole["entry"])
    following = link(told[4], "next")
    assert following is not None
    assert system.bundle(following)["entry"]


def test_a_search_in_a_batch_is_decided_and_recorded_as_if_it_had_come_alone(
    hospital: Door,
) -> None:
    clinician = hospital.clinician("dongshan")
    for url, alone in (
        ("Patient/_search?_id=1", "Patient?_id=1"),
        ("Patient/1/$everything", "Patient/1/$everything?_count=50"),
    ):
        before = records(hospital)
        assert clinician.get(alone).status_code == 200
        each = records(hospital) - before
        method = "POST" if "_search" in url else "GET"
        assert statuses(sent(clinician, "batch", entry(method, url))) == ["200"]
        assert records(hospital) == before + 2 * each
        refused = sent(hospital.administrator(), "batch", entry(method, url))
        assert statuses(refused) == ["403"]


def test_an_operation_in_a_batch_is_decided_and_recorded_as_if_it_had_come_alone(
    hospital: Door,
) -> None:
    nobody = hospital.asker(None)
    refused = sent(nobody, "batch", entry("GET", "Patient/1/$meta"))
    assert refused.status_code == 401

    for asker, status in ((hospital.clinician("dongshan"), 200), (hospital.administrator(), 403)):
        assert asker.get("Patient/1/$meta").status_code == status
        before = records(hospital)
        assert statuses(sent(asker, "batch", entry("GET", "Patient/1/$meta"))) == [str(status)]
        assert records(hospital) == before + 1


def records(hospital: Door) -> int:
    with hospital.city.exchange.database.reading() as session:
        return session.scalar(select(func.count()).select_from(AuditRecord)) or 0


def test_a_create_names_no_id(hospital: Door) -> None:
    system = hospital.system("beicheng")
    batch = sent(system, "batch", entry("POST", "Device/1", {"resourceType": "Device"}))
    assert statuses(batch) == ["405"]


def patient(number: str, *others: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "resourceType": "Patient",
        "identifier": [{"system": "urn:oid:2.25.101", "value": number}],
        "name": [{"text": "王小东"}],
    }
    mothers = [{"url": MOTHER, "valueReference": {"reference": one}} for one in others]
    return told | ({"extension": mothers} if others else {})


def test_patients_that_are_made_together_refer_to_each_other_whatever_stands_first(
    hospital: Door,
) -> None:
    system = hospital.system("beicheng")
    first, second, third = (f"urn:uuid:7f3c1d8e-0000-4000-8000-00000000010{n}" for n in (1, 2, 3))
    made = answered(
        sent(
            system,
            "transaction",
            entry("POST", "Patient", patient("T1", second, third), first),
            entry("POST", "Patient", patient("T2", third), second),
            entry("PUT", "Patient?identifier=urn:oid:2.25.101|T3", patient("T3"), third),
        )
    )
    ids = [one["response"]["location"].split("/")[-3] for one in made]
    for at, others in ((0, ids[1:]), (1, ids[2:])):
        kept = system.read(f"Patient/{ids[at]}")
        told = [one for one in kept["extension"] if one["url"] == MOTHER]
        assert [one["valueReference"]["reference"] for one in told] == [
            f"Patient/{one}" for one in others
        ]


def test_new_patients_that_refer_to_each_other_in_a_circle_are_refused_by_name(
    hospital: Door,
) -> None:
    system = hospital.system("beicheng")
    first, second = (f"urn:uuid:7f3c1d8e-0000-4000-8000-00000000020{n}" for n in (1, 2))
    before = newest(system)
    refused = sent(
        system,
        "transaction",
        entry("POST", "Patient", patient("C1", second), first),
        entry("POST", "Patient", patient("C2", first), second),
    )
    assert "in a circle" in outcome(refused, 422, "not-supported")
    assert refused.json()["issue"][0]["expression"] == ["Bundle.entry[0]"]
    assert newest(system) == before


@pytest.mark.parametrize(
    ("resource", "status"),
    [
        ({"resourceType": "Questionnaire", "status": "draft", "code": [{"code": "9269-2"}]}, 200),
        ({"resourceType": "List", "status": "current", "mode": "working", "code": "x"}, 400),
        ({"resourceType": "List", "status": "current", "code": {"coding": "x"}}, 400),
        ({"resourceType": "DocumentReference", "status": "current", "masterIdentifier": "x"}, 400),
    ],
)
def test_a_transaction_takes_what_is_not_a_document_and_refuses_what_is_no_resource(
    hospital: Door, resource: dict[str, Any], status: int
) -> None:
    kind = resource["resourceType"]
    response = sent(hospital.system("beicheng"), "transaction", entry("POST", kind, resource))
    assert response.status_code == status

"""A hospital's own feed of its patients (IHE PIXm ITI-104): what it writes, and what is told."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from bundles import WEIGHT, answered, entry, sent, statuses
from fhir_door import Asker, Door, is_fhir, outcome

ISSUER = "urn:oid:2.25.101"


def patient(number: str, **elements: Any) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "identifier": [{"system": ISSUER, "value": number}],
        "name": [{"use": "official", "family": "李", "given": ["娜"]}],
        "gender": "female",
        "birthDate": "1980-02-03",
        "maritalStatus": {"text": "已婚"},
    } | elements


def by(number: str) -> str:
    return f"identifier={ISSUER}|{number}"


@pytest.fixture
def number() -> str:
    """A number that no patient has yet."""
    return uuid4().hex[:16]


def test_a_registered_patient_is_told_as_sent_and_found_like_any_other(
    hospital: Door, number: str
) -> None:
    system = hospital.system("beicheng")
    sent_ = patient(number, telecom=[{"system": "phone", "value": "024-1"}])

    made = system.made(sent_)

    read = system.read(f"Patient/{made['id']}")
    assert {name: read[name] for name in sent_} == sent_
    assert read["meta"] == made["meta"]
    assert read["managingOrganization"]["reference"] == "Organization/beicheng"
    found = [f"Patient/{made['id']}"]
    assert system.ids(f"Patient?{by(number)}") == found
    assert found[0] in system.ids("Patient?name=lina&birthdate=1980-02-03")
    assert hospital.clinician("nanhu").ids(f"Patient?{by(number)}") == found
    again = system.send("POST", "Patient", sent_)
    assert outcome(again, 409, "conflict")


def test_the_feed_makes_and_changes_a_patient_by_the_number(hospital: Door, number: str) -> None:
    system = hospital.system("beicheng")
    where = f"Patient?{by(number)}"

    created = system.send("PUT", where, patient(number))
    changed = system.send("PUT", where, patient(number, gender="male"))

    assert (created.status_code, changed.status_code) == (201, 200), changed.text
    named = f"Patient/{created.json()['id']}"
    assert changed.json()["id"] == created.json()["id"]
    assert system.read(named)["gender"] == "male"
    assert system.read(f"{named}/_history/1")["gender"] == "female"
    history = system.bundle(f"{named}/_history", mode_of="history")
    assert [one["response"]["etag"] for one in history["entry"]] == ['W/"2"', 'W/"1"']


def test_what_images_brought_and_what_the_hospital_writes_are_one_patient(
    hospital: Door, number: str
) -> None:
    system = hospital.system("beicheng")
    hospital.city.send(
        "beicheng",
        patient=number,
        study=f"1.2.{int(number, 16)}",
        instance=f"1.4.{int(number, 16)}",
    )
    (named,) = system.ids(f"Patient?{by(number)}")

    response = system.send("PUT", f"Patient?{by(number)}", patient(number))

    assert response.status_code == 200, response.text
    assert f"Patient/{response.json()['id']}" == named
    assert system.read(named)["maritalStatus"] == {"text": "已婚"}
    assert outcome(system.send("DELETE", named), 409, "conflict")


def test_a_patient_is_patched_as_it_is_served(hospital: Door, number: str) -> None:
    system = hospital.system("beicheng")
    named = f"Patient/{system.made(patient(number))['id']}"
    patch = b'[{"op": "replace", "path": "/birthDate", "value": "1981-01-01"}]'

    response = system.client.patch(
        f"/fhir/{named}",
        content=patch,
        headers={"Content-Type": "application/json-patch+json"} | system.headers,
    )

    assert response.status_code == 200, response.text
    assert system.read(named)["birthDate"] == "1981-01-01"
    assert named in system.ids("Patient?birthdate=1981-01-01")


def test_a_record_is_merged_into_another_and_taken_back(hospital: Door, number: str) -> None:
    system = hospital.system("beicheng")
    stays = f"Patient/{system.made(patient(number))['id']}"
    link = [{"other": {"reference": stays}, "type": "replaced-by"}]
    goes = system.made(patient(f"{number[:15]}x"))
    replaced = patient(f"{number[:15]}x", id=goes["id"], active=False, link=link)

    response = system.send("PUT", f"Patient/{goes['id']}", replaced)

    assert response.status_code == 200, response.text
    read = system.read(f"Patient/{goes['id']}")
    assert (read["active"], read["link"][0]) == (False, link[0])
    alone = f"Patient/{system.made(patient(f'{number[:15]}y'))['id']}"
    assert system.send("DELETE", alone).status_code == 204
    assert system.get(alone).status_code in {404, 410}


def test_who_is_active_is_asked_by_what_the_hospital_wrote(hospital: Door, number: str) -> None:
    system, doctor = hospital.system("beicheng"), hospital.clinician("nanhu")
    told: dict[str, dict[str, Any]] = {"a": {"active": True}, "b": {"active": False}, "c": {}}
    ids = {
        end: f"Patient/{system.made(patient(number + end, **more))['id']}"
        for end, more in told.items()
    }
    merged = _merged(system, f"{number}d", into=ids["a"])
    rows = ",".join(one.partition("/")[2] for one in (*ids.values(), merged, "Patient/1"))
    weighed = WEIGHT | {"subject": {"reference": ids["b"]}}
    observed = f"Observation/{system.made(weighed)['id']}"

    assert doctor.read(merged)["active"] is False
    for asked, found in {
        "active=true": ["Patient/1", ids["a"]],
        "active=false": [ids["b"], merged],
        "active=http://example.org|true": [],
        "active=true,false": ["Patient/1", ids["a"], ids["b"], merged],
        "active:not=false": ["Patient/1", ids["a"], ids["c"]],
        "active:missing=true": [ids["c"]],
        "active:missing=false": ["Patient/1", ids["a"], ids["b"], merged],
    }.items():
        assert doctor.ids(f"Patient?_id={rows}&{asked}") == found, asked
    chained = f"Observation?_id={observed.partition('/')[2]}&subject:Patient.active="
    assert (doctor.ids(f"{chained}false"), doctor.ids(f"{chained}true")) == ([observed], [])
    assert doctor.ids(f"Patient?_id={rows}&active=false&_has:Observation:patient:status=final") == [
        ids["b"]
    ]


def test_a_merged_record_is_not_offered_but_the_one_in_its_place(
    hospital: Door, number: str
) -> None:
    """PDQm ITI-119: of records that were merged only the surviving one is a match."""
    system = hospital.system("beicheng")
    stays = f"Patient/{system.made(patient(number))['id']}"
    between = _merged(system, f"{number}m", into=stays)
    _merged(system, f"{number}o", into=between)

    for end in ("", "m", "o"):
        answer = hospital.clinician("nanhu").send(
            "POST", "Patient/$match?onlyCertainMatches=true", patient(number + end)
        )
        matched = answer.json()["entry"]
        assert [f"Patient/{one['resource']['id']}" for one in matched] == [stays]
        assert matched[0]["search"]["score"] == 1


@pytest.mark.parametrize("how", ["json", "merge", "fhirpath", "put"])
def test_who_is_merged_no_longer_is_as_active_as_the_hospital_wrote(
    hospital: Door, number: str, how: str
) -> None:
    system = hospital.system("beicheng")
    stays = f"Patient/{system.made(patient(number))['id']}"
    for own in (None, True, False):
        said = {} if own is None else {"active": own}
        goes = _merged(system, f"{number}{own}", into=stays, **said)
        assert system.read(goes)["active"] is False
        _patched(system, goes, "merge-patch+json", {"birthDate": "1981-01-01"})
        assert system.read(goes)["active"] is False

        match how:
            case "json":
                _patched(system, goes, "json-patch+json", [{"op": "remove", "path": "/link"}])
            case "merge":
                _patched(system, goes, "merge-patch+json", {"link": None})
            case "fhirpath":
                _patched(system, goes, "fhir+json", _without("Patient.link[0]"))
            case "put":
                whole = patient(f"{number}{own}", id=goes.partition("/")[2], **said)
                assert system.send("PUT", goes, whole).status_code == 200

        read = system.read(goes)
        assert (read.get("active"), read.get("link")) == (own, None)
        found = system.ids(f"Patient?_id={goes.partition('/')[2]}&active=false")
        assert found == ([goes] if own is False else [])


def _without(path: str) -> dict[str, Any]:
    parts = [{"name": "type", "valueCode": "delete"}, {"name": "path", "valueString": path}]
    operation = {"name": "operation", "part": parts}
    return {"resourceType": "Parameters", "parameter": [operation]}


def _patched(system: Asker, name: str, media_type: str, change: Any) -> None:
    response = system.send("PATCH", name, change, Content_Type=f"application/{media_type}")
    assert response.status_code == 200, response.text


def _merged(system: Asker, number: str, *, into: str, **said: Any) -> str:
    """The address of a record of the hospital in whose place another one stands."""
    goes = system.made(patient(number))
    link = [{"other": {"reference": into}, "type": "replaced-by"}]
    replaced = patient(number, id=goes["id"], link=link, **said)
    response = system.send("PUT", f"Patient/{goes['id']}", replaced)
    assert response.status_code == 200, response.text
    return f"Patient/{goes['id']}"


@pytest.mark.parametrize(
    ("resource", "status"),
    [
        (patient("1") | {"identifier": [{"system": "urn:oid:2.25.102", "value": "1"}]}, 400),
        (patient("1") | {"identifier": []}, 400),
        (patient("1", gender="F"), 422),
        (patient("1", link=[{"other": {"reference": "Patient/2"}, "type": "replaced-by"}]), 403),
        (patient("1", link=[{"other": {"display": "x"}, "type": "replaced-by"}]), 422),
    ],
)
def test_a_patient_who_is_not_the_hospitals_is_not_registered(
    hospital: Door, resource: dict[str, Any], status: int
) -> None:
    response = hospital.system("beicheng").send("POST", "Patient", resource)

    assert response.status_code == status, response.text
    is_fhir(response.json())


def test_another_hospitals_patient_is_not_changed(hospital: Door) -> None:
    system = hospital.system("nanhu")
    foreign = patient("W1", id="1")

    assert system.send("PUT", "Patient/1", foreign).status_code in {400, 403}
    assert outcome(system.send("DELETE", "Patient/1"), 403, "forbidden")
    assert system.send("DELETE", "Patient/999999").status_code == 204


def test_a_patient_and_what_is_about_them_come_in_one_transaction(
    hospital: Door, number: str
) -> None:
    system = hospital.system("beicheng")
    name = f"urn:uuid:{uuid4()}"
    weight = WEIGHT | {"subject": {"reference": name}}

    for request in (
        {"method": "POST", "url": "Patient", "ifNoneExist": by(number)},
        {"method": "PUT", "url": f"Patient?{by(number)}"},
    ):
        response = sent(
            system,
            "transaction",
            entry("POST", "Observation", weight),
            {"fullUrl": name, "resource": patient(number), "request": request},
            Prefer="return=representation",
        )
        made, registered = answered(response)
        named = registered["response"]["location"].rpartition("/fhir/")[2].split("/_history")[0]
        assert made["resource"]["subject"] == {"reference": named}
    assert statuses(response) == ["201", "200"]


def test_a_condition_that_matches_nobody_changes_no_other_patient(
    hospital: Door, number: str
) -> None:
    system = hospital.system("beicheng")
    there = system.made(patient(number))
    where = f"Patient?{by(f'{number}-new')}"
    other = patient(number, gender="male")

    put = system.send("PUT", where, other)
    made = system.send("POST", "Patient", other, If_None_Exist=by(f"{number}-new"))
    together = sent(system, "transaction", entry("PUT", where, other))
    alone = sent(system, "batch", entry("PUT", where, other))
    by_images = system.send("PUT", where, patient("W1"))

    assert "another record" in outcome(put, 409, "conflict")
    assert "before" in outcome(made, 409, "conflict")
    assert "another record" in outcome(together, 409, "conflict")
    assert statuses(alone) == ["409"]
    assert outcome(by_images, 409, "conflict")
    assert system.read(f"Patient/{there['id']}")["meta"] == there["meta"]


def test_whom_a_condition_matches_is_who_was_sent(hospital: Door, number: str) -> None:
    system = hospital.system("beicheng")
    there = system.made(patient(number))

    other = system.send("PUT", f"Patient?{by(number)}", patient(number, id="1"))
    same = system.send("PUT", f"Patient?{by(number)}", patient(number, id=there["id"]))

    assert "another id" in outcome(other, 400, "invalid")
    assert same.status_code == 200

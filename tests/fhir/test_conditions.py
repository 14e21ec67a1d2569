"""Conditions: what is found instead of named, and references to what is not here."""

from __future__ import annotations

from base64 import b64encode
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import orjson
import pytest
from bundles import WEIGHT, answered, entry, newest, sent, statuses
from fhir_door import Door, opened, outcome

from exchange_fhir.serving import Conduct


def ward(number: str, **elements: Any) -> dict[str, Any]:
    identifier = [{"system": "http://beicheng.example/wards", "value": number}]
    return {"resourceType": "Location", "identifier": identifier, "name": "CT"} | elements


def by(number: str) -> str:
    return f"identifier=http://beicheng.example/wards|{number}"


@pytest.fixture
def number() -> str:
    """A number that no ward has yet."""
    return uuid4().hex


def test_a_conditional_create_makes_one_and_finds_it_afterwards(
    hospital: Door, number: str
) -> None:
    system = hospital.system("beicheng")

    made = system.made(ward(number), If_None_Exist=by(number))
    again = system.made(ward(number), 200, If_None_Exist=by(number))
    system.made(ward(number))
    several = system.send("POST", "Location", ward(number), If_None_Exist=by(number))

    assert again == made
    assert outcome(several, 412, "conflict")


def test_a_condition_in_the_address_of_a_create_is_one(hospital: Door, number: str) -> None:
    system = hospital.system("beicheng")
    address = f"Location?{by(number)}&_format=json"

    made = system.send("POST", address, ward(number))
    again = system.send("POST", address, ward(number))
    batch = sent(system, "batch", *[entry("POST", address, ward(number)) for _ in range(2)])

    assert (made.status_code, again.status_code) == (201, 200)
    assert again.json() == made.json()
    assert statuses(batch) == ["200", "200"]


@pytest.mark.parametrize("condition", ["", " ", "Location?", "?_format=json"])
def test_an_empty_condition_makes_nothing(hospital: Door, number: str, condition: str) -> None:
    system = hospital.system("beicheng")

    response = system.send("POST", "Location", ward(number), If_None_Exist=condition)

    assert outcome(response, 400, "invalid")
    assert system.ids(f"Location?{by(number)}") == []


def test_a_transaction_makes_one_of_one_condition(hospital: Door, number: str) -> None:
    """Else both would make one, and the next with this condition would find several."""
    system = hospital.system("beicheng")
    twice = [entry("POST", "Location", ward(number), ifNoneExist=by(number)) for _ in range(2)]
    mixed = [twice[0], entry("PUT", f"Location?{by(number)}", ward(number))]

    for entries in (twice, mixed):
        refused = sent(system, "transaction", *entries)
        assert outcome(refused, 400, "invalid")
        assert refused.json()["issue"][0]["expression"] == ["Bundle.entry[1]"]

    assert system.ids(f"Location?{by(number)}") == []


@pytest.mark.parametrize(
    "condition",
    [
        "name=CT {n}",
        "name:exact=CT {n}",
        "name:contains={n}&status:missing=true",
        "identifier={n}&_lastUpdated=gt2020",
        "organization:Organization.name=影像科 {n}",
        "organization.identifier={n}",
        "_has:PractitionerRole:location:identifier={n}",
        "status:not=suspended&identifier={n}",
    ],
)
def test_whatever_can_be_searched_by_can_be_a_condition(
    hospital: Door, number: str, condition: str
) -> None:
    system, stranger = hospital.system("beicheng"), hospital.system("nanhu")
    numbered = {"identifier": [{"value": number}]}
    owner = system.made({"resourceType": "Organization", "name": f"影像科 {number}"} | numbered)
    owned = {"managingOrganization": {"reference": f"Organization/{owner['id']}"}}
    made = system.made(ward(number, name=f"CT {number}", **owned))
    there = [{"reference": f"Location/{made['id']}"}]
    system.made({"resourceType": "PractitionerRole", "location": there} | numbered)
    found = f"Location?{condition.format(n=number)}"

    again = system.made(made, 200, If_None_Exist=quote(found.partition("?")[2], safe="=&:."))
    changed = system.send("PUT", found, made | {"mode": "kind"})

    assert again["id"] == changed.json()["id"] == made["id"]
    assert changed.json()["mode"] == "kind"
    foreign = stranger.send("DELETE", found)
    assert (foreign.status_code, stranger.read(there[0]["reference"])["id"]) == (204, made["id"])


def test_a_condition_leads_to_a_study(hospital: Door) -> None:
    system = hospital.system("beicheng")
    uid = "identifier=urn:dicom:uid|urn:oid:1.2.1"
    report: dict[str, Any] = {"resourceType": "DiagnosticReport", "status": "final"}
    report |= {"code": {"text": "CT"}, "subject": {"reference": "Patient/1"}}
    report |= {"imagingStudy": [{"reference": f"ImagingStudy?{uid}"}]}

    (made,) = answered(sent(system, "transaction", entry("POST", "DiagnosticReport", report)))
    nothing = report | {"imagingStudy": [{"reference": "ImagingStudy?identifier=none"}]}
    refused = sent(system, "transaction", entry("POST", "DiagnosticReport", nothing))

    kept = system.read(made["response"]["location"].partition("/fhir/")[2].partition("/_h")[0])
    assert kept["imagingStudy"] == [{"reference": "ImagingStudy/1.2.1"}]
    assert refused.status_code == 412


def test_a_conditional_update_makes_or_changes_the_one_that_matches(
    hospital: Door, number: str
) -> None:
    system = hospital.system("beicheng")
    found = f"Location?{by(number)}"

    created = system.send("PUT", found, ward(number))
    changed = system.send("PUT", found, ward(number, name="MR"))
    other_id = system.send("PUT", found, ward(number, id="other"))
    named = created.json()["id"]
    same_id = system.send("PUT", found, ward(number, id=named))

    assert (created.status_code, changed.status_code, same_id.status_code) == (201, 200, 200)
    assert changed.json()["id"] == named
    assert changed.json()["name"] == "MR"
    assert outcome(other_id, 400, "invalid")
    system.made(ward(number))
    for method, resource in (("PUT", ward(number)), ("DELETE", None)):
        assert outcome(system.send(method, found, resource), 412, "conflict")


def test_a_condition_that_matches_nothing_changes_nothing_of_the_id_that_was_sent(
    hospital: Door, number: str
) -> None:
    """As R5 says it of R4's update as create: else a mistaken condition changes another's."""
    system = hospital.system("beicheng")
    there = system.made(ward(number))
    other = ward(number, id=there["id"], name="MR")
    where = f"Location?{by(f'{number}-new')}"
    new = ward(f"{number}-new", id=f"{number}-new")

    assert outcome(system.send("PUT", where, other), 409, "conflict")
    assert outcome(sent(system, "transaction", entry("PUT", where, other)), 409, "conflict")
    assert system.read(f"Location/{there['id']}") == there
    assert system.send("PUT", where, new).json()["id"] == new["id"]
    assert statuses(sent(system, "transaction", entry("PUT", where, new))) == ["200"]


def test_a_conditional_patch_and_delete_do_what_they_would_by_name(
    hospital: Door, number: str
) -> None:
    system = hospital.system("beicheng")
    found = f"Location?{by(number)}"
    made = system.made(ward(number))
    patch = b'[{"op": "replace", "path": "/name", "value": "PET"}]'
    told = {"Content-Type": "application/json-patch+json"} | system.headers

    patched = system.client.patch(f"/fhir/{found}", content=patch, headers=told)

    assert patched.json()["name"] == "PET"
    assert system.send("DELETE", found).status_code == 204
    system.refused(f"Location/{made['id']}", 410, "deleted")
    assert system.send("DELETE", found).status_code == 204
    nothing = system.client.patch(f"/fhir/{found}", content=patch, headers=told)
    assert outcome(nothing, 404, "not-found")


def test_a_patient_is_patched_by_a_condition(hospital: Door) -> None:
    system, other = hospital.system("beicheng"), hospital.system("nanhu")
    for number in ("C1", "C2"):
        system.made({
            "resourceType": "Patient", "name": [{"family": "孔"}], "gender": "male",
            "identifier": [{"system": "urn:oid:2.25.101", "value": number}]})  # fmt: skip
    called = "Patient?identifier=urn:oid:2.25.101|"
    merge = {"Content_Type": "application/merge-patch+json"}
    change = {"gender": "female"}

    patched = system.send("PATCH", f"{called}C1", change, **merge)
    assert patched.status_code == 200, patched.text
    assert patched.json()["gender"] == "female"
    (kept,) = system.bundle(f"{called}C1")["entry"]
    assert (kept["resource"]["gender"], kept["resource"]["meta"]["versionId"]) == ("female", "2")
    outcome(system.send("PATCH", f"{called}C9", change, **merge), 404, "not-found")
    outcome(system.send("PATCH", "Patient?name=孔", change, **merge), 412, "conflict")
    outcome(other.send("PATCH", f"{called}C1", change, **merge), 404, "not-found")
    stale = system.send("PATCH", f"{called}C1", change, If_Match='W/"1"', **merge)
    outcome(stale, 412, "conflict")
    outcome(system.send("PATCH", f"{called}C1&nothing=1", change, **merge), 400, "invalid")
    operation = [{"op": "replace", "path": "/gender", "value": "other"}]
    as_binary = {"resourceType": "Binary", "contentType": "application/json-patch+json",
                 "data": b64encode(orjson.dumps(operation)).decode()}  # fmt: skip
    answer = sent(system, "transaction", entry("PATCH", f"{called}C2", as_binary))
    assert answered(answer)[0]["response"]["status"] == "200 OK", answer.text
    assert system.bundle(f"{called}C2")["entry"][0]["resource"]["gender"] == "other"


def test_another_hospital_finds_only_its_own_by_a_condition(hospital: Door, number: str) -> None:
    ours = hospital.system("beicheng").made(ward(number))

    theirs = hospital.system("nanhu").send("PUT", f"Location?{by(number)}", ward(number))

    assert theirs.status_code == 201
    assert theirs.json()["id"] != ours["id"]


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ("name:above=CT", 400),
        ("nonsense=1", 400),
        ("identifier", 400),
        ("identifier=a|b|c", 400),
        ("identifier=" + ",".join(map(str, range(101))), 400),
        ("_format=json", 405),
    ],
)
def test_a_condition_that_cannot_be_asked_changes_nothing(
    hospital: Door, condition: str, status: int
) -> None:
    system = hospital.system("beicheng")
    before = newest(system)

    response = system.send("PUT", f"Location?{condition}", ward("x"))

    assert response.status_code == status, response.text
    assert newest(system) == before


def test_a_transaction_finds_what_is_there_and_what_it_makes(hospital: Door, number: str) -> None:
    system = hospital.system("beicheng")
    name = f"urn:uuid:{uuid4()}"
    device = {"resourceType": "Device", "location": {"reference": name}}
    other = {"resourceType": "Device", "location": {"reference": f"Location?{by(number)}"}}
    whole = [
        entry("POST", "Device", other),
        entry("POST", "Device", device),
        entry("POST", "Location", ward(number), name=name, ifNoneExist=by(number)),
    ]

    first = answered(sent(system, "transaction", *whole, Prefer="return=representation"))
    second = sent(system, "transaction", *whole, Prefer="return=representation")

    assert statuses(second) == ["201", "201", "200"]
    made = f"Location/{first[2]['resource']['id']}"
    for one in (*first[:2], *answered(second)[:2]):
        assert one["resource"]["location"] == {"reference": made}


def test_a_conditional_reference_to_the_patient_is_to_the_hospitals_own(hospital: Door) -> None:
    system = hospital.system("beicheng")
    weight = WEIGHT | {"subject": {"reference": "Patient?identifier=urn:oid:2.25.101|W1"}}
    nobody = WEIGHT | {"subject": {"reference": "Patient?identifier=urn:oid:2.25.101|W9"}}

    response = sent(
        system, "transaction", entry("POST", "Observation", weight), Prefer="return=representation"
    )
    missing = sent(system, "transaction", entry("POST", "Observation", nobody))

    assert answered(response)[0]["resource"]["subject"] == {"reference": "Patient/1"}
    assert outcome(missing, 412, "conflict")


def test_what_a_transaction_deletes_is_not_found_by_its_conditions(
    hospital: Door, number: str
) -> None:
    system = hospital.system("beicheng")
    old = system.made(ward(number))

    response = sent(
        system,
        "transaction",
        entry("POST", "Location", ward(number), ifNoneExist=by(number)),
        entry("DELETE", f"Location/{old['id']}"),
    )

    assert statuses(response) == ["201", "204"]


def test_references_to_nothing_are_refused_where_that_is_set(hospital: Door) -> None:
    strict = opened(hospital.city, Conduct(dangling=False))
    system = strict.system("beicheng")
    made = system.made({"resourceType": "Location", "name": "CT"})
    private = hospital.system("nanhu").made(
        {"resourceType": "List", "status": "current", "mode": "working"}
    )

    def posted(reference: str) -> Any:
        weight = WEIGHT | {"focus": [{"reference": reference}]}
        return system.send("POST", "Observation", weight)

    for there in (
        *(f"Location/{made['id']}", "Patient/1", "ImagingStudy/1.2.1", "Organization/nanhu"),
        *("http://elsewhere.example/fhir/Location/1", "Endpoint/dicomweb-nanhu"),
    ):
        assert posted(there).status_code == 201, there
    for missing in (
        *("Location/never", "ImagingStudy/1.2.99", "Organization/x", "Medication/1"),
        f"List/{private['id']}",
    ):
        refused = posted(missing)
        assert outcome(refused, 422, "not-found")
        assert refused.json()["issue"][0]["expression"] == ["Observation.focus[0]"]
    name = f"urn:uuid:{uuid4()}"
    together = sent(
        system,
        "transaction",
        entry("POST", "Observation", WEIGHT | {"focus": [{"reference": name}]}),
        entry("POST", "Location", {"resourceType": "Location"}, name=name),
    )
    assert statuses(together) == ["201", "201"]
    assert hospital.system("beicheng").made(WEIGHT | {"focus": [{"reference": "Location/never"}]})


@pytest.mark.parametrize(
    "told", ["*", 'W/"1", W/"2"', '"7","2"', 'W/"other", W/"2"', ', W/"2" ,', "2"]
)
def test_a_system_says_which_versions_it_knows_or_only_that_there_is_one(
    hospital: Door, number: str, told: str
) -> None:
    """RFC 9110 13.1.1, weakly compared (R4 3.1.0.1.3)."""
    system = hospital.system("beicheng")
    made = system.made(ward(number))
    named = f"Location/{made['id']}"
    system.send("PUT", named, made | {"name": "MR"})

    assert system.send("PUT", named, made | {"name": "CT"}, If_Match=told).status_code == 200
    stale = system.send("PUT", named, made, If_Match='W/"1", W/"2", W/"other"')
    assert outcome(stale, 412, "conflict")
    assert system.send("DELETE", named, If_Match='W/"3", W/"4"').status_code == 204
    # Nothing is current of what was deleted, or never was.
    for missing in (made, ward(number, id=f"{number}-never")):
        refused = system.send("PUT", f"Location/{missing['id']}", missing, If_Match="*")
        assert outcome(refused, 412, "conflict")


@pytest.mark.parametrize("told", ['W/"1" W/"2"', '*, W/"1"', ",", 'W/"1", x/y', '""', '"1'])
def test_versions_that_are_written_wrongly_are_no_condition(
    hospital: Door, number: str, told: str
) -> None:
    system = hospital.system("beicheng")
    made = system.made(ward(number))
    named = f"Location/{made['id']}"

    for method, resource in (("PUT", made), ("DELETE", None)):
        assert outcome(system.send(method, named, resource, If_Match=told), 400, "invalid")


def test_versions_may_be_listed_on_several_lines_and_in_a_bundle(
    hospital: Door, number: str
) -> None:
    system = hospital.system("beicheng")
    made = system.made(ward(number))
    named = f"Location/{made['id']}"
    lines = [("If-Match", 'W/"1"'), ("If-Match", 'W/"9"'), *system.headers.items()]

    changed = system.client.put(f"/fhir/{named}", json=made, headers=lines)
    bundle = [entry("PUT", named, made, ifMatch='W/"2", W/"9"')]

    assert changed.status_code == 200, changed.text
    assert statuses(sent(system, "transaction", *bundle)) == ["200"]
    assert outcome(sent(system, "transaction", *bundle), 412, "conflict")
    assert statuses(sent(system, "batch", entry("DELETE", named, ifMatch="*"))) == ["204"]


def test_a_patient_is_changed_where_any_version_or_one_of_several_is_there(hospital: Door) -> None:
    system = hospital.system("beicheng")
    patient = system.read("Patient/1")
    version = f'W/"{patient["meta"]["versionId"]}"'
    patch: Any = [{"op": "replace", "path": "/gender", "value": "female"}]
    told = {"Content_Type": "application/json-patch+json"}

    for if_match, status in ((f'W/"7", {version}', 200), ("*", 200), ('W/"7", W/"8"', 412)):
        answer = system.send("PATCH", "Patient/1", patch, If_Match=if_match, **told)
        assert answer.status_code == status, answer.text

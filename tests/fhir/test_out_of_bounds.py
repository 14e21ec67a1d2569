"""What somebody tries who wants to see, or to become, what is not theirs."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from bundles import entry, sent
from fhir_door import Door, outcome

from exchange_fhir import patching
from exchange_fhir.outcome import Problem

PACEMAKER: dict[str, Any] = {
    "resourceType": "Device",
    "serialNumber": "P-1",
    "patient": {"reference": "Patient/1"},
}
ELSEWHERE = [{"url": "http://example.org/seen", "valueReference": {"reference": "Patient/1"}}]


def test_a_device_of_a_patient_is_not_in_the_directory_of_the_region(hospital: Door) -> None:
    system = hospital.system("beicheng")
    bare = {"resourceType": "Device", "serialNumber": "P-0"}
    room = {"resourceType": "Location", "name": "导管室", "extension": ELSEWHERE}

    of_patient = [system.made(one) for one in (PACEMAKER, room)]
    directory = system.made(bare)

    for one in of_patient:
        named = f"{one['resourceType']}/{one['id']}"
        hospital.administrator().refused(named, 404, "not-found")
        hospital.clinician("nanhu").read(named)  # who may see the patient
    hospital.administrator().read(f"Device/{directory['id']}")
    others = {**PACEMAKER, "patient": {"reference": "Patient/2"}}
    outcome(system.send("POST", "Device", others), 403, "forbidden")


def test_no_patient_is_contained_in_the_directory_of_the_region(hospital: Door) -> None:
    patient = {"resourceType": "Patient", "id": "p", "name": [{"text": "王小东"}]}
    device = {"resourceType": "Device", "patient": {"reference": "#p"}, "contained": [patient]}

    outcome(hospital.system("beicheng").send("POST", "Device", device), 422, "business-rule")


@pytest.mark.parametrize(
    "named",
    [
        {"patient": {"reference": "https://another.example/fhir/Patient/1"}},
        {"patient": {"identifier": {"system": "urn:oid:2.25.101", "value": "P1"}}},
        {"patient": {"display": "王小东"}},
        {"extension": [{"url": "urn:x", "valueReference": {"type": "Patient", "display": "王"}}]},
        {"extension": [{"url": "urn:x", "valueReference": {"reference": "http://x/Patient/1"}}]},
    ],
    ids=["elsewhere", "number", "name", "type", "extension"],
)
def test_no_patient_is_named_in_the_directory_but_as_one_of_this_server(
    hospital: Door, named: dict[str, Any]
) -> None:
    device = {"resourceType": "Device", **named}

    outcome(hospital.system("beicheng").send("POST", "Device", device), 422, "business-rule")


@pytest.mark.parametrize("together", [False, True])
def test_nobody_becomes_a_registered_hospital_by_a_condition(
    hospital: Door, together: bool
) -> None:
    system = hospital.system("beicheng")
    told = {"resourceType": "Organization", "id": "nanhu", "name": "Impostor"}
    url = "Organization?identifier=urn:x|none"

    if together:
        response = sent(system, "transaction", entry("PUT", url, told))
    else:
        response = system.send("PUT", url, told)

    outcome(response, 405, "not-supported")


def test_a_condition_that_finds_nothing_does_not_replace_what_has_the_id(hospital: Door) -> None:
    system, other = hospital.system("beicheng"), hospital.system("nanhu")
    place = {"resourceType": "Location", "id": "theatre", "name": "手术室"}
    assert other.send("PUT", "Location/theatre", place).status_code == 201

    url = "Location?identifier=urn:x|none"

    refused = sent(system, "transaction", entry("PUT", url, place))
    outcome(refused, 403, "forbidden")
    outcome(sent(other, "transaction", entry("PUT", url, place)), 409, "conflict")
    assert other.read("Location/theatre")["meta"]["versionId"] == "1"


def test_a_condition_does_not_tell_which_version_another_hospital_has(hospital: Door) -> None:
    system, other = hospital.system("beicheng"), hospital.system("nanhu")
    basic = {
        "resourceType": "Observation",
        "id": "theirs",
        "status": "final",
        "code": {"text": "?"},
    }
    assert other.send("PUT", "Observation/theirs", basic).status_code == 201

    for condition in ({"If_Match": 'W/"1"'}, {"If_Match": 'W/"2"'}, {"If_None_Match": "*"}):
        response = system.send("PUT", "Observation/theirs", basic, **condition)
        outcome(response, 404, "not-found")


@pytest.mark.parametrize(
    "path", ["_history?_since=9999-12-31T23:59:59-14:00", "Observation/a/_history?_at=0001"]
)
def test_the_ends_of_the_calendar_break_nothing(hospital: Door, path: str) -> None:
    assert hospital.system("beicheng").get(path).status_code == 400


def test_copies_of_one_long_text_cannot_fill_the_memory() -> None:
    held = {"resourceType": "Binary", "content": [{"data": "x" * (1 << 20)}]}
    copy = {"op": "copy", "from": "/content/0", "path": "/content/-"}

    with pytest.raises(Problem, match="too long"):
        patching.json_patch(orjson.dumps([copy] * 100))(held)

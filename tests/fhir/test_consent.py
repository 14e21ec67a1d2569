"""What a patient says of sharing, written by FHIR, decides from then on."""

from __future__ import annotations

from typing import Any

import pytest
from fhir_door import Door, outcome

WARD = "http://terminology.hl7.org/CodeSystem/"


def consent(patient: int, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Consent",
        "status": "active",
        "scope": {"coding": [{"system": f"{WARD}consentscope", "code": "patient-privacy"}]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": {"reference": f"Patient/{patient}"},
        "policyRule": {"text": "sharing between hospitals"},
        "provision": {"type": "deny"},
    } | more


def test_a_consent_that_denies_sharing_holds_until_it_is_no_longer_active(door: Door) -> None:
    door.city.send("beicheng")
    system, doctor = door.system("beicheng"), door.clinician("nanhu")
    doctor.read("ImagingStudy/1.2.1")

    made = system.made(consent(1))

    doctor.refused("ImagingStudy/1.2.1", 404, "not-found")
    system.read(f"Consent/{made['id']}")
    ended = system.send("PUT", f"Consent/{made['id']}", {**made, "status": "inactive"})
    assert ended.status_code == 200, ended.text
    doctor.read("ImagingStudy/1.2.1")


def test_a_consent_that_is_deleted_says_nothing_any_more(door: Door) -> None:
    door.city.send("beicheng")
    system, doctor = door.system("beicheng"), door.clinician("nanhu")
    made = system.made(consent(1, provision={"type": "permit", "provision": [{"type": "deny"}]}))
    doctor.refused("Patient/1", 404, "not-found")

    assert system.send("DELETE", f"Consent/{made['id']}").status_code == 204

    doctor.read("Patient/1")


@pytest.mark.parametrize("status", ["draft", "proposed", "rejected", "inactive"])
def test_a_consent_that_is_not_active_changes_nothing(door: Door, status: str) -> None:
    door.city.send("beicheng")

    door.system("beicheng").made(consent(1, status=status))

    door.clinician("nanhu").read("Patient/1")


@pytest.mark.parametrize(
    "told",
    [
        {"identifier": {"system": "urn:oid:2.25.101", "value": "P1"}},
        {"reference": "https://another.example/fhir/Patient/1"},
        None,
    ],
    ids=["number", "elsewhere", "nobody"],
)
def test_a_denial_that_could_not_hold_for_anybody_is_refused(
    door: Door, told: dict[str, Any] | None
) -> None:
    door.city.send("beicheng")
    system = door.system("beicheng")
    wanted = {name: one for name, one in (consent(1) | {"patient": told}).items() if one}

    outcome(system.send("POST", "Consent", wanted), 422, "business-rule")
    system.made(wanted | {"status": "draft"})  # which decides nothing


def test_no_hospital_permits_itself_what_was_denied_at_another(door: Door) -> None:
    card = "11010519491231002X"
    door.city.send("beicheng", card=card)
    door.city.send("nanhu", study="1.2.2", instance="1.4.2", card=card)
    door.city.identify()
    doctor = door.clinician("nanhu")
    door.system("beicheng").made(consent(1))

    door.system("nanhu").made(consent(2, provision={"type": "permit"}))
    doctor.refused("Patient/1", 403, "forbidden")

    door.system("beicheng").made(consent(1, provision={"type": "permit"}))
    doctor.read("Patient/1")

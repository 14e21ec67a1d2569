"""What a patient says of sharing, written by FHIR, decides from then on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
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


def period(first: int | None, last: int | None) -> dict[str, str]:
    """From one day to another, counted from today."""
    told = {"start": first, "end": last}
    today = datetime.now(UTC).date()
    return {name: f"{today + timedelta(days=day)}" for name, day in told.items() if day is not None}


@pytest.mark.parametrize(
    ("first", "last"), [(None, -2), (-9, -2), (2, None), (2, 9)], ids=["over", "past", "to", "from"]
)
def test_a_denial_for_a_time_holds_in_that_time_only(
    door: Door, first: int | None, last: int | None
) -> None:
    door.city.send("beicheng")
    system, doctor = door.system("beicheng"), door.clinician("nanhu")
    made = system.made(consent(1, provision={"type": "deny", "period": period(-2, 2)}))
    doctor.refused("Patient/1", 404, "not-found")

    told = {"type": "deny", "period": period(first, last)}
    system.send("PUT", f"Consent/{made['id']}", {**made, "provision": told})

    doctor.read("Patient/1")


def test_a_part_that_is_denied_for_a_time_is_denied_in_that_time(door: Door) -> None:
    door.city.send("beicheng")
    system, doctor = door.system("beicheng"), door.clinician("nanhu")
    over, now = ({"type": "deny", "period": period(*days)} for days in ((-9, -2), (-2, 2)))
    permitted = {"type": "permit", "period": period(-9, 9)}
    made = system.made(consent(1, provision={**permitted, "provision": [over]}))
    doctor.read("Patient/1")

    told = {**permitted, "provision": [over, {"type": "permit", "provision": [now]}]}
    system.send("PUT", f"Consent/{made['id']}", {**made, "provision": told})

    doctor.refused("Patient/1", 404, "not-found")


def test_a_part_that_is_denied_is_denied_for_as_long_as_what_it_is_part_of(door: Door) -> None:
    door.city.send("beicheng")
    part = [{"type": "deny", "class": [{"code": "Observation"}]}]
    permitted = {"type": "permit", "provision": part}
    system, doctor = door.system("beicheng"), door.clinician("nanhu")
    made = system.made(consent(1, provision={**permitted, "period": period(-2, 2)}))
    doctor.refused("Patient/1", 404, "not-found")

    told = {**permitted, "period": period(-9, -2)}
    system.send("PUT", f"Consent/{made['id']}", {**made, "provision": told})

    doctor.read("Patient/1")


def test_a_permit_for_a_time_suspends_what_was_denied_and_no_longer(door: Door) -> None:
    door.city.send("beicheng")
    system, doctor = door.system("beicheng"), door.clinician("nanhu")
    system.made(consent(1))

    made = system.made(consent(1, provision={"type": "permit", "period": period(-2, 2)}))
    doctor.read("Patient/1")
    over = {"type": "permit", "period": period(-9, -2)}
    system.send("PUT", f"Consent/{made['id']}", {**made, "provision": over})

    doctor.refused("Patient/1", 404, "not-found")


@pytest.mark.parametrize("deleted", [True, False])
def test_what_was_denied_holds_again_when_the_permit_is_taken_back(
    door: Door, deleted: bool
) -> None:
    door.city.send("beicheng")
    system, doctor = door.system("beicheng"), door.clinician("nanhu")
    system.made(consent(1))
    made = system.made(consent(1, provision={"type": "permit"}))
    doctor.read("Patient/1")

    if deleted:
        system.send("DELETE", f"Consent/{made['id']}")
    else:
        system.send("PUT", f"Consent/{made['id']}", {**made, "status": "inactive"})

    doctor.refused("Patient/1", 404, "not-found")


def test_what_is_denied_after_a_permit_is_denied(door: Door) -> None:
    door.city.send("beicheng")
    system = door.system("beicheng")
    system.made(consent(1, provision={"type": "permit"}))

    system.made(consent(1))

    door.clinician("nanhu").refused("Patient/1", 404, "not-found")

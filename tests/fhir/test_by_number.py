"""What is asked by a hospital's own number of a patient is asked of the person (ITI-66, ITI-67)."""

from __future__ import annotations

from typing import Any

import pytest
from bundles import WEIGHT
from fhir_door import Door
from region import ADMINISTRATOR, ID_CARD

from exchange import consent, organizations

PATIENT = {"subject": {"reference": "Patient/1"}}
BEICHENG, NANHU, DONGSHAN = (f"urn:oid:2.25.{101 + at}" for at in range(3))
RECORDS: list[dict[str, Any]] = [
    WEIGHT,
    {"resourceType": "DiagnosticReport", "status": "final", "code": {"text": "CT"}} | PATIENT,
    {"resourceType": "List", "status": "current", "mode": "working"} | PATIENT,
    {"resourceType": "DocumentReference", "status": "current",
     "content": [{"attachment": {"title": "报告"}}]} | PATIENT,
    {"resourceType": "Encounter", "status": "finished", "class": {"code": "AMB"}} | PATIENT,
    {"resourceType": "AllergyIntolerance", "patient": {"reference": "Patient/1"},
     "clinicalStatus": {"coding": [{"code": "active", "system":
      "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"}]}},
]  # fmt: skip


@pytest.fixture
def three(door: Door) -> Door:
    """Wang is W1 at beicheng, W2 at nanhu and W3 at dongshan; beicheng has written of her."""
    for at, code in enumerate(("beicheng", "nanhu", "dongshan"), 1):
        door.city.send(
            code, patient=f"W{at}", study=f"1.2.{at}", instance=f"1.4.{at}", card=ID_CARD
        )
    door.city.send("nanhu", patient="L1", study="1.2.9", instance="1.4.9", PatientName="Li^Na")
    door.city.identify()
    return door


@pytest.mark.parametrize("resource", RECORDS, ids=lambda one: str(one["resourceType"]))
def test_what_another_hospital_wrote_is_found_by_the_askers_own_number(
    three: Door, resource: dict[str, Any]
) -> None:
    kind = resource["resourceType"]
    made = f"{kind}/{three.system('beicheng').made(resource)['id']}"
    doctor = three.clinician("nanhu")

    for chain in ("patient.identifier", "patient:Patient.identifier"):
        assert doctor.ids(f"{kind}?{chain}={NANHU}|W2") == [made]
        assert doctor.ids(f"{kind}?{chain}={NANHU}|none,{DONGSHAN}|W3") == [made]
        assert doctor.ids(f"{kind}?{chain}={NANHU}|L1") == []
        assert doctor.ids(f"{kind}?{chain}={BEICHENG}|W2") == []
    if "subject" in resource:
        assert doctor.ids(f"{kind}?subject:Patient.identifier={NANHU}|W2") == [made]
    assert doctor.ids(f"ImagingStudy?subject:Patient.identifier={NANHU}|W2") == doctor.ids(
        "ImagingStudy?patient=Patient/2"
    )


def test_a_chain_through_an_encounter_means_the_person_too(three: Door) -> None:
    beicheng = three.system("beicheng")
    encounter = f"Encounter/{beicheng.made(RECORDS[4])['id']}"
    weighed = f"Observation/{beicheng.made(WEIGHT | {'encounter': {'reference': encounter}})['id']}"

    asked = f"Observation?encounter.patient.identifier={NANHU}"

    assert three.clinician("nanhu").ids(f"{asked}|W2") == [weighed]
    assert three.clinician("nanhu").ids(f"{asked}|L1") == []


def test_a_number_leads_to_nobody_through_a_record_that_is_withheld(three: Door) -> None:
    """Whose record dongshan does not share, of that one nobody learns whose it is."""
    made = three.system("beicheng").made(WEIGHT)
    weighed = [f"Observation/{made['id']}"]
    asked = "Observation?patient.identifier="
    doctor = three.clinician("nanhu")
    assert doctor.ids(f"{asked}{DONGSHAN}|W3") == weighed

    with three.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.end_agreement(access, "dongshan")

    assert doctor.ids(f"{asked}{DONGSHAN}|W3") == []
    assert doctor.ids(f"{asked}{NANHU}|W2") == weighed
    with three.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "W1")
    assert doctor.ids(f"{asked}{NANHU}|W2") == []
    assert three.clinician("beicheng").ids(f"{asked}{BEICHENG}|W1") == weighed

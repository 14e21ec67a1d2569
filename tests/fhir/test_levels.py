"""What lies above and below: codes of systems with levels, places and departments within others."""

from __future__ import annotations

from typing import Any

import pytest
from fhir_door import Asker, Door

from exchange_fhir.definitions import terminology

CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
CATEGORIES = "http://hl7.org/fhir/ValueSet/condition-category"


def condition(system: Asker, clinical: str) -> str:
    told = {
        "resourceType": "Condition",
        "clinicalStatus": {"coding": [{"system": CLINICAL, "code": clinical}]},
        "category": [
            {
                "coding": [
                    {
                        "system": "http://terminology.hl7.org/CodeSystem/condition-category",
                        "code": "problem-list-item",
                    }
                ]
            }
        ],
        "subject": {"reference": "Patient/1"},
    }
    return f"Condition/{system.made(told)['id']}"


@pytest.fixture(scope="module")
def statuses(hospital: Door) -> dict[str, str]:
    """Conditions of Wang by their clinical status."""
    system = hospital.system("beicheng")
    codes = ("active", "relapse", "inactive", "resolved")
    return {code: condition(system, code) for code in codes}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (f"clinical-status:below={CLINICAL}|active", {"active", "relapse"}),
        ("clinical-status:below=active", {"active", "relapse"}),
        ("clinical-status:below=inactive,relapse", {"inactive", "resolved", "relapse"}),
        ("clinical-status:above=resolved", {"inactive", "resolved"}),
        (f"clinical-status:above={CLINICAL}|relapse", {"active", "relapse"}),
        ("clinical-status=active", {"active"}),
        (f"category:in={CATEGORIES}&clinical-status=active", {"active"}),
        (f"category:not-in={CATEGORIES}&clinical-status=active", set()),
        ("clinical-status:below=nothing", set()),
    ],
)
def test_a_code_is_asked_for_with_those_below_or_above_it(
    hospital: Door, statuses: dict[str, str], query: str, expected: set[str]
) -> None:
    found = hospital.clinician("nanhu").ids(f"Condition?{query}&_count=500")
    assert {code for code, one in statuses.items() if one in found} == expected


def test_a_patient_of_whom_only_images_tell_is_in_a_value_set_too(hospital: Door) -> None:
    asker = hospital.clinician("nanhu")
    genders = "http://hl7.org/fhir/ValueSet/administrative-gender"

    assert "Patient/1" in asker.ids(f"Patient?gender:in={genders}&_count=500")
    assert asker.ids(f"Patient?gender:not-in={genders}&_count=500") == []


def test_levels_that_are_not_known_are_not_guessed(hospital: Door) -> None:
    asker = hospital.clinician("nanhu")
    asker.refused("Condition?code:below=http://snomed.info/sct|73211009", 400, "not-supported")
    asker.refused("Condition?code:below=", 400, "invalid", Prefer="handling=strict")
    asker.refused("Condition?code:below=http://snomed.info/sct|", 400, "invalid")
    asker.refused("Condition?code:in=http://a.example/set", 400, "not-found")


def test_each_code_lies_above_what_lies_below_it() -> None:
    assert terminology.below(INTERPRETATION, "A") >= {"A", "AA", "HH", "LL"}
    for system in terminology.systems():
        for code in ("A", "active", "TREAT"):
            for one in terminology.below(system, code):
                assert code in terminology.above(system, one)


@pytest.fixture(scope="module")
def places(hospital: Door) -> dict[str, str]:
    """Addresses of a building of beicheng, a ward in it, and its bed; and of who works there."""
    system = hospital.system("beicheng")

    def made(**resource: Any) -> str:
        one = system.made(resource)
        return f"{one['resourceType']}/{one['id']}"

    def place(within: str = "", **more: Any) -> str:
        part = {"partOf": {"reference": within}} if within else {}
        return made(resourceType="Location", name="楼", **part, **more)

    def works(at: str) -> str:
        return made(resourceType="PractitionerRole", location=[{"reference": at}])

    def department(within: str) -> str:
        return made(resourceType="Organization", name="科", partOf={"reference": within})

    told = {"building": place()}
    told["ward"] = place(told["building"])
    told["bed"] = place(told["ward"])
    told["radiology"] = department("Organization/beicheng")
    told["CT"] = department(told["radiology"])
    told["scanner"] = place(managingOrganization={"reference": told["CT"]})
    return told | {f"at {name}": works(told[name]) for name in ("building", "ward", "bed")}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("PractitionerRole?location={building}", {"at building"}),
        ("PractitionerRole?location:below={building}", {"at building", "at ward", "at bed"}),
        ("PractitionerRole?location:below={ward}", {"at ward", "at bed"}),
        ("PractitionerRole?location:above={ward}", {"at building", "at ward"}),
        ("PractitionerRole?location:above={bed}", {"at building", "at ward", "at bed"}),
        ("Location?partof:below={building}", {"ward", "bed"}),
        ("Location?organization:below=Organization/beicheng", {"scanner"}),
        ("Location?organization:below={radiology}", {"scanner"}),
        ("Location?organization=Organization/beicheng", set()),
        ("Organization?partof:below=beicheng", {"radiology", "CT"}),
        ("PractitionerRole?location:below=Location/none", set()),
        ("PractitionerRole?location:below=,", set()),
        ("PractitionerRole?role:below=,", set()),
    ],
)
def test_a_place_is_asked_for_with_what_is_part_of_it(
    hospital: Door, places: dict[str, str], query: str, expected: set[str]
) -> None:
    found = hospital.clinician("nanhu").ids(query.format(**places) + "&_count=500")
    assert {name for name, one in places.items() if one in found} == expected


def test_what_has_no_parts_is_not_asked_for_with_them(hospital: Door) -> None:
    asker = hospital.clinician("nanhu")
    asker.refused("Observation?performer:below=Practitioner/1", 400, "invalid")
    asker.refused("Observation?patient:below=Patient/1", 400, "invalid")

"""$validate and $meta: what would be wrong with a resource, and what is said of one."""

from __future__ import annotations

from typing import Any

import pytest
from bundles import WEIGHT, newest
from fhir_door import Asker, Door, is_fhir, outcome

TAG = {"system": "http://beicheng.example/tags", "code": "teaching"}


def issues(asker: Asker, path: str, resource: Any = None) -> list[tuple[str, str, str]]:
    response = asker.send("GET" if resource is None else "POST", path, resource)
    assert response.status_code == 200, response.text
    told = response.json()
    is_fhir(told)
    return [(one["severity"], one["code"], one.get("expression", [""])[0]) for one in told["issue"]]


def parameters(**given: Any) -> dict[str, Any]:
    return {
        "resourceType": "Parameters",
        "parameter": [{"name": name} | value for name, value in given.items()],
    }


def test_a_resource_is_validated_and_not_kept(hospital: Door) -> None:
    system = hospital.system("beicheng")
    before = newest(system)
    good = [("information", "informational", "")]
    wrong = WEIGHT | {"status": "done", "colour": "green"}

    assert issues(system, "Observation/$validate", WEIGHT) == good
    assert issues(system, "Observation/$validate?mode=create", WEIGHT) == good
    assert issues(system, "Observation/$validate", parameters(resource={"resource": wrong})) == [
        ("error", "code-invalid", "Observation.status"),
        ("error", "structure", "Observation.colour"),
    ]
    assert issues(system, "Location/$validate", WEIGHT) == [("error", "structure", "resourceType")]
    profiled = WEIGHT | {"meta": {"profile": ["http://beicheng.example/weight"]}}
    assert issues(system, "Observation/$validate", profiled) == [
        ("warning", "not-supported", "Observation.meta.profile")
    ]
    warned = [("warning", "not-supported", "")]
    profile = "http://beicheng.example/weight"
    assert issues(system, f"Observation/$validate?profile={profile}", WEIGHT) == warned
    asked = parameters(resource={"resource": WEIGHT}, profile={"valueUri": profile})
    assert issues(system, "Observation/$validate", asked) == warned
    assert newest(system) == before


def test_a_patient_who_came_with_images_can_be_validated_before_it_is_written(
    hospital: Door,
) -> None:
    system = hospital.system("beicheng")
    held = system.read("Patient/1")

    assert issues(system, "Patient/1/$validate", held) == [("information", "informational", "")]
    assert issues(system, "Patient/1/$validate", held | {"gender": "x"}) == [
        ("error", "code-invalid", "Patient.gender")
    ]
    assert issues(system, "Patient/999/$validate", held) == [("error", "not-found", "")]


def test_a_bound_code_that_is_an_object_is_told_as_what_it_is(hospital: Door) -> None:
    allergy = {
        "resourceType": "AllergyIntolerance",
        "clinicalStatus": {"coding": [{"system": "http://a.example/codes", "code": {}}]},
        "patient": {"reference": "Patient/1"},
    }
    assert issues(hospital.system("beicheng"), "AllergyIntolerance/$validate", allergy) == [
        ("error", "structure", "AllergyIntolerance.clinicalStatus.coding[0].code")
    ]


def test_it_is_told_whether_an_interaction_would_do(hospital: Door) -> None:
    system = hospital.system("beicheng")
    made = system.made(WEIGHT)
    named = f"Observation/{made['id']}"
    good = [("information", "informational", "")]

    assert issues(system, f"{named}/$validate") == good
    assert issues(system, f"{named}/$validate?mode=delete") == good
    assert issues(system, f"{named}/$validate?mode=update", made) == good
    update = parameters(mode={"valueCode": "update"}, resource={"resource": WEIGHT | {"id": "x"}})
    assert issues(system, "Observation/$validate", update) == [("error", "not-found", "")]
    study: dict[str, Any] = {"resourceType": "ImagingStudy", "status": "available"}
    study |= {"subject": {"reference": "Patient/1"}}
    assert issues(system, "ImagingStudy/$validate?mode=create", study) == [
        ("error", "not-supported", "")
    ]
    for path in ("Observation/$validate?mode=burn", "Observation/$validate"):
        assert system.send("POST", path, parameters(other={"valueCode": "x"})).status_code == 400


def test_tags_are_told_added_and_taken_away(hospital: Door) -> None:
    system = hospital.system("beicheng")
    named = f"Observation/{system.made(WEIGHT)['id']}"
    tagged = parameters(meta={"valueMeta": {"tag": [TAG], "profile": ["http://a.example/p"]}})

    def meta(response: Any) -> dict[str, Any]:
        assert response.status_code == 200, response.text
        is_fhir(response.json())
        told: dict[str, Any] = response.json()["parameter"][0]["valueMeta"]
        return told

    added = meta(system.send("POST", f"{named}/$meta-add", tagged))
    again = meta(system.send("POST", f"{named}/$meta-add", tagged))

    assert added["tag"] == again["tag"] == [TAG]
    assert meta(system.get(f"{named}/$meta")) == again == system.read(named)["meta"]
    less = parameters(meta={"valueMeta": {"tag": [TAG]}})
    left = meta(system.send("POST", f"{named}/$meta-delete", less))
    assert "tag" not in left
    assert left["profile"] == ["http://a.example/p"]
    foreign = hospital.system("nanhu").send("POST", f"{named}/$meta-add", tagged)
    assert outcome(foreign, 403, "forbidden")


@pytest.mark.parametrize("name", ["$meta-add", "$meta-delete"])
def test_what_is_no_meta_changes_nothing(hospital: Door, name: str) -> None:
    system = hospital.system("beicheng")
    named = f"Observation/{system.made(WEIGHT)['id']}"

    for sent in (WEIGHT, parameters(meta={"valueCode": "x"}), parameters(other={"valueCode": "x"})):
        assert system.send("POST", f"{named}/{name}", sent).status_code == 400
    assert system.get(named).headers["etag"] == 'W/"1"'


def test_what_is_no_resource_of_its_own_here_is_validated_too(hospital: Door) -> None:
    system = hospital.system("beicheng")
    entry = {"resource": {"resourceType": "Observation", "status": "quite final"}}
    bundle = {"resourceType": "Bundle", "type": "collection"}

    right = system.send("POST", "Bundle/$validate", bundle).json()["issue"]
    wrong = system.send("POST", "Bundle/$validate", bundle | {"entry": [entry]}).json()["issue"]

    assert [one["severity"] for one in right] == ["information"]
    assert "Bundle.entry[0].resource.status" in [one["expression"][0] for one in wrong]
    assert system.send("POST", "Nothing/$validate", bundle).status_code == 404


def test_the_standards_own_definition_is_what_is_validated_against(hospital: Door) -> None:
    system = hospital.system("beicheng")
    base = "http://hl7.org/fhir/StructureDefinition/Observation"

    def severities(query: str, resource: dict[str, Any]) -> list[str]:
        answer = system.send("POST", f"Observation/$validate{query}", resource)
        return [one["severity"] for one in answer.json()["issue"]]

    assert severities(f"?profile={base}", WEIGHT) == ["information"]
    assert severities(f"?profile={base}|4.0.1", WEIGHT) == ["information"]
    assert severities("", WEIGHT | {"meta": {"profile": [base]}}) == ["information"]
    for other in (f"{base}|5.0.0", "http://hl7.org/fhir/StructureDefinition/vitalsigns"):
        assert severities(f"?profile={other}", WEIGHT) == ["warning"]
        assert severities("", WEIGHT | {"meta": {"profile": [other]}}) == ["warning"]
